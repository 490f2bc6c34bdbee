"""How far a set of weighted rows may be tempered in one step."""

from __future__ import annotations

import math

import torch
from torch import Tensor

BISECTIONS = 35
SMALLEST_STEP = 1e-40


def log_weight_increments(rest: Tensor, step: Tensor) -> Tensor:
    """Return ``Δt · rest`` in double precision, 0 where ``Δt`` is 0 and -inf where rest is not
    finite.

    :param rest: log of what the temperature multiplies, ``(rows, *local)``.
    :param step: ``Δt >= 0``, ``(*local)``.

    >>> log_weight_increments(torch.tensor([1.0, float("-inf")]), torch.tensor(0.5))
    tensor([0.5000,   -inf], dtype=torch.float64)
    """
    wide = rest.double()
    weights = torch.where(wide.isfinite(), wide * step, -torch.inf)
    return torch.where(step > 0, weights, 0.0)


def next_temperature(rest: Tensor, t: Tensor, share: float) -> Tensor:
    """Return the ``t' <= 1`` at which the weights ``e^{(t' - t) rest}`` are worth a share of rows.

    Effective sample size ``(Σ w)² / Σ w²``, relative to the rows with finite ``rest``, by bisection
    of ``log (t' - t)`` (Jasra et al. 2011); 1 where it stays above the share until there.

    :param rest: ``(rows, *local)``.
    :param t: in [0, 1], ``(*local)``, in double precision.
    :param share: in (0, 1).

    >>> next_temperature(torch.tensor([0.0, -1e6]), torch.zeros((), dtype=torch.double), 0.7) < 1e-5
    tensor(True)
    """
    wide = rest.double()
    finite = wide.isfinite()
    below = torch.where(finite, wide, -torch.inf)
    below = torch.where(finite, wide - below.amax(0), -torch.inf)
    wanted = share * finite.sum(0)
    left = 1 - t

    def enough(step: Tensor) -> Tensor:
        weights = (below * step).exp()  # the largest is 1
        return (wanted > 0) & (weights.sum(0).square() >= wanted * weights.square().sum(0))

    low = torch.full_like(t, math.log(SMALLEST_STEP))
    high = left.clamp_min(SMALLEST_STEP).log()
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        fits = enough(middle.exp())
        low = torch.where(fits, middle, low)
        high = torch.where(fits, high, middle)
    return torch.where((left <= 0) | enough(left), torch.ones_like(t), t + low.exp())
