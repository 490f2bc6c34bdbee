"""
Bennett's acceptance ratio: the optimal bridge between two distributions, and along a ladder.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from pyro_tkam.ops.estimators.estimate import (
    Estimate,
    check_ladder,
    log_mean_exp,
    relative,
    with_standard_error,
)

__all__ = ["bar", "log_ratio"]

_MAX_ITERATIONS = 100


class LogRatio(NamedTuple):
    """
    A log ratio of normalizers, and the influence of each draw on it, in the shape of the draws.
    """

    value: Tensor
    influence_of_lower: Tensor
    influence_of_upper: Tensor


def bar(log_lik: Tensor, betas: Tensor) -> Estimate:
    """Log evidence as a product of ratios, each estimated self-consistently from both of its rungs.

    ``c_k`` solves ``Σ_i σ(Δt_k L(z_i^(k)) - c_k) = Σ_i σ(c_k - Δt_k L(z_i^(k+1)))`` with ``σ`` the
    logistic function, and the log evidence is ``Σ_k c_k`` (Bennett 1976, Eq. 12).

    :param log_lik: log likelihoods of shape ``(temperature, chain, draw, *batch)``, in nats;
        ``-inf`` only at ``betas = 0``.
    :param betas: inverse temperatures, strictly rising from 0 to 1, of shape ``(temperature,)`` or
        ``(temperature, *batch)``.
    :return: value and standard error of shape ``batch``, in nats.
    :raises TypeError, ValueError: if these are not a tempered run.

    >>> log_lik = torch.full((3, 4, 100), -2.0)
    >>> bar(log_lik, torch.tensor([0.0, 0.5, 1.0])).value
    tensor(-2.)
    """
    steps = check_ladder(log_lik, betas).diff(dim=0)
    ratio = log_ratio(_draws_first(steps * log_lik[:-1]), _draws_first(steps * log_lik[1:]))
    influence = torch.cat([ratio.influence_of_lower, ratio.influence_of_upper], 1)
    influence = influence.movedim(0, 1).unflatten(1, log_lik.shape[1:3])
    return with_standard_error(ratio.value.sum(0), influence)


def log_ratio(
    log_lower: Tensor, log_upper: Tensor, log_size_ratio: Tensor | None = None
) -> LogRatio:
    """
    Logarithm of ``r = ∫ q_upper / ∫ q_lower`` from draws of both, by the optimal bridge function.

    With ``l = log q_upper - log q_lower`` and ``s`` the share of (effective) draws that each side
    has, ``mean_lower[e^l / (s_upper e^l + s_lower r)] = r mean_upper[1 / (s_upper e^l + s_lower
    r)]`` (Meng and Wong 1996, Eq. 4.1). In ``c = log r - log(s_upper / s_lower)`` its logarithm is
    monotone, and is solved by Newton's method inside a bracket.

    :param log_lower: ``l`` at draws of the lower distribution, of shape ``(num_lower, *batch)``;
        some may be ``-inf``.
    :param log_upper: ``l`` at draws of the upper distribution, of shape ``(num_upper, *batch)``.
    :param log_size_ratio: ``log(s_upper / s_lower)`` of shape ``batch``; by default 0.
    :return: the log ratio of shape ``batch``, and influences.
    """
    offset = torch.zeros_like(log_upper[0]) if log_size_ratio is None else log_size_ratio
    low, high = _bracket(log_lower, log_upper, offset)
    center = ((log_lower.clamp(min=low).mean(0) + log_upper.mean(0)) / 2).clamp(low, high)
    tolerance = torch.finfo(center.dtype).eps ** (2 / 3)  # Newton's next step would be its square
    for _ in range(_MAX_ITERATIONS):
        excess, slope = _imbalance(log_lower, log_upper, offset, center)
        low = torch.where(excess > 0, center, low)
        high = torch.where(excess > 0, high, center)
        newton = center + excess / slope
        inside = (newton >= low) & (newton <= high)
        previous = center
        center = torch.where(inside, newton, (low + high) / 2)
        if ((center - previous).abs() <= tolerance * (1 + center.abs())).all():
            break
    log_sigmoids = logsigmoid(log_lower - center), logsigmoid(center - log_upper)
    lower, upper = (relative(values, log_mean_exp(values, (0,))) for values in log_sigmoids)
    return LogRatio(center + offset, lower, -upper)


def _bracket(log_lower: Tensor, log_upper: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """
    Values between which the root lies, also where all draws of the lower side but one are
    impossible.
    """
    margin = offset.abs() + math.log(len(log_lower))
    finite = torch.where(log_lower.isfinite(), log_lower, log_upper.amin(0))
    low = torch.minimum(finite.amin(0), log_upper.amin(0)) - margin
    high = torch.maximum(log_lower.amax(0), log_upper.amax(0)) + margin
    return low, high


def _imbalance(
    log_lower: Tensor, log_upper: Tensor, offset: Tensor, center: Tensor
) -> tuple[Tensor, Tensor]:
    """Log ratio of the equation's two sides, which falls with ``center``, and minus its slope."""
    from_lower = logsigmoid(log_lower - center)
    from_upper = logsigmoid(center - log_upper)
    excess = log_mean_exp(from_lower, (0,)) - log_mean_exp(from_upper, (0,)) - offset
    slope_lower = (from_lower.softmax(0) * (center - log_lower).sigmoid()).sum(0)
    slope_upper = (from_upper.softmax(0) * (log_upper - center).sigmoid()).sum(0)
    return excess, slope_lower + slope_upper


def _draws_first(values: Tensor) -> Tensor:
    """From ``(temperature, chain, draw, *batch)`` to ``(chain * draw, temperature, *batch)``."""
    return values.flatten(1, 2).movedim(1, 0)
