"""
Polynomials of an inverse CDF in bins of probability: of many draws, each costs a look-up and six
products.
"""

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from pyro_tkam.ops.cell_operators import piece_rows

NUM_BINS = 64
MANY_DRAWS = 4096  # of each density, from where on 512 solutions for its polynomials are few
# two nodes more than terms tell how far a polynomial is from the inverse
_NUM_TERMS = 6
_NUM_NODES = 8
_TOLERANCE = 2  # roundings of u
_STEEP = 4  # roundings of u that one of z is worth


def fit_series(solve: Callable[[Tensor], Tensor], columns: int, like: Tensor) -> Tensor:
    """
    Fit polynomials to ``F^{-1}`` in 64 equal bins of ``u``.

    They are NaN where they miss ``u`` by more than two of its roundings, where the density is so
    steep that the rounding of ``z`` would count, and in the bins at the two ends, where tails are.

    :param solve: ``F^{-1}`` by column, at probabilities of shape ``(sample, columns)``.
    :param columns: number of densities.
    :param like: a tensor of the dtype and device of the probabilities.
    :return: coefficients of ``1, t, ..., t^5``, ``t`` from -1 to 1 over a bin, shape
        ``(6, bins, columns)``.

    >>> series = fit_series(lambda u: 2 * u, 1, torch.zeros(()))
    >>> evaluate_series(series, torch.tensor([[0.25], [0.5], [0.999]])).T
    tensor([[0.5000, 1.0000,    nan]])
    """
    nodes, fit, miss = (matrix.to(like) for matrix in _rule())
    bins = torch.arange(NUM_BINS, dtype=like.dtype, device=like.device)[:, None]
    u = (bins + (1 + nodes) / 2) / NUM_BINS  # without rounding
    z = solve(u.reshape(-1, 1).expand(-1, columns)).unflatten(0, u.shape)
    middle = z[:, _NUM_NODES // 2, None]
    from_middle = z - middle  # as exact as z
    slope = (u.diff(dim=1)[..., None] / z.diff(dim=1)).abs().amax(1)
    error = (miss @ from_middle).abs().amax(1) * slope
    exact = error <= _TOLERANCE * torch.finfo(like.dtype).eps * bins / NUM_BINS
    exact &= z.abs().amax(1) * slope <= _STEEP
    exact[0] = exact[-1] = False
    terms = fit @ from_middle
    terms[:, :1] += middle
    return torch.where(exact[:, None], terms, torch.nan).movedim(1, 0).contiguous()


def evaluate_series(series: Tensor, u: Tensor) -> Tensor:
    """
    Evaluate what :func:`fit_series` returns; NaN where a bin has no polynomial.

    :param series: shape ``(terms, bins, columns)``.
    :param u: probabilities, shape ``(sample, columns)``.
    :return: shape ``(sample, columns)``.
    """
    flat = series.flatten(1)
    column = torch.arange(u.shape[1], dtype=torch.int32, device=u.device)
    z = torch.empty_like(u, memory_format=torch.contiguous_format)
    for part, result in zip(u.split(piece_rows(u)), z.split(piece_rows(u)), strict=True):
        scaled = part * NUM_BINS
        bin_ = scaled.to(torch.int32).clamp_(0, NUM_BINS - 1)
        t = scaled.sub_(bin_).mul_(2).sub_(1)
        index = bin_.mul_(u.shape[1]).add_(column)
        terms = flat.index_select(1, index.flatten()).unflatten(1, t.shape)
        result.copy_(terms[-1])
        for term in reversed(terms[:-1].unbind(0)):
            torch.addcmul(term, result, t, out=result)
    return z


@cache
def _rule() -> tuple[Tensor, Tensor, Tensor]:
    """
    Return nodes on [-1, 1], near Chebyshev's, the least-squares fit to values there, and what it
    misses.
    """
    angles = (torch.arange(_NUM_NODES, dtype=torch.float64) + 0.5) * (math.pi / _NUM_NODES)
    nodes = angles.cos().mul(2**12).round() / 2**12
    powers = nodes[:, None] ** torch.arange(_NUM_TERMS)
    fit = torch.linalg.pinv(powers)
    return nodes, fit, torch.eye(_NUM_NODES, dtype=torch.float64) - powers @ fit
