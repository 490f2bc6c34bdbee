"""
Densities from draws: the autoregressive tilted prior beside flows of zuko (``pip install zuko``).

    python -m benchmarks.densities --threads 1

Four densities in the plane with known formulas. Each contender is fitted to 20,000 draws by the
same loop (``AutoregressivePrior.fit``: steps of Adam, early stopping on a tenth of the draws). The
gap is the mean of ``log p - log q`` over 100,000 other draws, in nats. The
independent prior can only miss the mutual information. ``--validate`` compares two step sizes of
each contender on other draws; a run with ``--resume`` takes the better ones. Each row is written
when it is done, and ``--resume`` goes on after those that the output already has.
"""

import importlib
import itertools
import math
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.distributions import (
    AffineTransform,
    Categorical,
    Distribution,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    TransformedDistribution,
)

from benchmarks.timing import arguments, earlier, report
from pyro_tkam.nn import AutoregressivePrior
from pyro_tkam.nn.density_fit import fit_density

TRAINING, TEST, SEEDS = 20_000, 100_000, range(3)
VALIDATION_SEED = 100
HIDDEN = (64, 64)
RADIUS, WIDTH = 2.0, 0.25  # of the ring
RATES = (5e-3, 2e-3)


def banana(num: int) -> tuple[Tensor, Tensor]:
    """Draw a Gaussian and another one around its square; return draws and log densities."""
    first = Normal(torch.zeros(()), 1.0)
    z = first.sample((num,))
    second = Normal(z.square() - 1, 0.5)
    other = second.sample()
    return torch.stack([z, other], -1), first.log_prob(z) + second.log_prob(other)


def ring(num: int) -> tuple[Tensor, Tensor]:
    """Draw a Gaussian radius, which is never negative here, and an angle."""
    radii = Normal(torch.tensor(RADIUS), WIDTH)
    radius = radii.sample((num,))
    angle = 2 * math.pi * torch.rand(num)
    z = radius[:, None] * torch.stack([angle.cos(), angle.sin()], -1)
    return z, radii.log_prob(radius) - radius.log() - math.log(2 * math.pi)


def drawn(density: Distribution, num: int) -> tuple[Tensor, Tensor]:
    """Draw a density."""
    z = density.sample((num,))
    return z, density.log_prob(z)


def correlated() -> Distribution:
    """Return a Gaussian of correlation 0.9."""
    covariance = torch.tensor([[1.0, 0.9], [0.9, 1.0]])
    return MultivariateNormal(covariance.new_zeros(2), covariance)


def grid() -> Distribution:
    """Return nine narrow Gaussians at the places of a 3 × 3 grid."""
    places = torch.cartesian_prod(*[torch.tensor([-2.0, 0.0, 2.0])] * 2)
    return MixtureSameFamily(Categorical(torch.ones(9)), Independent(Normal(places, 0.3), 1))


PROBLEMS: dict[str, Callable[[int], tuple[Tensor, Tensor]]] = {
    "banana": banana,
    "ring": ring,
    "correlated": lambda num: drawn(correlated(), num),
    "grid": lambda num: drawn(grid(), num),
}


class Flow(PyroModule):
    """A flow in the units of its draws, as :func:`fit_density` takes it."""

    loc: Tensor
    scale: Tensor

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__()
        zuko = importlib.import_module("zuko")
        self.flow = getattr(zuko.flows, name)(2, hidden_features=HIDDEN, **options)
        self.register_buffer("loc", torch.zeros(2))
        self.register_buffer("scale", torch.ones(2))

    def forward(self) -> Distribution:
        """Return the current density."""
        units = AffineTransform(self.loc, self.scale, event_dim=1)
        return TransformedDistribution(self.flow(), [units])

    def start_from(self, samples: Tensor, shares: Tensor) -> None:
        """Start from the flow's own initialization."""


CONTENDERS: dict[str, Callable[[], nn.Module]] = {
    "independent": lambda: AutoregressivePrior(2, 1),
    "autoregressive": lambda: AutoregressivePrior(2, hidden=HIDDEN),
    "autoregressive, moved": lambda: AutoregressivePrior(2, hidden=HIDDEN, moves=True),
    "flow, splines": partial(Flow, "NSF", transforms=3, bins=8),
    "flow, MAF": partial(Flow, "MAF", transforms=3),
}


def best_rate(rows: list[dict[str, Any]], name: str) -> float:
    """Return the step size with the least mean gap in a validation, the first without one."""

    def mean_gap(rate: float) -> float:
        gaps = [row["gap"] for row in rows if (row["name"], row["rate"]) == (name, rate)]
        return sum(gaps) / len(gaps) if len(gaps) == len(PROBLEMS) else math.inf

    return min(RATES, key=mean_gap)


def measure(problem: str, name: str, seed: int, rate: float, steps: int) -> dict[str, Any]:
    """Fit one contender to draws, and score it on others."""
    torch.manual_seed(seed)
    training, _ = PROBLEMS[problem](TRAINING)
    z, truth = PROBLEMS[problem](TEST)
    model = CONTENDERS[name]()
    start = time.process_time()
    found = fit_density(model, training, steps=steps, learning_rate=rate)
    seconds = time.process_time() - start
    with torch.no_grad():
        density = model()
        gap = truth - torch.cat([density.log_prob(part) for part in z.split(10_000)])
    return {
        "problem": problem,
        "name": name,
        "seed": seed,
        "rate": rate,
        "gap": float(gap.mean()),
        "standard_error": float(gap.std()) / math.sqrt(len(gap)),
        "steps": found.steps,
        "cpu_seconds": seconds,
    }


def main() -> None:
    """Fit every contender to every density, or compare step sizes."""
    options = arguments(__doc__, ("--resume", "--validate"))
    seeds, steps = (range(1), 200) if options.short else (SEEDS, 1000)
    results = earlier(options.output) if options.resume else {}
    results["peers"] = {"zuko": version("zuko")}
    validation = results.setdefault("validation", [])
    runs = validation if options.validate else results.setdefault("runs", [])
    wanted = (
        list(itertools.product(PROBLEMS, CONTENDERS, (VALIDATION_SEED,), RATES))
        if options.validate
        else [
            (problem, name, seed, best_rate(validation, name))
            for seed, problem, name in itertools.product(seeds, PROBLEMS, CONTENDERS)
        ]
    )
    done = {(run["problem"], run["name"], run["seed"], run["rate"]) for run in runs}
    for each in wanted:
        if each not in done:
            runs.append(measure(*each, steps))
            report(results, options.output)


if __name__ == "__main__":
    main()
