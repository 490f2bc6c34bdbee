"""B-splines of any degree, fastest on uniform grids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from pyro_tkam._checks import flag, whole_number
from pyro_tkam.ops._concrete import is_concrete
from pyro_tkam.ops.bases.base import BasisFunctions
from pyro_tkam.ops.bases.checks import (
    check_grid,
    check_interval,
    check_points,
    check_width,
)
from pyro_tkam.ops.bases.twin import evaluate

#: numbers held at a time by a gradient: enough for fast products, few enough for the memory
CHUNK = 1 << 22


@dataclass(frozen=True, eq=False)
class BSplines(BasisFunctions):
    r"""
    B-splines of degree :math:`k` on :math:`G` equal intervals: :math:`F = G + k` functions (Liu et
    al. 2024).

    Inside the grid they sum to one. The knots continue for :math:`k` steps on either side, so the
    functions fall to zero there and stay zero beyond. ``grid`` holds the ``G + 1`` ends of the
    intervals; there is no width.

    :param linear: instead, continue outside the grid as straight lines, :math:`B(z) = B(e) + (z -
        e)\,B'(e)` with the nearest end :math:`e`; once continuously differentiable for degrees
        above one.
    """

    linear: bool = False

    default_width: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        flag("linear", self.linear)

    @classmethod
    def uniform(
        cls, low: float, high: float, grid_size: int, degree: int, width: float | None
    ) -> Self:
        """Make ``grid_size`` equal intervals over ``[low, high]``."""
        check_interval(low, high)
        check_width(width, None)
        whole_number("grid_size", grid_size, 1)
        if whole_number("degree", degree, 0) < 1:
            raise ValueError(f"degree must be at least 1 for a B-spline, got {degree}")
        return cls(torch.linspace(low, high, grid_size + 1), None, degree)

    def on_grid(self, grid: Tensor) -> BSplines:
        """Make splines on another grid; splines on a grid with unequal steps are slower."""
        check_grid(grid)
        kind = BSplines if is_uniform(grid) else IrregularBSplines
        return kind(grid, None, self.degree, self.linear)

    def extended(self) -> Self:
        """Return the splines that continue as straight lines outside the grid."""
        return replace(self, linear=True)

    @property
    def placed(self) -> Tensor:
        """The ends of the intervals."""
        return self.grid

    @property
    def has_curvature(self) -> bool:
        """Whether the degree is at least 2."""
        return self.degree >= 2

    @property
    def grid_size(self) -> int:
        """The number of intervals."""
        return self.grid.shape[-1] - 1

    @classmethod
    def num_knots(cls, grid_size: int) -> int:
        """The number of ends of intervals."""
        return grid_size + 1

    @property
    def num_functions(self) -> int:
        """The number of functions, ``G + k``."""
        return self.grid.shape[-1] - 1 + self.degree

    @property
    def knots(self) -> Tensor:
        """The knots inside ``[low, high]``."""
        return self.grid

    @property
    def greville(self) -> Tensor:
        """
        The coefficients of the function :math:`z` itself, the means of each function's inner knots
        (Greville); shape ``(*grid_batch, F)``.
        """
        knots = _extended(self.grid, self.degree)[..., self.degree + 1 : -self.degree - 1]
        return knots.unfold(-1, self.degree, 1).mean(-1)

    @property
    def _sum(self) -> type[SplineSum]:
        return SplineSum

    @property
    def _product(self) -> type[SplineProduct]:
        return SplineProduct

    def __call__(self, z: Tensor) -> Tensor:
        """Values ``(*z.shape, G + k)``."""
        check_points(z, self.grid)
        cell, values = self._local(z)
        index = cell.long().unsqueeze(-1) + torch.arange(self.degree + 1, device=z.device)
        active = values.movedim(0, -1)
        padded = active.new_zeros(*cell.shape, self.num_functions + 2 * self.degree)
        padded = padded.scatter(-1, index, active)
        return padded[..., self.degree : self.degree + self.num_functions]

    def _local(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Find the cell of ``z`` and the values of the functions active in it, functions first."""
        cell, t, _, beyond = locate(z, self.grid, self.degree, self.linear)
        values, lower = cardinal_splines(t, self.degree)
        return cell, values if beyond is None else values + beyond * cardinal_slopes(lower)

    def elementwise_sum(self, z: Tensor, coefficients: Tensor) -> Tensor:
        """Sum the functions that are not zero."""
        shape = torch.broadcast_shapes(z.shape, coefficients.shape[:-1])
        batch = shape[len(shape) - coefficients.dim() + 1 :]
        rows = z.expand(shape).reshape(-1, batch.numel())
        weights = coefficients.expand(*batch, -1).reshape(batch.numel(), -1)
        grid = (
            self.grid
            if self.grid.dim() == 1
            else self.grid.expand(*batch, -1).reshape(batch.numel(), -1)
        )
        return evaluate(self._sum(self.degree, self.linear), rows, grid, weights).reshape(shape)

    def product(self, s: Tensor, weight: Tensor) -> Tensor:
        """
        Multiply values by ``weight``, at a cost that depends only on the nonzero functions.
        """
        return evaluate(self._product(self.degree, self.linear), s, self.grid, weight)


def is_uniform(grid: Tensor) -> bool:
    """Tell whether the steps of every grid are equal within rounding."""
    ends = grid[..., :1], grid[..., -1:]
    places = torch.linspace(0, 1, grid.shape[-1], dtype=grid.dtype, device=grid.device)
    rounding = 8 * torch.finfo(grid.dtype).eps * torch.maximum(ends[0].abs(), ends[1].abs())
    return bool(((grid - torch.lerp(*ends, places)).abs() <= rounding).all())


def locate(
    z: Tensor, grid: Tensor, degree: int, linear: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """
    Find the cell of ``z`` among the ``G + 2k`` cells of the extended grid.

    Arguments further out are moved to its ends, where every function is zero. For splines that
    continue as lines, they are moved to the ends of the grid itself.

    :returns: the cell ``e``, in which only functions ``e - k, …, e`` are not zero (those outside
        ``0 … F - 1`` do not exist); the position in it, in [0, 1]; the derivative of the functions'
        argument with respect to ``z``; for lines, how far beyond the grid ``z`` lies, in cells.
    """
    num_intervals = grid.shape[-1] - 1
    first = degree if linear else 0
    last = num_intervals + 2 * degree - first
    low = grid[..., 0]
    rate = (grid[..., -1] - low).reciprocal() * num_intervals
    place = (z - low) * rate + degree
    u = place.clamp(first, last)
    cell = u.detach().floor().clamp(max=last - 1)
    index = cell.int().clamp(first, last - 1)  # of NaN, whose values are NaN, some cell
    if linear:
        return index, u - cell, rate.expand(u.shape), place - u
    return index, u - cell, rate * (u == place), None


def reach_out(beyond: Tensor) -> bool:
    """Tell whether arguments may lie beyond the grid; only a CPU can tell this cheaply."""
    return beyond.device.type != "cpu" or not is_concrete(beyond) or bool(beyond.any())


def cardinal_splines(t: Tensor, degree: int) -> tuple[Tensor, Tensor]:
    r"""
    Evaluate the ``degree + 1`` uniform B-splines that are not zero in a cell, at the place ``t`` in
    [0, 1] in it.

    Cox–de Boor on unit knots, :math:`b^d_j = \frac{(t + d - j)\, b^{d-1}_{j-1} + (1 - t + j)\,
    b^{d-1}_j}{d}`.

    :returns: the values from the leftmost function, which ends with the cell, to the one that
        starts with it, ``(degree + 1, *t.shape)``; and the values of one degree less.
    """
    steps = torch.arange(degree + 1, dtype=t.dtype, device=t.device)
    steps = steps.reshape(-1, *(1 for _ in t.shape))
    from_low = t + steps[:-1].flip(0)
    to_high = steps[1:] - t
    lower, values = torch.ones_like(t).unsqueeze(0), torch.cat((to_high[:1], from_low[-1:]))
    for d in range(2, degree + 1):
        lower = values
        values = _next_degree(to_high[:d] * lower, from_low[degree - d :] * lower) / steps[d]
    return values, lower


def _next_degree(falling: Tensor, rising: Tensor) -> Tensor:
    """Add what each function of a degree gets from two functions of the degree below."""
    return torch.cat((falling[:1], rising[:-1] + falling[1:], rising[-1:]))


def cardinal_slopes(lower: Tensor) -> Tensor:
    r"""
    Differentiate :func:`cardinal_splines`, from the values of one degree less: :math:`\partial_t
    b^d_j = b^{d-1}_{j-1} - b^{d-1}_j`.
    """
    return torch.cat((-lower[:1], lower[:-1] - lower[1:], lower[-1:]))


@dataclass(frozen=True)
class LocalFunctions:
    """What fast sums of B-splines share: only ``k + 1`` functions are not zero at an argument."""

    degree: int
    linear: bool

    def active(self, z: Tensor, grid: Tensor, *orders: int) -> tuple[Tensor, ...]:
        """
        Find the active functions, as rows of a matrix with one block of ``F`` rows for each column
        of ``z``.

        :param z: shape ``(N, K)``.
        :param orders: 0 for values, 1 for slopes.
        :returns: rows, and of each order what the functions have there, all ``(N, k + 1, K)``;
            where a function would lie outside of the ``F`` that exist, it is 0.
        """
        num_functions = grid.shape[-1] - 1 + self.degree
        cell, found = self.local(z, grid, orders)
        parts = [each.movedim(0, 1).contiguous() for each in found]
        whole = partial(torch.arange, dtype=cell.dtype, device=z.device)
        steps = whole(-self.degree, 1).unsqueeze(-1)
        blocks = whole(0, z.shape[1] * num_functions, num_functions)
        if self.linear:  # no argument is moved to where functions do not exist
            return cell.unsqueeze(1) + (steps + blocks), *parts
        function = cell.unsqueeze(1) + steps
        rows = function.clamp(0, num_functions - 1)
        exists = rows == function
        return rows.add_(blocks), *(each.mul_(exists) for each in parts)

    def local(self, z: Tensor, grid: Tensor, orders: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        """
        Find the cell ``(N, K)`` and, of each order, values or slopes ``(k + 1, N, K)`` of the
        functions in it.
        """
        cell, t, rate, beyond = locate(z, grid, self.degree, self.linear)
        values, lower = cardinal_splines(t, self.degree)
        if beyond is not None and 0 in orders and reach_out(beyond):
            values = values.addcmul_(cardinal_slopes(lower), beyond)
        return cell, [cardinal_slopes(lower).mul_(rate) if order else values for order in orders]

    def dense(self, z: Tensor, grid: Tensor) -> Tensor:
        """Evaluate every function differentiably, ``(N, K, F)``."""
        return BSplines(grid, None, self.degree, self.linear)(z)

    def chunks(self, numbers: int, *matrices: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """
        Split the rows of matrices so that what is made for a chunk, so many numbers a row, has a
        bounded size.
        """
        return zip(
            *(matrix.split(max(1, CHUNK // max(1, numbers))) for matrix in matrices), strict=True
        )


class SplineSum(LocalFunctions):
    """
    Sums with separate coefficients: ``z`` of shape ``(N, K)``, ``coefficients`` of ``(K, F)``.
    """

    def plain(self, z: Tensor, grid: Tensor, coefficients: Tensor) -> Tensor:
        """Evaluate differentiably."""
        return (self.dense(z, grid) * coefficients).sum(-1)

    def forward(self, z: Tensor, grid: Tensor, coefficients: Tensor) -> Tensor:
        """Gather the coefficients of active functions."""
        result = torch.empty_like(z, memory_format=torch.contiguous_format)
        for part, out in self.chunks(z.shape[1] * (self.degree + 1), z, result):
            rows, values = self.active(part, grid, 0)
            torch.sum(values.mul_(coefficients.take(rows.long())), 1, out=out)
        return result

    def backward(
        self, grad: Tensor, needed: Sequence[bool], z: Tensor, grid: Tensor, coefficients: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Compute gradients; the grid has none."""
        grad_z = torch.empty_like(z, memory_format=torch.contiguous_format)
        grad_coefficients = torch.zeros_like(coefficients, memory_format=torch.contiguous_format)
        for part, upper, place in self.chunks(z.shape[1] * (self.degree + 1), z, grad, grad_z):
            if needed[2]:
                rows, values = self.active(part, grid, 0)
                grad_coefficients.view(-1).index_add_(
                    0, rows.view(-1), values.mul_(upper.unsqueeze(1)).view(-1)
                )
            if needed[0]:
                rows, slopes = self.active(part, grid, 1)
                torch.sum(slopes.mul_(coefficients.take(rows.long())), 1, out=place).mul_(upper)
        return grad_z if needed[0] else None, None, grad_coefficients if needed[2] else None


class SplineProduct(LocalFunctions):
    """
    The matrix product of a layer: ``s`` is ``(N, in)``, ``weight`` ``(in * F, out)``, the result
    ``(N, out)``.
    """

    def plain(self, s: Tensor, grid: Tensor, weight: Tensor) -> Tensor:
        """Evaluate differentiably."""
        return self.dense(s, grid).flatten(1) @ weight

    def forward(self, s: Tensor, grid: Tensor, weight: Tensor) -> Tensor:
        """Add up the active rows of ``weight``."""
        rows, values = self.active(s, grid, 0)
        return embedding_bag(
            rows.flatten(1), weight, per_sample_weights=values.flatten(1), mode="sum"
        )

    def backward(
        self, grad: Tensor, needed: Sequence[bool], s: Tensor, grid: Tensor, weight: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Compute gradients; the grid has none."""
        rows, values, *slopes = self.active(s, grid, *((0, 1) if needed[0] else (0,)))
        grad = grad.contiguous()
        grad_s = self._argument_gradient(grad, weight, rows, *slopes) if needed[0] else None
        grad_weight = (
            self._weight_gradient(grad, rows, values, weight.shape[0]) if needed[2] else None
        )
        return grad_s, None, grad_weight

    def _weight_gradient(self, grad: Tensor, rows: Tensor, values: Tensor, num_rows: int) -> Tensor:
        """Add up, for each row of ``weight``, the rows of ``grad`` for which it was active."""
        ordered, order = rows.view(-1).sort(stable=True)
        datum = torch.arange(len(grad), dtype=torch.int32, device=grad.device).repeat_interleave(
            rows[0].numel()
        )
        every = torch.arange(num_rows, dtype=torch.int32, device=grad.device)
        starts = torch.searchsorted(ordered, every, out_int32=True)
        datum, weights = (each.index_select(0, order) for each in (datum, values.view(-1)))
        return embedding_bag(datum, grad, starts, per_sample_weights=weights, mode="sum")

    def _argument_gradient(
        self, grad: Tensor, weight: Tensor, rows: Tensor, slopes: Tensor
    ) -> Tensor:
        result = torch.empty_like(slopes[:, 0], memory_format=torch.contiguous_format)
        for row, slope, upper, place in self.chunks(weight.shape[0], rows, slopes, grad, result):
            # This order of the product is the faster one by a third.
            pulled = (weight @ upper.mT).mT.gather(1, row.flatten(1).long()).view_as(slope)
            torch.sum(slope.mul_(pulled), 1, out=place)
        return result


class IrregularBSplines(BSplines):
    r"""
    B-splines of degree :math:`k` on :math:`G` intervals of any positive lengths.

    Like :class:`BSplines`, and with the same values if the steps are equal. The knots outside the
    grid are one mean step apart.
    """

    def _local(self, z: Tensor) -> tuple[Tensor, Tensor]:
        knots = _extended(self.grid, self.degree)
        inside, cell = _cell(z, knots, self.degree, self.linear)
        around = _neighbors(knots, cell, self.degree)
        values, lower = local_splines(inside, around)
        return cell, values + (z - inside) * local_slopes(lower, around) if self.linear else values

    @property
    def _sum(self) -> type[SplineSum]:
        return _IrregularSum

    @property
    def _product(self) -> type[SplineProduct]:
        return _IrregularProduct


def _extended(grid: Tensor, degree: int) -> Tensor:
    """
    Add ``2k`` knots on either side: ``k`` that bound functions, and ``k`` so that no cell lacks
    neighbors.
    """
    step = (grid[..., -1:] - grid[..., :1]) / (grid.shape[-1] - 1)
    steps = torch.arange(1, 2 * degree + 1, dtype=grid.dtype, device=grid.device)
    return torch.cat(
        (grid[..., :1] - steps.flip(0) * step, grid, grid[..., -1:] + steps * step), -1
    )


def _cell(z: Tensor, knots: Tensor, degree: int, linear: bool) -> tuple[Tensor, Tensor]:
    """
    Take arguments further out to the ends as in :func:`locate`, and find their cell among the
    ``G + 2k``, shaped as ``z`` broadcast against the grids.
    """
    first = degree if linear else 0
    end = degree + first
    inside = torch.minimum(torch.maximum(z, knots[..., end]), knots[..., -1 - end])
    rank = knots.dim() - 1
    z = inside.detach().expand(torch.broadcast_shapes(z.shape, knots.shape[:-1]))
    if rank == 0:
        found = torch.bucketize(z, knots, right=True)
    else:
        batch = z.shape[z.dim() - rank :]
        rows = knots.expand(*batch, -1).reshape(batch.numel(), -1).contiguous()
        columns = z.reshape(-1, batch.numel()).mT.contiguous()
        found = torch.searchsorted(rows, columns, right=True).mT.contiguous().reshape(z.shape)
    last = knots.shape[-1] - 2 - 2 * degree - first
    return inside, (found - 1 - degree).clamp(first, last).int()


def _neighbors(knots: Tensor, cell: Tensor, degree: int) -> Tensor:
    """
    Return the ``2k`` knots around a cell, from ``k - 1`` before its lower end on, ``(2k,
    *cell.shape)``.
    """
    count = knots.shape[-1]
    first = torch.arange(0, knots.numel(), count, device=cell.device).reshape(knots.shape[:-1])
    steps = torch.arange(1, 2 * degree + 1, device=cell.device)
    return knots.flatten()[cell.long() + first + steps.reshape(-1, *(1 for _ in cell.shape))]


def local_splines(z: Tensor, around: Tensor) -> tuple[Tensor, Tensor]:
    r"""
    Evaluate the B-splines that are not zero in a cell, with the Cox-de Boor recurrence.

    :math:`b^d_i(z) = \frac{z - t_i}{t_{i+d} - t_i} b^{d-1}_i(z) + \frac{t_{i+d+1} - z}{t_{i+d+1} -
    t_{i+1}}
    b^{d-1}_{i+1}(z)`.

    :param around: the ``2k`` knots around the cell, of shape ``(2k, *cell)``, for the degree ``k``.
    :returns: ``(k + 1, *cell)`` values, from the function that ends with the cell to the one that
        starts with it; and the values of one degree less.
    """
    degree = len(around) // 2
    from_low = z - around[:degree]
    to_high = around[degree:] - z
    lower = values = torch.ones_like(to_high[:1])
    for d in range(1, degree + 1):
        lower = values
        # Function j of degree d - 1 reaches from the knot low[j] to the knot high[j].
        shares = lower / (around[degree : degree + d] - around[degree - d : degree])
        values = _next_degree(to_high[:d] * shares, from_low[degree - d :] * shares)
    return values, lower


def local_slopes(lower: Tensor, around: Tensor) -> Tensor:
    r"""
    Differentiate :func:`local_splines`, from the values of one degree less:
    :math:`k\,[b^{k-1}_i/(t_{i+k} - t_i) - b^{k-1}_{i+1}/(t_{i+k+1} - t_{i+1})]`.
    """
    degree = len(lower)
    return cardinal_slopes(degree * lower / (around[degree:] - around[:degree]))


class _Irregular(LocalFunctions):
    """The functions active at an argument, found among steps that differ."""

    def local(self, z: Tensor, grid: Tensor, orders: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        knots = _extended(grid, self.degree)
        inside, cell = _cell(z, knots, self.degree, self.linear)
        around = _neighbors(knots, cell, self.degree)
        values, lower = local_splines(inside, around)
        beyond = z - inside
        if self.linear and 0 in orders and reach_out(beyond):
            values = values.addcmul_(local_slopes(lower, around), beyond)
        if 1 not in orders:
            return cell, [values]
        slopes = local_slopes(lower, around)
        if not self.linear:
            slopes.mul_(inside == z)
        return cell, [slopes if order else values for order in orders]

    def dense(self, z: Tensor, grid: Tensor) -> Tensor:
        return IrregularBSplines(grid, None, self.degree, self.linear)(z)


class _IrregularSum(_Irregular, SplineSum):
    pass


class _IrregularProduct(_Irregular, SplineProduct):
    pass
