"""Checks of arguments: each error names the argument, what it got and what it takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def known(argument: str, name: object, table: Mapping[str, T]) -> T:
    """Look a name up, once, at the edge."""
    if not isinstance(name, str) or name not in table:
        raise ValueError(f"{argument} must be one of {', '.join(map(repr, table))}, got {name!r}")
    return table[name]


def integer(argument: str, value: int, at_least: int) -> int:
    """Check that ``value`` is an integer of at least ``at_least``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{argument} must be an int, got {value!r}")
    if value < at_least:
        raise ValueError(f"{argument} must be at least {at_least}, got {value}")
    return value


def number(
    argument: str, value: float, above: float = -math.inf, *, at_least: float = -math.inf
) -> float:
    """Check that ``value`` is a finite number greater than ``above``, not below ``at_least``."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{argument} must be a number, got {value!r}")
    if not math.isfinite(value) or value <= above:
        bound = "" if above == -math.inf else f" greater than {above:g}"
        raise ValueError(f"{argument} must be a finite number{bound}, got {value!r}")
    if value < at_least:
        raise ValueError(f"{argument} must be at least {at_least:g}, got {value}")
    return float(value)


def interval(low: float, high: float) -> tuple[float, float]:
    """Check that ``low < high``, both finite."""
    low = number("low", low)
    high = number("high", high)
    if low >= high:
        raise ValueError(f"low must be below high, got low={low:g}, high={high:g}")
    return low, high


def is_tensor(argument: str, value: object) -> None:
    """Check that ``value`` is a tensor."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{argument} must be a tensor, got {type(value).__name__}")


def same_dtype(argument: str, value: Tensor, like: Tensor, of: str) -> None:
    """Check that ``value`` is a tensor of the dtype of ``like``."""
    is_tensor(argument, value)
    if value.dtype != like.dtype:
        raise TypeError(f"{argument} must have the dtype of {of}, {like.dtype}, got {value.dtype}")


def last_dimension(argument: str, value: Tensor, size: int) -> None:
    """Check that ``value`` is a tensor that ends in a dimension of ``size``."""
    is_tensor(argument, value)
    if value.dim() == 0 or value.shape[-1] != size:
        raise ValueError(f"{argument} must have shape (*, {size}), got {tuple(value.shape)}")


def broadcastable(argument: str, value: Tensor, shape: torch.Size) -> None:
    """Check that the shape of ``value`` broadcasts against ``shape``."""
    pairs = zip(reversed(value.shape), reversed(shape), strict=False)
    if any(a != b and 1 not in (a, b) for a, b in pairs):
        raise ValueError(
            f"{argument} must broadcast against batch_shape {tuple(shape)}, got shape "
            f"{tuple(value.shape)}"
        )
