"""
Calibration of ``log_evidence``: errors over standard errors, of 60 models and up to 40 seeds; JSON.

Thirty models were known when the method was last changed. Thirty, ``fresh_regressions`` and
``fresh_processes``, were written after that, by authors who had not read it. Runs that the output
file has are kept, and seeds are in the outer loop, so that it may be ended at any time.

    python -m benchmarks.evidence_calibration --threads 1 --output evidence_calibration.json
"""

import json
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pyro
import torch

from benchmarks.fresh_processes import FRESH_PROCESSES
from benchmarks.fresh_regressions import FRESH_REGRESSIONS
from benchmarks.further_problems import FURTHER_PROBLEMS
from benchmarks.problems import PROBLEMS, Problem
from benchmarks.random_problems import gaussian_mixture, logistic, ring, squares
from benchmarks.statistical_models import STATISTICAL
from benchmarks.timing import arguments, earlier, environment, report
from pyro_tkam.infer import log_evidence

Run = dict[str, Any]

KNOWN: dict[str, Callable[[], Problem]] = {
    **{make.__name__: make for make in PROBLEMS},
    "gaussian_mixture": lambda: gaussian_mixture(5, 2, 2.0, 52),
    "squares": lambda: squares(3, 0.1, 3),
    "logistic": lambda: logistic(40, 40),
    "ring": lambda: ring(2.0, 0.1),
    **{make.__name__: make for make in (*STATISTICAL, *FURTHER_PROBLEMS)},
}
FRESH: dict[str, Callable[[], Problem]] = {
    make.__name__: make for make in (*FRESH_REGRESSIONS, *FRESH_PROCESSES)
}
MODELS = KNOWN | FRESH


@cache
def problem(name: str) -> Problem:
    """Return a problem, whose exact evidence takes seconds, once."""
    return MODELS[name]()


def measured(name: str, seed: int) -> Run:
    """Run the default method."""
    known = problem(name)
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
    begin = time.process_time()
    evidence = log_evidence(known.model)
    return {
        "error": evidence.value - known.exact,
        "standard_error": evidence.standard_error,
        "trusted": evidence.verdict.trusted,
        "findings": sorted(evidence.verdict.names),
        "method": evidence.method,
        "evaluations": evidence.evaluations,
        "process_seconds": time.process_time() - begin,
    }


def summary(runs: Iterable[Run]) -> dict[str, Any]:
    """Summarize runs: errors over standard errors, trusted ones among them that are wrong."""
    runs = list(runs)
    errors = torch.tensor([abs(run["error"]) for run in runs])
    ratios = errors / torch.tensor([run["standard_error"] for run in runs])
    wrong = [
        run["trusted"] and abs(run["error"]) > max(0.02, 5 * run["standard_error"]) for run in runs
    ]
    return {
        "runs": len(runs),
        "trusted": sum(run["trusted"] for run in runs),
        "trusted_and_wrong": sum(wrong),
        "rmse": errors.square().mean().sqrt().item(),
        "rms_ratio": ratios.square().mean().sqrt().item(),
        "median_ratio": ratios.median().item(),
        "quantile_95_ratio": ratios.quantile(0.95).item(),
        "largest_ratio": ratios.max().item(),
        "process_seconds": sorted(run["process_seconds"] for run in runs)[len(runs) // 2],
    }


def results(runs: dict[str, Run]) -> dict[str, Any]:
    """Return summaries by model and pooled; seeds that not all models have do not count."""
    seeds = [seed for seed in range(40) if all(f"{name}/{seed}" in runs for name in MODELS)]
    complete = {f"{name}/{seed}": runs[f"{name}/{seed}"] for name in MODELS for seed in seeds}

    def of(names: Iterable[str]) -> list[Run]:
        return [complete[f"{name}/{seed}"] for name in names for seed in seeds]

    pools = {"all": of(MODELS), "known models": of(KNOWN), "fresh models": of(FRESH)}
    pools["trusted"] = [run for run in pools["all"] if run["trusted"]]
    return {
        "num_seeds": len(seeds),
        "pooled": {name: summary(pool) for name, pool in pools.items() if pool},
        "models": {name: summary(of([name])) for name in MODELS if seeds},
        "runs": runs,
    }


def main() -> None:
    """Measure what the output file does not have yet."""
    options = arguments(__doc__)
    output: Path | None = options.output
    runs = earlier(output).get("runs", {})
    for seed in range(1 if options.short else 40):
        for name in MODELS:
            key = f"{name}/{seed}"
            if key in runs:
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                runs[key] = measured(name, seed)
            print(key, json.dumps(runs[key]), file=sys.stderr, flush=True)
            if output is not None:
                text = json.dumps({"environment": environment(), **results(runs)}, indent=2)
                output.write_text(text + "\n")
    report(results(runs), output)


if __name__ == "__main__":
    main()
