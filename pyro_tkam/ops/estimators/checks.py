"""The check that every estimator makes of an argument first."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_tkam._checks import function
from pyro_tkam.ops._arguments import floating

__all__ = ["check_chains", "check_log_weights", "check_tensor", "evaluated"]


def check_tensor(name: str, value: Any) -> None:
    """Refuse a list of chains, which may differ in length, and what a Fourier transform can't take.

    :param name: of the argument.
    :param value: what was given.
    :raises TypeError: if it is not a tensor in single or double precision.
    :raises ValueError: if it has no values in its memory.
    """
    _one_tensor(name, value)
    if value.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"{name} must be floating-point numbers in single or double precision, got "
            f"{value.dtype}"
        )


def _one_tensor(name: str, value: Any) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{name} must be one tensor of chains of equal length, got {type(value).__name__}"
        )
    floating(name, value)


def check_log_weights(log_weights: Any, least: int) -> None:
    """Refuse what is no log weights of shape ``(*batch, N)``.

    :param log_weights: what was given.
    :param least: the smallest ``N``.
    :raises TypeError: if they are not a tensor of floating-point numbers.
    :raises ValueError: if there are fewer, one is NaN or ``+inf``, or all are ``-inf``.
    """
    _one_tensor("log_weights", log_weights)
    num = log_weights.shape[-1] if log_weights.dim() else 0
    if num < least or log_weights.numel() == 0:
        raise ValueError(
            f"log_weights must have shape (*batch, N) with N >= {least}, got "
            f"{tuple(log_weights.shape)}"
        )
    largest = log_weights.amax(-1)  # NaN propagates
    if not largest.isfinite().all():
        raise ValueError(
            "log_weights must be below +inf, not NaN and not all -inf, got a maximum of "
            f"{largest[~largest.isfinite()][0].item()}"
        )


def check_chains(draws: Any) -> None:
    """Refuse draws that are no chains of points.

    :param draws: of shape ``(chain, draw, *batch, dim)``.
    :raises TypeError: if they are no tensor of floating-point numbers.
    :raises ValueError: if they are empty, of fewer dimensions or not finite.
    """
    check_tensor("draws", draws)
    if draws.dim() < 3 or draws.numel() == 0:
        raise ValueError(
            "draws must have a non-empty shape (chain, draw, *batch, dim), got "
            f"{tuple(draws.shape)}"
        )
    if not draws.isfinite().all():
        raise ValueError("draws must be finite, got a NaN or an infinity")


def evaluated(log_density: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    """Return a log density at points, without gradients.

    :param log_density: maps points ``(num, *batch, dim)`` to ``(num, *batch)``.
    :param points: where.
    :raises TypeError: if it cannot be called, or returns no tensor.
    :raises ValueError: if what it returns has another shape, a NaN or ``+inf``.
    """
    function("log_density", log_density, "points")
    values = log_density(points)
    if not isinstance(values, Tensor):
        raise TypeError(f"log_density must return a tensor, got {type(values).__name__}")
    if values.shape != points.shape[:-1]:
        raise ValueError(
            f"log_density must return the shape {tuple(points.shape[:-1])}, got "
            f"{tuple(values.shape)}"
        )
    if not (values < torch.inf).all():  # a NaN is not below either
        raise ValueError(f"log_density must be below +inf and not NaN, got {values.max()}")
    return values.detach()
