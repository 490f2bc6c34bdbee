"""A tabulated univariate density: its normaliser, CDF, inverse CDF and expectations from one set of nodes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_tkam.ops import inverse_cdf
from pyro_tkam.ops._concrete import is_concrete
from pyro_tkam.ops.legendre import analysis_matrix, split
from pyro_tkam.ops.quadrature import Quadrature

MAX_SERIES = 12  # longer series lose digits when they are turned into powers


@dataclass(frozen=True)
class Table:
    """
    Normalised densities on cells, each the polynomial through its nodes; ``columns`` is the flattened batch.

    :param batch_shape: shape of the batch of densities.
    :param edges: cell edges, shape ``(cells + 1, columns)`` or ``(cells + 1, 1)`` where all share them.
    :param nodes: positions, shape ``(cells, nodes, *edge_batch)``; ``edge_batch`` broadcasts to ``batch_shape``.
    :param log_density: normalised log density at the nodes, shape ``(cells, nodes, *batch_shape)``.
    :param weights: weight of each node in an integral, shape ``(cells, nodes, *edge_batch)``.
    :param coefficients: Legendre coefficients of the normalised density, shape ``(cells, count, columns)``; with
        more than 12 nodes a cell, these cells and ``edges`` are pieces of the quadrature's.
    :param log_normalizer: ``log Z``, shape ``batch_shape``.
    :param error: estimated error of the CDF, shape ``batch_shape``.
    """

    batch_shape: torch.Size
    edges: Tensor
    nodes: Tensor
    log_density: Tensor
    weights: Tensor
    coefficients: Tensor
    log_normalizer: Tensor
    error: Tensor

    def cdf(self, z: Tensor) -> Tensor:
        """
        Return ``F(z)`` for ``z`` inside the interval.

        :param z: shape ``(*sample, *batch_shape)``, or what broadcasts with it.
        :return: the broadcast shape.
        """
        return self._by_column(lambda column: inverse_cdf.cdf(column, self.coefficients, self.edges), z)

    def icdf(self, u: Tensor, upper: bool = False) -> Tensor:
        """
        Return ``F^{-1}(u)``, or ``F^{-1}(1 - u)`` found from the upper end.

        :param u: probabilities, shape ``(*sample, *batch_shape)``, or what broadcasts with it.
        :param upper: whether ``u`` is the mass above ``z``; a small one then keeps its relative accuracy.
        :return: the broadcast shape.
        """
        if upper:
            coefficients, edges = inverse_cdf.mirrored(self.coefficients, self.edges)
            return -self._by_column(lambda column: inverse_cdf.icdf(column, coefficients, edges), u)
        return self._by_column(lambda column: inverse_cdf.icdf(column, self.coefficients, self.edges), u)

    def expectation(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """
        Return ``E_p[h(z)] = Σ_i w_i p(z_i) h(z_i)``.

        :param function: elementwise ``h``; it sees nodes of shape ``(nodes, *edge_batch)``.
        :return: shape ``batch_shape``.
        """
        values = function(self.nodes.flatten(0, 1)).unflatten(0, self.nodes.shape[:2])
        return self.average(values)

    def average(self, values: Tensor) -> Tensor:
        """
        Return ``Σ_i w_i p(z_i) h_i`` for values at the nodes; nodes without density count nothing.

        :param values: shape ``(cells, nodes, *batch_shape)``, or what broadcasts to it.
        :return: shape ``batch_shape``.
        """
        density = self.log_density.exp()
        return (self.weights * density * torch.where(density > 0, values, 0)).sum((0, 1))

    def _by_column(self, function: Callable[[Tensor], Tensor], value: Tensor) -> Tensor:
        """Call a function of (sample, column) matrices; dimensions over which the table is constant are samples."""
        shape = torch.broadcast_shapes(value.shape, self.batch_shape)
        batch = (1,) * (len(shape) - len(self.batch_shape)) + tuple(self.batch_shape)
        samples = [i for i, size in enumerate(batch) if size == 1]
        order = samples + [i for i, size in enumerate(batch) if size != 1]
        permuted = value.expand(shape).permute(order)
        matrix = permuted.flatten(0, len(samples) - 1) if samples else permuted[None]
        matrix = matrix.flatten(1) if matrix.dim() > 1 else matrix[:, None]
        result = function(matrix).reshape(permuted.shape)
        return result.permute([order.index(i) for i in range(len(order))])


def tabulate(
    log_density: Callable[[Tensor], Tensor],
    low: Tensor,
    high: Tensor,
    batch_shape: torch.Size,
    rule: Quadrature,
    breakpoints: Tensor | None = None,
) -> Table:
    """
    Tabulate unnormalised densities, halving the cells until the estimated error is below the rule's tolerance.

    :param log_density: elementwise unnormalised log density; it sees nodes of shape ``(nodes, *edge_batch)`` and
        returns what broadcasts to ``(nodes, *batch_shape)``.
    :param low: lower ends, of the rank of ``batch_shape`` and broadcastable to it.
    :param high: upper ends, shaped as ``low``.
    :param batch_shape: shape of the batch of densities.
    :param rule: how to cut and integrate; its tolerance is not pursued where values may not steer control flow.
    :param breakpoints: ascending points at which cells should end, shape ``(count,)``.

    >>> from pyro_tkam.ops.quadrature import gauss_legendre
    >>> table = tabulate(lambda z: -z, torch.tensor(0.0), torch.tensor(1.0), torch.Size(), gauss_legendre(8))
    >>> float(table.log_normalizer.exp())  # 1 - 1/e
    0.632120...
    """
    table = _tabulate(log_density, low, high, batch_shape, rule, breakpoints)
    while (
        rule.tolerance is not None
        and rule.max_halvings > 0
        and is_concrete(table.error)
        and bool((table.error > rule.tolerance).any())
    ):
        rule = rule.halved()
        table = _tabulate(log_density, low, high, batch_shape, rule, breakpoints)
    return table


def _tabulate(
    log_density: Callable[[Tensor], Tensor],
    low: Tensor,
    high: Tensor,
    batch_shape: torch.Size,
    rule: Quadrature,
    breakpoints: Tensor | None,
) -> Table:
    edges = rule.edges(low, high, breakpoints)
    widths = edges.diff(dim=0)[:, None]
    fractions = torch.as_tensor(rule.nodes, dtype=edges.dtype, device=edges.device)
    nodes = edges[:-1, None] + widths * fractions.reshape(-1, *[1] * low.dim())
    analysis = analysis_matrix(rule.nodes, edges)
    values = log_density(nodes.flatten(0, 1)).expand(-1, *batch_shape).unflatten(0, nodes.shape[:2])
    peak = values.detach().amax((0, 1))
    peak = torch.where(peak.isfinite(), peak, 0)
    columns = (values - peak).exp().flatten(2) if batch_shape else (values - peak).exp()[..., None]
    edge_columns = edges.expand(-1, *batch_shape).flatten(1) if low.numel() > 1 else edges.reshape(-1, 1)
    coefficients = analysis @ columns
    mass = inverse_cdf.cell_masses(coefficients, edge_columns).sum(0)
    coefficients = coefficients / mass
    log_normalizer = mass.reshape(batch_shape).log() + peak
    error = _cdf_error(coefficients.detach(), edge_columns.detach()).reshape(batch_shape)
    if len(rule.nodes) > MAX_SERIES:
        coefficients, edge_columns = split(coefficients, edge_columns, MAX_SERIES)
    return Table(
        batch_shape=batch_shape,
        edges=edge_columns,
        nodes=nodes,
        log_density=values - log_normalizer,
        weights=widths * analysis[0].reshape(-1, *[1] * low.dim()),
        coefficients=coefficients,
        log_normalizer=log_normalizer,
        error=error,
    )


def _cdf_error(coefficients: Tensor, edges: Tensor) -> Tensor:
    """
    Estimate the error of the CDF from how the Legendre coefficients fall within each cell.

    The last two coefficients, times their ratio to the two before (at most 1), stand for the first one left out. It
    bends the CDF inside its own cell; the Gauss sum of a cell errs by the coefficient that is as far again.
    """
    count = coefficients.shape[1]
    widths = edges.diff(dim=0)
    size = coefficients.abs()
    if count < 4:
        return (widths * size[:, -1]).sum(0)
    last, before = size[:, -2:].amax(1), size[:, -4:-2].amax(1)
    ratio = torch.where(before > 0, last / before, 1).clamp(max=1)
    inside = (widths * last * ratio).amax(0) / (2 * count + 1)
    return inside + (widths * last * ratio**count).sum(0)
