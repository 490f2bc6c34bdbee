"""
Where a draw lies: operators that loop and branch, each a single step to ``torch.compile`` and to a
traced graph.
"""

import torch
from torch import Tensor

_NEWTON_STEPS = 3  # of all draws together
_FEW = 1 / 64  # share of the draws that is taken out and solved by itself
_STEEP = 100.0  # slope, in units of the mean one, beyond which a guess does not follow it
_MAX_BRACKETED_STEPS = 80
# draws that are solved at a time: what a core's cache holds of them and their polynomials
_PIECE = 2**17
_MAX_COUNTED = 64  # boundaries that are counted faster than they are searched


def piece_rows(value: Tensor) -> int:
    """
    Return how many rows are taken at a time.

    :param value: shape ``(sample, columns)``.

    >>> piece_rows(torch.zeros(10, 64))
    2048
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
    return torch.cat(
        [_count_piece(boundaries.mT, part) for part in columns.split(piece_rows(columns))]
    ).mT


@count_below.register_fake
def _(boundaries: Tensor, value: Tensor) -> Tensor:
    return torch.empty_like(value, dtype=torch.int64)


def _count_piece(boundaries: Tensor, value: Tensor) -> Tensor:
    """
    Count without branches; boundaries have shape ``(cells - 1, columns)``, values ``(sample,
    columns)``.
    """
    total = torch.zeros_like(value)
    is_above = torch.empty_like(value)
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
    Evaluate ``Σ_j m_j s^j`` and its derivative by Horner's scheme; near ``s = 0`` both keep
    relative accuracy.

    :param local: coefficients ``m``, shape ``(degree + 1, *s.shape)``.
    :param s: any shape.
    :return: two tensors shaped like ``s``.

    >>> [value.item() for value in polynomial(torch.tensor([1.0, 2.0, 3.0]), torch.tensor(2.0))]
    [17.0, 14.0]
    """
    *rest, last = local.unbind(0)
    value = last.expand(s.shape)
    slope = torch.zeros_like(s)
    for coefficient in reversed(rest):
        slope = torch.addcmul(value, slope, s)
        value = torch.addcmul(coefficient, value, s)
    return value, slope


def _solve_piece(u: Tensor, local: Tensor) -> Tensor:
    """
    Newton's method for all at once while many need it, and inside a bracket for the few that are
    left.
    """
    terms = local[1:]
    degrees = torch.arange(1, len(local), dtype=u.dtype, device=u.device)
    mass, end_slope = torch.stack([torch.ones_like(degrees), degrees]) @ terms
    target = (u - local[0]).clamp_min(0).minimum(mass)
    tolerance = 2 * torch.finfo(u.dtype).eps * (local[0] + mass)
    s = _rational_guess(target, mass, terms[0], end_slope)
    for _ in range(_NEWTON_STEPS):
        residual, slope = _residual(terms, target, s)
        s = torch.addcdiv(
            s, residual, slope.clamp_min_(torch.finfo(u.dtype).tiny), value=-1, out=s
        ).clamp_(0, 1)
        left = _value(terms, s).mul_(s).sub_(target).abs_()
        (open_,) = (left > tolerance).nonzero(as_tuple=True)
        if len(open_) <= _FEW * len(s):
            break
    if len(open_) > 0:
        s[open_] = _bracketed(terms[:, open_], target[open_], s[open_], tolerance[open_])
    return s


def _value(terms: Tensor, s: Tensor) -> Tensor:
    """
    Return ``Σ_j m_{j+1} s^j``, the first of what :func:`polynomial` does, at half of its cost.
    """
    *rest, last = terms.unbind(0)
    value = last.clone()
    for term in reversed(rest):
        torch.addcmul(term, value, s, out=value)
    return value


def _residual(terms: Tensor, target: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``Σ_j m_j s^j - t`` over ``j >= 1``, and its derivative."""
    value, slope = polynomial(terms, s)
    return torch.addcmul(-target, value, s), torch.addcmul(value, slope, s)


def _rational_guess(target: Tensor, mass: Tensor, slope: Tensor, end_slope: Tensor) -> Tensor:
    """
    Invert the monotone rational quadratic that has the polynomial's values and slopes at 0 and 1.

    Gregory & Delbourgo 1982 (IMA J. Numer. Anal. 2:123); it leaves an error of fourth order in the
    width of the cell.
    """
    unit = mass.clamp_min(torch.finfo(mass.dtype).tiny)
    y = target / unit
    first = (slope / unit).clamp_(0, _STEEP)
    last = (end_slope / unit).clamp_(0, _STEEP)
    bend = last.add_(first).sub_(2).mul_(y)
    linear = first - bend
    quadratic = bend.sub_(first).add_(1)
    root = torch.addcmul(linear.square(), quadratic, y, value=4).clamp_min_(0).sqrt_()
    return y.mul_(2).div_(root.add_(linear).clamp_min_(torch.finfo(mass.dtype).tiny)).clamp_(0, 1)


def _bracketed(terms: Tensor, target: Tensor, s: Tensor, tolerance: Tensor) -> Tensor:
    """
    Newton's method kept inside a shrinking bracket; a step that leaves it becomes a bisection.
    """
    low = torch.zeros_like(s)
    high = torch.ones_like(s)
    for _ in range(_MAX_BRACKETED_STEPS):
        residual, slope = _residual(terms, target, s)
        done = residual.abs() <= tolerance
        if bool(done.all()):
            break
        low = torch.where(residual < 0, s, low)
        high = torch.where(residual > 0, s, high)
        newton = s - residual / slope
        inside = (newton > low) & (newton < high)
        s = torch.where(done, s, torch.where(inside, newton, (low + high) / 2))
    return s
