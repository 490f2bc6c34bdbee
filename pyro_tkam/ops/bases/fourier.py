"""Fourier series on an interval."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn

from pyro_tkam._checks import whole_number
from pyro_tkam.ops.bases.base import BasisFunctions
from pyro_tkam.ops.bases.checks import (
    check_grid,
    check_interval,
    check_points,
    check_width,
)
from pyro_tkam.ops.bases.planes import plane_sum

#: cells of the grid in one period of the highest frequency
_CELLS_A_PERIOD = 4
#: parts of a turn; multiples of such a part are exact in float32 up to 4,096 turns
_COARSE = 4096


class FourierSeries(BasisFunctions):
    r"""
    Constant, cosines and sines, :math:`1, \cos(kθ), \sin(kθ)` for :math:`k = 1…G`, with
    :math:`θ = 2πτ (s - low)/(high - low)` (after Xu et al. 2024, arXiv:2406.01034).

    ``degree`` is :math:`G`, ``width`` is :math:`τ`; ``grid`` holds uniform points from ``low`` to
    ``high`` that resolve the highest frequency.
    """

    width: Tensor
    nodes_per_cell = 12

    @classmethod
    def uniform(
        cls, low: float, high: float, grid_size: int, degree: int, width: float | None
    ) -> Self:
        """Make ``grid_size`` frequencies."""
        check_interval(low, high)
        check_width(width, cls.smallest_width)
        whole_number("grid_size", grid_size, 1)
        whole_number("degree", degree, 0)
        grid = torch.linspace(low, high, _CELLS_A_PERIOD * grid_size + 1)
        return cls(grid, torch.tensor(width), grid_size)

    def on_grid(self, grid: Tensor) -> Self:
        """Make the frequencies that the grid resolves."""
        check_grid(grid)
        return replace(self, grid=grid, degree=(grid.shape[-1] - 1) // _CELLS_A_PERIOD)

    def moved(self, knots: Tensor, grid_size: int) -> Self:
        """Make ``grid_size`` frequencies between other ends."""
        places = torch.linspace(
            0, 1, _CELLS_A_PERIOD * grid_size + 1, dtype=knots.dtype, device=knots.device
        )
        return self.on_grid(torch.lerp(knots[..., :1], knots[..., 1:], places))

    @property
    def placed(self) -> Tensor:
        """The two ends."""
        return self.grid[..., [0, -1]]

    @property
    def grid_size(self) -> int:
        """The number of frequencies."""
        return self.degree

    @classmethod
    def num_knots(cls, grid_size: int) -> int:
        """Two: only the ends matter."""
        return 2

    @property
    def num_functions(self) -> int:
        """One constant, and a pair for each frequency."""
        return 2 * self.degree + 1

    @property
    def knots(self) -> Tensor:
        """Cells of half a period of the highest frequency."""
        return self.grid[..., ::2]

    def __call__(self, z: Tensor) -> Tensor:
        """Values ``(*z.shape, 2G + 1)``."""
        check_points(z, self.grid)
        angle = 2 * math.pi * self._turns(z)
        pairs = torch.stack((torch.cos(angle), torch.sin(angle)), -1).flatten(-2)
        return nn.functional.pad(pairs, (1, 0), value=1.0)

    def elementwise_sum(self, z: Tensor, coefficients: Tensor) -> Tensor:
        """Sum the functions plane by plane."""
        return plane_sum(FourierPlanes(self.degree), self.angle(z), None, coefficients)

    def angle(self, z: Tensor) -> Tensor:
        """Evaluate ``θ``."""
        low = self.grid[..., 0]
        high = self.grid[..., -1]
        return (z - low) * (2 * math.pi * self.width / (high - low))

    def _turns(self, z: Tensor) -> Tensor:
        """
        Return ``kθ / 2π`` without most of its whole turns, shape ``(*z.shape, G)``.

        Measured from the point nearest to 0, they are as exact as ``z``.
        """
        k = self._frequencies(z)
        low = self.grid[..., 0]
        high = self.grid[..., -1]
        nearest = torch.minimum(low.clamp_min(0), high)
        scale = self.width / (high - low)
        return _multiples((z - nearest) * scale, k) + _multiples((nearest - low) * scale, k)

    def start(self, noise: Tensor, low: float, high: float) -> Tensor:
        """Make coefficients that decay as one over the frequency squared."""
        k = self._frequencies(noise).repeat_interleave(2)
        return noise / torch.cat((torch.ones_like(k[:1]), k)).square()

    def _frequencies(self, like: Tensor) -> Tensor:
        return torch.arange(1, self.degree + 1, dtype=like.dtype, device=like.device)


def _multiples(turns: Tensor, k: Tensor) -> Tensor:
    """
    Multiply turns by each ``k`` and take whole turns off, shape ``(*turns.shape, len(k))``.

    A rounded product would err by ``k`` times the rounding. So the turns are split: multiples of
    the coarse part are exact, and the rest is small.
    """
    coarse = (turns.detach() * _COARSE).round() / _COARSE
    exact = coarse.unsqueeze(-1) * k
    return exact - exact.round() + (turns - coarse).unsqueeze(-1) * k


@dataclass(frozen=True)
class FourierPlanes:
    """
    Constant, cosines and sines of an angle, in sequence, by rotation: only the first pair evaluates
    a function.
    """

    num_frequencies: int

    def planes(self, v: Tensor, offsets: Tensor | None, order: int) -> Iterator[Tensor]:
        """Yield a derivative of each function at the angle ``v``."""
        yield torch.ones_like(v) if order == 0 else torch.zeros_like(v)
        cos = torch.cos(v)
        sin = torch.sin(v)
        real = cos
        imag = sin
        for k in range(1, self.num_frequencies + 1):
            # A derivative turns the pair by a quarter and multiplies it by k.
            for plane in ((real, imag), (-imag, real), (-real, -imag), (imag, -real))[order % 4]:
                yield plane if order == 0 else plane * float(k) ** order
            real, imag = real * cos - imag * sin, imag * cos + real * sin
