"""Evidence from draws, side by side with the exact value.

    OMP_NUM_THREADS=1 python -m benchmarks.bridge --output docs/results/bridge.json

The two hierarchical normal models and their data, of a published seed, are those of the vignettes
of R's ``bridgesampling``; so is the probit regression on turtles, whose data are read from a file.
Six models are sampled by Pyro's NUTS too, in four chains of 1,000 draws. Their evidences are taken
from files as well, written by ArviZ and, with ``--other PYTHON``, anew by another Python's ArviZ.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import arviz
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import MCMC, NUTS

from benchmarks.problems import Problem, banana, eight_schools, latent_variable, regression
from benchmarks.timing import environment
from pyro_tkam.diagnostics import save, to_arviz
from pyro_tkam.infer import EnsembleHMC, VectorizedMCMC, bridge_evidence

DATA = torch.tensor(
    [
        *(1.1937, 1.9575, -0.7216, -1.8738, -1.1693, 0.5196, -0.0361, 0.4251, 0.4112, -0.8124),
        *(0.7297, 3.4819, 2.3113, 2.0003, -0.2764, 1.0688, -0.9508, -1.8965, 2.5602, 0.2370),
    ]
)


def mean_of_zero() -> None:
    """``y_i ~ N(θ_i, 1)``, ``θ_i ~ N(0, τ²)``, ``τ² ~ InverseGamma(1, 1)``."""
    _scattered(torch.zeros(()))


def mean_to_be_found() -> None:
    """The same with ``θ_i ~ N(μ, τ²)`` and ``μ ~ N(0, 1)``."""
    _scattered(pyro.sample("mu", dist.Normal(0.0, 1.0)))


def _scattered(mean: torch.Tensor) -> None:
    variance = pyro.sample("variance", dist.InverseGamma(1.0, 1.0))
    with pyro.plate("data", len(DATA)):
        theta = pyro.sample("theta", dist.Normal(mean, variance.sqrt()))
        pyro.sample("y", dist.Normal(theta, 1.0), obs=DATA)


def exact(common: float) -> float:
    """Log evidence by quadrature over ``log τ²``, all else integrated out.

    :param common: variance of the mean.
    """
    logs = torch.linspace(-8, 10, 4001).double()
    eye, ones = torch.eye(len(DATA)).double(), torch.ones(len(DATA), len(DATA)).double()
    covariance = (1 + logs.exp())[:, None, None] * eye + common * ones
    data = dist.MultivariateNormal(torch.zeros(len(DATA)).double(), covariance)
    log_prior = -logs - (-logs).exp()  # of τ², times dτ²/dlog τ²
    values = data.log_prob(DATA.double()) + log_prior
    return values.logsumexp(0).item() + math.log(18 / 4000)


def vignette(model: Callable[[], None], common: float) -> Callable[[], Problem]:
    """Return what makes one of the two problems."""
    return lambda: Problem(model, exact(common))


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "mean of zero": vignette(mean_of_zero, 0.0),
    "mean to be found": vignette(mean_to_be_found, 1.0),
    "regression": regression,
    "latent variable": latent_variable,
    "eight schools": eight_schools,
    "banana": banana,
}
"""Models of one mode, which every sampler finds."""

SIDE_BY_SIDE = ("mean of zero", "mean to be found")
PUBLISHED_TURTLES = 1.273
"""Bayes factor of no clutch effects (Sinharay and Stern 2005; the example of bridgesampling)."""


def many_chains(model: Callable[[], None], seed: int) -> VectorizedMCMC:
    """Sample with many short chains."""
    pyro.set_rng_seed(seed)
    chains = VectorizedMCMC(
        EnsembleHMC(model), num_samples=200, num_chains=64, disable_progbar=True
    )
    chains.run()
    return chains


def nuts(model: Callable[[], None], seed: int) -> MCMC:
    """Sample with Pyro's NUTS: four chains of 1,000 draws."""
    pyro.set_rng_seed(seed)
    options = {"num_samples": 1000, "warmup_steps": 500, "num_chains": 4}
    chains = MCMC(NUTS(model), disable_progbar=True, **options)
    chains.run()
    return chains


def bridged(name: str, sample: Callable[..., Any], seed: int) -> dict[str, Any]:
    """Estimate one model's evidence from one run."""
    problem = PROBLEMS[name]()
    start = time.process_time()
    chains = sample(problem.model, seed)
    sampled = time.process_time()
    evidence = bridge_evidence(problem.model, draws=chains)
    return {
        "exact": problem.exact,
        "error": evidence.value - problem.exact,
        "standard_error": evidence.standard_error,
        "trusted": evidence.verdict.trusted,
        "seconds_sampling": sampled - start,
        "seconds_bridging": time.process_time() - sampled,
    }


REWRITE = """
import sys, arviz
read = arviz.from_netcdf(sys.argv[1])
draws = {"posterior": {name: each.values for name, each in read["posterior"].data_vars.items()}}
arviz.from_dict(draws).to_netcdf(sys.argv[2])
print(arviz.__version__)
"""


def from_files(name: str, other: str | None) -> dict[str, Any]:
    """Estimate one model's evidence from a file of a run of NUTS, by the version that wrote it."""
    problem = PROBLEMS[name]()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        files = {arviz.__version__: Path(folder, "run.nc")}
        save(to_arviz(nuts(problem.model, 0)), files[arviz.__version__])
        if other is not None:
            command = [other, "-c", REWRITE, str(Path(folder, "run.nc")), f"{folder}/other.nc"]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            files[done.stdout.split()[-1]] = Path(folder, "other.nc")
        for version, file in files.items():
            pyro.set_rng_seed(0)
            evidence = bridge_evidence(problem.model, draws=file)
            errors = {"error": evidence.value - problem.exact, "trusted": evidence.verdict.trusted}
            found[version] = {**errors, "standard_error": evidence.standard_error}
    return found


def turtles(path: Path, seed: int) -> dict[str, Any]:
    """
    Weigh clutch effects in a probit regression of survival on birth weight, as bridgesampling's
    example does: ``p(σ²) = 1 / (1 + σ²)²``.

    :param path: that package's data set ``turtles``, with the columns ``y``, ``x``, ``clutch``.
    :param seed: of the chains.
    """
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    survived, weight = (torch.tensor([float(row[key]) for row in rows]) for key in ("y", "x"))
    clutch = torch.tensor([int(float(row["clutch"])) - 1 for row in rows])

    def alike(effect: torch.Tensor | float = 0.0) -> None:
        first, second = (pyro.sample(key, dist.Normal(0.0, 10**0.5)) for key in ("a0", "a1"))
        with pyro.plate("data", len(rows)):
            chance = torch.special.ndtr(first + second * weight + effect)
            pyro.sample("y", dist.Bernoulli(probs=chance), obs=survived)

    def different() -> None:
        share = pyro.sample("share", dist.Uniform(0.0, 1.0))  # σ² / (1 + σ²)
        with pyro.plate("clutches", int(clutch.max()) + 1):
            effect = pyro.sample("effect", dist.Normal(0.0, 1.0))
        alike((share / (1 - share)).sqrt() * effect[clutch])

    found = {}
    for name, model in (("alike", alike), ("different", different)):
        evidence = bridge_evidence(model, draws=many_chains(model, seed))
        found[name] = evidence
    factor = found["alike"] - found["different"]
    return {
        "log_evidence": {name: each.value for name, each in found.items()},
        "standard_error": {name: each.standard_error for name, each in found.items()},
        "trusted": all(each.verdict.trusted for each in found.values()),
        "bayes_factor": math.exp(factor.value),
        "log_bayes_factor_error": factor.standard_error,
        "published_bayes_factor": PUBLISHED_TURTLES,
    }


def main() -> None:
    """Measure, and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("bridge.json"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--short", action="store_true", help="one seed, and one model by NUTS")
    parser.add_argument("--turtles", type=Path, help="bridgesampling's data set turtles, as CSV")
    parser.add_argument("--other", help="a Python with another version of ArviZ")
    options = parser.parse_args()
    seeds = range(1 if options.short else options.seeds)
    torch.set_num_threads(1)
    results: dict[str, Any] = {"environment": environment()}
    results["many chains"] = {
        name: [bridged(name, many_chains, seed) for seed in seeds] for name in SIDE_BY_SIDE
    }
    if options.turtles:
        results["turtles"] = [turtles(options.turtles, seed) for seed in seeds]
    by_nuts = ["banana"] if options.short else list(PROBLEMS)
    results["nuts"] = {name: bridged(name, nuts, 0) for name in by_nuts}
    results["files"] = {name: from_files(name, options.other) for name in by_nuts}
    options.output.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
