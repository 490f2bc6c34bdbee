"""Constraints on univariate functions: maps from free coefficients to those of a basis."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pyro_tkam.nn import _checks
from pyro_tkam.ops.bases import BSplines, FourierSeries, Polynomials

if TYPE_CHECKING:
    from pyro_tkam.nn.basis import Basis
    from pyro_tkam.nn.univariate import UnivariateFunctions


class Constraint(ABC):
    """A property that all functions of a bank share; they have no base function and no scale."""

    @abstractmethod
    def __call__(self, free: Tensor) -> Tensor:
        """Map free coefficients to coefficients of functions that satisfy the constraint."""


class Increasing(Constraint):
    r"""
    Nondecreasing splines: coefficients grow by :math:`\mathrm{softplus}(·)/F` from one to the next.

    The slope of a B-spline is a spline of the differences of coefficients, and none is negative.
    """

    def __call__(self, free: Tensor) -> Tensor:
        """Map free coefficients to ascending ones."""
        steps = nn.functional.softplus(free[..., 1:]) / free.shape[-1]
        return torch.cat((free[..., :1], steps), -1).cumsum(-1)


class Decreasing(Increasing):
    """Nonincreasing splines."""

    def __call__(self, free: Tensor) -> Tensor:
        """Map free coefficients to descending ones."""
        return -super().__call__(free)


class Mirrored(Constraint):
    """Functions on a uniform grid that are even around its middle: coefficients are symmetric."""

    def __call__(self, free: Tensor) -> Tensor:
        """Average coefficients with their mirror image."""
        return (free + free.flip(-1)) / 2


@dataclass(frozen=True, eq=False)
class Chosen(Constraint):
    """
    Functions in the span of a subset of the basis: all other coefficients are zero.

    :param kept: bools, one for each function of the basis.
    """

    kept: Tensor

    def __call__(self, free: Tensor) -> Tensor:
        """Set the other coefficients to zero."""
        return torch.where(self.kept.to(free.device), free, 0.0)


def _monotone(make: type[Increasing]) -> Callable[[Basis, int], Constraint]:
    def constraint(basis: Basis, periods: int) -> Constraint:
        _one_period(periods)
        if not isinstance(basis.placed, BSplines):
            raise ValueError(f"basis must be 'bspline' for monotone functions, got {basis.name!r}")
        return make()

    return constraint


def _even(basis: Basis, periods: int) -> Constraint:
    _one_period(periods)
    functions = basis.placed
    if isinstance(functions, FourierSeries):
        return Chosen(_frequencies(basis)[1])
    if isinstance(functions, Polynomials):
        if basis.low != -basis.high:
            raise ValueError(
                "low must be -high for even polynomials, whose argument is tanh(z), got "
                f"{basis.low} and {basis.high}"
            )
        return Chosen(torch.arange(functions.num_functions) % 2 == 0)
    return Mirrored()


def _periodic(basis: Basis, periods: int) -> Constraint:
    if not isinstance(basis.placed, FourierSeries):
        raise ValueError(f"basis must be 'fourier' for periodic functions, got {basis.name!r}")
    if not 1 <= periods <= basis.placed.grid_size:
        raise ValueError(
            f"periods must be from 1 to grid_size, {basis.placed.grid_size}, got {periods}"
        )
    return Chosen(_frequencies(basis)[0] % periods == 0)


def _frequencies(basis: Basis) -> tuple[Tensor, Tensor]:
    """Return the frequency of each function of a Fourier series, and whether it is a cosine."""
    fixed = basis._buffers.get("width")
    if fixed is None or float(fixed) != 1.0:
        got = "a learned width" if fixed is None else f"{float(fixed):g}"
        raise ValueError(f"width must be 1 and fixed for a constrained Fourier series, got {got}")
    number = torch.arange(basis.num_functions)
    return (number + 1) // 2, (number % 2 == 1) | (number == 0)


def _one_period(periods: int) -> None:
    if periods != 1:
        raise ValueError(f"periods must be 1 for functions that are not periodic, got {periods}")


CONSTRAINTS: dict[str, Callable[[Basis, int], Constraint]] = {
    "increasing": _monotone(Increasing),
    "decreasing": _monotone(Decreasing),
    "even": _even,
    "periodic": _periodic,
}
"""Constraints by the user's name, in addition to "none"."""


def constraint_of(name: str, basis: Basis, periods: int) -> Constraint | None:
    """
    Return the constraint with this name, or None for ``"none"``.

    :param name: the user's name for it.
    :param basis: the basis of the functions.
    :param periods: number of periods of periodic functions in the grid's interval.
    :raises ValueError: for an unknown name and a basis that cannot satisfy the constraint.
    """
    periods = _checks.integer("periods", periods, 1)
    if isinstance(name, str) and name == "none":
        _one_period(periods)
        return None
    return _checks.known("constraint", name, CONSTRAINTS)(basis, periods)


def refuse_constrained(bank: UnivariateFunctions, purpose: str) -> None:
    """
    Refuse an operation that would set coefficients directly if they are subject to a constraint.

    :param bank: the functions.
    :param purpose: the operation, for the error.
    :raises ValueError: for a bank with a constraint.
    """
    if bank.constraint != "none":
        raise ValueError(f"constraint must be 'none' for {purpose}, got {bank.constraint!r}")
