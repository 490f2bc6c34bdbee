"""Orthogonal polynomials of a squashed argument: they need no grid."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Self

import torch
from torch import Tensor

from pyro_tkam._checks import whole_number
from pyro_tkam.ops.bases.base import BasisFunctions
from pyro_tkam.ops.bases.checks import check_interval, check_points, check_width


class Polynomials(BasisFunctions):
    r"""
    Polynomials :math:`P_0, …, P_k` from a three-term recurrence, in an argument that :math:`\tanh`
    keeps bounded.

    ``degree`` is :math:`k`; ``grid`` holds the two ends of the interval on which initial
    coefficients are fitted.
    """

    has_base: ClassVar[bool] = False
    width: Tensor

    @classmethod
    def uniform(
        cls, low: float, high: float, grid_size: int, degree: int, width: float | None
    ) -> Self:
        """Make polynomials up to ``degree``."""
        check_interval(low, high)
        check_width(width, cls.smallest_width)
        whole_number("grid_size", grid_size, 1)
        return cls(torch.tensor([low, high]), torch.tensor(width), degree)

    @property
    def placed(self) -> Tensor:
        """The two ends."""
        return self.grid

    @property
    def grid_size(self) -> int:
        """One: there is no grid."""
        return 1

    @classmethod
    def num_knots(cls, grid_size: int) -> int:
        """Two: the ends."""
        return 2

    @property
    def num_functions(self) -> int:
        """The degree plus one."""
        return self.degree + 1

    @property
    def knots(self) -> None:
        """None: smooth everywhere."""
        return None

    def __call__(self, z: Tensor) -> Tensor:
        """Values ``(*z.shape, k + 1)``."""
        check_points(z, self.grid)
        x = self.argument(z)
        values = [torch.ones_like(x)]
        for n in range(1, self.degree + 1):
            values.append(
                self.following(n, x, values[-1], values[-2] if n > 1 else torch.zeros_like(x))
            )
        return torch.stack(values, -1)

    @abstractmethod
    def argument(self, z: Tensor) -> Tensor:
        """Squash ``z``."""

    @abstractmethod
    def following(self, n: int, x: Tensor, last: Tensor, before: Tensor) -> Tensor:
        """Evaluate polynomial ``n`` from the two before it (zero for ``n = 1``)."""


class ChebyshevPolynomials(Polynomials):
    r"""
    Chebyshev polynomials :math:`T_i(\tanh(s)/τ)`, :math:`τ > 1` (SS et al. 2024, arXiv:2405.07200).
    """

    default_width: ClassVar[float | None] = 1.01
    smallest_width: ClassVar[float] = 1.0

    def argument(self, z: Tensor) -> Tensor:
        r"""Evaluate :math:`\tanh(z)/τ`."""
        return torch.tanh(z) / self.width

    def following(self, n: int, x: Tensor, last: Tensor, before: Tensor) -> Tensor:
        r""":math:`T_1 = x`, :math:`T_n = 2x T_{n-1} - T_{n-2}`."""
        return x if n == 1 else 2 * x * last - before


class GegenbauerPolynomials(Polynomials):
    r"""Gegenbauer polynomials :math:`C^{(a)}_i(\tanh(s))`; ``width`` is :math:`a > 0`."""

    def argument(self, z: Tensor) -> Tensor:
        r"""Evaluate :math:`\tanh(z)`."""
        return torch.tanh(z)

    def following(self, n: int, x: Tensor, last: Tensor, before: Tensor) -> Tensor:
        r""":math:`n C_n = 2(n + a - 1)\, x C_{n-1} - (n + 2a - 2)\, C_{n-2}`."""
        a = self.width
        return (2 * (n + a - 1) * x * last - (n + 2 * a - 2) * before) / n
