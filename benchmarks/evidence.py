"""
Accuracy of ``log_evidence``, beside peers where they are installed: errors in nats over seeds, and
what they cost.

``--full`` takes 40 seeds, for the calibration of the standard errors; ``--fresh`` measures random
problems on which nothing was tuned instead of the usual ones; ``--peers`` runs dynesty, nautilus
and UltraNest beside them.
"""

import math
import sys
import time
from collections.abc import Callable
from typing import Any

import pyro
import torch

from benchmarks.fresh_problems import FRESH
from benchmarks.peers import PEERS
from benchmarks.problems import PROBLEMS, Problem
from benchmarks.timing import arguments, report
from pyro_tkam.infer import MALA, ParallelTempering, log_evidence

Result = dict[str, Any]
Method = Callable[[Problem], list[Result]]


def automatic(problem: Problem) -> list[Result]:
    """``method="auto"`` with its default options."""
    evidence = log_evidence(problem.model)
    return [
        {
            "method": evidence.method,
            "error": evidence.value - problem.exact,
            "standard_error": evidence.standard_error,
            "evaluations": evidence.evaluations,
            "trusted": evidence.verdict.trusted,
        }
    ]


def along_the_ladder(problem: Problem) -> list[Result]:
    """
    Bennett's ratio and the middle of the sandwich, from one tempered run of nearly 400k
    evaluations.
    """
    tempering = ParallelTempering(
        MALA(problem.model, target_accept_prob=0.8),
        num_temperatures=16,
        num_samples=2200,
        warmup_steps=700,
        num_chains=8,
        disable_progbar=True,
    )
    draws = tempering.run()
    lower = draws.log_evidence("steppingstone")
    middle = lower.value + lower.verdict.measures["sandwich gap"] / 2
    values = {"bar": draws.log_evidence("bar").value, "sandwich": middle}
    return [
        {"method": name, "error": value - problem.exact, "evaluations": draws.evaluations}
        for name, value in values.items()
    ]


def measure(problem: Problem, method: Method, seeds: range) -> dict[str, list[Result]]:
    """Run a method with several seeds; return its results by name."""
    results: dict[str, list[Result]] = {}
    for seed in seeds:
        pyro.set_rng_seed(seed)
        wall, process = time.perf_counter(), time.process_time()
        found = method(problem)
        seconds = {
            "seconds": time.perf_counter() - wall,
            "process_seconds": time.process_time() - process,
        }
        for each in found:
            results.setdefault(str(each["method"]), []).append({"seed": seed, **each, **seconds})
    return results


def summary(runs: list[Result]) -> dict[str, float | int]:
    """Summarize the runs of one method on one problem."""
    errors = torch.tensor([run["error"] for run in runs])
    return {
        "runs": len(runs),
        "rmse": errors.square().mean().sqrt().item(),
        "largest_error": errors.abs().max().item(),
        "most_evaluations": max(run["evaluations"] for run in runs),
        "process_seconds": sorted(run["process_seconds"] for run in runs)[len(runs) // 2],
        "seconds": sorted(run["seconds"] for run in runs)[len(runs) // 2],
        "trusted": sum(run.get("trusted", True) for run in runs),
    }


def calibration(runs: list[Result]) -> dict[str, float | int]:
    """Quantiles of ``|error| / standard error``: 1.96 at 95% where errors are normal and known."""
    scaled = torch.tensor([abs(run["error"]) / run["standard_error"] for run in runs])
    quantiles = scaled.quantile(torch.tensor([0.5, 0.95])).tolist()
    return {
        "runs": len(runs),
        "median": quantiles[0],
        "quantile_95": quantiles[1],
        "largest": scaled.max().item(),
    }


def main() -> None:
    """Measure all problems."""
    options = arguments(__doc__, ("--full", "--fresh", "--peers"))
    seeds = range(2 if options.short else 40 if options.full else 10)
    problems = FRESH if options.fresh else {make.__name__: make for make in PROBLEMS}
    methods: list[Method] = (
        [automatic] if options.full or options.fresh else [automatic, along_the_ladder]
    )
    table, pooled = {}, []
    for name, make in problems.items():
        problem = make()
        runs: dict[str, list[Result]] = {}
        for method in methods + (list(PEERS.values()) if options.peers else []):
            runs |= measure(problem, method, seeds)
        table[name] = {each: summary(found) for each, found in runs.items()}
        pooled += [run for found in runs.values() for run in found if "trusted" in run]
        print(name, table[name], file=sys.stderr, flush=True)
    trusted = [run for run in pooled if run["trusted"]]
    overall = {
        "rmse_of_trusted": math.sqrt(sum(run["error"] ** 2 for run in trusted) / len(trusted)),
        "calibration_of_all": calibration(pooled),
        "calibration_of_trusted": calibration(trusted),
    }
    report({"seeds": len(seeds), "problems": table, "auto": overall}, options.output)


if __name__ == "__main__":
    main()
