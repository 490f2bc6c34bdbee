"""B-splines of any degree on a uniform grid."""

from __future__ import annotations

from typing import ClassVar, Self

import torch
from torch import Tensor

from pyro_tkam.ops.bases.base import BasisFunctions


class BSplines(BasisFunctions):
    r"""
    B-splines of degree :math:`k` on :math:`G` equal intervals: :math:`F = G + k` functions (Liu et al. 2024).

    Inside the grid they sum to one. The knots go on for :math:`k` steps on either side, so that the functions fall
    to zero there and stay zero further out. ``grid`` holds the ``G + 1`` ends of the intervals; there is no width.
    """

    default_width: ClassVar[float | None] = None

    @classmethod
    def uniform(cls, low: float, high: float, grid_size: int, degree: int, width: float | None) -> Self:
        """Make ``grid_size`` equal intervals over ``[low, high]``."""
        if degree < 1:
            raise ValueError(f"degree of a B-spline must be at least 1, got {degree}")
        return cls(torch.linspace(low, high, grid_size + 1), None, degree)

    @property
    def num_intervals(self) -> int:
        """The number of grid intervals ``G``."""
        return self.grid.shape[-1] - 1

    @property
    def num_functions(self) -> int:
        """The number of functions, ``G + k``."""
        return self.num_intervals + self.degree

    @property
    def knots(self) -> Tensor:
        """The knots inside ``[low, high]``."""
        return self.grid

    def active(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """
        Find the ``k + 1`` functions that are not zero at ``z``.

        :returns: the cell ``e`` of ``z`` among the ``G + 2k`` of the extended grid, shape ``z.shape``, and the values
            ``(*z.shape, k + 1)`` of the functions ``e - k, …, e`` (those outside ``0 … F - 1`` do not exist).
        """
        num_cells = self.num_intervals + 2 * self.degree
        low, high = self.grid[..., 0], self.grid[..., -1]
        # Clamped to the ends of the extended grid, where every existing function is zero.
        u = ((z - low) * (self.num_intervals / (high - low)) + self.degree).clamp(0, num_cells)
        cell = u.detach().floor().clamp(max=num_cells - 1)
        return cell.long(), torch.stack(cardinal_splines(u - cell, self.degree), -1)

    def __call__(self, z: Tensor) -> Tensor:
        """Values ``(*z.shape, G + k)``."""
        cell, values = self.active(z)
        index = cell.unsqueeze(-1) + torch.arange(self.degree + 1, device=z.device)
        padded = values.new_zeros(*cell.shape, self.num_functions + 2 * self.degree)
        return padded.scatter(-1, index, values)[..., self.degree : self.degree + self.num_functions]


def cardinal_splines(t: Tensor, degree: int) -> list[Tensor]:
    r"""
    Evaluate the ``degree + 1`` uniform B-splines that are not zero in a cell, at the place ``t`` in [0, 1] in it.

    Cox–de Boor on unit knots, :math:`b^d_j = \frac{(t + d - j)\, b^{d-1}_{j-1} + (1 - t + j)\, b^{d-1}_j}{d}`.

    :returns: the values from the leftmost function, which ends with the cell, to the one that starts with it.
    """
    values = [torch.ones_like(t)]
    for d in range(1, degree + 1):
        rising = [(t + (d - j)) * values[j - 1] for j in range(1, d + 1)]
        falling = [((1 + j) - t) * values[j] for j in range(d)]
        middle = [(a + b) / d for a, b in zip(rising[:-1], falling[1:], strict=True)]
        values = [falling[0] / d, *middle, rising[-1] / d]
    return values
