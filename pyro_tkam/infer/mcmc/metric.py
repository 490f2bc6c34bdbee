"""Coordinates in which a batch of chains runs: affine functions of those of the density."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pyro_tkam.ops.langevin import Point

DRAWS_PER_EFFECTIVE_DRAW = 10
"""
Assumed when a covariance is estimated: a Langevin step moves a chain by a fraction of a standard
deviation.
"""

LARGEST_WEIGHT = 0.999
"""
Of the estimated correlations beside the identity's, so that the frame stays invertible in single
precision.
"""


class Frame(Protocol):
    """
    Maps coordinates ``y`` of the chains, ``(rows, *local, dim)``, to those of the density, ``z``.
    """

    def outer(self, inner: Tensor) -> Tensor:
        """Return ``z`` at ``y``."""

    def inner(self, outer: Tensor) -> Tensor:
        """Return ``y`` at ``z``."""

    def pull(self, gradient: Tensor) -> Tensor:
        """Return the gradient in ``y`` of a function with this gradient in ``z``."""


class IdentityFrame:
    """The coordinates of the density."""

    def outer(self, inner: Tensor) -> Tensor:
        """Return the same coordinates."""
        return inner

    def inner(self, outer: Tensor) -> Tensor:
        """Return the same coordinates."""
        return outer

    def pull(self, gradient: Tensor) -> Tensor:
        """Return the same gradient."""
        return gradient


DENSITY_FRAME = IdentityFrame()


@dataclass(frozen=True)
class AffineFrame:
    """``z = μ + L y``, under which the target stays the same up to the constant ``log det L``.

    :param location: ``μ``, ``(dim,)``.
    :param matrix: lower triangular ``L``, ``(dim, dim)``.
    """

    location: Tensor
    matrix: Tensor

    @staticmethod
    def identity(like: Tensor) -> AffineFrame:
        """Return ``z = y`` for coordinates ``(dim,)``."""
        return AffineFrame(torch.zeros_like(like), torch.ones_like(like).diag())

    def outer(self, inner: Tensor) -> Tensor:
        """Return ``z`` at ``y``."""
        return torch.addmm(self.location, inner, self.matrix.T)

    def inner(self, outer: Tensor) -> Tensor:
        """Return ``y`` at ``z``."""
        return torch.linalg.solve_triangular(
            self.matrix, (outer - self.location).T, upper=False
        ).T.contiguous()

    def pull(self, gradient: Tensor) -> Tensor:
        """Return the gradient in ``y``."""
        return gradient @ self.matrix


class Evaluated(Protocol):
    """A log density on positions ``(rows, *local, dim)``, as :class:`Density` has it."""

    def point(self, position: Tensor, rows: Tensor | None = None) -> Point:
        """Evaluate the density and its gradient."""

    def log_density(self, position: Tensor, rows: Tensor | None = None) -> Tensor:
        """Evaluate the density alone."""


class FramedTarget:
    """A density in the coordinates of a frame.

    :param density: the density.
    :param frame: the coordinates.
    """

    def __init__(self, density: Evaluated, frame: Frame) -> None:
        self.density, self.frame = density, frame

    def __call__(self, position: Tensor, rows: Tensor | None = None) -> Point:
        """Evaluate positions in the frame, up to the frame's constant."""
        point = self.density.point(self.frame.outer(position), rows)
        gradient = self.frame.pull(point.gradient)
        return Point(position, point.log_density, gradient, point.parts)

    def log_density(self, position: Tensor, rows: Tensor | None = None) -> Tensor:
        """Evaluate the log density alone."""
        return self.density.log_density(self.frame.outer(position), rows)


class Moments:
    """
    Mean and covariance of all positions ``(rows, dim)`` seen, updated batch by batch (Chan et al.
    1979).
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean: Tensor | float = 0.0
        self.scatter: Tensor | float = 0.0

    def add(self, batch: Tensor) -> None:
        """Take positions into account."""
        rows, total = len(batch), self.count + len(batch)
        center = batch.mean(0)
        gap, residual = center - self.mean, batch - center
        self.scatter = (
            self.scatter
            + residual.T @ residual
            + torch.outer(gap, gap) * (self.count * rows / total)
        )
        self.mean, self.count = self.mean + gap * (rows / total), total

    def standardized(self, frame: AffineFrame) -> tuple[AffineFrame, Tensor]:
        """
        Return a frame in which what was seen in ``frame`` is standardized, and the old standard
        deviations.

        Variances are shrunk to the old frame's (one), and correlations too (none), these the more
        so the fewer draws there are for each dimension: a short run, or a chain that stands still,
        leaves the frame nearly as it is, and frames of successive rounds converge. The frame also
        stays where draws lie so far out that their covariance overflows.
        """
        covariance, mean = (
            torch.as_tensor(self.scatter) / max(1, self.count - 1),
            torch.as_tensor(self.mean),
        )
        if not covariance.isfinite().all():
            return frame, torch.ones_like(mean)
        variance, dim = covariance.diagonal(), len(mean)
        effective = self.count / DRAWS_PER_EFFECTIVE_DRAW
        scale = (effective * variance + 1).div(effective + 1).sqrt()
        weight = min(effective / (effective + dim), LARGEST_WEIGHT)
        spread = variance.clamp_min(torch.finfo(variance.dtype).tiny).sqrt()
        correlation = weight * covariance / spread / spread.unsqueeze(-1)
        factor = torch.linalg.cholesky(
            correlation - correlation.diagonal().diag() + torch.ones_like(spread).diag()
        )
        location = frame.outer(mean.unsqueeze(0)).squeeze(0)
        return AffineFrame(location, frame.matrix @ (scale.unsqueeze(-1) * factor)), scale
