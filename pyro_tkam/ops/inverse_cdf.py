"""Exact CDF and inverse CDF of densities that are a polynomial in each cell."""

from typing import Any

import torch
from torch import Tensor

from pyro_tkam.ops._concrete import is_concrete
from pyro_tkam.ops.cell_operators import count_below, piece_rows, polynomial, solve_polynomial
from pyro_tkam.ops.legendre import integral_matrix


def cell_masses(coefficients: Tensor, edges: Tensor) -> Tensor:
    """
    Return the mass of every cell, ``h_c c_{c,0}``.

    :param coefficients: Legendre coefficients of the density, shape ``(cells, degree + 1, batch)``.
    :param edges: cell edges, shape ``(cells + 1, batch)`` or ``(cells + 1, 1)``.
    :return: shape ``(cells, batch)``.
    """
    return edges.diff(dim=0) * coefficients[:, 0]


def cdf_coefficients(coefficients: Tensor, edges: Tensor) -> Tensor:
    """
    Return the CDF in every cell as a polynomial of the place ``s`` in it, 0 at its start and 1 at its end.

    :param coefficients: Legendre coefficients of the density, shape ``(cells, degree + 1, batch)``.
    :param edges: cell edges, shape ``(cells + 1, batch)`` or ``(cells + 1, 1)``.
    :return: coefficients of ``1, s, ..., s^{degree + 1}``, shape ``(cells, degree + 2, batch)``.

    >>> cdf_coefficients(torch.ones(2, 1, 1), torch.tensor([[0.0], [0.5], [1.0]])).squeeze().tolist()
    [[0.0, 0.5], [0.5, 0.5]]
    """
    masses = cell_masses(coefficients, edges)
    below = (masses.cumsum(0) - masses)[:, None]
    inside = integral_matrix(coefficients.shape[1], coefficients) @ coefficients
    return torch.cat([below, edges.diff(dim=0)[:, None] * inside], 1)


def cdf(z: Tensor, coefficients: Tensor, edges: Tensor) -> Tensor:
    """
    Integrate the density from the first edge to ``z``.

    :param z: positions between the first and last edge, shape ``(sample, batch)``.
    :param coefficients: Legendre coefficients, shape ``(cells, degree + 1, batch)``.
    :param edges: cell edges, shape ``(cells + 1, batch)`` or ``(cells + 1, 1)``.
    :return: shape ``(sample, batch)``.

    >>> cdf(torch.tensor([[0.25]]), torch.ones(2, 1, 1), torch.tensor([[0.0], [0.5], [1.0]]))
    tensor([[0.2500]])
    """
    cell = _find_cell(edges[1:-1].expand(-1, z.shape[-1]), z)
    start, width = _pick(edges[:-1], cell), _pick(edges.diff(dim=0), cell)
    s = ((z - start) / torch.where(width > 0, width, 1)).clamp(0, 1)
    value, _ = polynomial(_select(cdf_coefficients(coefficients, edges), cell), s)
    return value


def icdf(u: Tensor, coefficients: Tensor, edges: Tensor, upper: Tensor | None = None) -> Tensor:
    """
    Solve ``F(z) = u`` in the cell's polynomial, with pathwise derivatives of every order.

    Where ``upper`` says so, solve ``1 - F(z) = u`` from the other end, so that a small ``u`` keeps its accuracy.

    ``∂z/∂θ = -(∂F(z; θ)/∂θ) / p(z)`` for the coefficients and the edges, and ``∂z/∂u = 1/p(z)``; where ``p(z)``
    is not positive the derivative is 0.

    :param u: probabilities on [0, total mass], shape ``(sample, batch)``.
    :param coefficients: Legendre coefficients of the density, shape ``(cells, degree + 1, batch)``.
    :param edges: ascending cell edges, shape ``(cells + 1, batch)`` or ``(cells + 1, 1)``.
    :param upper: whether each ``u`` is the mass above ``z``, shaped as ``u``; None where none is.
    :return: shape ``(sample, batch)``.

    >>> table = torch.ones(2, 1, 1), torch.tensor([[0.0], [0.5], [1.0]])
    >>> icdf(torch.tensor([[0.25], [0.25]]), *table, upper=torch.tensor([[False], [True]]))
    tensor([[0.2500],
            [0.7500]])
    """
    sides = [_seen_from_below(coefficients, edges)]
    if upper is not None:
        sides.append(_seen_from_above(coefficients, edges))
    sums, polynomials, starts, widths = zip(*sides, strict=True)
    local, start, width = torch.cat(polynomials), torch.cat(starts), torch.cat(widths)

    def solved(part: Tensor, above: Tensor | None = None) -> Tensor:
        cell, *others = (_find_massive_cell(each, part.detach()) for each in sums)
        if above is not None:
            cell = torch.where(above, others[0] + len(coefficients), cell)
        return _pick(start, cell) + _pick(width, cell) * _Solve.apply(part, _select(local, cell))

    given = (u,) if upper is None else (u, upper)
    if not is_concrete(u) or u.requires_grad or local.requires_grad:
        return solved(*given)
    pieces = zip(*(each.split(piece_rows(u)) for each in given), strict=True)
    return torch.cat([solved(*piece) for piece in pieces])  # no more memory than the result takes


def _seen_from_below(coefficients: Tensor, edges: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return of each cell the mass up to its end, the CDF as a polynomial, the start and the width."""
    masses = cell_masses(coefficients, edges).detach().cumsum(0)
    return masses, cdf_coefficients(coefficients, edges), edges[:-1], edges.diff(dim=0)


def _seen_from_above(coefficients: Tensor, edges: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the same from the upper end: cells in reverse, each run through backwards with a negative width."""
    degree = torch.arange(coefficients.shape[1], device=coefficients.device)
    signs = 1 - 2 * (degree % 2).to(coefficients.dtype)
    masses, local, start, width = _seen_from_below(coefficients.flip(0) * signs[:, None], -edges.flip(0))
    return masses, local, -start, -width


def _find_massive_cell(masses: Tensor, u: Tensor) -> Tensor:
    """Find the cell in which the mass reaches ``u``, given the mass up to each cell's end, ``(cells, batch)``."""
    # The largest u that is drawn lies below the total, so that no cell without mass is ever chosen.
    largest = torch.nextafter(masses[-1], torch.zeros_like(masses[-1]))
    return _find_cell(masses[:-1], u.minimum(largest))


def _find_cell(boundaries: Tensor, value: Tensor) -> Tensor:
    """Count the boundaries, shape ``(cells - 1, batch)``, that are not above each value, ``(sample, batch)``."""
    return _Search.apply(boundaries.detach().mT, value.detach().mT).mT


class _Search(torch.autograd.Function):
    """The count in matching rows, with the mapped dimension of ``vmap`` folded into the rows."""

    @staticmethod
    def forward(boundaries: Tensor, value: Tensor) -> Tensor:
        return count_below(boundaries, value)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None]:
        return None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> None:
        return None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, int | None], *inputs: Tensor) -> tuple[Tensor, int]:
        rows = [
            (x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)).flatten(0, 1)
            for x, dim in zip(inputs, in_dims, strict=True)
        ]
        return _Search.apply(*rows).unflatten(0, (info.batch_size, -1)), 0


def _select(table: Tensor, cell: Tensor) -> Tensor:
    """Pick each draw's polynomial: from ``(cells, k, batch)``, at cells ``(sample, batch)``, ``(k, sample, batch)``."""
    cells, count, batch = table.shape
    columns = table.permute(1, 0, 2).reshape(count, cells * batch)
    index = cell * batch + torch.arange(batch, device=cell.device)
    return columns.index_select(1, index.flatten()).unflatten(1, cell.shape)


def _pick(table: Tensor, cell: Tensor) -> Tensor:
    """Pick each draw's entry, from ``(cells, batch)`` or ``(cells, 1)``, at cells ``(sample, batch)``."""
    if table.shape[1] == 1:
        return table[:, 0].index_select(0, cell.flatten()).reshape(cell.shape)
    return table.gather(0, cell)


class _Solve(torch.autograd.Function):
    """The ``s`` on [0, 1] at which each polynomial equals ``u``; elementwise, differentiable again and again."""

    @staticmethod
    def forward(u: Tensor, local: Tensor) -> Tensor:
        return solve_polynomial(u, local)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1], output)
        ctx.save_for_forward(inputs[1], output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        local, s = ctx.saved_tensors
        grad_u = _over_density(grad, local, s)
        if not ctx.needs_input_grad[1]:
            return grad_u, None
        powers = [-grad_u]
        for _ in range(local.shape[0] - 1):
            powers.append(powers[-1] * s)
        return grad_u, torch.stack(powers)

    @staticmethod
    def jvp(ctx: Any, tangent_u: Tensor, tangent_local: Tensor) -> Tensor:
        local, s = ctx.saved_tensors
        moved, _ = polynomial(tangent_local, s)
        return _over_density(tangent_u - moved, local, s)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, int | None], u: Tensor, local: Tensor) -> tuple[Tensor, int]:
        u = u.expand(info.batch_size, *u.shape) if in_dims[0] is None else u.movedim(in_dims[0], 0)
        local = local[:, None] if in_dims[1] is None else local.movedim(in_dims[1], 1)
        return _Solve.apply(u, local.expand(-1, *u.shape)), 0


def _over_density(value: Tensor, local: Tensor, s: Tensor) -> Tensor:
    _, density = polynomial(local, s)
    positive = density > 0
    return torch.where(positive, value / torch.where(positive, density, 1), 0)
