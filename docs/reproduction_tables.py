"""Sphinx directives that lay our results beside the published ones, from the JSON files in ``docs/results``."""

import json
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from pyro_tkam.train.findings import findings

HERE = Path(__file__).parent
OURS = HERE / "results" / "reproduction.json"
PUBLISHED = HERE / "results" / "published.json"

VERDICTS = {True: "holds here too", False: "**does not hold here**", None: "not run"}


def grid(header: list[str], rows: list[list[str]]) -> str:
    """
    Return a table in reStructuredText.

    >>> print(grid(["a", "b"], [["1", "2"]]))
    .. list-table::
       :header-rows: 1
    <BLANKLINE>
       * - a
         - b
       * - 1
         - 2
    """
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in (header, *rows):
        lines += [f"   {'*' if column == 0 else ' '} - {entry}" for column, entry in enumerate(row)]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def results_table(prefix: str) -> str:
    """
    Return the table of the experiments whose name starts with a word.

    :param prefix: the word, such as ``"digits"``.
    """
    ours, published = json.loads(OURS.read_text()), json.loads(PUBLISHED.read_text())["rows"]
    header = [
        "experiment", "Fréchet (95 %)", "kernel", "variance ratio", "reconstruction", "evidence a dimension",
        "unpaired error", "published unpaired error", "closer",
    ]  # fmt: skip
    rows = [
        _row(name, result["measured"], published.get(name, {}))
        for name, result in ours.items()
        if name.startswith(f"{prefix}-")
    ]
    return grid(header, rows) if rows else "No run of these experiments is recorded yet."


def _row(name: str, measured: dict[str, Any], published: dict[str, float]) -> list[str]:
    low, high = measured["frechet_interval"]
    trust = "" if measured["evidence_reliable"] else " (not reliable)"
    return [
        f"``{name}``",
        f"{measured['frechet']:.2f} ({low:.2f} to {high:.2f})",
        _number(measured["kernel"]),
        _number(measured["variance_ratio"]),
        _number(measured["reconstruction_error"]),
        f"{measured['log_evidence_per_dimension']:.4f}{trust}",
        _number(measured["unpaired_error"]),
        _number(published.get("unpaired_error")),
        f"{measured['closer_than_held_out']:.2f}",
    ]


def data_line(prefix: str) -> str:
    """
    Return what the data themselves score, and how the runs were made.

    :param prefix: the word with which the experiments' names start.
    """
    ours = json.loads(OURS.read_text())
    result = next((result for name, result in ours.items() if name.startswith(f"{prefix}-")), None)
    if result is None:
        return ""
    measured, settings = result["measured"], result["settings"]
    return (
        f"Settings: {settings['training']} images to train on, {settings['held_out']} held out, "
        f"{settings['updates']} updates of {settings['batch_size']} images, "
        f"P = {settings['model']['latent_dim']}, noise scale {settings['model']['noise_scale']}, one seed. "
        f"Training images beside held-out ones: Fréchet distance {measured['frechet_of_data']:.2f}, "
        f"kernel {_number(measured['kernel_of_data'])}, unpaired error {_number(measured['unpaired_error_of_data'])}. "
        f"Features: {measured['features']}."
    )


def findings_table() -> str:
    """Return what the paper found and whether our runs find it too."""
    rows = [
        [found.claim.section, found.claim.text, found.claim.measure, VERDICTS[found.holds]]
        for found in findings(json.loads(OURS.read_text()))
    ]
    return grid(["section", "published finding", "decided by", "our runs"], rows)


def published_table(prefix: str) -> str:
    """
    Return published distances of a data set that none of our runs has.

    :param prefix: the word with which the experiments' names start.
    """
    published = json.loads(PUBLISHED.read_text())["rows"]
    rows = [
        [f"``{name}``", *(_number(row.get(key)) for key in ("fid_infinity", "kid_infinity", "unpaired_error"))]
        for name, row in published.items()
        if name.startswith(f"{prefix}-")
    ]
    return grid(["experiment", "FID", "KID", "unpaired error"], rows)


class ReproductionTable(SphinxDirective):
    """``.. reproduction:: digits`` and its like."""

    required_arguments = 1
    tables: ClassVar[dict[str, Any]] = {
        "findings": findings_table,
        "digits": lambda: f"{results_table('digits')}\n\n{data_line('digits')}",
        "darcy": lambda: f"{results_table('darcy')}\n\n{data_line('darcy')}",
        "patches": lambda: f"{results_table('patches')}\n\n{data_line('patches')}",
        "svhn": lambda: published_table("svhn"),
        "cifar10": lambda: published_table("cifar10"),
    }

    def run(self) -> list[nodes.Node]:
        """Return the table's nodes."""
        self.env.note_dependency(str(OURS))
        self.env.note_dependency(str(PUBLISHED))
        return self.parse_text_to_nodes(self.tables[self.arguments[0]]())


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("reproduction", ReproductionTable)
    return {"parallel_read_safe": True}
