"""
What variants of the representation theorem's model do to the digits: strict ranges, trained widths,
and the degree of polynomials.

    python -m benchmarks.variants --threads 1 --output results.json

Each row is ``python -m pyro_tkam reproduce digits-gaussian-rbf`` at the small scale, with options
of the model; lower Fréchet distances and reconstruction errors are better. Differences are from the
same seed of the row that a variant is compared with, with standard errors over seeds. Rows that the
output already has are not run again.
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.timing import arguments, earlier, report, with_error
from pyro_tkam.paper.experiments import EXPERIMENTS
from pyro_tkam.paper.reproduce import reproduce

FIGURES = ("frechet", "reconstruction_error", "log_evidence", "variance_ratio")
#: options of the model by the row's name
ROWS: dict[str, dict[str, Any]] = {
    "RBF": {},
    "RBF, hidden_range sigmoid": {"hidden_range": "sigmoid"},
    "RBF, hidden_range affine": {"hidden_range": "affine"},
    "RBF, trainable_width": {"trainable_width": True},
    "Chebyshev, degree 3": {"basis": "chebyshev", "degree": 3},
    "Chebyshev, degree 5": {"basis": "chebyshev", "degree": 5},
    "Chebyshev, degree 8": {"basis": "chebyshev", "degree": 8},
}
#: what each variant is compared with
AGAINST = {name: "RBF" if name.startswith("RBF") else "Chebyshev, degree 3" for name in ROWS}


def measured(options: dict[str, Any], seed: int, *, short: bool) -> dict[str, Any]:
    """Train and measure a model in a folder that is thrown away."""
    experiment = EXPERIMENTS["digits-gaussian-rbf"]
    if short:
        scale = replace(experiment.scale("small"), updates=5, sizes=(20, 30, 40))
        experiment = replace(experiment, scales={"small": scale})
    with tempfile.TemporaryDirectory() as folder:
        result = reproduce(
            experiment, "small", Path(folder), seed=seed, progress=False, model_options=options
        )
    return {"seconds_per_update": result["seconds_per_update"], **result["measured"]}


def differences(runs: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Return each variant's figures less those that it is compared with, paired by seed."""
    by_row = {(run["name"], run["seed"]): run for run in runs}
    seeds = sorted({seed for _, seed in by_row})
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, other in AGAINST.items():
        if name != other:
            pairs = [(by_row[name, seed], by_row[other, seed]) for seed in seeds]
            found[name] = {
                figure: with_error([one[figure] - two[figure] for one, two in pairs])
                for figure in FIGURES
            }
    return found


def main() -> None:
    """Train every variant with every seed."""
    options = arguments(__doc__)
    seeds = range(2 if options.short else 3)
    results = earlier(options.output)
    runs = results.setdefault("runs", [])
    done = {(run["name"], run["seed"]) for run in runs}
    for seed in seeds:
        for name, chosen in ROWS.items():
            if (name, seed) not in done:
                found = measured(chosen, seed, short=options.short)
                runs.append({"name": name, "seed": seed, "options": chosen, **found})
                report(results, options.output)
    results["differences"] = differences(runs)
    report(results, options.output)


if __name__ == "__main__":
    main()
