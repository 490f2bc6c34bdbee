"""Exact CDF and inverse CDF of densities that are a polynomial in each cell."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from pyro_tkam.ops._concrete import is_concrete
from pyro_tkam.ops.cell_operators import count_below, piece_rows, polynomial, solve_polynomial
from pyro_tkam.ops.inverse_series import MANY_DRAWS, evaluate_series, fit_series
from pyro_tkam.ops.legendre import integral_matrix

_MOST = 0.5  # share of bins without a polynomial from where on draws are solved for in order


def cell_masses(coefficients: Tensor, edges: Tensor) -> Tensor:
    """
    Return the mass of every cell, ``h_c c_{c,0}``.

    :param coefficients: Legendre coefficients of the density, shape ``(cells, degree + 1, batch)``.
    :param edges: cell edges, shape ``(cells + 1, batch)`` or ``(cells + 1, 1)``.
    :return: shape ``(cells, batch)``.
    """
    return edges.diff(dim=0) * coefficients[:, 0]


def _mass_below(masses: Tensor) -> Tensor:
    """Return the mass below each cell's start from those of the cells, shape ``(cells, batch)``."""
    return masses.cumsum(0) - masses


def _cdf_powers(below: Tensor, width: Tensor, coefficients: Tensor) -> Tensor:
    """
    Return the CDF in one cell for each place, as a polynomial of ``s``, 0 at the cell's start and 1
    at its end.

    :param below: mass below the cell's start, shape ``(*sample,)``.
    :param width: of the cell, shaped alike.
    :param coefficients: Legendre coefficients of the density, shape ``(degree + 1, *sample)``.
    :return: coefficients of ``1, s, ..., s^{degree + 1}``, shape ``(degree + 2, *sample)``.
    """
    inside = integral_matrix(len(coefficients), coefficients) @ coefficients.flatten(1)
    return torch.cat([below[None], width * inside.view_as(coefficients)])


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
    edges = edges.expand(-1, z.shape[-1])
    cell = _find_cell(edges[1:-1], z)
    index = cell * z.shape[-1] + torch.arange(z.shape[-1], device=z.device)
    start = _pick(edges[:-1], index)
    width = _pick(edges.diff(dim=0), index)
    s = ((z - start) / torch.where(width > 0, width, 1)).clamp(0, 1)
    below = _pick(_mass_below(cell_masses(coefficients, edges)), index)
    value, _ = polynomial(_cdf_powers(below, width, _select(coefficients, index)), s)
    return value


def icdf(u: Tensor, coefficients: Tensor, edges: Tensor, upper: Tensor | None = None) -> Tensor:
    """
    Solve ``F(z) = u`` in the cell's polynomial, with pathwise derivatives of every order.

    Where ``upper`` says so, solve ``1 - F(z) = u`` from the other end, so that a small ``u`` keeps
    its accuracy.

    ``∂z/∂θ = -(∂F(z; θ)/∂θ) / p(z)`` for the coefficients and the edges, and ``∂z/∂u = 1/p(z)``;
    where ``p(z)`` is not positive the derivative is 0.

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
    cells = _Cells.of(coefficients, edges, u.numel(), from_above=upper is not None)
    if not is_concrete(u) or u.requires_grad or cells.requires_grad:
        return cells.solve(u, upper)
    if upper is None and u.dtype == torch.float32 and len(u) >= MANY_DRAWS:
        return _many(u, cells)
    return _in_pieces(cells.solve, u, upper)


def _in_pieces(solve: Callable[..., Tensor], *given: Tensor | None) -> Tensor:
    """Solve some rows at a time: that takes no more memory than the result does."""
    u, *others = (each for each in given if each is not None)
    pieces = zip(*(each.split(piece_rows(u)) for each in (u, *others)), strict=True)
    return torch.cat([solve(*piece) for piece in pieces])


def _many(u: Tensor, cells: "_Cells") -> Tensor:
    """
    Solve for a few of the draws, and take the others from polynomials; in double those would not be
    exact.
    """
    columns = u.shape[1]
    series = fit_series(lambda nodes: _in_pieces(cells.solve, nodes), columns, u)
    if bool(series[0].isnan().float().mean() > _MOST):
        return _in_pieces(cells.solve, u)
    z = evaluate_series(series, u)
    (left,) = z.flatten().isnan().nonzero(as_tuple=True)
    z.view(-1)[left] = cells.solve_scattered(u.flatten()[left], left % columns)
    return z


@dataclass(frozen=True)
class _Cells:
    """
    The CDF in cells seen from below, and perhaps in as many more seen from above, in which ``u`` is
    the mass above.

    :param ends: mass up to each cell's end, for each side a shape ``(cells, batch)``.
    :param below: mass below each cell's start, shape ``(cells, batch)``, those of both sides.
    :param coefficients: of the density, shape ``(cells, degree + 1, batch)``.
    :param start: where cells start, shape ``(cells, batch)``.
    :param width: their widths, negative from above.
    :param powers: the CDF in every cell, shape ``(degree + 2, cells batch)``; None where it is made
        for each draw, as cells outnumber the draws.
    """

    ends: tuple[Tensor, ...]
    below: Tensor
    coefficients: Tensor
    start: Tensor
    width: Tensor
    powers: Tensor | None

    @classmethod
    def of(cls, coefficients: Tensor, edges: Tensor, draws: int, from_above: bool) -> Self:
        sides = [_seen_from_below(coefficients, edges)]
        if from_above:
            sides.append(_seen_from_above(coefficients, edges))
        ends, *parts = zip(*sides, strict=True)
        below, coefficients, *lines = map(_joined, parts)
        start, width = (line.expand(-1, coefficients.shape[2]) for line in lines)
        powers = None
        if draws > below.numel():
            density = coefficients.transpose(0, 1).flatten(1)
            powers = _cdf_powers(below.flatten(), width.flatten().abs(), density)
        return cls(ends, below, coefficients, start, width, powers)

    @property
    def requires_grad(self) -> bool:
        """Whether the cells have gradients."""
        return self.coefficients.requires_grad or self.start.requires_grad

    def solve(self, u: Tensor, above: Tensor | None = None) -> Tensor:
        """Return the inverse at ``u``, shape ``(sample, batch)``."""
        cell, *others = (_find_massive_cell(each, u.detach()) for each in self.ends)
        if above is not None:
            cell = torch.where(above, others[0] + len(self.ends[0]), cell)
        return self._solve_in(cell, u, torch.arange(u.shape[1], device=u.device))

    def solve_scattered(self, u: Tensor, column: Tensor) -> Tensor:
        """
        Return the inverse, seen from below, at draws ``u`` of any of the densities, both of shape
        ``(sample,)``.
        """
        return self._solve_in(_find_scattered_cell(self.ends[0], u, column), u, column)

    def _solve_in(self, cell: Tensor, u: Tensor, column: Tensor) -> Tensor:
        index = cell * self.below.shape[1] + column
        width = _pick(self.width, index)
        place = _Solve.apply(u, self._powers_at(index, width))
        return _pick(self.start, index) + width * place

    def _powers_at(self, index: Tensor, width: Tensor) -> Tensor:
        if self.powers is not None:
            return self.powers.index_select(1, index.flatten()).unflatten(1, index.shape)
        density = _select(self.coefficients, index)
        return _cdf_powers(_pick(self.below, index), width.abs(), density)


def _joined(parts: tuple[Tensor, ...]) -> Tensor:
    """Return one part, or several in a row; a copy of one would cost as much as the table."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)


_Seen = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def _seen_from_below(coefficients: Tensor, edges: Tensor) -> _Seen:
    """
    Return of each cell the mass up to its end and below its start, the density, the start and the
    width.
    """
    masses = cell_masses(coefficients, edges)
    ends = masses.detach().cumsum(0)
    return ends, _mass_below(masses), coefficients, edges[:-1], edges.diff(dim=0)


def _seen_from_above(coefficients: Tensor, edges: Tensor) -> _Seen:
    """
    Return the same from the upper end: cells in reverse, each run through backwards with a negative
    width.
    """
    degree = torch.arange(coefficients.shape[1], device=coefficients.device)
    signs = 1 - 2 * (degree % 2).to(coefficients.dtype)
    ends, below, density, start, width = _seen_from_below(
        coefficients.flip(0) * signs[:, None], -edges.flip(0)
    )
    return ends, below, density, -start, -width


def _find_massive_cell(masses: Tensor, u: Tensor) -> Tensor:
    """
    Find the cell in which the mass reaches ``u``, given the mass up to each cell's end, ``(cells,
    batch)``.
    """
    return _find_cell(masses[:-1], u.minimum(_largest(masses)))


def _largest(masses: Tensor) -> Tensor:
    """
    Return the largest ``u`` that is solved for, below the total, so that no cell without mass is
    ever chosen.
    """
    return torch.nextafter(masses[-1], torch.zeros_like(masses[-1]))


def _find_cell(boundaries: Tensor, value: Tensor) -> Tensor:
    """
    Count the boundaries, shape ``(cells - 1, batch)``, that are not above each value, ``(sample,
    batch)``.
    """
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
    def vmap(
        info: Any, in_dims: tuple[int | None, int | None], *inputs: Tensor
    ) -> tuple[Tensor, int]:
        rows = [
            (x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)).flatten(
                0, 1
            )
            for x, dim in zip(inputs, in_dims, strict=True)
        ]
        return _Search.apply(*rows).unflatten(0, (info.batch_size, -1)), 0


def find_in_rows(masses: Tensor, u: Tensor) -> Tensor:
    """
    Find the cell of a density of its own in which the mass reaches each ``u``.

    :param masses: mass up to each cell's end, shape ``(*batch, cells)``.
    :param u: shape ``batch``.
    :return: integers of shape ``batch``.

    >>> find_in_rows(torch.tensor([[0.2, 0.2, 1.0]]), torch.tensor([0.2]))
    tensor([2])
    """
    largest = torch.nextafter(masses[..., -1], torch.zeros_like(masses[..., -1]))
    rows = masses.flatten(0, -2)
    u = u.minimum(largest).flatten()
    return _Search.apply(rows, u[:, None])[:, 0].reshape(largest.shape)


def solve(u: Tensor, local: Tensor) -> Tensor:
    """
    Return the ``s`` on [0, 1] at which each polynomial ``Σ_j m_j s^j`` equals ``u``,
    differentiable again and again.

    :param u: any shape.
    :param local: coefficients ``m``, shape ``(degree + 1, *u.shape)``; the polynomials increase.
    :return: shaped as ``u``.

    >>> solve(torch.tensor([0.25]), torch.tensor([[0.0], [0.0], [1.0]]))
    tensor([0.5000])
    """
    return _Solve.apply(u, local)


def _find_scattered_cell(masses: Tensor, u: Tensor, column: Tensor) -> Tensor:
    """Find the same for draws of any of the columns, by bisection."""
    count, batch = masses.shape
    u = u.minimum(_largest(masses)[column])
    flat = masses.flatten()
    cell = torch.zeros_like(column)
    for power in reversed(range((count - 1).bit_length())):
        further = (cell + 2**power).clamp_max_(count - 1)
        reached = flat.index_select(0, (further - 1).mul_(batch).add_(column)) <= u
        cell = torch.where(reached, further, cell)
    return cell


def _select(table: Tensor, index: Tensor) -> Tensor:
    """
    Pick polynomials from ``(cells, k, batch)``, at ``cell * batch + column``, ``(*sample,)``: ``(k,
    *sample)``.
    """
    return (
        table.transpose(0, 1).flatten(1).index_select(1, index.flatten()).unflatten(1, index.shape)
    )


def _pick(table: Tensor, index: Tensor) -> Tensor:
    """Pick entries from ``(cells, batch)``, likewise."""
    return table.flatten().index_select(0, index.flatten()).reshape(index.shape)


class _Solve(torch.autograd.Function):
    """
    The ``s`` on [0, 1] at which each polynomial equals ``u``; elementwise, differentiable again and
    again.
    """

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
    def vmap(
        info: Any, in_dims: tuple[int | None, int | None], u: Tensor, local: Tensor
    ) -> tuple[Tensor, int]:
        u = u.expand(info.batch_size, *u.shape) if in_dims[0] is None else u.movedim(in_dims[0], 0)
        local = local[:, None] if in_dims[1] is None else local.movedim(in_dims[1], 1)
        return _Solve.apply(u, local.expand(-1, *u.shape)), 0


def _over_density(value: Tensor, local: Tensor, s: Tensor) -> Tensor:
    _, density = polynomial(local, s)
    positive = density > 0
    return torch.where(positive, value / torch.where(positive, density, 1), 0)
