"""
Tables that lay our results beside the published ones, from the JSON files in ``docs/results``, as
text.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pyro_tkam.paper.experiments import EXPERIMENTS
from pyro_tkam.paper.findings import Comparison, Finding, findings

RESULTS = Path(__file__).parent / "results"
OURS = sorted(RESULTS.glob("reproduction-seed-*.json"))
PAPER = sorted(RESULTS.glob("paper-seed-*.json"))
PUBLISHED = RESULTS / "published.json"

VERDICTS = {True: "holds here too", False: "**does not hold here**", None: "undecided"}
SIGNS = {True: "as claimed", False: "otherwise", None: "undecided"}
NOTHING = "–"

Results = Mapping[str, Mapping[str, Any]]


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


def over_seeds(runs: Sequence[Results]) -> Results:
    """
    Return the means of runs that differ in their seed; what is true has to be true of each.

    The least and the greatest Fréchet distance go beside its mean, and the number of runs beside
    them.

    :param runs: results of all experiments, one mapping for each seed.

    >>> run = {"digits-flat-rbf": {"measured": {"frechet": 1.0, "evidence_reliable": True}}}
    >>> over_seeds([run, {"digits-flat-rbf": {"measured": {"frechet": 2.0,
    ...     "evidence_reliable": False}}}])
    {'digits-flat-rbf': {'measured': {'frechet': 1.5, 'evidence_reliable': False,
     'frechet_range': (1.0, 2.0)}, 'runs': 2}}
    """
    means: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(name for run in runs for name in run):
        own = [run[name] for run in runs if name in run]
        distances = [each["measured"]["frechet"] for each in own]
        means[name] = {**_mean(own), "runs": len(own)}
        means[name]["measured"]["frechet_range"] = min(distances), max(distances)
    return means


def _mean(values: Sequence[Any]) -> Any:
    first = values[0]
    if isinstance(first, Mapping):
        return {key: _mean([value[key] for value in values]) for key in first}
    if isinstance(first, bool):
        return all(values)
    return sum(values) / len(values) if isinstance(first, float) else first


def number(value: float | None) -> str:
    """
    Return four digits of a number.

    >>> number(0.12345), number(4358.0), number(None)
    ('0.1235', '4358', '–')
    """
    if value is None:
        return NOTHING
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _named(prefix: str, results: Results) -> Results:
    """Return the results whose names start with a word, in the order of the experiments."""
    return {
        name: results[name]
        for name in EXPERIMENTS
        if name.startswith(f"{prefix}-") and name in results
    }


def quality_table(prefix: str, ours: Results) -> str:
    """
    Return what our runs of some experiments measured.

    :param prefix: the word with which the experiments' names start.
    :param ours: results of all experiments.
    """
    header = [
        "experiment",
        "seeds",
        "Fréchet (all seeds)",
        "kernel",
        "variance ratio",
        "reconstruction",
        "evidence a dimension",
        "closer",
    ]
    return grid(
        header,
        [_quality(name, result) for name, result in _named(prefix, ours).items()],
    )


def _quality(name: str, result: Mapping[str, Any]) -> list[str]:
    measured = result["measured"]
    low, high = measured["frechet_range"]
    trust = "" if measured["evidence_reliable"] else " (not reliable)"
    return [
        f"``{name}``",
        str(result["runs"]),
        f"{measured['frechet']:.2f} ({low:.2f} to {high:.2f})",
        number(measured["kernel"]),
        number(measured["variance_ratio"]),
        number(measured["reconstruction_error"]),
        f"{measured['log_evidence_per_dimension']:.4f}{trust}",
        f"{measured['closer_than_held_out']:.2f}",
    ]


#: columns of the published table, each from an experiment's name, our result (or nothing) and the
#: published figures
_COLUMNS: dict[str, Callable[[str, Mapping[str, Any], Mapping[str, float]], float | None]] = {
    "unpaired error, ours": lambda name, ours, theirs: ours.get("measured", {}).get(
        "unpaired_error"
    ),
    "published unpaired error": lambda name, ours, theirs: theirs.get("unpaired_error"),
    "published FID": lambda name, ours, theirs: theirs.get("fid_infinity"),
    "published KID": lambda name, ours, theirs: theirs.get("kid_infinity"),
    "seconds per update, ours": lambda name, ours, theirs: ours.get("seconds_per_update"),
    "published seconds per update": lambda name, ours, theirs: _an_update(
        name, theirs.get("seconds_total")
    ),
    "published seconds in total": lambda name, ours, theirs: theirs.get("seconds_total"),
}


def _an_update(name: str, total: float | None) -> float | None:
    return None if total is None else total / EXPERIMENTS[name].scales["paper"].updates


def published_table(prefix: str, ours: Results, published: Results) -> str:
    """
    Return every published figure of some experiments, with ours of the same kind; columns without
    any are left out.

    :param prefix: the word with which the experiments' names start.
    :param ours: results of all experiments.
    :param published: published figures of all experiments.
    """
    names = _named(prefix, {**published, **ours})
    found = {
        header: [column(name, ours.get(name, {}), published.get(name, {})) for name in names]
        for header, column in _COLUMNS.items()
    }
    kept = {
        header: values
        for header, values in found.items()
        if any(value is not None for value in values)
    }
    rows = [
        [f"``{name}``", *(number(values[i]) for values in kept.values())]
        for i, name in enumerate(names)
    ]
    return grid(["experiment", *kept], rows)


def data_line(prefix: str, ours: Results) -> str:
    """
    Return what the data themselves score, how the runs were made and on what machine.

    :param prefix: the word with which the experiments' names start.
    :param ours: results of all experiments.
    """
    results = _named(prefix, ours)
    result = next(iter(results.values()))
    measured, settings = result["measured"], result["settings"]
    return (
        f"Settings: {settings['training']} images to train on, {settings['held_out']} held out, "
        f"{settings['updates']} updates of {settings['batch_size']} images, "
        f"{settings['model']['latent_dim']} latents, noise scale "
        f"{settings['model']['noise_scale']}; means over seeds. "
        "Training images beside held-out ones: Fréchet distance "
        f"{measured['frechet_of_data']:.2f}, "
        f"kernel {number(measured['kernel_of_data'])}, unpaired error "
        f"{number(measured['unpaired_error_of_data'])}. "
        f"Features: {measured['features']}. {_machines(results)}"
    )


def _machines(results: Results) -> str:
    """Return where results come from."""
    rows: dict[str, list[str]] = {}
    for name, result in results.items():
        rows.setdefault(_machine(result["environment"]), []).append(f"``{name}``")
    return " ".join(
        f"{machine}: {', '.join(names) if len(rows) > 1 else 'all'}."
        for machine, names in rows.items()
    )


def _machine(environment: Mapping[str, Any]) -> str:
    return (
        f"On {environment['cores']} cores, threads: {environment['threads']} "
        f"({environment['machine']}), "
        f"Python {environment['python']}, PyTorch {environment['torch']}, Pyro "
        f"{environment['pyro']}"
    )


def verdict(found: Finding) -> str:
    """
    Return what our runs say of a claim.

    :param found: the claim with their figures.
    """
    if not found.comparisons:
        return "not run"
    holding = sum(each.holds is True for each in found.comparisons)
    missing = len(found.claim.cases) - len(found.comparisons)
    rest = f"; {missing} not run" if missing else ""
    return f"{VERDICTS[found.holds]} ({holding} of {len(found.comparisons)}{rest})"


def _compared(comparison: Comparison) -> str:
    difference = f"{comparison.difference:+.2f} ± {comparison.standard_error:.2f}"
    return f"{comparison.about}: {difference} ({SIGNS[comparison.holds]})"


def findings_table(runs: Sequence[Results]) -> str:
    """
    Return what the paper found, the differences that decide it here, and what they say.

    :param runs: results of all experiments, one mapping for each seed.
    """
    found = findings(runs)
    rows = [
        [
            each.claim.section,
            each.claim.text,
            each.claim.measure,
            "; ".join(map(_compared, each.comparisons)) or NOTHING,
            verdict(each),
        ]
        for each in found
    ]
    made = [each.holds for each in found if each.comparisons]
    line = (
        f"Our recorded runs test {len(made)} of {len(found)} published findings. Holding here: "
        f"{made.count(True)}; not holding: {made.count(False)}; undecided with {len(runs)} seeds: "
        f"{made.count(None)}."
    )
    head = ["section", "published finding", "decided by", "differences", "our runs"]
    return f"{grid(head, rows)}\n\n{line}"


def experiments_table(prefix: str, ours: Results, published: Results) -> str:
    """
    Return all tables of the experiments whose names start with a word.

    :param prefix: the word, such as ``"digits"``.
    :param ours: results of all experiments.
    :param published: published figures of all experiments.
    """
    parts = [published_table(prefix, ours, published)]
    if _named(prefix, ours):
        parts = [quality_table(prefix, ours), *parts, data_line(prefix, ours)]
    return "\n\n".join(parts)


def _experiments(prefix: str, runs: Sequence[Results]) -> str:
    published = json.loads(PUBLISHED.read_text())["rows"]
    return experiments_table(prefix, over_seeds(runs), published)


#: tables by name: the files that they are rendered from, and how
TABLES: dict[str, tuple[Sequence[Path], Callable[[Sequence[Results]], str]]] = {
    "findings": (OURS, findings_table),
    "paper_findings": (PAPER, findings_table),
    "digits": (OURS, partial(_experiments, "digits")),
    "paper_digits": (PAPER, partial(_experiments, "digits")),
    "fashion": (PAPER, partial(_experiments, "fashion")),
    "darcy": (OURS, partial(_experiments, "darcy")),
    "paper_darcy": (PAPER, partial(_experiments, "darcy")),
    "patches": (OURS, partial(_experiments, "patches")),
    "svhn": (OURS, partial(_experiments, "svhn")),
    "cifar10": (OURS, partial(_experiments, "cifar10")),
}


def rendered(name: str) -> str:
    """
    Return a table from the committed results.

    :param name: one of ``TABLES``.
    :raises ValueError: for another name.
    """
    if name not in TABLES:
        raise ValueError(f"reproduction must be one of {sorted(TABLES)}, got {name!r}")
    files, table = TABLES[name]
    return table([json.loads(path.read_text()) for path in files])
