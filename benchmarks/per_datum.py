"""Evidence of held-out digits under a trained model, and how the methods agree on 20 of them.

    python -m benchmarks.per_datum --threads 1

A mixture prior of 8 latents with a KAN generator and Gaussian noise of 0.5, trained on 4,000 digits
with an amortized guide. All 1,000 digits are one call of ``per_datum_evidence``. Steppingstone, BAR
and bridge are of one tempered run for each of the 20; annealed importance sampling and importance
sampling from the guide are runs of their own.
"""

import time
from typing import Any

import pyro
import torch
from torch import Tensor

from benchmarks.quality import BATCH, GRID, RATE, batches, descend
from benchmarks.timing import arguments, report
from pyro_tkam.datasets import mnist5k, split
from pyro_tkam.infer import AutoMALA, Evidence, ImportanceSampling, ParallelTempering, log_evidence
from pyro_tkam.models import TKAM, AmortizedGuide
from pyro_tkam.train.evidence import per_datum_evidence

NOISE, COMPONENTS, WIDTH, COMPARED = 0.5, 20, 162, 20
UNCHECKED = ("checked", "agreeing", "mean_difference")
TEMPERING: dict[str, Any] = {
    "num_temperatures": 16,
    "num_samples": 400,
    "warmup_steps": 300,
    "num_chains": 4,
}


def trained(x: Tensor, latents: int, updates: int) -> tuple[TKAM, AmortizedGuide]:
    """Return a model and its guide, trained on mini-batches."""
    model = TKAM.mixture(
        784, latents, COMPONENTS, widths=[WIDTH], grid_size=GRID, noise_scale=NOISE
    )
    guide = AmortizedGuide(model)
    objective = pyro.infer.Trace_ELBO(max_plate_nesting=1)(model, guide)
    update = descend(objective, (objective.parameters(), RATE))
    for rows in batches(len(x), updates):
        update(x[rows])
    return model.requires_grad_(False), guide.requires_grad_(False)


def by_other_methods(
    model: TKAM, guide: AmortizedGuide, x: Tensor, short: bool
) -> dict[str, Evidence]:
    """Estimate the evidence of each datum by each method that is not the one judged."""
    options = TEMPERING | ({"num_samples": 100, "warmup_steps": 100} if short else {})
    run = ParallelTempering(AutoMALA(model), **options, disable_progbar=True).run(x)
    found = {name: run.log_evidence(name) for name in ("steppingstone", "bar", "bridge")}
    found["ais"] = log_evidence(model, x, method="ais", num_particles=100, steps_between=20)
    found["guide"] = ImportanceSampling(model, guide, num_particles=4000).run(x).evidence
    return found


def compared(value: Tensor, error: Tensor, other: Evidence) -> dict[str, float]:
    """Compare per-datum estimates with those of another method."""
    assert other.per_datum is not None
    assert other.per_datum_standard_error is not None
    difference = other.per_datum - value
    scaled = difference / (error.square() + other.per_datum_standard_error.square()).sqrt()
    return {
        "mean_difference": float(difference.mean()),
        "root_mean_square_difference": float(difference.square().mean().sqrt()),
        "mean_standard_error": float(other.per_datum_standard_error.mean()),
        "within_3_standard_errors": float((scaled.abs() < 3).double().mean()),
    }


def one_model(x: Tensor, held_out: Tensor, latents: int, *, short: bool) -> dict[str, Any]:
    """Train a model of so many latents, and estimate."""
    pyro.set_rng_seed(0)
    pyro.clear_param_store()
    model, guide = trained(x, latents, 200 if short else 2000)
    start = time.process_time()
    result = per_datum_evidence(model, held_out, checked=0, most_tempered=0)
    seconds = time.process_time() - start
    some = result.data.trusted.nonzero().squeeze(-1)[: 2 if short else COMPARED]
    data = result.data.take(some)
    with model.holding_prior():
        others = by_other_methods(model, guide, held_out[some], short)
    return {
        "latents": latents,
        **{key: value for key, value in result.summary().items() if key not in UNCHECKED},
        "khat_quantiles": result.data.khat.quantile(torch.tensor([0.05, 0.5, 0.95])).tolist(),
        "cpu_seconds": seconds,
        "compared": len(some),
        "against": {
            name: compared(data.value, data.standard_error, each) for name, each in others.items()
        },
    }


def main() -> None:
    """Train, estimate, compare and print."""
    options = arguments(__doc__)
    images = mnist5k().images.flatten(1)
    rows, held_out = split(len(images), 1000, seed=0)
    num = 20 if options.short else 1000
    model = one_model(images[rows], images[held_out[:num]], 8, short=options.short)
    report({"batch": BATCH, "models": [model]}, options.output)


if __name__ == "__main__":
    main()
