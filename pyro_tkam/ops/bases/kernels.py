"""Bases of one bump, moved over a grid of centres: Gaussian, reflectional switch, wavelets."""

from __future__ import annotations

from abc import abstractmethod
from typing import Self

import torch
from torch import Tensor

from pyro_tkam.ops.bases.base import BasisFunctions


class ShiftedKernel(BasisFunctions):
    r"""
    Copies of one kernel, :math:`B_i(s) = κ\big((s - g_i) / (hτ)\big)`, with :math:`h` the mean grid step.

    ``grid`` holds the centres :math:`g_i`, ``width`` is :math:`τ`, ``degree`` is unused.
    """

    @classmethod
    def uniform(cls, low: float, high: float, grid_size: int, degree: int, width: float | None) -> Self:
        """Make ``grid_size`` centres from ``low`` to ``high``, ends included."""
        if grid_size < 2:
            raise ValueError(f"grid_size must be at least 2 centres, got {grid_size}")
        return cls(torch.linspace(low, high, grid_size), torch.tensor(width), degree)

    @property
    def num_functions(self) -> int:
        """The number of centres."""
        return self.grid.shape[-1]

    @property
    def knots(self) -> Tensor:
        """The centres: a grid step ends there."""
        return self.grid

    @property
    def bandwidth(self) -> Tensor:
        """The kernel's unit of length, ``hτ``: shape ``(*grid_batch,)``."""
        assert self.width is not None
        return (self.grid[..., -1] - self.grid[..., 0]) / (self.num_functions - 1) * self.width

    def __call__(self, z: Tensor) -> Tensor:
        """Values ``(*z.shape, G)``."""
        return self.kernel((z.unsqueeze(-1) - self.grid) / self.bandwidth.unsqueeze(-1))

    @abstractmethod
    def kernel(self, u: Tensor) -> Tensor:
        """Evaluate the kernel, elementwise."""


class GaussianKernels(ShiftedKernel):
    r"""Gaussian radial basis, :math:`κ(u) = \exp(-u^2/2)` (Li 2024, arXiv:2405.06721)."""

    def kernel(self, u: Tensor) -> Tensor:
        """Evaluate the Gaussian."""
        return torch.exp(-0.5 * u.square())
