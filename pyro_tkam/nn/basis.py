"""A basis as a module: it holds the grid and the width, which may be a parameter."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from operator import methodcaller
from typing import Any

import torch
from pyro.nn import PyroModule, PyroParam, pyro_method
from torch.distributions import constraints

from pyro_tkam.nn import _checks
from pyro_tkam.ops._concrete import refuse_tracing
from pyro_tkam.ops.bases import BASES, BasisFunctions, ShiftedKernel


def _kind(basis: Any) -> type[BasisFunctions]:
    """Look up a basis by its name, or check a class."""
    if isinstance(basis, type) and issubclass(basis, BasisFunctions):
        if issubclass(basis, ShiftedKernel):
            basis.check_derivatives()
        return basis
    if not isinstance(basis, str) or basis not in BASES:
        names = ", ".join(map(repr, BASES))
        raise ValueError(
            f"basis must be one of {names}, or a subclass of BasisFunctions, got {basis!r}"
        )
    return BASES[basis]


def _as_it_is(functions: BasisFunctions) -> BasisFunctions:
    return functions


#: how functions continue outside the grid, by the user's name
EXTRAPOLATIONS: dict[str, Callable[[BasisFunctions], BasisFunctions]] = {
    "zero": _as_it_is,
    "linear": methodcaller("extended"),
}


class Basis(PyroModule):
    r"""
    A named basis of univariate functions on a grid over ``[low, high]``, initially uniform.

    The grid is a buffer, so a checkpoint stores the updated grid.

    :param name: ``"rbf"``, ``"bspline"``, ``"rswaf"``, ``"fourier"``, ``"chebyshev"``,
        ``"gegenbauer"``, ``"mexican_hat"`` or ``"morlet"``, with formulas in
        :mod:`pyro_tkam.ops.bases`; or your own subclass of
        :class:`~pyro_tkam.ops.bases.BasisFunctions`.
    :param low: lower end of the grid.
    :param high: upper end of the grid.
    :param grid_size: number of centers (RBF, RSWAF, wavelets), of intervals between the knots of a
        B-spline, or of Fourier frequencies; polynomials ignore it.
    :param degree: degree of B-splines and polynomials; others ignore it.
    :param width: τ (for Gegenbauer polynomials, a). Default 1, or 1.01 for Chebyshev polynomials;
        B-splines have no width.
    :param trainable_width: make ``width`` a parameter. The paper's tables train it for RBF and
        Fourier bases.
    :param extrapolation: ``"zero"`` or ``"linear"``, see
        :class:`~pyro_tkam.nn.UnivariateFunctions`.
    :raises ValueError: for an unknown name, an empty interval, and sizes or a width that the basis
        does not allow.

    >>> Basis("bspline", 0.0, 1.0, grid_size=5, degree=3).bound()(torch.rand(7)).shape
    torch.Size([7, 8])
    """

    grid: torch.Tensor

    def __init__(
        self,
        name: str | type[BasisFunctions],
        low: float,
        high: float,
        *,
        grid_size: int = 20,
        degree: int = 3,
        width: float | None = None,
        trainable_width: bool = False,
        extrapolation: str = "zero",
    ) -> None:
        super().__init__()
        _checks.flag("trainable_width", trainable_width)
        kind = _kind(name)
        self.name = name
        self.low, self.high = _checks.interval(low, high)
        grid_size = _checks.integer("grid_size", grid_size, 1)
        degree = _checks.integer("degree", degree, 0)
        if kind.default_width is None:
            if width is not None or trainable_width:
                raise ValueError(
                    f"width and trainable_width must not be given for basis {name!r}, which has no "
                    f"width, got width={width}, trainable_width={trainable_width}"
                )
        else:
            width = _checks.number(
                "width", kind.default_width if width is None else width, above=kind.smallest_width
            )
        extend = _checks.known("extrapolation", extrapolation, EXTRAPOLATIONS)
        self._functions = extend(kind.uniform(self.low, self.high, grid_size, degree, width))
        self.register_buffer("grid", self._functions.grid)
        if trainable_width:
            self.width = PyroParam(
                self._functions.width, constraint=constraints.greater_than(kind.smallest_width)
            )
        else:
            self.register_buffer("width", self._functions.width)

    @property
    def placed(self) -> BasisFunctions:
        """The basis functions on the current grid; pass them to :meth:`place` to restore it."""
        return dataclasses.replace(self._functions, grid=self.grid)

    def place(self, functions: BasisFunctions) -> None:
        """Take the grid of basis functions of the same kind."""
        self.grid = functions.grid.to(self.grid)
        self._functions = dataclasses.replace(
            functions, grid=self.grid, width=self._functions.width
        )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        saved = state_dict.get(f"{prefix}grid")
        if saved is not None:
            self.place(self._functions.on_grid(saved))
        super()._load_from_state_dict(state_dict, prefix, *args)

    @property
    def num_functions(self) -> int:
        """The number of functions."""
        return self._functions.num_functions

    @property
    def has_base(self) -> bool:
        """Whether an edge adds a base function to the sum."""
        return self._functions.has_base

    @pyro_method
    def bound(self) -> BasisFunctions:
        """Return the functions with their current tensors."""
        refuse_tracing("learned univariate functions")
        return dataclasses.replace(self._functions, grid=self.grid, width=self.width)

    def starting_coefficients(self, shape: tuple[int, ...], noise_scale: float) -> torch.Tensor:
        r"""
        Fit noise :math:`U(-½, ½)·` ``noise_scale`` :math:`/F`; shape ``(*shape, num_functions)``.
        """
        noise = (torch.rand(*shape, self.num_functions) - 0.5) * (noise_scale / self.num_functions)
        return self._functions.start(noise, self.low, self.high)
