"""B-splines on a grid whose steps differ, as grid updates make them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from pyro_tkam.ops.bases.splines import BSplines, LocalFunctions, SplineProduct, SplineSum


class IrregularBSplines(BSplines):
    r"""
    B-splines of degree :math:`k` on :math:`G` intervals of any positive lengths.

    As :class:`BSplines`, whose values they have where the steps are equal; the knots outside of the
    grid lie a mean step apart.
    """

    def _local(self, z: Tensor) -> tuple[Tensor, list[Tensor]]:
        knots = _extended(self.grid, self.degree)
        inside = _clamped(z, knots, self.degree)
        cell = _cell(inside, knots, self.degree)
        return cell, local_splines(inside, knots, cell, self.degree)

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


def _clamped(z: Tensor, knots: Tensor, degree: int) -> Tensor:
    """Take arguments further out to the ends, where every function is zero."""
    return torch.minimum(torch.maximum(z, knots[..., degree]), knots[..., -1 - degree])


def _cell(z: Tensor, knots: Tensor, degree: int) -> Tensor:
    """
    Find the cell among the ``G + 2k`` between the ends, shaped as ``z`` broadcast against the
    grids.
    """
    rank = knots.dim() - 1
    z = z.detach().expand(torch.broadcast_shapes(z.shape, knots.shape[:-1]))
    if rank == 0:
        found = torch.bucketize(z, knots, right=True)
    else:
        batch = z.shape[z.dim() - rank :]
        rows = knots.expand(*batch, -1).reshape(batch.numel(), -1).contiguous()
        columns = z.reshape(-1, batch.numel()).mT.contiguous()
        found = torch.searchsorted(rows, columns, right=True).mT.contiguous().reshape(z.shape)
    return (found - 1 - degree).clamp(0, knots.shape[-1] - 2 - 2 * degree).int()


def _neighbors(knots: Tensor, cell: Tensor, degree: int) -> list[Tensor]:
    """Return the ``2k`` knots around a cell, from ``k - 1`` before its lower end on."""
    count = knots.shape[-1]
    first = torch.arange(0, knots.numel(), count, device=cell.device).reshape(knots.shape[:-1])
    place = cell.long() + first + 1
    flat = knots.flatten()
    return [flat[place + i] for i in range(2 * degree)]


def local_splines(
    z: Tensor, knots: Tensor, cell: Tensor, degree: int, order: int | None = None
) -> list[Tensor]:
    r"""
    Evaluate the B-splines that are not zero in a cell, by Cox and de Boor.

    :math:`b^d_i(z) = \frac{z - t_i}{t_{i+d} - t_i} b^{d-1}_i(z) + \frac{t_{i+d+1} - z}{t_{i+d+1} -
        t_{i+1}}
    b^{d-1}_{i+1}(z)`.

    :param knots: with ``2 degree`` of them beyond either end of the grid.
    :param order: the degree of the functions; None takes ``degree``.
    :returns: ``order + 1`` values, from the function that ends with the cell to the one that starts
        with it.
    """
    around = _neighbors(knots, cell, degree)
    values = [torch.ones_like(z).expand(cell.shape)]
    for d in range(1, (degree if order is None else order) + 1):
        # Function j of degree d - 1 reaches from the knot low[j] to the knot high[j].
        low, high = around[degree - d : degree], around[degree : degree + d]
        shares = [value / (b - a) for value, a, b in zip(values, low, high, strict=True)]
        falling = [(b - z) * share for b, share in zip(high, shares, strict=True)]
        rising = [(z - a) * share for a, share in zip(low, shares, strict=True)]
        middle = [a + b for a, b in zip(rising[:-1], falling[1:], strict=True)]
        values = [falling[0], *middle, rising[-1]]
    return values


def local_slopes(z: Tensor, knots: Tensor, cell: Tensor, degree: int) -> list[Tensor]:
    r"""
    Differentiate: :math:`k\,[b^{k-1}_i/(t_{i+k} - t_i) - b^{k-1}_{i+1}/(t_{i+k+1} - t_{i+1})]`.
    """
    around = _neighbors(knots, cell, degree)
    lower = local_splines(z, knots, cell, degree, degree - 1)
    shares = [
        degree * v / (b - a)
        for v, a, b in zip(lower, around[:degree], around[degree:], strict=True)
    ]
    middle = [a - b for a, b in pairwise(shares)]
    return [-shares[0], *middle, shares[-1]]


class _Irregular(LocalFunctions):
    """The functions active at an argument, found among steps that differ."""

    def local(self, z: Tensor, grid: Tensor, orders: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        knots = _extended(grid, self.degree)
        inside = _clamped(z, knots, self.degree)
        cell = _cell(inside, knots, self.degree)
        found = []
        for order in orders:
            each = torch.stack(
                (local_slopes if order else local_splines)(inside, knots, cell, self.degree), 1
            )
            found.append(each.mul_((inside == z).unsqueeze(1)) if order else each)
        return cell, found

    def dense(self, z: Tensor, grid: Tensor) -> Tensor:
        return IrregularBSplines(grid, None, self.degree)(z)


class _IrregularSum(_Irregular, SplineSum):
    pass


class _IrregularProduct(_Irregular, SplineProduct):
    pass
