"""The Sphinx directive ``reproduction``: a table of :mod:`reproduction_tables` in place."""

from typing import Any

from docutils import nodes
from reproduction_tables import PUBLISHED, TABLES, rendered
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class ReproductionTable(SphinxDirective):
    """``.. reproduction:: digits`` and its like."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the table's nodes."""
        text = rendered(self.arguments[0])
        for path in (*TABLES[self.arguments[0]][0], PUBLISHED):
            self.env.note_dependency(str(path))
        return self.parse_text_to_nodes(text)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("reproduction", ReproductionTable)
    return {"parallel_read_safe": True}
