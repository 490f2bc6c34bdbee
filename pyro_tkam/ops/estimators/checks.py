"""The check that every estimator makes of an argument first."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["check_chains", "check_tensor", "evaluated"]


def check_tensor(name: str, value: Any) -> None:
    """Refuse a list of chains, which may differ in length.

    :param name: of the argument.
    :param value: what was given.
    :raises TypeError: if it is not a tensor.
    """
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{name} must be one tensor, of chains that are equally long, got "
            f"{type(value).__name__}"
        )


def check_chains(draws: Any) -> None:
    """Refuse draws that are no chains of points.

    :param draws: of shape ``(chain, draw, *batch, dim)``.
    :raises TypeError: if they are no tensor of floating-point numbers.
    :raises ValueError: if they are empty, of fewer dimensions or not finite.
    """
    check_tensor("draws", draws)
    if not draws.is_floating_point():
        raise TypeError(f"draws must be floating-point numbers, got {draws.dtype}")
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
    :raises ValueError: if what it returns has another shape, a NaN or ``+inf``.
    """
    values = log_density(points)
    if values.shape != points.shape[:-1]:
        raise ValueError(
            f"log_density must return the shape {tuple(points.shape[:-1])}, got "
            f"{tuple(values.shape)}"
        )
    if not (values < torch.inf).all():  # a NaN is not below either
        raise ValueError(f"log_density must be below +inf and not NaN, got {values.max()}")
    return values.detach()
