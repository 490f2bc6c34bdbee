"""Where a draw lies: operators that loop and branch, each a single step to ``torch.compile`` and to a traced graph."""

import torch
from torch import Tensor

_NEWTON_STEPS = 2
_MAX_BRACKETED_STEPS = 80
_PIECE = 2**16  # draws that are solved at a time: what a core's cache holds of them and their polynomials
_MAX_COUNTED = 64  # boundaries that are counted faster than they are searched


def piece_rows(value: Tensor) -> int:
    """
    Return how many rows are taken at a time.

    :param value: shape ``(sample, columns)``.

    >>> piece_rows(torch.zeros(10, 64))
    1024
    """
    return max(_PIECE // max(value.shape[-1], 1), 1)


@torch.library.custom_op("pyro_tkam::count_below", mutates_args=())
def count_below(boundaries: Tensor, value: Tensor) -> Tensor:
    """
    Count the boundaries that are not above each value, row by row.

    :param boundaries: ascending, shape ``(rows, cells - 1)``.
    :param value: shape ``(rows, sample)``.
    :return: integers, shape ``(rows, sample)``.
    """
    if boundaries.shape[-1] > _MAX_COUNTED:
        return torch.searchsorted(boundaries.contiguous(), value.contiguous(), right=True)
    columns = value.mT
    return torch.cat([_count_piece(boundaries.mT, part) for part in columns.split(piece_rows(columns))]).mT


@count_below.register_fake
def _(boundaries: Tensor, value: Tensor) -> Tensor:
    return torch.empty_like(value, dtype=torch.int64)


def _count_piece(boundaries: Tensor, value: Tensor) -> Tensor:
    """Count without branches; boundaries have shape ``(cells - 1, columns)``, values ``(sample, columns)``."""
    total, is_above = torch.zeros_like(value), torch.empty_like(value)
    for boundary in boundaries:
        total += torch.ge(value, boundary, out=is_above)
    return total.to(torch.int64)


@torch.library.custom_op("pyro_tkam::solve_polynomial", mutates_args=())
def solve_polynomial(u: Tensor, local: Tensor) -> Tensor:
    """
    Return the ``s`` on [0, 1] at which each increasing polynomial ``Σ_j m_j s^j`` equals ``u``.

    :param u: any shape.
    :param local: coefficients ``m``, shape ``(degree + 1, *u.shape)``.
    :return: shaped like ``u``.
    """
    pieces = zip(u.flatten().split(_PIECE), local.flatten(1).split(_PIECE, 1), strict=True)
    return torch.cat([_solve_piece(*piece) for piece in pieces]).reshape(u.shape)


@solve_polynomial.register_fake
def _(u: Tensor, local: Tensor) -> Tensor:
    return torch.empty_like(u, memory_format=torch.contiguous_format)


def polynomial(local: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """
    Evaluate ``Σ_j m_j s^j`` and its derivative by Horner's scheme; near ``s = 0`` both keep relative accuracy.

    :param local: coefficients ``m``, shape ``(degree + 1, *s.shape)``.
    :param s: any shape.
    :return: two tensors shaped like ``s``.

    >>> [value.item() for value in polynomial(torch.tensor([1.0, 2.0, 3.0]), torch.tensor(2.0))]
    [17.0, 14.0]
    """
    *rest, last = local[1:].unbind(0)
    slope, mean = torch.zeros_like(s), last.expand(s.shape)
    for coefficient in reversed(rest):
        slope = torch.addcmul(mean, slope, s)
        mean = torch.addcmul(coefficient, mean, s)
    return torch.addcmul(local[0], mean, s), torch.addcmul(mean, slope, s)


def _solve_piece(u: Tensor, local: Tensor) -> Tensor:
    """Newton's method first, and a bracket for what it leaves."""
    tiny, eps = torch.finfo(u.dtype).tiny, torch.finfo(u.dtype).eps
    mass = local[1:].sum(0)
    below = local[0]
    inside = torch.cat([torch.zeros_like(below)[None], local[1:]])
    target = (u - below).clamp_min(0).minimum(mass)
    s = (target / mass.clamp_min(tiny)).clamp(0, 1)
    for _ in range(_NEWTON_STEPS):
        value, slope = polynomial(inside, s)
        s = (s - (value - target) / slope.clamp_min(tiny)).clamp(0, 1)
    tolerance = 2 * eps * mass
    value, _ = polynomial(inside, s)
    (open_,) = ((value - target).abs() > tolerance).nonzero(as_tuple=True)
    if open_.numel() > 0:
        s[open_] = _bracketed(inside[:, open_], target[open_], s[open_], tolerance[open_])
    return s


def _bracketed(local: Tensor, target: Tensor, s: Tensor, tolerance: Tensor) -> Tensor:
    """Newton's method kept inside a shrinking bracket; a step that leaves it becomes a bisection."""
    low, high = torch.zeros_like(s), torch.ones_like(s)
    for _ in range(_MAX_BRACKETED_STEPS):
        value, slope = polynomial(local, s)
        residual = value - target
        done = residual.abs() <= tolerance
        if bool(done.all()):
            break
        low, high = torch.where(residual < 0, s, low), torch.where(residual > 0, s, high)
        newton = s - residual / slope
        inside = (newton > low) & (newton < high)
        s = torch.where(done, s, torch.where(inside, newton, (low + high) / 2))
    return s
