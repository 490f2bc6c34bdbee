"""Bases that consist of one bump, shifted to each center of a grid."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from pyro_tkam._checks import whole_number
from pyro_tkam.ops.bases.base import BasisFunctions
from pyro_tkam.ops.bases.checks import check_interval, check_points, check_width
from pyro_tkam.ops.bases.planes import plane_sum
from pyro_tkam.ops.bases.twin import evaluate

#: basis values made at a time by a product, so that they stay in the cache
CHUNK = 1 << 20


class ShiftedKernel(BasisFunctions):
    r"""
    Copies of one kernel, :math:`B_i(s) = κ\big((s - g_i) / (hτ)\big)`, with :math:`h` the mean grid
    step.

    ``grid`` holds the centers :math:`g_i`, ``width`` is :math:`τ`, ``degree`` is unused.
    """

    width: Tensor

    smallest_grid_size: ClassVar[int] = 2

    @classmethod
    def uniform(
        cls, low: float, high: float, grid_size: int, degree: int, width: float | None
    ) -> Self:
        """Make ``grid_size`` centers from ``low`` to ``high``, ends included."""
        check_interval(low, high)
        check_width(width, cls.smallest_width)
        if whole_number("grid_size", grid_size, 1) < 2:
            raise ValueError(f"grid_size must be at least 2 centers, got {grid_size}")
        return cls(torch.linspace(low, high, grid_size), torch.tensor(width), degree)

    @property
    def placed(self) -> Tensor:
        """The centers."""
        return self.grid

    @property
    def grid_size(self) -> int:
        """The number of centers."""
        return self.grid.shape[-1]

    @classmethod
    def num_knots(cls, grid_size: int) -> int:
        """The number of centers."""
        return grid_size

    @staticmethod
    @abstractmethod
    def derivative(u: Tensor, order: int) -> Tensor:
        """
        Evaluate a derivative of the kernel, elementwise and differentiably.

        :param u: arguments, of any shape.
        :param order: 0 for the kernel itself; a gradient needs 1, a gradient of a gradient needs 2,
            and so on.
        """

    @classmethod
    def check_derivatives(cls) -> None:
        """
        Compare the first two derivatives with automatic differentiation.

        :raises ValueError: if they differ.
        """
        u = torch.linspace(-1.7, 1.9, 7, dtype=torch.float64, requires_grad=True)
        for order in (1, 2):
            with torch.enable_grad():
                (expected,) = torch.autograd.grad(cls.derivative(u, order - 1).sum(), u)
            if not torch.allclose(cls.derivative(u, order), expected, rtol=1e-5, atol=1e-7):
                raise ValueError(
                    f"basis must have consistent derivatives, got {cls.__name__}.derivative(u, "
                    f"{order}), which is not the derivative of order {order - 1}"
                )

    @classmethod
    def overwrite(cls, u: Tensor, order: int) -> Tensor:
        """Evaluate a derivative of the kernel if ``u`` is no longer needed."""
        return cls.derivative(u, order)

    @property
    def num_functions(self) -> int:
        """The number of centers."""
        return self.grid.shape[-1]

    @property
    def knots(self) -> Tensor:
        """The centers: a grid step ends there."""
        return self.grid

    def __call__(self, z: Tensor) -> Tensor:
        """Values ``(*z.shape, G)``."""
        check_points(z, self.grid)
        v, offsets = self._in_units(z)
        return self.derivative(v.unsqueeze(-1) - offsets, 0)

    def elementwise_sum(self, z: Tensor, coefficients: Tensor) -> Tensor:
        """Sum the functions plane by plane."""
        v, offsets = self._in_units(z)
        if offsets.dim() > 1:  # grids of their own
            return super().elementwise_sum(z, coefficients)
        return plane_sum(type(self), v, offsets, coefficients)

    def product(self, s: Tensor, weight: Tensor) -> Tensor:
        """Multiply values by ``weight``, keeping only the inputs for the backward pass."""
        return evaluate(KernelProduct(type(self)), *self._in_units(s), weight)

    def _in_units(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Measure from the middle, where ``v - o`` is rounded least, in units of ``hτ``."""
        low = self.grid[..., 0]
        high = self.grid[..., -1]
        rate = (self.num_functions - 1) / ((high - low) * self.width)
        middle = (low + high) / 2
        return (z - middle) * rate, (self.grid - middle.unsqueeze(-1)) * rate.unsqueeze(-1)

    @classmethod
    def planes(cls, v: Tensor, offsets: Tensor | None, order: int) -> Iterator[Tensor]:
        """Yield a derivative of the kernel at ``v - offsets[i]``, for each ``i``."""
        assert offsets is not None
        return (cls.overwrite(v - offset, order) for offset in offsets)


@dataclass(frozen=True)
class KernelProduct:
    r"""
    The matrix product of a layer, :math:`y_{no} = \sum_{ij} κ(v_{ni} - o_j) W_{(ij)o}`.

    Tensors: ``v`` of shape ``(N, in)``, ``offsets`` of ``(F,)`` or ``(in, F)``, ``weight`` of
    ``(in * F, out)``.
    """

    kernel: type[ShiftedKernel]

    def plain(self, v: Tensor, offsets: Tensor, weight: Tensor) -> Tensor:
        """Evaluate differentiably."""
        return self.kernel.derivative(v.unsqueeze(-1) - offsets, 0).flatten(1) @ weight

    def forward(self, v: Tensor, offsets: Tensor, weight: Tensor) -> Tensor:
        """Evaluate, a chunk of rows at a time."""
        result = v.new_empty(v.shape[0], weight.shape[1])
        for part, out in _chunks(offsets, v, result):
            torch.mm(
                self.kernel.overwrite(part.unsqueeze(-1) - offsets, 0).flatten(1), weight, out=out
            )
        return result

    def backward(
        self, grad: Tensor, needed: Sequence[bool], v: Tensor, offsets: Tensor, weight: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Compute gradients; values are recomputed, one chunk of rows at a time."""
        grad_v = torch.empty_like(v) if needed[0] else None
        grad_offsets = torch.zeros_like(offsets) if needed[1] else None
        grad_weight: Tensor | None = None
        places = v if grad_v is None else grad_v
        for part, upper, place in _chunks(offsets, v, grad, places):
            if needed[2]:
                values = self.kernel.overwrite(part.unsqueeze(-1) - offsets, 0).flatten(1).mT
                grad_weight = (
                    values @ upper if grad_weight is None else grad_weight.addmm_(values, upper)
                )
            if needed[0] or needed[1]:
                slopes = self.kernel.overwrite(part.unsqueeze(-1) - offsets, 1)
                slopes *= (upper @ weight.mT).view_as(slopes)
                if grad_v is not None:
                    torch.sum(slopes, -1, out=place)
                if grad_offsets is not None:
                    grad_offsets -= slopes.sum_to_size(offsets.shape)
        return grad_v, grad_offsets, grad_weight


def _chunks(offsets: Tensor, v: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    size = max(1, CHUNK // max(1, v.shape[1] * offsets.shape[-1]))
    return zip(v.split(size), *(other.split(size) for other in others), strict=True)
