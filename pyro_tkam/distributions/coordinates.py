"""
Coordinates in which a density is tabulated: its own coordinate, or one that removes poles at the
ends of the interval.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor

from pyro_tkam.ops._concrete import is_concrete
from pyro_tkam.ops.bases import Picklable

LogDensity = Callable[[Tensor], Tensor]

SMALLEST_EXPONENT = 0.005  # beyond it most of the mass lies nearer to the end than any float
NUM_GRADES = 8  # the last cell, of ½ 8^-7, is what derivatives in an exponent are accurate to
LARGEST_EXPONENT = 0.99  # from here on a pole is too weak to need a coordinate of its own


class Coordinate(Protocol):
    """A monotone map from the coordinate ``w`` of a table to the argument ``z`` of the density."""

    @property
    def ends(self) -> tuple[Tensor, Tensor]:
        """The ends of the interval of ``w``."""

    def cuts(self, points: Tensor | None) -> Tensor | None:
        """
        Return where cells should end in ``w``, given where they should end in ``z``, shape
        ``(count, *batch)``.
        """

    def place(self, w: Tensor) -> Tensor:
        """Return ``z(w)``."""

    def inverse(self, z: Tensor) -> Tensor:
        """Return ``w(z)``."""

    def log_slope(self, w: Tensor) -> Tensor:
        """Return ``log dz/dw``."""

    def pulled_back(self, log_density: LogDensity) -> LogDensity:
        """Return the log density of ``w``, given that of ``z``."""

    def unreachable(self, cdf: Callable[[Tensor], Tensor]) -> Tensor:
        """
        Return the mass closer to an end than the next float, given the CDF of ``w``.
        """

    def without_last(self) -> Self:
        """Return the coordinate without its last batch dimension, of size one."""


@dataclass(frozen=True, eq=False)
class Plain(Picklable):
    """
    The argument itself, ``z = w``.

    :param low: lower end of the interval.
    :param high: upper end of the interval.
    """

    low: Tensor
    high: Tensor

    @property
    def ends(self) -> tuple[Tensor, Tensor]:
        """The ends of the interval."""
        return self.low, self.high

    def cuts(self, points: Tensor | None) -> Tensor | None:
        """Return the points."""
        return points

    def place(self, w: Tensor) -> Tensor:
        """Return ``w``."""
        return w

    def inverse(self, z: Tensor) -> Tensor:
        """Return ``z``."""
        return z

    def log_slope(self, w: Tensor) -> Tensor:
        """Return zeros."""
        return torch.zeros_like(w)

    def pulled_back(self, log_density: LogDensity) -> LogDensity:
        """Return the density unchanged."""
        return log_density

    def unreachable(self, cdf: Callable[[Tensor], Tensor]) -> Tensor:
        """Return zero."""
        return torch.zeros_like(self.low)

    def without_last(self) -> Self:
        """Return the coordinate without its last batch dimension."""
        return type(self)(
            *(value[..., 0] if value.dim() else value for value in vars(self).values())
        )


@dataclass(frozen=True, eq=False)
class Stretched(Plain):
    """
    ``w`` on [0, 1], in which densities that behave as ``d^(a - 1)`` at distance ``d`` from an end
    are bounded.

    ``d = ½ (high - low) (2w)^(1/a)`` from the lower end for ``w < ½``, and likewise with ``1 - w``
    from the upper end. The distance stays exact where ``z`` is rounded; there, the power law
    continues the density.

    :param low: lower end of the interval.
    :param high: upper end of the interval.
    :param lower: exponent ``a`` at the lower end. Only its value, not its derivative, affects how
        ``w`` is stretched.
    :param upper: exponent at the upper end.

    >>> squares = Stretched(*torch.tensor([0.0, 2.0, 0.5, 1.0]))
    >>> squares.place(torch.tensor([0.25, 0.5, 1.0]))
    tensor([0.2500, 1.0000, 2.0000])
    """

    lower: Tensor
    upper: Tensor

    @property
    def ends(self) -> tuple[Tensor, Tensor]:
        """Zero and one."""
        zero = torch.zeros_like(self.lower)
        return zero, zero + 1

    def cuts(self, points: Tensor | None) -> Tensor:
        """
        Return the points, the middle, where the halves meet, and graded points for derivatives,
        which behave as log w.
        """
        powers = 0.5 * torch.tensor(
            8.0, dtype=self.low.dtype, device=self.low.device
        ) ** -torch.arange(NUM_GRADES, device=self.low.device)
        grades = torch.cat([powers.flip(0), 1 - powers[1:]])
        half = grades.reshape(-1, *[1] * self.lower.dim()).expand(-1, *self.lower.shape)
        if points is None:
            return half
        inside = self.inverse(torch.minimum(torch.maximum(points, self.low), self.high)).detach()
        return torch.cat([inside, half.expand(-1, *inside.shape[1:])]).sort(0).values

    def place(self, w: Tensor) -> Tensor:
        """Return ``z(w)``, rounded to a float between the ends."""
        distance = self._log_distance(w).exp()
        z = torch.where(w < 0.5, self.low + distance, self.high - distance)
        inside = torch.minimum(
            torch.maximum(z, self.low + _spacing(self.low)), self.high - _spacing(self.high)
        )
        return z + (inside - z).detach()

    def inverse(self, z: Tensor) -> Tensor:
        """Return ``w(z)``."""
        below = z < 0.5 * (self.low + self.high)
        distance = torch.where(below, z - self.low, self.high - z).clamp_min(
            torch.finfo(z.dtype).tiny
        )
        exponent = torch.where(below, self.lower, self.upper).detach()
        part = 0.5 * (exponent * (2 * distance / (self.high - self.low)).log()).exp()
        return torch.where(below, part, 1 - part)

    def log_slope(self, w: Tensor) -> Tensor:
        """Return ``log dz/dw``."""
        exponent = torch.where(w < 0.5, self.lower, self.upper).detach()
        return self._log_distance(w) - exponent.log() - self._part(w).log()

    def _part(self, w: Tensor) -> Tensor:
        return torch.minimum(w, 1 - w).clamp_min(torch.finfo(w.dtype).tiny)

    def _log_distance(self, w: Tensor) -> Tensor:
        """Return the logarithm of the exact distance from the nearer end."""
        exponent = torch.where(w < 0.5, self.lower, self.upper).detach()
        return (0.5 * (self.high - self.low)).log() + (2 * self._part(w)).log() / exponent

    def pulled_back(self, log_density: LogDensity) -> LogDensity:
        """
        Return the log density of ``w``; near the ends it corrects for the rounding of ``z``.
        """

        def pulled(w: Tensor) -> Tensor:
            z = self.place(w)
            below = w < 0.5
            rounded = torch.where(below, z - self.low, self.high - z).log()
            missing = (torch.where(below, self.lower, self.upper) - 1) * (
                self._log_distance(w) - rounded
            )
            return log_density(z) + (missing + self.log_slope(w))

        return pulled

    def unreachable(self, cdf: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the mass nearer to an end than the next float."""
        low = self.low + _spacing(self.low)
        high = self.high - _spacing(self.high)
        return (cdf(self.inverse(low)) + 1 - cdf(self.inverse(high))).detach().clamp_min(0)


def coordinate_for(log_density: LogDensity | None, low: Tensor, high: Tensor) -> Coordinate:
    """
    Choose the coordinate for a density: stretched if it has a pole at an end of its interval.

    :param log_density: elementwise, the part of the log density that may have poles; None if there
        are no poles.
    :param low: lower ends of the interval, shape ``batch``.
    :param high: upper ends.

    >>> coordinate_for(torch.distributions.Gamma(0.25, 1.0).log_prob, *torch.tensor([0.0,
    ...     9.0])).lower
    tensor(0.2500)
    """
    if log_density is None:
        return Plain(low, high)
    lower = _exponent(log_density, low, high)
    upper = _exponent(log_density, high, low)
    weakest = torch.minimum(lower, upper)
    if is_concrete(weakest) and bool((weakest == 1).all()):
        return Plain(low, high)
    return Stretched(*torch.broadcast_tensors(low, high, lower, upper))


def _exponent(log_density: LogDensity, end: Tensor, other: Tensor) -> Tensor:
    """
    Return ``a`` of a density that goes as ``d^(a - 1)`` with the distance from an end; 1 where it
    has no pole.
    """
    info = torch.finfo(end.dtype)
    reach = torch.maximum(64 * info.eps * end.abs(), (info.tiny * (other - end).abs()).sqrt())
    near, far = (end + (other - end).sign() * step * reach for step in (1, 16))
    rise = log_density(far) - log_density(near)
    exponent = 1 + rise / ((far - end) / (near - end)).log()
    return torch.where(exponent < LARGEST_EXPONENT, exponent, 1).clamp_min(SMALLEST_EXPONENT)


def _spacing(end: Tensor) -> Tensor:
    """Return the least distance from an end that floats can tell."""
    info = torch.finfo(end.dtype)
    return (info.eps * end.abs()).clamp_min(info.tiny).detach()
