"""Exact CDF and inverse CDF of a density given by a Legendre series in each cell."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from pyro_tkam.ops._concrete import is_concrete
from pyro_tkam.ops.legendre import antiderivatives, series

_NEWTON_STEPS = 2
_BRACKETED_STEPS = 12
_MAX_BRACKETED_STEPS = 80


def cell_masses(coefficients: Tensor, edges: Tensor) -> Tensor:
    """
    Return the mass of every cell, ``h_c c_{c,0}``.

    :param coefficients: Legendre coefficients of the density, shape ``(cells, degree + 1, batch)``.
    :param edges: cell edges, shape ``(cells + 1, batch)`` or ``(cells + 1, 1)``.
    :return: shape ``(cells, batch)``.
    """
    return edges.diff(dim=0) * coefficients[:, 0]


def _lower_masses(coefficients: Tensor, edges: Tensor) -> Tensor:
    """Return the mass below every cell."""
    masses = cell_masses(coefficients, edges)
    return masses.cumsum(0) - masses


def _gather(table: Tensor, cell: Tensor) -> Tensor:
    return table.expand(-1, cell.shape[-1]).gather(0, cell)


def _local(coefficients: Tensor, cell: Tensor) -> list[Tensor]:
    return [_gather(c, cell) for c in coefficients.unbind(1)]


def _position(z: Tensor, edges: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Return where ``z`` lies in its cell, on [0, 1], and the width of that cell."""
    start, width = _gather(edges[:-1], cell), _gather(edges.diff(dim=0), cell)
    return ((z - start) / torch.where(width > 0, width, 1)).clamp(0, 1), width


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
    inner = edges[1:-1].detach()
    boundaries = inner.mT.expand(z.shape[-1], -1).contiguous()
    cell = torch.searchsorted(boundaries, z.detach().mT.contiguous(), right=True).mT
    s, width = _position(z, edges, cell)
    _, mass = series(_local(coefficients, cell), s)
    return _gather(_lower_masses(coefficients, edges), cell) + width * mass


def icdf(u: Tensor, coefficients: Tensor, edges: Tensor) -> Tensor:
    """
    Solve ``F(z) = u`` exactly in each cell's polynomial, with pathwise derivatives of every order.

    ``∂z/∂θ = -(∂F(z; θ)/∂θ) / p(z)`` for the coefficients and the edges, and ``∂z/∂u = 1/p(z)``; where ``p(z)``
    is not positive the derivative is 0.

    :param u: probabilities on [0, total mass], shape ``(sample, batch)``.
    :param coefficients: Legendre coefficients of the density, shape ``(cells, degree + 1, batch)``.
    :param edges: ascending cell edges, shape ``(cells + 1, batch)`` or ``(cells + 1, 1)``.
    :return: shape ``(sample, batch)``.

    >>> icdf(torch.tensor([[0.25]]), torch.ones(2, 1, 1), torch.tensor([[0.0], [0.5], [1.0]]))
    tensor([[0.2500]])
    """
    z, _ = _InverseCDF.apply(u, coefficients, edges)
    return z


def mirrored(coefficients: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
    """
    Return the table of ``-z``, with which the upper tail is inverted from its own end.

    :param coefficients: Legendre coefficients, shape ``(cells, degree + 1, batch)``.
    :param edges: cell edges, shape ``(cells + 1, batch)`` or ``(cells + 1, 1)``.
    :return: coefficients and edges of the mirrored density, shaped alike.

    >>> table = torch.tensor([[[1.0], [2.0]]]), torch.tensor([[0.0], [1.0]])
    >>> [part.flatten().tolist() for part in mirrored(*table)]
    [[1.0, -2.0], [-1.0, -0.0]]
    """
    degree = torch.arange(coefficients.shape[1], device=coefficients.device)
    signs = 1 - 2 * (degree % 2).to(coefficients.dtype)
    return coefficients.flip(0) * signs[:, None], -edges.flip(0)


class _InverseCDF(torch.autograd.Function):
    """``z`` and its cell; the backward is made of differentiable operations, so it can be differentiated again."""

    @staticmethod
    def forward(u: Tensor, coefficients: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
        masses = cell_masses(coefficients, edges)
        upper = masses.cumsum(0)
        u = u.minimum(torch.nextafter(upper[-1], torch.zeros_like(upper[-1])))  # never a cell without mass
        boundaries = upper[:-1].mT.contiguous()
        cell = torch.searchsorted(boundaries, u.mT.contiguous(), right=True).mT.contiguous()
        local_mass = masses.gather(0, cell)
        target = (u - (upper.gather(0, cell) - local_mass)).clamp_min(0).minimum(local_mass)
        start, width = _gather(edges[:-1], cell), _gather(edges.diff(dim=0), cell)
        s = _solve(_local(coefficients, cell), width, target, local_mass)
        return start + width * s, cell

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        _, coefficients, edges = inputs
        z, cell = output
        ctx.mark_non_differentiable(cell)
        ctx.save_for_backward(coefficients, edges, z, cell)
        ctx.save_for_forward(coefficients, edges, z, cell)

    @staticmethod
    def backward(ctx: Any, grad_z: Tensor, _: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        coefficients, edges, z, cell = ctx.saved_tensors
        s, width = _position(z, edges, cell)
        local = _local(coefficients, cell)
        terms = list(antiderivatives(s, len(local) - 1))
        density = torch.stack([c * value for c, (value, _) in zip(local, terms, strict=True)]).sum(0)
        solvable = density > 0
        grad_u = torch.where(solvable, grad_z / torch.where(solvable, density, 1), 0)
        grad_coefficients = grad_edges = None
        if ctx.needs_input_grad[1]:
            grad_coefficients = _coefficient_gradient(grad_u, terms, width, cell, coefficients, edges)
        if ctx.needs_input_grad[2]:
            grad_edges = _edge_gradient(grad_u, density, local, terms, s, cell, coefficients, edges)
        return grad_u, grad_coefficients, grad_edges

    @staticmethod
    def jvp(ctx: Any, du: Tensor, dcoefficients: Tensor, dedges: Tensor) -> tuple[Tensor, None]:
        """Push ``dz = (du - dF(z)) / p(z)`` forward, with ``dF`` at a fixed ``z``."""
        coefficients, edges, z, cell = ctx.saved_tensors
        s, width = _position(z, edges, cell)
        density, mass = series(_local(coefficients, cell), s)
        _, mass_change = series(_local(dcoefficients, cell), s)
        masses_change = dedges.diff(dim=0) * coefficients[:, 0] + edges.diff(dim=0) * dcoefficients[:, 0]
        below = _gather(masses_change.cumsum(0) - masses_change, cell)
        dstart, dwidth = _gather(dedges[:-1], cell), _gather(dedges.diff(dim=0), cell)
        change = below + width * mass_change + dwidth * (mass - s * density) - dstart * density
        solvable = density > 0
        return torch.where(solvable, (du - change) / torch.where(solvable, density, 1), 0), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor) -> tuple[tuple[Tensor, Tensor], Any]:
        """Fold the mapped dimension into the batch dimension."""
        size = info.batch_size
        moved = [x[..., None] if dim is None else x.movedim(dim, -1) for x, dim in zip(inputs, in_dims, strict=True)]
        batch = max(x.shape[-2] for x in moved)
        flat = [x.expand(*x.shape[:-2], batch, size).flatten(-2) for x in moved]
        z, cell = _InverseCDF.apply(*flat)
        return (z.unflatten(-1, (batch, size)), cell.unflatten(-1, (batch, size))), (2, 2)


def _above(values: Tensor, cell: Tensor, cells: int) -> Tensor:
    """Sum, for every cell, the values of the draws that fell in a later one."""
    histogram = values.new_zeros(cells, values.shape[-1]).scatter_add(0, cell, values)
    return histogram.flip(0).cumsum(0).flip(0) - histogram


def _coefficient_gradient(
    grad_u: Tensor, terms: list[tuple[Tensor, Tensor]], width: Tensor, cell: Tensor, coefficients: Tensor, edges: Tensor
) -> Tensor:
    cells, _, batch = coefficients.shape
    scaled = -grad_u * width
    columns = [grad_u.new_zeros(cells, batch).scatter_add(0, cell, scaled * integral) for _, integral in terms]
    columns[0] = columns[0] - edges.diff(dim=0) * _above(grad_u, cell, cells)
    return torch.stack(columns, 1)


def _edge_gradient(
    grad_u: Tensor,
    density: Tensor,
    local: list[Tensor],
    terms: list[tuple[Tensor, Tensor]],
    s: Tensor,
    cell: Tensor,
    coefficients: Tensor,
    edges: Tensor,
) -> Tensor:
    """At a fixed ``z``, edges move the masses of the cells below and the place of ``z`` in its own cell."""
    cells, _, batch = coefficients.shape
    mass = torch.stack([c * integral for c, (_, integral) in zip(local, terms, strict=True)]).sum(0)
    zeros = grad_u.new_zeros(cells, batch)
    by_width = zeros.scatter_add(0, cell, -grad_u * (mass - s * density))
    by_width = by_width - coefficients[:, 0] * _above(grad_u, cell, cells)
    by_start = zeros.scatter_add(0, cell, grad_u * density)
    below = torch.nn.functional.pad(by_width, (0, 0, 1, 0))
    return (below + torch.nn.functional.pad(by_start - by_width, (0, 0, 0, 1))).sum_to_size(edges.shape)


def _solve(local: list[Tensor], width: Tensor, target: Tensor, local_mass: Tensor) -> Tensor:
    """Find ``s`` on [0, 1] with ``width ∫_0^s density = target``: Newton first, a bracket for what is left."""
    tiny = torch.finfo(target.dtype).tiny
    scale = width.clamp_min(tiny)
    target = target / scale
    s = (target * scale / local_mass.clamp_min(tiny)).clamp(0, 1)
    for _ in range(_NEWTON_STEPS):
        density, mass = series(local, s)
        s = (s - (mass - target) / density.clamp_min(tiny)).clamp(0, 1)
    tolerance = 2 * torch.finfo(target.dtype).eps * local_mass / scale
    if not is_concrete(s):
        return _bracketed(local, target, s, tolerance, _BRACKETED_STEPS)
    _, mass = series(local, s)
    open_ = ((mass - target).abs() > tolerance).nonzero(as_tuple=True)
    if open_[0].numel() > 0:
        part = [c[open_] for c in local]
        s[open_] = _bracketed(part, target[open_], s[open_], tolerance[open_], _MAX_BRACKETED_STEPS)
    return s


def _bracketed(local: list[Tensor], target: Tensor, s: Tensor, tolerance: Tensor, steps: int) -> Tensor:
    """Newton's method kept inside a shrinking bracket; a step that leaves it becomes a bisection."""
    low, high = torch.zeros_like(s), torch.ones_like(s)
    for _ in range(steps):
        density, mass = series(local, s)
        residual = mass - target
        done = residual.abs() <= tolerance
        if is_concrete(done) and bool(done.all()):
            break
        low, high = torch.where(residual < 0, s, low), torch.where(residual > 0, s, high)
        newton = s - residual / density
        inside = (newton > low) & (newton < high)
        s = torch.where(done, s, torch.where(inside, newton, (low + high) / 2))
    return s
