"""Mixtures improved with importance draws: population Monte Carlo."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from pyro_tkam.ops.estimators.mixture import (
    MIN_DRAWS_PER_COMPONENT,
    STUDENT_DF,
    Mixture,
    component_log_joint,
    maximize,
)
from pyro_tkam.ops.estimators.pareto import pareto_smooth

__all__ = ["defended", "refine", "with_component"]

_FLOOR = 0.05  # of the draws, shared by all components, so that none is ever without draws
_HEAVY_KHAT = 0.3
_SHRINKAGE = 0.1  # of the correlations of a new component, of which few draws are known


def refine(
    mixture: Mixture, log_density: Callable[[Tensor], Tensor], num_draws: int, num_rounds: int
) -> Mixture:
    """
    Move a mixture toward a density with weighted draws (Cappé et al. 2008, arXiv:0710.4242, Eq.
    13-15).

    In each round, draws ``x_i`` of the mixture with self-normalized, Pareto-smoothed weights
    ``w_i`` and component responsibilities ``ρ_ij`` give ``α_j = Σ_i w_i ρ_ij`` and the weighted
    means and covariances. Unlike Markov chains, they know the share of the mass in each mode.
    Components with too few effective draws stay unchanged. If the weights have a heavy tail, a
    component is added around the heaviest draw (Raftery and Bao 2010).

    :param mixture: of ``batch`` densities.
    :param log_density: maps points ``(num, batch, dim)`` to the unnormalized log density
        ``(num, batch)``, in nats.
    :param num_draws: draws per round, at least 25 and ``5 (dim + 1)``.
    :param num_rounds: number of rounds.
    :return: the mixture of the last round.
    :raises ValueError: if all weights of a batch element are zero.

    >>> _ = torch.manual_seed(0)
    >>> one, zero = torch.ones(1, 1, 1), torch.zeros(1, 1)
    >>> wide = Mixture(zero, 2 * one, 3 * one[None], torch.tensor([5.0]))
    >>> fitted = refine(wide, lambda x: -x.square().sum(-1) / 2, 2000, 3)
    >>> abs(fitted.loc.item()) < 0.1
    True
    """
    for index in range(num_rounds):
        points = mixture.sample(num_draws)
        log_weights, khat = pareto_smooth((log_density(points) - mixture.log_prob(points)).mT)
        moved = _moved(mixture, points.movedim(0, 1), log_weights.softmax(-1))
        heavy = (khat > _HEAVY_KHAT) & (index < num_rounds - 1)
        mixture = (
            with_component(moved, _heaviest(points, log_weights.mT), heavy)
            if heavy.any()
            else moved
        )
    return mixture


def defended(mixture: Mixture, share: float) -> Mixture:
    """
    Add a standard component, which bounds the weights under a standard normal prior: these are at
    most the likelihood over ``share`` (Hesterberg 1995), up to a constant.

    :param mixture: of ``batch`` densities.
    :param share: of the draws that the component gets, in (0, 1).
    """
    batch, _, dim = mixture.loc.shape
    eye = torch.eye(dim, dtype=mixture.loc.dtype, device=mixture.loc.device)
    return Mixture(
        pad(mixture.log_weights + math.log1p(-share), (0, 1), value=math.log(share)),
        pad(mixture.loc, (0, 0, 0, 1)),
        torch.cat([mixture.scale_tril, eye.expand(batch, 1, dim, dim)], 1),
        mixture.df,
    )


def with_component(mixture: Mixture, draws: Tensor, where: Tensor) -> Mixture:
    """Add a component with the moments of some draws, as heavy as the others on average.

    :param mixture: of ``batch`` densities.
    :param draws: ``(draw, batch, dim)``; few are enough.
    :param where: batch elements to which it is added, ``(batch,)``; there, all components get heavy
        tails.
    """
    scale = draws.std(0).clamp_min(torch.finfo(draws.dtype).eps)
    standard = ((draws - draws.mean(0)) / scale).movedim(0, 1)
    eye = torch.eye(draws.shape[-1], dtype=draws.dtype, device=draws.device)
    correlation = torch.lerp(standard.mT @ standard / (len(draws) - 1), eye, _SHRINKAGE)
    scale_tril = scale.unsqueeze(-1) * torch.linalg.cholesky(correlation)
    number = mixture.log_weights.isfinite().sum(-1, keepdim=True).to(draws.dtype)
    log_weights = torch.cat(
        [mixture.log_weights + (number / (number + 1)).log(), -(number + 1).log()], -1
    )
    return Mixture(
        torch.where(
            where.unsqueeze(-1), log_weights, pad(mixture.log_weights, (0, 1), value=-torch.inf)
        ),
        torch.cat([mixture.loc, draws.mean(0).unsqueeze(1)], 1),
        torch.cat([mixture.scale_tril, scale_tril.unsqueeze(1)], 1),
        torch.where(where, mixture.df.clamp(max=STUDENT_DF), mixture.df),
    )


def _moved(mixture: Mixture, points: Tensor, weights: Tensor) -> Mixture:
    """The M step with importance weights ``(batch, N)`` of points ``(batch, N, dim)``."""
    effective = 1 / weights.square().sum(-1)
    joint, distance = component_log_joint(mixture, points)
    responsibility = joint.softmax(1) * (weights * effective.unsqueeze(-1)).unsqueeze(1)
    moved = maximize(points, responsibility, distance, mixture.df)
    mass = responsibility.sum(-1)
    known = mass >= MIN_DRAWS_PER_COMPONENT * (points.shape[-1] + 1)
    exists = mixture.log_weights.isfinite()
    share = (1 - _FLOOR) * mass / mass.sum(-1, keepdim=True) + _FLOOR / exists.sum(-1, keepdim=True)
    return Mixture(
        torch.where(exists, share, 0.0).log(),
        torch.where(known.unsqueeze(-1), moved.loc, mixture.loc),
        torch.where(known[..., None, None], moved.scale_tril, mixture.scale_tril),
        mixture.df,
    )


def _heaviest(points: Tensor, log_weights: Tensor) -> Tensor:
    """Points ``(num, batch, dim)`` closest to the one with the largest weight."""
    row = torch.arange(points.shape[1], device=points.device)
    center = points[log_weights.argmax(0), row]
    distance = ((points - center) / points.std(0)).square().sum(-1)
    nearest = distance.topk(
        MIN_DRAWS_PER_COMPONENT * (points.shape[-1] + 1), dim=0, largest=False
    ).indices
    return points[nearest, row]
