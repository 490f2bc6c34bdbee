"""
Maxima of a posterior, found by climbs from prior draws, with masses that follow from curvature.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

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
NEWTON_STEPS = 4
"""How often a climb's end may move on by Newton's step to the peak that its slope promises."""

APART = 1.0
"""Squared Mahalanobis distance below which two climbs ended at one optimum."""

REACH = 4.0
"""Standard deviations of a normal's squared radius, and more, up to which a peak reaches."""

RULE_OF_THREE = 3.0
"""
Rule of three: an event of probability ``3 / n`` is missed by all of ``n`` tries one time in twenty.
"""

UNLIKE = math.log(1.15)
NARROW = 4.0
"""Difference of log widths from which modes are of different widths, and how many times as narrow
as the widest they may then be."""

LEAST_SHARE = 1e-4
"""Share of the largest mass below which an optimum is not looked at."""


@dataclass(frozen=True)
class Optima:
    """Maxima of a log density, the one with the largest mass first.

    :param location: ``(number, dim)``, in double precision.
    :param scale_tril: Cholesky factors of the inverse curvature, ``(number, dim, dim)``.
    :param log_mass: log of the mass of a normal with that height and curvature (Laplace),
        ``(number,)``.
    :param hits: how many prior draws climbed to each, or are as dense as it makes them,
        ``(number,)``.
    :param flat: whether a peak is where the curvature there puts it, ``(number,)``; it may be
        further where a climb stopped on a slope, as of a ridge or a funnel.
    """

    location: Tensor
    scale_tril: Tensor
    log_mass: Tensor
    hits: Tensor
    flat: Tensor

    def __len__(self) -> int:
        return len(self.location)

    def distance(self, positions: Tensor) -> Tensor:
        """Return squared Mahalanobis distances ``(number, num)`` of positions ``(num, dim)``."""
        centered = (positions.double() - self.location[:, None]).mT
        white = torch.linalg.solve_triangular(self.scale_tril, centered, upper=False)
        return white.square().sum(-2)

    def take(self, index: Tensor) -> Optima:
        """Return some of them."""
        return Optima(*(getattr(self, each.name)[index] for each in fields(self)))

    @property
    def reach(self) -> float:
        """Squared Mahalanobis distance within which a normal has nearly all of its mass."""
        dim = self.location.shape[-1]
        return dim + REACH * (2 * dim) ** 0.5 + REACH

    @property
    def log_width(self) -> Tensor:
        """Log of the geometric mean of each optimum's widths, ``(number,)``."""
        return self.scale_tril.diagonal(dim1=-2, dim2=-1).log().mean(-1)

    @property
    def same_peak(self) -> Tensor:
        """Which pairs are one peak, because one is within reach of the other."""
        near = self.distance(self.location) <= self.reach
        return near | near.mT

    @property
    def unlikeness(self) -> float:
        """Largest difference of the log widths of two peaks; 0 without two."""
        if not len(self):
            return 0.0
        apart = (self.log_width - self.log_width[:, None]).abs()
        return torch.where(self.same_peak, 0.0, apart).amax().item()

    def log_joint(self, positions: Tensor) -> Tensor:
        """Return log densities of normals of these masses, ``(number, num)``, at ``(num, dim)``."""
        volume = self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        height = self.log_mass - volume - 0.5 * positions.shape[-1] * math.log(2 * math.pi)
        return height[:, None] - 0.5 * self.distance(positions)

    def hit_by(self, peaks: Tensor) -> Optima:
        """Count prior draws that lie in the basins of some peaks, ``(num,)``."""
        return replace(self, hits=self.hits + peaks.bincount(minlength=len(self)))

    def joined(self, other: Optima) -> Optima:
        """
        Return the optima of both; optima at the same place are merged, with the climbs of both.
        """
        if not len(self) or not len(other):
            return other if len(other) else self
        apart, nearest = self.distance(other.location).min(0)
        same = apart <= APART
        hits = self.hits.index_add(0, nearest[same], other.hits[same])
        return Optima.of([replace(self, hits=hits), other.take(~same)])

    def beyond(self, other: Optima) -> Optima:
        """Return the optima of ``other`` that are at none of these places."""
        if not len(self) or not len(other):
            return other
        return other.take(self.distance(other.location).amin(0) > APART)

    def without_hits(self) -> Optima:
        """Return the optima, marked as found by no climb from a prior draw."""
        return replace(self, hits=torch.zeros_like(self.hits))

    @staticmethod
    def of(parts: list[Optima]) -> Optima:
        """Combine several collections of optima, with the largest mass first."""
        columns = ([getattr(part, each.name) for part in parts] for each in fields(Optima))
        every = Optima(*map(torch.cat, columns))
        return every.take(every.log_mass.argsort(descending=True))

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
    found = none_of(target.dim)
    largest = -math.inf
    left = order
    slopes = 0
    while len(left) and len(found) < MOST_OPTIMA and slopes < MOST_SLOPES and _affords(target):
        one = _described(target, ends.position[left[0]].double(), ends.value[left[0]], scale)
        if one is None:
            left = left[1:]
            slopes = slopes + 1
            continue
        away = one.distance(ends.position[left])[0] > APART
        away[0] = False
        largest = max(largest, one.log_mass.item())
        if one.log_mass.item() > largest + math.log(LEAST_SHARE):
            hits = (~away).sum()[None]
            if not one.flat and len(peak := _led_to_peak(target, one, scale)):
                found = found.joined(replace(peak, hits=hits))
                hits = torch.zeros_like(hits)
            found = found.joined(replace(one, hits=hits))
        left = left[away]
    return found


def none_of(dim: int) -> Optima:
    """Return an empty collection of optima in ``dim`` dimensions."""
    none = torch.zeros(0, dim, dtype=torch.float64)
    counts = torch.zeros(0, dtype=torch.long)
    return Optima(none, none.new_zeros(0, dim, dim), none.new_zeros(0), counts, counts.bool())


def _led_to_peak(target: PosteriorTarget, end: Optima, scale: Tensor) -> Optima:
    """
    Take Newton steps from the end of a climb where the gradient is not zero; return no optimum if
    they lead to no peak or the budget ends first.
    """
    for _ in range(NEWTON_STEPS):
        if not _affords(target):
            break
        location = end.location + _newton_step(target, end)
        value = target.log_joint(location.to(target.dtype))[0]
        further = _described(target, location[0], value, scale)
        if further is None:
            break
        if further.flat:
            return further
        end = further
    return none_of(target.dim)


def _affords(target: PosteriorTarget) -> bool:
    """Tell whether the budget is enough to describe one more end."""
    most = 2 * target.dim * CURVATURE_ROUNDS + 2
    return target.budget.affords(most) >= most


def _newton_step(target: PosteriorTarget, end: Optima) -> Tensor:
    """Return the step to the peak of a quadratic with this slope and curvature, ``(1, dim)``."""
    slope = target.with_gradient(end.location.to(target.dtype))[1].double().unsqueeze(-1)
    return (end.scale_tril @ (end.scale_tril.mT @ slope)).squeeze(-1)


def _described(
    target: PosteriorTarget, location: Tensor, value: Tensor, scale: Tensor
) -> Optima | None:
    """
    Return curvature and mass at the end of a climb; None if the curvature is not that of a peak.
    """
    width = NARROWEST * scale.double()
    for _ in range(CURVATURE_ROUNDS):
        factor = _inverse_factor(_curvature(target.with_gradient, location, width, target.dtype))
        if factor is None:
            width = 10 * width
            continue
        before = width
        width = factor.square().sum(-1).sqrt()
        ratio = width / before
        if ratio.max() < 2 and ratio.min() > 0.5:
            break
    if factor is None:
        return None
    log_volume = factor.diagonal().log().sum() + target.dim / 2 * math.log(2 * math.pi)
    none = torch.zeros(1, dtype=torch.long)
    end = Optima(location[None], factor[None], (value + log_volume)[None], none, none.bool())
    ahead = end.distance(location + _newton_step(target, end))[0]
    return replace(end, flat=ahead <= APART)


def _curvature(
    gradient: Callable[[Tensor], tuple[Tensor, Tensor]],
    location: Tensor,
    width: Tensor,
    dtype: torch.dtype,
) -> Tensor:
    """Return the negative Hessian by central differences of gradients."""
    steps = (STEP * width).diag()
    ahead = (location + steps).to(dtype)
    behind = (location - steps).to(dtype)
    (_, up) = gradient(ahead)
    (_, down) = gradient(behind)
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
