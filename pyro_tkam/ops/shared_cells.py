"""
Cells that many tilted Gaussians share: their normalizers are one matrix product, and only the cell
of a draw gets a polynomial.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.functional import linear

from pyro_tkam._checks import number, one_of, whole_number
from pyro_tkam.ops._arguments import floating
from pyro_tkam.ops.bases import BASES, BasisFunctions, Picklable
from pyro_tkam.ops.cell_operators import polynomial
from pyro_tkam.ops.inverse_cdf import find_in_rows, solve
from pyro_tkam.ops.legendre import analysis_matrix, integral_matrix
from pyro_tkam.ops.quadrature import gauss_legendre

REACH = 9.0  # beyond it a standard normal has a mass of 2e-19
KINDS = ("rbf", "bspline", "rswaf")
PIECE = 2**18  # terms that are held at a time: what a core's cache holds
NUM_NODES = 12  # of the polynomial in the cell of a draw
#: cells a grid step, and nodes a cell for masses: with coefficients up to 20 in size the CDF errs
#: by less than 1e-7 in single precision and 1e-11 in double, where rounding adds more
RULES = {torch.float32: (2, 6), torch.float64: (4, 8)}


def log_standard_normal(z: Tensor) -> Tensor:
    """Return the logarithm of the standard normal density."""
    return -0.5 * z.square() - 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True, eq=False)
class SharedCells(Picklable):
    """
    Values of a basis at the nodes of cells that cover [-9, 9] and end at the knots.

    A density is ``exp(Σ_i c_i B_i(z)) N(z; 0, 1) / Z``, given by its coefficients ``c``. Those of a
    batch have shape ``(*batch, G)``.

    :param basis: ``B``.
    :param edges: cell edges, shape ``(cells + 1,)``.
    :param functions: ``B`` at the nodes for masses, shape ``(G, nodes cells)``.
    :param log_weights: logarithm of the quadrature weight times the normal density there.
    :param local_functions: ``B`` at the 12 nodes of every cell, shape ``(cells, 12, G)``.
    :param local_log_density: logarithm of the normal density there, shape ``(cells, 12)``.
    """

    basis: BasisFunctions
    edges: Tensor
    functions: Tensor
    log_weights: Tensor
    local_functions: Tensor
    local_log_density: Tensor

    @classmethod
    def over(
        cls,
        low: float,
        high: float,
        grid_size: int = 16,
        basis: str = "rbf",
        *,
        like: Tensor,
    ) -> Self:
        """
        Make the cells of a basis on a uniform grid.

        :param low: lower end of the grid.
        :param high: upper end of the grid.
        :param grid_size: number of centers, of B-splines of intervals.
        :param basis: ``"rbf"``, ``"bspline"`` or ``"rswaf"``.
        :param like: a tensor whose dtype and device the cells take.
        :raises ValueError: for another basis, and where ``low < high`` does not hold.

        >>> SharedCells.over(-4.0, 4.0, like=torch.zeros(())).basis.num_functions
        16
        """
        one_of("basis", basis, KINDS)
        floating("like", like)
        low, high = number("low", low), number("high", high)
        whole_number("grid_size", grid_size, 2)
        if not -REACH < low < high < REACH:
            raise ValueError(
                f"low, high must be increasing and inside (-9, 9), got {low} and {high}"
            )
        kind = BASES[basis]
        functions = kind.uniform(low, high, grid_size, 3, kind.default_width)
        width = None if functions.width is None else functions.width.to(like)
        functions = replace(functions, grid=functions.grid.to(like), width=width)
        splits, _ = RULES.get(like.dtype, RULES[torch.float32])
        steps = grid_size if basis == "bspline" else grid_size - 1
        return cls._on(functions, _edges(low, high, steps * splits, like))

    @classmethod
    def _on(cls, basis: BasisFunctions, edges: Tensor) -> Self:
        """Make the tables on cells given by their edges in double."""
        like = basis.grid
        precise = basis.cast(torch.float64)
        _, num_nodes = RULES.get(like.dtype, RULES[torch.float32])
        rule = gauss_legendre(num_nodes)
        widths = edges.diff()[:, None]
        nodes = (edges[:-1, None] + widths * _like(rule.nodes, edges)).mT  # cells follow cells
        weights = (widths * analysis_matrix(rule.nodes, edges)[0]).mT
        places = _like(gauss_legendre(NUM_NODES).nodes, edges)
        local = edges[:-1, None] + widths * places
        tables = (
            _flushed(precise(nodes.flatten()).mT),
            (weights.log() + log_standard_normal(nodes)).flatten(),
            _flushed(precise(local)),
            log_standard_normal(local),
        )
        return cls(basis, edges.to(like), *(table.contiguous().to(like) for table in tables))

    def refined(self, pieces: int) -> Self:
        """
        Return the same with every cell cut into equal pieces.

        :param pieces: their number.
        """
        edges = self.edges.double()
        parts = torch.arange(pieces, dtype=edges.dtype, device=edges.device) / pieces
        inside = edges[:-1, None] + edges.diff()[:, None] * parts
        return self._on(self.basis, torch.cat([inside.flatten(), edges[-1:]]))

    @property
    def num_cells(self) -> int:
        """Number of cells."""
        return len(self.local_functions)

    def log_terms(self, coefficients: Tensor) -> Tensor:
        """Return the logarithms of the terms whose sum is ``Z``, ``(*batch, nodes cells)``."""
        return linear(coefficients, self.functions.mT, self.log_weights)

    def log_normalizer(self, coefficients: Tensor) -> Tensor:
        """
        Return ``log Z``.

        :param coefficients: shape ``(*batch, G)``.
        :return: shape ``batch``.
        """
        return _LogNormalizer.apply(coefficients, self.functions, self.log_weights)[0]

    def cell_masses(self, coefficients: Tensor, log_weights: Tensor | None) -> Tensor:
        """
        Return the mass of every cell, of a density or of a mixture.

        :param coefficients: shape ``(*batch, G)``, of a mixture ``(*batch, K, G)``.
        :param log_weights: of a mixture, shape ``(*batch, K)``.
        :return: shape ``(*batch, cells)``.
        """
        terms = self.log_terms(coefficients)
        if torch.is_grad_enabled():
            terms = terms.softmax(-1)
        else:  # in place
            terms = terms.sub_(terms.amax(-1, keepdim=True)).exp_()
        masses = terms.unflatten(-1, (-1, self.num_cells)).sum(-2)
        masses = masses / masses.sum(-1, keepdim=True)
        return masses if log_weights is None else (masses * log_weights.exp()[..., None]).sum(-2)

    def shares(self, coefficients: Tensor, log_weights: Tensor | None, cell: Tensor) -> Tensor:
        """
        Return which share of a cell's mass lies below a place ``s`` in it, as a polynomial.

        :param coefficients: as in :meth:`cell_masses`.
        :param log_weights: likewise.
        :param cell: shape ``batch``.
        :return: coefficients of ``s, ..., s^12``, shape ``(*batch, 12)``.
        """
        functions = self.local_functions.flatten(1).index_select(0, cell.flatten())
        functions = functions.unflatten(-1, (NUM_NODES, -1)).unflatten(0, cell.shape)
        reference = self.local_log_density.index_select(0, cell.flatten()).unflatten(0, cell.shape)
        if log_weights is None:
            log_density = (functions @ coefficients.unsqueeze(-1)).squeeze(-1)
        else:
            shift = log_weights - self.log_normalizer(coefficients)
            log_density = (functions @ coefficients.mT + shift.unsqueeze(-2)).logsumexp(-1)
        log_density = log_density + reference
        density = (log_density - log_density.detach().amax(-1, keepdim=True)).exp()
        series = density @ analysis_matrix(gauss_legendre(NUM_NODES).nodes, density).mT
        powers = series @ integral_matrix(NUM_NODES, density).mT
        return powers / series[..., :1]

    def _lines(self, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Return where cells start, and their widths."""
        start, width = (
            part.index_select(0, cell.flatten()).reshape(cell.shape)
            for part in (self.edges, self.edges.diff())
        )
        return start, width

    def tails(
        self, coefficients: Tensor, log_weights: Tensor | None, z: Tensor
    ) -> tuple[Tensor, Tensor]:
        """
        Return the masses below and above places, each with its own relative accuracy.

        :param coefficients: as in :meth:`cell_masses`.
        :param log_weights: likewise.
        :param z: shape ``batch``; what lies outside of the cells is moved to their end.
        :return: ``F(z)`` and ``1 - F(z)``, each of shape ``batch``.
        """
        z = z.clamp(self.edges[0], self.edges[-1])
        cell = torch.bucketize(z.detach(), self.edges[1:-1], right=True)
        start, width = self._lines(cell)
        terms = self.shares(coefficients, log_weights, cell)
        share, _ = polynomial(
            torch.cat([torch.zeros_like(terms[..., :1]), terms], -1).movedim(-1, 0),
            (z - start) / width,
        )
        masses = self.cell_masses(coefficients, log_weights)
        inside = _at(masses, cell)
        below = _before(masses.cumsum(-1), cell) + inside * share
        from_above = masses.flip(-1).cumsum(-1)
        return below, _before(from_above, self.num_cells - 1 - cell) + inside * (1 - share)

    def inverse(
        self, coefficients: Tensor, log_weights: Tensor | None, u: Tensor, upper: Tensor | None
    ) -> Tensor:
        """
        Return ``F^{-1}(u)``, or ``F^{-1}(1 - u)`` found from the upper end, with pathwise
        derivatives of every order.

        :param coefficients: as in :meth:`cell_masses`.
        :param log_weights: likewise.
        :param u: shape ``batch``.
        :param upper: whether each ``u`` is the mass above; None where none is.
        :return: shape ``batch``.
        """
        masses = self.cell_masses(coefficients, log_weights)
        ends = masses.cumsum(-1)
        cell = find_in_rows(ends.detach(), u.detach())
        share = (u - _before(ends, cell)) / _at(masses, cell)
        if upper is not None:
            ends = masses.flip(-1).cumsum(-1)
            mirrored = find_in_rows(ends.detach(), u.detach())
            from_above = self.num_cells - 1 - mirrored
            rest = (u - _before(ends, mirrored)) / _at(masses, from_above)
            cell = torch.where(upper, from_above, cell)
            share = torch.where(upper, 1 - rest, share)
        terms = self.shares(coefficients, log_weights, cell)
        local = torch.cat([torch.zeros_like(terms[..., :1]), terms], -1).movedim(-1, 0)
        place = solve(share.clamp(0, 1), local)
        start, width = self._lines(cell)
        return start + width * place


class _LogNormalizer(torch.autograd.Function):
    """
    ``log Σ_j w_j exp(Σ_i c_i B_i(z_j))``, some rows at a time.

    With the sum come the means of ``B``, its gradient; nothing as large as the terms is kept.
    """

    @staticmethod
    def forward(
        coefficients: Tensor, functions: Tensor, log_weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        rows = coefficients.reshape(-1, len(functions))
        sums = torch.cat([torch.ones_like(functions[:1]), functions]).mT
        pieces = rows.split(max(PIECE // functions.shape[1], 1))
        means = torch.empty_like(rows)
        log_normalizer = rows.new_empty(len(rows))
        for piece, mean, value in zip(
            pieces,
            means.split(len(pieces[0])),
            log_normalizer.split(len(pieces[0])),
            strict=True,
        ):
            terms = torch.addmm(log_weights, piece, functions)
            peak = terms.amax(-1, keepdim=True)
            total = terms.sub_(peak).exp_() @ sums
            torch.div(total[:, 1:], total[:, :1], out=mean)
            torch.add(total[:, 0].log(), peak[:, 0], out=value)
        shape = coefficients.shape
        return log_normalizer.reshape(shape[:-1]), means.reshape(shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs, output[1])
        ctx.save_for_forward(output[1])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor, None, None]:
        coefficients, functions, log_weights, means = ctx.saved_tensors
        if torch.is_grad_enabled():  # for a second derivative
            means = (coefficients @ functions + log_weights).softmax(-1) @ functions.mT
        return grad.unsqueeze(-1) * means, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> tuple[Tensor, None]:
        (means,) = ctx.saved_tensors
        return (tangent * means).sum(-1), None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], coefficients: Tensor, *tables: Tensor
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        moved = coefficients if in_dims[0] is None else coefficients.movedim(in_dims[0], 0)
        if in_dims[0] is None:
            moved = moved.expand(info.batch_size, *moved.shape)
        return _LogNormalizer.apply(moved, *tables), (0, 0)


def _like(values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.as_tensor(values, dtype=like.dtype, device=like.device)


def _flushed(values: Tensor) -> Tensor:
    """
    Set to 0 what is too small to count, as products with subnormal numbers take 50 times as long.
    """
    return torch.where(values.abs() < 1e-30, 0.0, values)


def _edges(low: float, high: float, count: int, like: Tensor) -> Tensor:
    """
    Return edges, in double, that cut an interval into ``count`` cells and go on to 9 in size.
    """
    step = (high - low) / count
    before = math.ceil((low + REACH) / step)
    behind = math.ceil((REACH - high) / step)
    steps = torch.arange(-before, count + behind + 1, device=like.device)
    return low + step * steps.double()


def _at(masses: Tensor, cell: Tensor) -> Tensor:
    """Return the mass of one cell of each density."""
    return masses.gather(-1, cell.unsqueeze(-1)).squeeze(-1)


def _before(ends: Tensor, cell: Tensor) -> Tensor:
    """Return the mass before a cell, given that up to each cell's end."""
    return torch.where(cell > 0, _at(ends, (cell - 1).clamp_min(0)), 0)
