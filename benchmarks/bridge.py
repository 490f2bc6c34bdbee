"""Evidence from draws, side by side with the exact value.

    OMP_NUM_THREADS=1 python -m benchmarks.bridge --output docs/results/bridge.json

The two hierarchical normal models and their data, of a published seed, are those of the vignettes
of R's ``bridgesampling``.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch

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


MODELS: dict[str, tuple[Callable[[], None], float]] = {
    "mean of zero": (mean_of_zero, 0.0),
    "mean to be found": (mean_to_be_found, 1.0),
}


def measure(name: str, seeds: int) -> dict[str, Any]:
    """Estimate one model's evidence with several seeds."""
    model, common = MODELS[name]
    truth = exact(common)
    runs = []
    for seed in range(seeds):
        pyro.set_rng_seed(seed)
        chains = VectorizedMCMC(
            EnsembleHMC(model), num_samples=200, num_chains=64, disable_progbar=True
        )
        start = time.process_time()
        chains.run()
        sampled = time.process_time()
        evidence = bridge_evidence(model, draws=chains)
        runs.append(
            {
                "error": evidence.value - truth,
                "standard_error": evidence.standard_error,
                "trusted": evidence.verdict.trusted,
                "seconds_sampling": sampled - start,
                "seconds_bridging": time.process_time() - sampled,
            }
        )
    return {"exact": truth, "runs": runs}


def main() -> None:
    """Measure, and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("bridge.json"))
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = {name: measure(name, options.seeds) for name in MODELS}
    options.output.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
