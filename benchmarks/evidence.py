"""
Accuracy of ``log_evidence``: errors in nats over seeds, and what they cost; JSON.

Runs that the output file has are kept. ``--peers`` runs nautilus and PyMC's SMC beside it, on the
six usual problems, where they are installed.

    python -m benchmarks.evidence --threads 1 --output evidence.json
"""

import json
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import torch

from benchmarks.large_problems import LARGE
from benchmarks.peers import LIMIT, PEERS, require_same_in_pymc, versions
from benchmarks.problems import PROBLEMS, Problem
from benchmarks.timing import arguments, earlier, environment, report
from pyro_tkam.infer import log_evidence

Result = dict[str, Any]
Method = Callable[[Problem], Result]

USUAL: dict[str, Callable[[], Problem]] = {make.__name__: make for make in PROBLEMS}
LARGE_BUDGET = 300_000
"""Most evaluations of a large problem."""


def automatic(problem: Problem, **options: Any) -> Result:
    """``method="auto"``."""
    evidence = log_evidence(problem.model, **options)
    return {
        "method": evidence.method,
        "error": evidence.value - problem.exact,
        "standard_error": evidence.standard_error,
        "evaluations": evidence.evaluations,
        "trusted": evidence.verdict.trusted,
        "findings": sorted(evidence.verdict.names),
    }


def measure(problem: Problem, find: Method, seed: int) -> Result:
    """Run a method with a seed."""
    pyro.set_rng_seed(seed)
    wall, process = time.perf_counter(), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = find(problem)
    return {
        "seed": seed,
        **found,
        "seconds": time.perf_counter() - wall,
        "process_seconds": time.process_time() - process,
    }


def summary(runs: list[Result]) -> dict[str, float | int]:
    """Summarize the runs of one method on one problem: errors and costs of those that ended."""
    ended = [run for run in runs if "error" in run]
    found: dict[str, float | int] = {"runs": len(runs), "ended": len(ended)}
    if not ended:
        return found
    errors = torch.tensor([run["error"] for run in ended])
    found |= {
        "rmse": errors.square().mean().sqrt().item(),
        "largest_error": errors.abs().max().item(),
        "process_seconds": sorted(run["process_seconds"] for run in ended)[len(ended) // 2],
        "seconds": sorted(run["seconds"] for run in ended)[len(ended) // 2],
    }
    if "evaluations" in ended[0]:
        found["most_evaluations"] = max(run["evaluations"] for run in ended)
    if "trusted" in ended[0]:
        found["trusted"] = sum(run["trusted"] for run in ended)
    return found


def results(runs: dict[str, Result]) -> dict[str, Any]:
    """Return the runs, named ``problem/method/seed``, and their summaries."""
    problems: dict[str, dict[str, Any]] = {}
    for key in runs:
        name, method, _ = key.split("/")
        each = [run for other, run in runs.items() if other.startswith(f"{name}/{method}/")]
        problems.setdefault(name, {})[method] = summary(each)
    return {"problems": problems, "runs": runs}


def main() -> None:
    """Measure what the output file does not have yet."""
    options = arguments(__doc__, ("--peers",))
    output: Path | None = options.output
    runs = earlier(output).get("runs", {})
    methods: dict[str, Method] = {"auto": automatic} | (PEERS if options.peers else {})
    origin = {"peers": versions(), "limit_process_seconds": LIMIT} if options.peers else {}
    for name, make in (USUAL if options.peers else USUAL | LARGE).items():
        problem = make()
        if name in LARGE:
            methods = {"auto": partial(automatic, max_evaluations=LARGE_BUDGET)}
        if "pymc" in methods:
            require_same_in_pymc(problem)
        for method, find in methods.items():
            for seed in range(1 if options.short else 3):
                key = f"{name}/{method}/{seed}"
                if key in runs:
                    continue
                runs[key] = measure(problem, find, seed)
                print(key, runs[key], file=sys.stderr, flush=True)
                if output is not None:
                    found = {"environment": environment(), **origin, **results(runs)}
                    output.write_text(json.dumps(found, indent=2) + "\n")
    report(origin | results(runs), output)


if __name__ == "__main__":
    main()
