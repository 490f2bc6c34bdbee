"""
The map ``ε -> F^{-1}(Φ(ε))`` from standard normal noise to counts without a bound, and a point of
the interval that it maps to a count.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_tkam.distributions.normal_tails import (
    log_normal_cdf,
    normal_cdf,
    normal_score_of_tails,
)

HALVINGS = 24
"""Of intervals of counts; the bounds of a Poisson of rate 1e10 are 2e6 apart where ``|ε| < 8``."""


def poisson_quantile(fn: Any, normal: Tensor) -> Tensor:
    """
    Return the smallest count with ``F(k) >= Φ(ε)``, by halving an interval that holds it.

    The interval is Bernstein's: a count is above ``λ + L/3 + sqrt(L²/9 + 2 L λ)`` with probability
    below ``exp(-L)``, and below ``λ - sqrt(2 L λ)`` likewise.

    :param fn: a Poisson distribution of rate ``λ``.
    :param normal: ``ε``, which broadcasts with the rate.
    """
    with torch.no_grad():
        wide, rate = torch.broadcast_tensors(normal.double(), fn.rate.double())
        below, above = normal_cdf(wide), normal_cdf(-wide)
        log_above, log_below = -log_normal_cdf(-wide), -log_normal_cdf(wide)
        root = (log_above.square() / 9 + 2 * log_above * rate).sqrt()
        low = (rate - (2 * log_below * rate).sqrt()).floor().clamp_min(0) - 1
        high = (rate + log_above / 3 + root).ceil()
        for _ in range(HALVINGS):
            middle = ((low + high) / 2).floor()
            reached = torch.where(
                wide > 0,
                torch.special.gammainc(middle + 1, rate) <= above,
                torch.special.gammaincc(middle + 1, rate) >= below,
            )
            inside = middle > low
            high = torch.where(inside & reached, middle, high)
            low = torch.where(inside & ~reached, middle, low)
        return high.to(normal.dtype)


def geometric_quantile(fn: Any, normal: Tensor) -> Tensor:
    """
    Return the smallest count with ``1 - (1 - p)^(k + 1) >= Φ(ε)``.

    :param fn: a geometric distribution of probability ``p``.
    :param normal: ``ε``, which broadcasts with the probability.
    """
    with torch.no_grad():
        ends = log_normal_cdf(-normal.double()) / torch.log1p(-fn.probs.double())
        return (ends.ceil() - 1).clamp_min(0).to(normal.dtype)


def poisson_score(fn: Any, value: Tensor) -> Tensor:
    """Return ``Φ^{-1}`` of the middle of ``F(k - 1)`` and ``F(k)``.

    :param fn: a Poisson distribution.
    :param value: counts ``k``.
    """
    count, rate = torch.broadcast_tensors(value.double(), fn.rate.double())
    below = torch.special.gammaincc(count, rate) + torch.special.gammaincc(count + 1, rate)
    above = torch.special.gammainc(count, rate) + torch.special.gammainc(count + 1, rate)
    return normal_score_of_tails(below / 2, above / 2).to(value.dtype)


def geometric_score(fn: Any, value: Tensor) -> Tensor:
    """Return ``Φ^{-1}`` of the middle of ``F(k - 1)`` and ``F(k)``.

    :param fn: a geometric distribution.
    :param value: counts ``k``.
    """
    probs = fn.probs.double()
    above = (1 - probs / 2) * (torch.log1p(-probs) * value.double()).exp()
    return normal_score_of_tails(1 - above, above).to(value.dtype)
