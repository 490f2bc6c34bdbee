"""Composite interpolatory quadrature: rules on one cell and the cells of an interval (model of Raj 2025, Eq. 6)."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

MAX_NODES = 200


@dataclass(frozen=True)
class Quadrature:
    """
    A composite rule: how an interval is cut into cells, and the nodes of every cell.

    In each cell the integrand is replaced by the polynomial through its nodes, so that the integral over a part of
    a cell is known as well as that over all of it.

    :param nodes: distinct nodes of one cell on [0, 1], ascending.
    :param splits: equal cells between two neighbouring break points.
    :param base_cells: equal cells of an interval that comes without break points.
    :param use_knots: whether knots of the integrand become cell edges.
    :param tolerance: cells are halved until the estimated error is below it; None keeps the cells as they are.
    :param max_halvings: halvings after which the error is accepted as it is.

    :raises ValueError: for nodes outside [0, 1] or not ascending, and for counts below one.

    >>> gauss_legendre(5).nodes[2]
    0.5
    """

    nodes: tuple[float, ...]
    splits: int = 1
    base_cells: int = 1
    use_knots: bool = False
    tolerance: float | None = None
    max_halvings: int = 0

    def __post_init__(self) -> None:
        inside = np.all(np.diff(self.nodes) > 0) and min(self.nodes, default=-1) >= 0 and max(self.nodes) <= 1
        if not inside:
            raise ValueError(f"nodes: got {self.nodes}, takes ascending numbers of [0, 1]")
        for name in ("splits", "base_cells"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, takes a whole number of at least 1")

    def halved(self) -> "Quadrature":
        """Return the rule with every cell cut in two and one halving less to go."""
        return replace(self, splits=2 * self.splits, max_halvings=self.max_halvings - 1)

    def edges(self, low: Tensor, high: Tensor, breakpoints: Tensor | None = None) -> Tensor:
        """
        Return the cell edges of an interval.

        :param low: lower ends, shape ``batch``.
        :param high: upper ends, shape ``batch``.
        :param breakpoints: ascending points shared by the batch, shape ``(count,)``; those outside the interval
            make cells of no width.
        :return: ascending edges, shape ``(cells + 1, *batch)``.

        >>> composite(2).edges(torch.tensor(0.0), torch.tensor(1.0), torch.tensor([0.5]))
        tensor([0.0000, 0.2500, 0.5000, 0.7500, 1.0000])
        """
        if breakpoints is None or not self.use_knots:
            coarse = torch.stack([low, high])
            splits = self.splits * self.base_cells
        else:
            inner = breakpoints.reshape(-1, *[1] * low.dim())
            coarse = torch.cat([low[None], torch.minimum(torch.maximum(inner, low), high), high[None]])
            splits = self.splits
        fractions = torch.arange(splits, dtype=low.dtype, device=low.device) / splits
        fractions = fractions.reshape(-1, *[1] * low.dim())
        starts, widths = coarse[:-1, None], coarse.diff(dim=0)[:, None]
        return torch.cat([(starts + widths * fractions).flatten(0, 1), high[None]])


def _legendre_nodes(count: int) -> tuple[float, ...]:
    if not 1 <= count <= MAX_NODES:
        raise ValueError(f"num_nodes: got {count}, takes a whole number from 1 to {MAX_NODES}")
    roots, _ = np.polynomial.legendre.leggauss(count)
    return tuple(float(root) for root in (roots + 1) / 2)


def gauss_legendre(num_nodes: int) -> Quadrature:
    """
    Return the plain Gauss-Legendre rule: one cell, exact for polynomials of degree ``2 num_nodes - 1``.

    :param num_nodes: number of nodes.
    :raises ValueError: for a number of nodes outside 1 to 200.

    >>> len(gauss_legendre(100).nodes)
    100
    """
    return Quadrature(_legendre_nodes(num_nodes))


def composite(
    splits: int = 2,
    num_nodes: int = 8,
    *,
    base_cells: int = 32,
    tolerance: float | None = None,
    max_halvings: int = 0,
) -> Quadrature:
    """
    Return a composite Gauss-Legendre rule whose cells end at the knots of the integrand.

    :param splits: equal cells between two neighbouring knots.
    :param num_nodes: nodes a cell.
    :param base_cells: cells of an integrand without knots, before splitting.
    :param tolerance: halve the cells until the estimated error is below it.
    :param max_halvings: give up after as many halvings.
    :raises ValueError: for counts below one.

    >>> composite(2, 8).splits
    2
    """
    return Quadrature(_legendre_nodes(num_nodes), splits, base_cells, True, tolerance, max_halvings)


def default_rule(dtype: torch.dtype) -> Quadrature:
    """
    Return the accurate default rule of a precision: error below 1e-10 in float64 and 5e-7 in float32.

    :param dtype: ``torch.float64``, or a narrower floating type.

    >>> default_rule(torch.float32).tolerance
    5e-07
    """
    if dtype == torch.float64:
        return composite(2, 12, base_cells=16, tolerance=1e-10, max_halvings=6)
    return composite(2, 8, base_cells=16, tolerance=5e-7, max_halvings=5)
