"""
The Sphinx directive ``summary``: what a module's docstring says, and a table of its public classes
and functions.
"""

import importlib
import inspect
from typing import Any, ClassVar

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.ext.autosummary import Autosummary

SUMMARIZED: set[str] = set()


class Summary(Autosummary):
    """``.. summary:: pyro_tkam.infer`` and its like: names and the first sentences of each."""

    required_arguments = 1
    has_content = False
    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        """Return the table's nodes."""
        name = self.arguments[0]
        module = importlib.import_module(name)
        shown = [
            each
            for each in sorted(module.__all__, key=str.lower)
            if inspect.isroutine(getattr(module, each)) or inspect.isclass(getattr(module, each))
        ]
        SUMMARIZED.add(name)
        self.options["nosignatures"] = None
        self.content = StringList([f"~{name}.{each}" for each in shown], source=name)
        return self.parse_text_to_nodes(inspect.getdoc(module) or "") + super().run()


def tell_once(
    app: Sphinx, what: str, name: str, module: object, options: object, lines: list[str]
) -> None:
    """Leave out the docstring of a module whose page begins with it."""
    if what == "module" and name in SUMMARIZED:
        lines.clear()


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.setup_extension("sphinx.ext.autosummary")
    app.add_directive("summary", Summary)
    app.connect("autodoc-process-docstring", tell_once)
    return {"parallel_read_safe": True}
