"""
Moving functions to another grid: new knots, and the least-squares fit of the old functions with the
new ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_tkam.ops._points import aligned
from pyro_tkam.ops.bases.base import BasisFunctions

#: points a cell, old or new, at which a fit is made
_POINTS_A_CELL = 4
#: points for each function, equally spaced over the whole interval
_POINTS_A_FUNCTION = 4
#: singular values below this share of the largest are left out of a fit
_TOLERANCE = 1e-4


def quantile_knots(
    samples: Tensor, low: Tensor, high: Tensor, num: int, uniform_share: float
) -> Tensor:
    r"""
    Place knots at :math:`ρ · \text{uniform} + (1 - ρ) · \text{quantiles}`, with the ends at ``low``
    and ``high``.

    Samples outside the interval count as its ends. If all samples are equal, the knots are uniform.

    :param samples: shape ``(N, *grid_batch)``.
    :param low: lower ends, broadcastable to ``grid_batch``.
    :param high: upper ends.
    :param num: number of knots.
    :param uniform_share: :math:`ρ`, from 0 to 1.
    :returns: shape ``(*grid_batch, num)``.

    >>> quantile_knots(torch.tensor([0.0, 0.1, 0.2, 1.0]), torch.tensor(0.0), torch.tensor(1.0), 4,
    ...     0.0)
    tensor([0.0000, 0.1000, 0.2000, 1.0000])
    """
    levels = torch.linspace(0, 1, num, dtype=samples.dtype, device=samples.device)
    inside = torch.minimum(torch.maximum(samples, low), high)
    quantiles = torch.quantile(inside, levels, dim=0).movedim(0, -1)
    low, high = (end.expand(samples.shape[1:]).unsqueeze(-1) for end in (low, high))
    uniform = torch.lerp(low, high, levels)
    constant = (inside.amin(0) == inside.amax(0)).unsqueeze(-1)
    knots = torch.where(constant, uniform, torch.lerp(quantiles, uniform, uniform_share))
    return torch.cat((low, knots[..., 1:-1], high), -1)


def refined_knots(knots: Tensor, num: int) -> Tensor:
    """
    Place more knots between the existing ones, equally many in each cell if the numbers allow it.

    :param knots: ascending, shape ``(*grid_batch, M)``.
    :param num: number of knots.
    :returns: shape ``(*grid_batch, num)``.

    >>> refined_knots(torch.tensor([0.0, 1.0, 4.0]), 5)
    tensor([0.0000, 0.5000, 1.0000, 2.5000, 4.0000])
    """
    last = knots.shape[-1] - 1
    place = torch.arange(num, dtype=knots.dtype, device=knots.device) * last / (num - 1)
    cell = place.long().clamp(max=last - 1)
    return torch.lerp(knots[..., cell], knots[..., cell + 1], place - cell)


@dataclass(frozen=True, eq=False)
class Refit:
    r"""
    The least-squares fit of an old basis with a new one.

    Both are evaluated on the samples and on points of the whole interval, in each cell of both
    grids. The best coefficients are a linear map of the old ones, :math:`c' = A c` with :math:`A =
    B'^{+} B`.

    :param transform: :math:`A`, shape ``(*grid_batch, F', F)``.
    :param remainder: mean over the points of the outer products of :math:`B' A - B`, shape
        ``(*grid_batch, F, F)``.
    :param points: the points of the fit, shape ``(T, *grid_batch)``.
    """

    transform: Tensor
    remainder: Tensor
    points: Tensor

    def coefficients(self, old: Tensor) -> Tensor:
        """Fit functions of the old coefficients ``(*batch, F)``: ``(*batch, F')``."""
        return torch.einsum("...nf,...f->...n", self.transform, old)

    def mean_square(self, old: Tensor) -> Tensor:
        """
        Return the mean squared error over the points for old coefficients ``(*batch, F)``:
        ``batch``.
        """
        return quadratic(self.remainder, old)


def quadratic(matrix: Tensor, vectors: Tensor) -> Tensor:
    """
    Evaluate ``v' M v``, never below zero.

    :param matrix: positive semidefinite, shape ``(*grid_batch, F, F)``.
    :param vectors: shape ``(*batch, F)``, against which ``grid_batch`` broadcasts.
    :returns: shape ``batch``.
    """
    return (torch.einsum("...fg,...g->...f", matrix, vectors) * vectors).sum(-1).clamp_min(0)


def refit(old: BasisFunctions, new: BasisFunctions, samples: Tensor | None) -> Refit:
    """
    Fit the functions of ``old`` with those of ``new``.

    Directions that the new functions can hardly represent keep the old coefficients (or zero, if
    their number changes), so no coefficient becomes huge. Functions that did not move are kept
    exactly.

    :param samples: additional points of the fit, shape ``(N, *grid_batch)``.
    """
    points = _points(old, new, samples)
    before, after = (basis(points).movedim(0, -2) for basis in (old, new))
    size = (after.shape[-1], before.shape[-1])
    start = torch.eye(*size, dtype=before.dtype, device=before.device) * (size[0] == size[1])
    transform = start + _solve(after, before - after @ start)
    residual = after @ transform - before
    return Refit(transform, residual.mT @ residual / len(points), points)


def _solve(matrix: Tensor, target: Tensor) -> Tensor:
    """Solve a least-squares problem, without singular values below a share of the largest."""
    values, vectors = torch.linalg.eigh(matrix.mT @ matrix)
    kept = values > _TOLERANCE**2 * values[..., -1:]
    inverse = torch.where(kept, 1 / torch.where(kept, values, 1.0), 0.0)
    return vectors @ (inverse.unsqueeze(-1) * (vectors.mT @ (matrix.mT @ target)))


def _points(old: BasisFunctions, new: BasisFunctions, samples: Tensor | None) -> Tensor:
    """Return the points of a fit, shape ``(T, *grid_batch)``, where the new grid reaches."""
    count = _POINTS_A_FUNCTION * max(old.num_functions, new.num_functions)
    low = new.placed[..., :1]
    high = new.placed[..., -1:]

    def inside(knots: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(knots, low), high)

    grids = [(inside(basis.placed[..., [0, -1]]), count) for basis in (old, new)]
    cells = [inside(basis.knots) for basis in (old, new) if basis.knots is not None]
    grids += [(knots, _POINTS_A_CELL * (knots.shape[-1] - 1)) for knots in cells]
    parts = [refined_knots(grid, num + 1).movedim(-1, 0) for grid, num in grids]
    parts += [] if samples is None else [samples]
    batch = torch.broadcast_shapes(*(part.shape[1:] for part in parts))
    return torch.cat([aligned(part, len(batch)).expand(-1, *batch) for part in parts])
