"""
Evidence of two bumps of equal mass, one of them narrower; prints JSON.

They lie at opposite places, or at random places of the prior, in 2, 5 and 10 dimensions; the second
is as wide as the first, or 3 or 10 times as narrow. A run is wrong if its verdict trusts it and its
error is over 5 standard errors and 0.02 nats. Results that the output file has are kept.

    python -m benchmarks.two_bumps --threads 1 --output two_bumps.json
"""

import sys
import time
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from benchmarks.problems import Problem
from benchmarks.timing import arguments, earlier, report
from pyro_tkam.infer import log_evidence

DIMS, RATIOS, WIDTH = (2, 5, 10), (1, 3, 10), 0.3


def two_bumps(places: Tensor, ratio: float) -> Problem:
    """Bumps at places ``(2, dim)`` under a standard normal prior, each of mass 1."""
    widths = torch.tensor([WIDTH, WIDTH / ratio])

    def own(places: Tensor, widths: Tensor) -> Tensor:
        spread = (1 + widths.double().square()).sqrt().unsqueeze(-1)
        return dist.Normal(0.0, spread).log_prob(places.double()).sum(-1)

    masses = own(places, widths).float()

    def model() -> None:
        z = pyro.sample("z", dist.Normal(torch.zeros(places.shape[1]), 1.0).to_event(1))
        bumps = [
            dist.Normal(place, width).log_prob(z).sum(-1) - mass
            for place, width, mass in zip(places, widths, masses, strict=True)
        ]
        pyro.factor("likelihood", torch.logaddexp(*bumps))

    exact = (own(places, widths) - masses.double()).logsumexp(0)
    return Problem(model, exact.item())


def opposite(dim: int, ratio: float, seed: int) -> Problem:
    """Return bumps at opposite places; the seed is that of the estimate only."""
    return two_bumps(torch.tensor([[-0.7], [0.7]]).expand(2, dim), ratio)


def anywhere(dim: int, ratio: float, seed: int) -> Problem:
    """Return bumps at prior draws."""
    places = torch.randn(2, dim, generator=torch.Generator().manual_seed(seed))
    return two_bumps(places, ratio)


def measure(problem: Problem, seed: int) -> dict[str, Any]:
    """Run the default method."""
    pyro.set_rng_seed(seed)
    begin = time.process_time()
    evidence = log_evidence(problem.model)
    error = evidence.value - problem.exact
    return {
        "error": error,
        "standard_error": evidence.standard_error,
        "trusted": evidence.verdict.trusted,
        "wrong": evidence.verdict.trusted and abs(error) > max(0.02, 5 * evidence.standard_error),
        "findings": sorted(evidence.verdict.names),
        "evaluations": evidence.evaluations,
        "process_seconds": time.process_time() - begin,
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Count runs, and give the largest error and the median seconds."""
    seconds = sorted(run["process_seconds"] for run in runs)
    return {
        "runs": len(runs),
        "trusted": sum(run["trusted"] for run in runs),
        "trusted_and_wrong": sum(run["wrong"] for run in runs),
        "within_0.05": sum(abs(run["error"]) <= 0.05 for run in runs),
        "largest_error": max(abs(run["error"]) for run in runs),
        "largest_trusted_error": max(
            (abs(run["error"]) for run in runs if run["trusted"]), default=None
        ),
        "process_seconds": seconds[len(seconds) // 2],
    }


def main() -> None:
    """Measure what an output file does not have yet."""
    options = arguments(__doc__)
    seeds = range(1 if options.short else 10)
    results = earlier(options.output).get("problems", {})
    for make in (opposite, anywhere):
        for dim in DIMS:
            for ratio in RATIOS:
                name = f"{make.__name__}/{dim}/1:{ratio}"
                if name not in results:
                    runs = [measure(make(dim, ratio, seed), seed) for seed in seeds]
                    results[name] = summary(runs)
                    print(name, results[name], file=sys.stderr, flush=True)
                    report({"seeds": len(seeds), "problems": results}, options.output)


if __name__ == "__main__":
    main()
