"""Checks of what bases are made from and called with: types and shapes, which cost nothing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_tkam._checks import number, whole_number
from pyro_tkam.ops._arguments import floating
from pyro_tkam.ops._points import broadcast_together
from pyro_tkam.ops._precision import under_autocast


def check_interval(low: Any, high: Any) -> None:
    """
    Refuse ends of a grid that are no rising numbers in the range of a tensor.

    :param low: lower end.
    :param high: upper end.
    :raises TypeError: for what is no number.
    :raises ValueError: for other numbers.
    """
    largest = torch.finfo(torch.get_default_dtype()).max
    for name, value in (("low", low), ("high", high)):
        number(name, value, at_least=-largest, at_most=largest)
    if low >= high:
        raise ValueError(f"low must be below high, got low={low:g}, high={high:g}")


def check_width(width: Any, above: float | None) -> None:
    """
    Refuse what is no width.

    :param width: a number, or None where the basis has no width.
    :param above: what it must be greater than, or None where the basis has no width.
    :raises TypeError: for what is no number.
    :raises ValueError: for other numbers.
    """
    if above is not None:
        number("width", width, above)
    elif width is not None:
        raise ValueError(f"width must be None for a basis without one, got {width!r}")


def check_parts(grid: Any, width: Any, degree: Any) -> None:
    """
    Refuse what a basis can't hold.

    :param grid: points of shape ``(*grid_batch, M)``.
    :param width: a tensor, or None.
    :param degree: a whole number.
    :raises TypeError: for what is of another type.
    :raises ValueError: for a grid without points, and a degree below 0.
    """
    check_grid(grid)
    if width is not None:
        floating("width", width)
    whole_number("degree", degree, 0)


def check_grid(grid: Any) -> None:
    """
    Refuse what is no grid.

    :param grid: points of shape ``(*grid_batch, M)``.
    :raises TypeError: for what is no floating-point tensor.
    :raises ValueError: for a grid without points.
    """
    floating("grid", grid)
    if grid.dim() == 0 or grid.shape[-1] == 0:
        raise ValueError(
            f"grid must have shape (*grid_batch, M) with M >= 1, got {tuple(grid.shape)}"
        )


def check_points(z: Any, grid: Tensor) -> None:
    """
    Refuse what a basis can't be evaluated at.

    :param z: any shape that broadcasts against the batch of grids.
    :param grid: the grids.
    :raises TypeError: for what is no floating-point tensor.
    :raises ValueError: for another shape.
    """
    floating("z", z)
    if grid.dim() > 1 and not broadcast_together(z.shape, grid.shape[:-1]):
        raise ValueError(
            f"z must broadcast against the grids' {tuple(grid.shape[:-1])}, got {tuple(z.shape)}"
        )


def check_coefficients(z: Tensor, grid: Tensor, coefficients: Any, num_functions: int) -> None:
    """
    Refuse coefficients of other functions than those evaluated at some points.

    :param z: the points.
    :param grid: the grids.
    :param coefficients: shape ``(*batch, num_functions)``.
    :param num_functions: the number of functions.
    :raises TypeError: for what is no tensor of the dtype of the points.
    :raises ValueError: for another shape.
    """
    check_points(z, grid)
    _check_like("coefficients", coefficients, "z", z)
    if coefficients.dim() == 0 or coefficients.shape[-1] != num_functions:
        raise ValueError(
            f"coefficients must have shape (*batch, {num_functions}), got "
            f"{tuple(coefficients.shape)}"
        )
    batch = coefficients.shape[:-1]
    if grid.dim() == 1 and z.shape[z.dim() - len(batch) :] == batch:
        return  # mostly, and fast
    if not (broadcast_together(z.shape, batch) and broadcast_together(grid.shape[:-1], batch)):
        raise ValueError(
            f"z must broadcast against the coefficients' {tuple(batch)}, got {tuple(z.shape)}"
        )


def check_edges(s: Any, coefficients: Any, num_functions: int) -> None:
    """
    Refuse coefficients of other edges than those that read some inputs.

    :param s: shape ``(*, in)``.
    :param coefficients: shape ``(out, in, num_functions)``.
    :param num_functions: the number of functions.
    :raises TypeError: for what is no tensor, and for two dtypes.
    :raises ValueError: for another shape.
    """
    floating("s", s)
    _check_like("coefficients", coefficients, "s", s)
    if s.dim() == 0:
        raise ValueError(f"s must have shape (*, in), got {tuple(s.shape)}")
    shape = coefficients.shape
    if len(shape) != 3 or shape[0] == 0 or shape[1:] != (s.shape[-1], num_functions):
        raise ValueError(
            f"coefficients must have shape (out, {s.shape[-1]}, {num_functions}) with at least "
            f"one out, got {tuple(shape)}"
        )


def _check_like(name: str, value: Any, other: str, like: Tensor) -> None:
    floating(name, value)
    if value.dtype != like.dtype and not under_autocast():
        raise TypeError(f"{name} must have the dtype of {other}, {like.dtype}, got {value.dtype}")
