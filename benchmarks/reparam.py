"""
NUTS on a rough energy, in its own coordinates and behind ``InverseTransformReparam``; prints JSON.

    python -m benchmarks.reparam --output reparam.json

Three latents have the energies ``h sin(10 z)``, ``h`` = 0.5, 1 and 2, on a Gaussian reference, and
are each observed once with unit noise. Efficiency is the smallest bulk effective sample size of the
three over the gradients of the sampling phase. It is compared seed by seed; the error is that of
the mean over seeds of the log ratio.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS

from benchmarks.langevin import CountedModel, least_ess
from benchmarks.timing import arguments, report
from pyro_tkam.distributions import ExponentiallyTilted
from pyro_tkam.infer import InverseTransformReparam

HEIGHTS, OBSERVED = torch.tensor([0.5, 1.0, 2.0]), torch.tensor([0.5, -1.0, 1.5])
WARMUP, MAX_TREE_DEPTH = 100, 5


def rough_model() -> Callable[[], None]:
    """Return the model, with its table made once."""
    prior = ExponentiallyTilted(lambda z: HEIGHTS * torch.sin(10 * z), "gaussian")

    def model() -> None:
        z = pyro.sample("z", prior.to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=OBSERVED)

    return model


def efficiency(model: Callable[[], None], seed: int, draws: int) -> float:
    """
    Return the effective draws a gradient after warm-up.

    Bulk effective sample sizes use ranks, so they are those of ``z`` and of its noise alike.
    """
    pyro.set_rng_seed(seed)
    counted, before = CountedModel(model), []

    def mark(kernel: Any, params: Any, stage: str, i: int) -> None:
        if stage.startswith("Sample") and i == 0:
            before.append(counted.gradients)

    mcmc = MCMC(
        NUTS(counted, max_tree_depth=MAX_TREE_DEPTH),
        draws,
        WARMUP,
        hook_fn=mark,
        disable_progbar=True,
    )
    with pyro.validation_enabled(False):
        mcmc.run()
    return least_ess(mcmc.get_samples(group_by_chain=True)) / (counted.gradients - before[0])


def compare(seeds: range, draws: int) -> dict[str, Any]:
    """Return both efficiencies of each seed, and the mean log ratio with its standard error."""
    model = rough_model()
    sites = {
        "raw": model,
        "reparameterized": poutine.reparam(model, {"z": InverseTransformReparam()}),
    }
    found = {
        name: [efficiency(each, seed, draws) for seed in seeds] for name, each in sites.items()
    }
    pairs = zip(found["reparameterized"], found["raw"], strict=True)
    ratios = torch.tensor([math.log(ours / raw) for ours, raw in pairs])
    return {
        "ess_per_gradient": found,
        "log_ratio": float(ratios.mean()),
        "log_ratio_standard_error": float(ratios.std() / len(ratios) ** 0.5),
        "log_ratio_spread": float(ratios.std()),
    }


def main() -> None:
    """Compare and report."""
    options = arguments(__doc__)
    seeds, draws = (range(100, 103), 100) if options.short else (range(100, 106), 300)
    settings = {
        "seeds": len(seeds),
        "draws": draws,
        "warmup": WARMUP,
        "max_tree_depth": MAX_TREE_DEPTH,
    }
    report({"settings": settings, **compare(seeds, draws)}, options.output)


if __name__ == "__main__":
    main()
