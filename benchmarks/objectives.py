"""Seconds of a gradient step of the chain objectives, and of one generation.

    python -m benchmarks.objectives [--short] [--output results.json]

The model has P = 40, Q = 81, RBF energies and generator of grid 20, 100 images of 784 pixels; a
chain makes 20 steps. ``temperatures`` counts those above 0. The deep prior's negatives come from 10
to 50 unadjusted Langevin steps, and so do the prior draws at which the posterior's chains start.
Published: Raj 2025 (arXiv:2506.14167, Sec. A.2), on a GTX 1650 with 20 CPU threads.
"""

from collections.abc import Callable

import pyro
import torch
from torch import nn

from benchmarks.timing import arguments, best_of, report
from pyro_tkam.distributions import ShortRunULA
from pyro_tkam.infer import ULA, LangevinMLE, SteppingstoneMLE
from pyro_tkam.models import TKAM

STEPPINGSTONE = {1: 2.2963, 2: 5.7571, 4: 12.9115, 6: 20.9344, 8: 28.6238, 10: 36.2903}
PRIOR_STEPS = {10: 0.9449, 20: 0.9515, 30: 0.9443, 40: 1.1356, 50: 1.0356}
GENERATION = 0.0239
BATCH, NUM_STEPS, STEP_SIZE = 100, 20, 0.01


def step_of(model: TKAM, objective: Callable[..., nn.Module]) -> Callable[[], None]:
    """Return a call that takes one gradient of the loss."""
    loss = objective(model, None)
    x = torch.rand(BATCH, 784)

    def step() -> None:
        loss.zero_grad(set_to_none=True)
        loss(x).backward()

    return step


def tempered(temperatures: int, coupling: str, repeats: int) -> float:
    """Return the seconds of a steppingstone step."""
    objective = SteppingstoneMLE(
        ULA, step_size=STEP_SIZE, num_temperatures=temperatures + 1, num_steps=NUM_STEPS
    )
    return best_of(step_of(TKAM.kart(784, 40, coupling=coupling), objective), repeats)


def deep(prior_steps: int, repeats: int) -> float:
    """Return the seconds of a step with a deep prior."""
    model = TKAM.deep(784, 81, sampler=ShortRunULA(num_steps=prior_steps))
    return best_of(
        step_of(model, LangevinMLE(ULA, step_size=STEP_SIZE, num_steps=NUM_STEPS)), repeats
    )


def main() -> None:
    """Time everything."""
    options = arguments(__doc__)
    repeats = 1 if options.short else 3
    pyro.set_rng_seed(0)
    generator = TKAM.kart(784, 40)
    couplings = ("shared",) if options.short else ("shared", "independent")
    temperatures = [1, 2, 4] if options.short else list(STEPPINGSTONE)
    prior_steps = [10, 50] if options.short else list(PRIOR_STEPS)
    report(
        {
            "steppingstone": [
                {"temperatures": number, "published_seconds": STEPPINGSTONE[number]}
                | {coupling: tempered(number, coupling, repeats) for coupling in couplings}
                for number in temperatures
            ],
            "prior_langevin_steps": [
                {
                    "steps": steps,
                    "seconds": deep(steps, repeats),
                    "published_seconds": PRIOR_STEPS[steps],
                }
                for steps in prior_steps
            ],
            "generation": {
                "seconds": best_of(lambda: generator.generate(BATCH), 5 * repeats),
                "published_seconds": GENERATION,
            },
        },
        options.output,
    )


if __name__ == "__main__":
    main()
