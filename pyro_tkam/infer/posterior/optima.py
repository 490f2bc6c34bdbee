"""Maxima of a posterior that prior draws climb to, each with the mass that its curvature gives."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_tkam.infer.posterior.target import PosteriorTarget
from pyro_tkam.ops.climb import climb
from pyro_tkam.ops.estimators.mixture import STUDENT_DF, Mixture

MOST_OPTIMA = 64
MOST_STEPS = 150
MOST_SLOPES = 16
"""Ends of climbs without a peak after which the others are not looked at."""

STEP = 0.3
"""Standard deviations over which gradients are compared, to tell the curvature."""

NARROWEST = 1e-3
"""Standard deviation of a peak that is tried first, in those of the prior."""

CURVATURE_ROUNDS = 8
APART = 1.0
"""Squared Mahalanobis distance below which two climbs ended at one optimum."""

LEAST_SHARE = 1e-4
"""Share of the largest mass below which an optimum is not looked at."""


@dataclass(frozen=True)
class Optima:
    """Maxima of a log density, the one with the largest mass first.

    :param location: ``(number, dim)``, in double precision.
    :param scale_tril: Cholesky factors of the inverse curvature, ``(number, dim, dim)``.
    :param log_mass: log of the mass of a normal with that height and curvature (Laplace),
        ``(number,)``.
    """

    location: Tensor
    scale_tril: Tensor
    log_mass: Tensor

    def __len__(self) -> int:
        return len(self.location)

    def distance(self, positions: Tensor) -> Tensor:
        """Return squared Mahalanobis distances ``(number, num)`` of positions ``(num, dim)``."""
        centered = (positions.double() - self.location[:, None]).mT
        white = torch.linalg.solve_triangular(self.scale_tril, centered, upper=False)
        return white.square().sum(-2)

    def take(self, index: Tensor) -> Optima:
        """Return some of them."""
        return Optima(self.location[index], self.scale_tril[index], self.log_mass[index])

    def mixture(self) -> Mixture:
        """Return Student-t components there, weighted by mass."""
        return Mixture(
            self.log_mass.log_softmax(0)[None],
            self.location[None],
            self.scale_tril[None],
            self.location.new_full((1,), STUDENT_DF),
        )


def find_optima(target: PosteriorTarget, starts: Tensor, scale: Tensor, most_steps: int) -> Optima:
    """Climb, and describe the places where climbs end; those that never end are left out.

    :param target: the posterior.
    :param starts: ``(num, dim)``.
    :param scale: how far each coordinate may be from a maximum, ``(dim,)``.
    :param most_steps: of a climb.
    """
    ends = climb(target.with_gradient, starts, scale, most_steps)
    order = ends.value.argsort(descending=True)
    order = order[ends.converged[order]]
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    largest = -math.inf
    left = order
    slopes = 0
    while len(left) and len(found) < MOST_OPTIMA and slopes < MOST_SLOPES:
        location, value = ends.position[left[0]].double(), ends.value[left[0]]
        described = _described(target, location, value, scale)
        if described is None:
            left, slopes = left[1:], slopes + 1
            continue
        factor, log_mass = described
        one = Optima(location[None], factor[None], log_mass[None])
        away = one.distance(ends.position[left])[0] > APART
        away[0] = False
        left = left[away]
        largest = max(largest, log_mass.item())
        if log_mass.item() > largest + math.log(LEAST_SHARE):
            found.append((location, factor, log_mass))
    return _joined(found, target)


def _joined(found: list[tuple[Tensor, Tensor, Tensor]], target: PosteriorTarget) -> Optima:
    if not found:
        none = torch.zeros(0, target.dim, dtype=torch.float64)
        return Optima(none, none.new_zeros(0, target.dim, target.dim), none.new_zeros(0))
    optima = Optima(*(torch.stack(each) for each in zip(*found, strict=True)))
    return optima.take(optima.log_mass.argsort(descending=True))


def _described(
    target: PosteriorTarget, location: Tensor, value: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor] | None:
    """Return the factor of the inverse curvature, and the mass; None where there is no peak."""
    width = NARROWEST * scale.double()
    for _ in range(CURVATURE_ROUNDS):
        factor = _inverse_factor(_curvature(target.with_gradient, location, width, target.dtype))
        if factor is None:
            width = 10 * width
            continue
        before, width = width, factor.square().sum(-1).sqrt()
        ratio = width / before
        if ratio.max() < 2 and ratio.min() > 0.5:
            break
    if factor is None:
        return None
    log_volume = factor.diagonal().log().sum() + target.dim / 2 * math.log(2 * math.pi)
    return factor, value + log_volume


def _curvature(
    gradient: Callable[[Tensor], tuple[Tensor, Tensor]],
    location: Tensor,
    width: Tensor,
    dtype: torch.dtype,
) -> Tensor:
    """Return the negative Hessian by central differences of gradients."""
    steps = (STEP * width).diag()
    ahead, behind = (location + steps).to(dtype), (location - steps).to(dtype)
    (_, up), (_, down) = gradient(ahead), gradient(behind)
    apart = (ahead.double() - behind.double()).diagonal()
    curvature = (down.double() - up.double()) / apart.unsqueeze(-1)
    return (curvature + curvature.mT) / 2


def _inverse_factor(curvature: Tensor) -> Tensor | None:
    """Return the Cholesky factor of an inverse; None where it is not positive."""
    if not curvature.isfinite().all():
        return None
    scale = curvature.diagonal()
    if not (scale > 0).all():
        return None
    root = scale.rsqrt()
    factor, failed = torch.linalg.cholesky_ex(root[:, None] * curvature * root)
    if failed:
        return None
    covariance = root[:, None] * torch.cholesky_inverse(factor) * root
    inverse, failed = torch.linalg.cholesky_ex(covariance)
    return None if failed else inverse
