"""Steppingstone sampling, from below and from above."""

from typing import NamedTuple

import torch
from torch import Tensor

from pyro_tkam.ops.estimators.estimate import (
    Estimate,
    check_ladder,
    log_mean_exp,
    relative,
    with_standard_error,
)

__all__ = ["Sandwich", "reverse_steppingstone", "sandwich", "steppingstone"]


class Sandwich(NamedTuple):
    """Two estimates that enclose the log evidence in expectation, and their difference."""

    lower: Estimate
    upper: Estimate
    gap: Estimate


def steppingstone(log_lik: Tensor, betas: Tensor) -> Estimate:
    """
    Log evidence as a product of ratios, each estimated on its lower rung; biased low.

    ``Σ_k log mean_i exp(Δt_k L(z_i^(k)))`` (Xie et al. 2011; Raj 2025, arXiv:2506.14167, Eq. 35).

    :param log_lik: log likelihoods of shape ``(temperature, chain, draw, *batch)``, in nats;
        ``-inf`` only at ``betas = 0``.
    :param betas: inverse temperatures, strictly rising from 0 to 1, of shape ``(temperature,)`` or
        ``(temperature, *batch)``.
    :return: value and standard error of shape ``batch``, in nats.
    :raises TypeError, ValueError: if these are not a tempered run.

    >>> log_lik = torch.full((3, 4, 100), -2.0)
    >>> steppingstone(log_lik, torch.tensor([0.0, 0.5, 1.0])).value
    tensor(-2.)
    """
    return with_standard_error(*_forward(log_lik, check_ladder(log_lik, betas)))


def reverse_steppingstone(log_lik: Tensor, betas: Tensor) -> Estimate:
    """
    Log evidence as a product of ratios, each estimated on its upper rung; biased high.

    ``- Σ_k log mean_i exp(-Δt_k L(z_i^(k+1))) + log mean_i 1[L(z_i^(0)) > -∞]``. The last term is 0
    unless the likelihood is zero on a part of the prior. In that case, draws at ``t_1`` never see
    that part: the first mean estimates ``E_1[exp(-t_1 L)] = ∫_{L > -∞} p(z) dz / Z_1 = P(L > -∞) /
    Z_1``, and draws at ``t = 0`` estimate ``P``.

    Arguments, result and errors are those of :func:`steppingstone`.

    >>> log_lik = torch.full((3, 4, 100), -2.0)
    >>> reverse_steppingstone(log_lik, torch.tensor([0.0, 0.5, 1.0])).value
    tensor(-2.)
    """
    return with_standard_error(*_reverse(log_lik, check_ladder(log_lik, betas)))


def sandwich(log_lik: Tensor, betas: Tensor) -> Sandwich:
    """
    Both steppingstone estimates; a gap far above its error means that there are too few rungs or
    draws.

    Arguments and errors are those of :func:`steppingstone`.

    >>> _ = torch.manual_seed(0)
    >>> both = sandwich(torch.randn(3, 4, 100), torch.tensor([0.0, 0.5, 1.0]))
    >>> torch.equal(both.gap.value, both.upper.value - both.lower.value)
    True
    """
    shaped = check_ladder(log_lik, betas)
    lower, lower_influence = _forward(log_lik, shaped)
    upper, upper_influence = _reverse(log_lik, shaped)
    return Sandwich(
        with_standard_error(lower, lower_influence),
        with_standard_error(upper, upper_influence),
        with_standard_error(upper - lower, torch.cat([upper_influence, -lower_influence])),
    )


def _forward(log_lik: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
    log_weights = betas.diff(dim=0) * log_lik[:-1]
    log_means = log_mean_exp(log_weights, (1, 2))
    return log_means.sum(0), relative(log_weights, log_means[:, None, None])


def _reverse(log_lik: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
    log_weights = -betas.diff(dim=0) * log_lik[1:]
    log_means = log_mean_exp(log_weights, (1, 2))
    possible = (log_lik[:1] > -torch.inf).to(log_lik)
    share = possible.mean((1, 2), keepdim=True)
    influence = torch.cat([possible / share - 1, -relative(log_weights, log_means[:, None, None])])
    return share.log().sum((0, 1, 2)) - log_means.sum(0), influence
