"""
Law of a Markov kernel: started from exact draws of its target, it returns exact draws of its
target.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor

from pyro_tkam.ops.langevin import Point

Step = Callable[[Point, "Example"], Point]

FALSE_ALARM = 1e-3
"""
Probability that the law fails for a kernel that leaves its target invariant, over all statistics of
one call.
"""


@dataclass(frozen=True)
class Example:
    """A target with exact draws."""

    name: str
    dim: int
    function: Callable[[Tensor], Tensor]
    draw: Callable[[int], Tensor]

    def __call__(self, position: Tensor, rows: Tensor | None = None) -> Point:
        """Evaluate it, as a target of the steps."""
        with torch.enable_grad():
            position = position.detach().requires_grad_()
            value = self.function(position)
            (gradient,) = torch.autograd.grad(value.sum(), position)
        return Point(position.detach(), value.detach(), gradient)

    def log_density(self, position: Tensor, rows: Tensor | None = None) -> Tensor:
        """Evaluate it without its gradient."""
        return self.function(position)


@dataclass(frozen=True)
class Rows:
    """A target made of a function of positions and rows to points."""

    function: Callable[[Tensor, Tensor | None], Point]

    def __call__(self, position: Tensor, rows: Tensor | None = None) -> Point:
        """Evaluate it."""
        return self.function(position, rows)

    def log_density(self, position: Tensor, rows: Tensor | None = None) -> Tensor:
        """Evaluate it without its gradient."""
        return self.function(position, rows).log_density


def gaussian(dim: int) -> Example:
    """Independent normals whose scales range over a factor 10."""
    scale = torch.logspace(-0.5, 0.5, dim)
    return Example(
        f"gaussian {dim}",
        dim,
        lambda z: -0.5 * (z / scale).square().sum(-1),
        lambda n: torch.randn(n, dim) * scale,
    )


def logistic(dim: int) -> Example:
    """Independent logistic variables: tails heavier than a normal's."""

    def log_density(z: Tensor) -> Tensor:
        return (-z - 2 * torch.nn.functional.softplus(-z)).sum(-1)

    return Example(
        f"logistic {dim}",
        dim,
        log_density,
        lambda n: torch.rand(n, dim).clamp(1e-7, 1 - 1e-7).logit(),
    )


def funnel() -> Example:
    """Neal's funnel in two dimensions: no fixed step suits it."""

    def log_density(z: Tensor) -> Tensor:
        log_scale = z[..., 0] / 2
        return (
            -0.5 * (z[..., 0] / 2).square()
            - 0.5 * (z[..., 1] / log_scale.exp()).square()
            - log_scale
        )

    def draw(n: int) -> Tensor:
        log_variance = 2 * torch.randn(n)
        return torch.stack([log_variance, (log_variance / 2).exp() * torch.randn(n)], -1)

    return Example("funnel", 2, log_density, draw)


def two_modes() -> Example:
    """An equal mixture of N(-1.5, 0.5^2) and N(1.5, 1)."""
    means, scales = torch.tensor([-1.5, 1.5]), torch.tensor([0.5, 1.0])

    def log_density(z: Tensor) -> Tensor:
        return torch.logsumexp(-0.5 * ((z - means) / scales).square() - scales.log(), -1)

    def draw(n: int) -> Tensor:
        mode = torch.randint(2, (n,))
        return (means[mode] + scales[mode] * torch.randn(n)).unsqueeze(-1)

    return Example("two modes", 1, log_density, draw)


EXAMPLES = [gaussian(1), gaussian(10), gaussian(50), logistic(3), funnel(), two_modes()]


def smallest_p(step: Step, example: Example, draws: int = 10_000, steps: int = 3) -> float:
    """Return the smallest p value of two-sample KS tests, times their number (Bonferroni).

    The statistics are the first and the last coordinate, the squared length and the log density.
    """
    start = example.draw(draws)
    point = example(start)
    for _ in range(steps):
        point = step(point, example)
    fresh = example.draw(5 * draws)
    assert point.position.shape == start.shape
    assert torch.isfinite(point.position).all()
    pairs = zip(_statistics(point.position, example), _statistics(fresh, example), strict=True)
    p_values = [stats.ks_2samp(a.numpy(), b.numpy()).pvalue for a, b in pairs]
    return min(p_values) * len(p_values)


def leaves_invariant(step: Step, example: Example, **options: int) -> bool:
    """Tell whether a kernel passes the law; a right one fails with probability ``FALSE_ALARM``."""
    return smallest_p(step, example, **options) > FALSE_ALARM


def _statistics(position: Tensor, example: Example) -> list[Tensor]:
    with torch.no_grad():
        return [
            position[:, 0],
            position[:, -1],
            position.square().sum(-1),
            example.log_density(position),
        ]
