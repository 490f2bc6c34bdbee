"""Ladders of inverse temperatures ``0 = t_0 < ... < t_K = 1`` and how well they communicate.

Sources: Raj 2025, arXiv:2506.14167, Sec. 3.5 (power law, cycles); Syed et al. 2022,
arXiv:1905.02939 (communication barrier, equal rejection).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_tkam._checks import length, number, whole_number
from pyro_tkam.ops._arguments import finite, floating, floating_dtype
from pyro_tkam.ops._concrete import is_concrete

__all__ = [
    "adaptive",
    "communication_barrier",
    "cyclic_exponent",
    "monotone_cubic",
    "power_law",
    "suggested_number",
]


def power_law(num: int, exponent: float = 1.0, *, dtype: torch.dtype | None = None) -> Tensor:
    """
    Return the ladder ``t_k = (k / K)^r`` with ``K = num - 1`` (Raj 2025, arXiv:2506.14167, Sec.
    3.5).

    :param num: number of temperatures, at least 2.
    :param exponent: ``r > 0``; above 1, the temperatures crowd near the prior.
    :param dtype: of the result; torch's default if None.
    :return: rising inverse temperatures, ``(num,)``.
    :raises ValueError: if ``num < 2`` or ``exponent`` isn't positive and finite.

    >>> power_law(3, 2.0)
    tensor([0.0000, 0.2500, 1.0000])
    """
    whole_number("num", num, 2)
    exponent = length("exponent", exponent)
    if dtype is not None:
        floating_dtype("dtype", dtype)
    return torch.linspace(0, 1, num, dtype=dtype).pow(exponent)


def cyclic_exponent(step: int, total: int, start: float, end: float, cycles: float = 0) -> float:
    """
    Return the exponent ``r(i) = r_0 + (r_1 - r_0)/2 (1 - cos(2π (N_c + ½) i/N))`` of a training
    step.

    Raj 2025, arXiv:2506.14167, Sec. 3.5; with no cycles it goes from ``start`` to ``end`` once.

    :param step: ``i``, from 0 to ``total``.
    :param total: ``N > 0``, number of steps.
    :param start: ``r_0``, the exponent at step 0.
    :param end: ``r_1``, the exponent at step ``total``.
    :param cycles: ``N_c >= 0``, number of full cycles before the last half.
    :return: the exponent.
    :raises TypeError: for what is no number.
    :raises ValueError: if ``step`` isn't in ``[0, total]`` or ``cycles`` is negative.

    >>> cyclic_exponent(0, 100, 4.0, 1.0), cyclic_exponent(100, 100, 4.0, 1.0)
    (4.0, 1.0)
    """
    number("total", total, 0)
    number("step", step, at_least=0, at_most=total)
    number("start", start)
    number("end", end)
    number("cycles", cycles, at_least=0)
    return start + (end - start) / 2 * (1 - math.cos(2 * math.pi * (cycles + 0.5) * step / total))


def communication_barrier(rejections: Tensor) -> Tensor:
    """Return the barrier ``Λ(t_k)``, the cumulated rejection between neighbors (Syed et al. 2022).

    :param rejections: mean swap rejection of rungs ``k, k + 1``, ``(K,)``.
    :return: ``Λ`` at each rung, from 0, ``(K + 1,)``; its last entry is the barrier of the ladder.

    >>> communication_barrier(torch.tensor([0.25, 0.5]))
    tensor([0.0000, 0.2500, 0.7500])
    """
    floating("rejections", rejections)
    if rejections.dim() != 1:
        raise ValueError(f"rejections must have shape (K,), got {tuple(rejections.shape)}")
    return torch.cat([rejections.new_zeros(1), rejections.cumsum(0)])


def suggested_number(barrier: float) -> int:
    """
    Return the number of temperatures ``2Λ + 1``, rounded up, which maximizes round trips per
    evaluation.

    :param barrier: ``Λ``, the last entry of :func:`communication_barrier`.
    :return: at least 2 (Syed et al. 2022).
    :raises ValueError: if ``barrier`` is negative or not finite.

    >>> suggested_number(3.2)
    8
    """
    number("barrier", barrier, at_least=0)
    return max(2, math.ceil(2 * barrier) + 1)


def adaptive(betas: Tensor, rejections: Tensor, num: int | None = None) -> Tensor:
    """
    Return the ladder with equal rejection between neighbors, given the rejections on another
    ladder.

    ``Λ(t)`` is interpolated by a monotone cubic and inverted at equal steps (Syed et al. 2022).

    :param betas: rising inverse temperatures from 0 to 1, ``(K + 1,)``.
    :param rejections: mean swap rejection of neighbors, in ``[0, 1]``, ``(K,)``.
    :param num: number of temperatures of the new ladder; as many as before if None.
    :return: rising inverse temperatures from 0 to 1, ``(num,)``.
    :raises ValueError: if the shapes don't fit, ``num < 2``, ``betas`` fall or don't go from 0 to
        1, or a rejection isn't in ``[0, 1]``.

    >>> adaptive(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([0.3, 0.3]))
    tensor([0.0000, 0.5000, 1.0000])
    """
    floating("betas", betas)
    floating("rejections", rejections)
    if betas.dim() != 1 or len(betas) < 2:
        raise ValueError(f"betas must have shape (K + 1,) with K >= 1, got {tuple(betas.shape)}")
    num = len(betas) if num is None else whole_number("num", num, 2)
    if rejections.shape != (len(betas) - 1,):
        raise ValueError(
            f"rejections must have shape ({len(betas) - 1},), got {tuple(rejections.shape)}"
        )
    # Neighbors may be equal: those of an adapted ladder are where rounding merged them.
    if is_concrete(betas) and not bool(
        (betas[0] == 0) & (betas[-1] == 1) & (betas.diff() >= 0).all()
    ):
        raise ValueError(f"betas must increase from 0 to 1, got {betas.tolist()}")
    if is_concrete(rejections) and not bool(((rejections >= 0) & (rejections <= 1)).all()):
        raise ValueError(f"rejections must lie in [0, 1], got {rejections.tolist()}")
    # A pair that never rejects still needs a rising barrier, or its interval could not be inverted.
    grid = betas.double()
    barrier = communication_barrier(rejections.double().clamp_min(1e-6))
    wanted = torch.linspace(0, 1, num, dtype=torch.float64, device=betas.device)[1:-1] * barrier[-1]
    inner = _invert_monotone(grid, barrier, wanted)
    return torch.cat([grid[:1], inner, grid[-1:]]).to(betas.dtype)


def monotone_cubic(x: Tensor, y: Tensor, points: Tensor) -> Tensor:
    """Interpolate with a cubic that rises wherever the data rise (Fritsch and Butland 1984).

    :param x: strictly rising, ``(n,)``, ``n >= 2``.
    :param y: values, ``(n,)``.
    :param points: where to evaluate, any shape.
    :return: values, of the shape of ``points``.
    :raises TypeError: for anything but floating-point tensors of one dtype.
    :raises ValueError: if ``x`` does not rise, or the shapes don't fit.
    """
    finite("x", x)
    finite("y", y)
    floating("points", points)
    if x.dim() != 1 or len(x) < 2 or not bool((x.diff() > 0).all()):
        raise ValueError(
            f"x must increase strictly and have shape (n,) with n >= 2, got {x.tolist()}"
        )
    for name, other in (("y", y), ("points", points)):
        if other.dtype != x.dtype:
            raise TypeError(f"{name} must have the dtype of x, {x.dtype}, got {other.dtype}")
    if y.shape != x.shape:
        raise ValueError(f"y must have the shape of x, {tuple(x.shape)}, got {tuple(y.shape)}")
    return _cubic(x, y, points)


def _cubic(x: Tensor, y: Tensor, points: Tensor) -> Tensor:
    width = x.diff()
    slope = y.diff() / x.diff()
    tangent = torch.cat([slope[:1], _harmonic(slope, width), slope[-1:]])
    cell = (torch.searchsorted(x, points.contiguous(), right=True) - 1).clamp(0, len(x) - 2)
    h = width[cell]
    s = (points - x[cell]) / width[cell]
    return (
        y[cell] * (1 + 2 * s) * (1 - s) ** 2
        + h * tangent[cell] * s * (1 - s) ** 2
        + y[cell + 1] * s**2 * (3 - 2 * s)
        + h * tangent[cell + 1] * s**2 * (s - 1)
    )


def _harmonic(slope: Tensor, width: Tensor) -> Tensor:
    """Return the weighted harmonic mean of neighboring slopes; 0 where their signs differ."""
    left = slope[:-1]
    right = slope[1:]
    first = 2 * width[1:] + width[:-1]
    second = width[1:] + 2 * width[:-1]
    rising = left * right > 0
    safe_left = torch.where(rising, left, 1.0)
    safe_right = torch.where(rising, right, 1.0)
    return torch.where(rising, (first + second) / (first / safe_left + second / safe_right), 0.0)


def _invert_monotone(x: Tensor, y: Tensor, wanted: Tensor) -> Tensor:
    """Solve ``monotone_cubic(x, y, ·) = wanted`` by bisection."""
    cell = (torch.searchsorted(y, wanted) - 1).clamp(0, len(x) - 2)
    low = x[cell]
    high = x[cell + 1]
    for _ in range(60):
        middle = (low + high) / 2
        below = _cubic(x, y, middle) < wanted
        low = torch.where(below, middle, low)
        high = torch.where(below, high, middle)
    return (low + high) / 2
