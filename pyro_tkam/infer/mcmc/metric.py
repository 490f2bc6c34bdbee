"""
Coordinates in which a batch of chains runs, affine functions of those of the density, and the
metric of an ensemble from which they follow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pyro_tkam.ops.langevin import Point
from pyro_tkam.ops.shrinkage import shrunk_correlation

NOTHING = 1e-12
"""Of the former spread: coordinates that vary less did not move."""
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

LARGEST_DENSE = 512
"""Dimensions up to which correlations are worth ``dim²`` operations a step and a row."""

FEWEST_EFFECTIVE = 8


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
        self.density = density
        self.frame = frame

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
        rows = len(batch)
        total = self.count + len(batch)
        center = batch.mean(0)
        gap = center - self.mean
        residual = batch - center
        self.scatter = (
            self.scatter
            + residual.T @ residual
            + torch.outer(gap, gap) * (self.count * rows / total)
        )
        self.mean = self.mean + gap * (rows / total)
        self.count = total

    def standardized(self, frame: AffineFrame) -> tuple[AffineFrame, Tensor]:
        """
        Return a frame in which what was seen in ``frame`` is standardized, and the old standard
        deviations.

        Variances are shrunk to the old frame's (one), and correlations too (none), these the more
        so the fewer draws there are for each dimension: a short run, or a chain that stands still,
        leaves the frame nearly as it is, and frames of successive rounds converge. The frame also
        stays where draws lie so far out that their covariance overflows.
        """
        covariance = torch.as_tensor(self.scatter) / max(1, self.count - 1)
        mean = torch.as_tensor(self.mean)
        if not covariance.isfinite().all():
            return frame, torch.ones_like(mean)
        variance = covariance.diagonal()
        dim = len(mean)
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


@dataclass(frozen=True)
class Metric:
    """Standard deviations and correlations that a kernel takes out of its target.

    :param frame: coordinates without correlations, with unit scales; those of the density where
        correlations are not taken out.
    :param scale: standard deviations in that frame, ``(*rest, dim)``.
    """

    frame: Frame
    scale: Tensor

    @staticmethod
    def identity(like: Tensor) -> Metric:
        """Return the metric of the density's own coordinates ``(*rest, dim)``."""
        return Metric(DENSITY_FRAME, torch.ones_like(like))

    @property
    def spread(self) -> Tensor:
        """Standard deviations of the density's coordinates, ``(*rest, dim)``."""
        if isinstance(self.frame, AffineFrame):
            return self.frame.matrix.square().sum(-1).sqrt()
        return self.scale

    def state(self) -> dict[str, Tensor]:
        """Return tensors from which to make it again."""
        affine = vars(self.frame) if isinstance(self.frame, AffineFrame) else {}
        return {"scale": self.scale, **affine}

    @staticmethod
    def of_state(state: dict[str, Tensor]) -> Metric:
        """Make a metric from its state."""
        if "matrix" not in state:
            return Metric(DENSITY_FRAME, state["scale"])
        return Metric(AffineFrame(state["location"], state["matrix"]), state["scale"])


def estimated(draws: Tensor, effective: float, former: Metric, dense: bool) -> Metric:
    """Return the metric of draws.

    A coordinate that does not vary, or overflows, keeps its former scale; draws that are worth less
    than 8 change nothing.

    :param draws: in the density's coordinates, ``(n, *rest, dim)``.
    :param effective: number of independent draws that they are worth.
    :param former: the metric before.
    :param dense: whether correlations are taken out; then ``rest`` is empty.
    """
    if effective < FEWEST_EFFECTIVE:
        return former
    wide = draws.double()
    spread = wide.std(0, correction=0)
    varies = spread.isfinite() & (spread > NOTHING * former.spread)
    scale = torch.where(varies, spread, former.spread.double())
    if not dense:
        return Metric(DENSITY_FRAME, scale.to(draws.dtype))
    correlation = torch.eye(draws.shape[-1], dtype=torch.float64, device=draws.device)
    index = varies.nonzero().squeeze(-1)
    if len(index) > 1:
        correlation[index[:, None], index] = shrunk_correlation(wide[:, index], effective)
    factor = scale.unsqueeze(-1) * torch.linalg.cholesky(correlation)
    location = torch.where(varies, wide.mean(0), wide[0])
    frame = AffineFrame(location.to(draws.dtype), factor.to(draws.dtype))
    return Metric(frame, torch.ones_like(draws[0]))
