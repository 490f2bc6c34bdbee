"""
Composite interpolatory quadrature: rules on one cell, and the cells of an interval (model of Raj
2025, Eq. 6).
"""

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_tkam._checks import flag, number, sequence, whole_number
from pyro_tkam.ops._arguments import dense, floating, floating_dtype
from pyro_tkam.ops._points import broadcast_together

__all__ = [
    "Quadrature",
    "composite",
    "default_rule",
    "gauss_kronrod",
    "gauss_legendre",
    "trapezium",
]

MAX_NODES = 200


@dataclass(frozen=True)
class Quadrature:
    """
    A composite rule: how an interval is divided into cells, and the nodes of every cell.

    In each cell, the polynomial through the nodes replaces the integrand, so the integral over a
    part of a cell is also known.

    :param nodes: distinct nodes of one cell on [0, 1], ascending.
    :param splits: equal cells between two neighboring break points.
    :param base_cells: equal cells of an interval without break points.
    :param use_knots: whether break points of the integrand become cell edges.
    :param tolerance: cells are divided until the estimated error is below it; None leaves the cells
        unchanged.
    :param max_cells: number of cells at which refinement stops and the error is accepted.

    :raises TypeError: for what is of another type.
    :raises ValueError: for nodes outside [0, 1] or not ascending, for counts below one, and for a
        tolerance that is not positive.

    >>> gauss_legendre(5).nodes[2]
    0.5
    """

    nodes: tuple[float, ...]
    splits: int = 1
    base_cells: int = 1
    use_knots: bool = False
    tolerance: float | None = None
    max_cells: int = 1024

    def __post_init__(self) -> None:
        sequence("nodes", self.nodes, "numbers")
        for node in self.nodes:
            number("every element of nodes", node)
        ascending = all(left < right for left, right in pairwise((-1.0, *self.nodes)))
        if not self.nodes or not ascending or self.nodes[0] < 0 or self.nodes[-1] > 1:
            raise ValueError(f"nodes must be increasing numbers in [0, 1], got {self.nodes}")
        for name in ("splits", "base_cells", "max_cells"):
            whole_number(name, getattr(self, name), 1)
        flag("use_knots", self.use_knots)
        if self.tolerance is not None:
            number("tolerance", self.tolerance, 0)

    def edges(self, low: Tensor, high: Tensor, breakpoints: Tensor | None = None) -> Tensor:
        """
        Return the cell edges of an interval.

        :param low: lower ends, shape ``batch``.
        :param high: upper ends, shape ``batch``.
        :param breakpoints: ascending points, shape ``(count, *batch)``; those outside the interval
            give cells of width zero.
        :return: ascending edges, shape ``(cells + 1, *batch)``.

        >>> composite(2).edges(torch.tensor(0.0), torch.tensor(1.0), torch.tensor([0.5]))
        tensor([0.0000, 0.2500, 0.5000, 0.7500, 1.0000])
        """
        _check_ends(low, high, breakpoints)
        if breakpoints is None or not self.use_knots:
            coarse = torch.stack([low, high])
            splits = self.splits * self.base_cells
        else:
            inner = torch.minimum(torch.maximum(breakpoints, low), high)
            coarse = torch.cat(
                [low.expand(1, *inner.shape[1:]), inner, high.expand(1, *inner.shape[1:])]
            )
            splits = self.splits
        fractions = torch.arange(splits, dtype=low.dtype, device=low.device) / splits
        starts = coarse[:-1, None]
        widths = coarse.diff(dim=0)[:, None]
        inside = starts + widths * fractions.reshape(-1, *[1] * (coarse.dim() - 1))
        return torch.cat([inside.flatten(0, 1), coarse[-1:]])


def _check_ends(low: Tensor, high: Tensor, breakpoints: Tensor | None) -> None:
    """Look at types and shapes only, as edges are made with every density."""
    floating("low", low)
    _check_like("high", high, low)
    if high.shape != low.shape:
        raise ValueError(
            f"high must have the shape of low, {tuple(low.shape)}, got {tuple(high.shape)}"
        )
    if breakpoints is None:
        return
    _check_like("breakpoints", breakpoints, low)
    together = broadcast_together(breakpoints.shape[1:], low.shape)
    if breakpoints.dim() <= low.dim() or not together:
        raise ValueError(
            f"breakpoints must have shape (count, *batch) with the batch of low, "
            f"{tuple(low.shape)}, got {tuple(breakpoints.shape)}"
        )


def _check_like(name: str, value: Tensor, low: Tensor) -> None:
    dense(name, value)
    if value.dtype != low.dtype or value.device != low.device:
        raise TypeError(
            f"{name} must be like low, of {low.dtype} on {low.device}, got {value.dtype} on "
            f"{value.device}"
        )


def _checked(
    num_nodes: Any, smallest: int, largest: int = MAX_NODES, name: str = "num_nodes"
) -> int:
    whole = isinstance(num_nodes, Integral) and not isinstance(num_nodes, bool)
    if not whole or not smallest <= num_nodes <= largest:
        raise ValueError(
            f"{name} must be an integer from {smallest} to {largest}, got {num_nodes!r}"
        )
    return int(num_nodes)


def _from_symmetric(nodes: np.ndarray) -> tuple[float, ...]:
    return tuple(float(node) for node in (nodes + 1) / 2)


@cache
def _gauss_nodes(num_nodes: int) -> tuple[float, ...]:
    """Found once, as every density on an interval makes a rule."""
    return _from_symmetric(np.polynomial.legendre.leggauss(num_nodes)[0])


def gauss_legendre(num_nodes: int) -> Quadrature:
    """
    Return the plain Gauss-Legendre rule: one cell, exact for polynomials of degree
    ``2 num_nodes - 1``.

    :param num_nodes: number of nodes.
    :raises ValueError: for a number of nodes outside 1 to 200.

    >>> len(gauss_legendre(100).nodes)
    100
    """
    return Quadrature(_gauss_nodes(_checked(num_nodes, 1)))


def gauss_kronrod(num_nodes: int) -> Quadrature:
    """
    Return the plain Gauss-Kronrod rule: one cell with ``num_nodes`` Gauss nodes and ``num_nodes +
    1`` more between them.

    :param num_nodes: number of Gauss nodes; the rule has ``2 num_nodes + 1``.
    :raises ValueError: for a number of Gauss nodes outside 1 to 100.

    >>> print(f"{gauss_kronrod(7).nodes[-1] * 2 - 1:.6f}")
    0.991455
    """
    off_diagonal = np.sqrt(_kronrod_recurrence(_checked(num_nodes, 1, MAX_NODES // 2)))
    nodes = np.linalg.eigvalsh(np.diag(off_diagonal, 1) + np.diag(off_diagonal, -1))
    return Quadrature(_from_symmetric(nodes))


def _kronrod_recurrence(n: int) -> np.ndarray:
    """
    Return the squared off-diagonal of the Jacobi-Kronrod matrix of the Legendre weight.

    Laurie, "Calculation of Gauss-Kronrod quadrature rules", Math. Comp. 66 (1997), with all
    ``a_k = 0``: mixed moments are carried along two diagonals; those of the first phase are known,
    the second yields the rest of ``b``.
    """
    b = np.zeros(2 * n + 1)
    known = np.arange(1, (3 * n + 1) // 2 + 1)
    b[0] = 2
    b[known] = known**2 / (4 * known**2 - 1)
    s = np.zeros(n // 2 + 2)
    t = np.zeros(n // 2 + 2)
    t[1] = b[n + 1]
    for m in range(n - 1):
        k = np.arange((m + 1) // 2, -1, -1)
        s[k + 1] = np.cumsum(b[k + n + 1] * s[k] - b[m - k] * s[k + 1])
        s, t = t, s
    s[1:] = s[:-1].copy()
    for m in range(n - 1, 2 * n - 2):
        k = np.arange(m + 1 - n, (m - 1) // 2 + 1)
        j = n - 1 - m + k
        s[j + 1] = np.cumsum(b[m - k] * s[j + 2] - b[k + n + 1] * s[j + 1])
        if m % 2 == 1:
            b[(m + 1) // 2 + n + 1] = s[j[-1] + 1] / s[j[-1] + 2]
        s, t = t, s
    return b[1:]


def trapezium(num_nodes: int) -> Quadrature:
    """
    Return the trapezoidal rule: the integrand is linear between ``num_nodes`` equally spaced nodes,
    including the ends.

    :param num_nodes: number of nodes.
    :raises ValueError: for less than 2 nodes or more than 200.

    >>> trapezium(100).splits
    99
    """
    return Quadrature((0.0, 1.0), splits=_checked(num_nodes, 2) - 1)


def composite(
    splits: int = 2,
    num_nodes: int = 8,
    *,
    base_cells: int = 32,
    tolerance: float | None = None,
    max_cells: int = 1024,
) -> Quadrature:
    """
    Return a composite Gauss-Legendre rule whose cells end at the knots of the integrand.

    :param splits: equal cells between two neighboring knots.
    :param num_nodes: nodes per cell.
    :param base_cells: cells of an integrand without knots, before splitting.
    :param tolerance: divide cells until the estimated error is below it.
    :param max_cells: stop at this many cells.
    :raises ValueError: for counts below one.

    >>> composite(2, 8).splits
    2
    """
    nodes = _gauss_nodes(_checked(num_nodes, 1))
    return Quadrature(nodes, splits, base_cells, True, tolerance, max_cells)


def default_rule(dtype: torch.dtype, nodes_per_cell: int = 1) -> Quadrature:
    """
    Return the default rule of a precision: error below 1e-10 in float64 and 5e-7 in float32.

    :param dtype: ``torch.float64``, or a narrower floating type.
    :param nodes_per_cell: least number of nodes in each cell.
    :raises ValueError: for a number of nodes outside 1 to 200.

    >>> default_rule(torch.float32).tolerance
    5e-07
    """
    floating_dtype("dtype", dtype)
    least = _checked(nodes_per_cell, 1, name="nodes_per_cell")
    if dtype == torch.float64:
        return composite(2, max(12, least), base_cells=16, tolerance=1e-10)
    return composite(1, max(8, least), base_cells=32, tolerance=5e-7)
