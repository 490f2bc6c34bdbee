"""Argument checks: each error names the argument, what is allowed and what was given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor

from pyro_tkam._checks import flag as flag
from pyro_tkam._checks import function as function
from pyro_tkam._checks import instance as instance
from pyro_tkam._checks import length as length
from pyro_tkam._checks import mapping as mapping
from pyro_tkam._checks import number as number
from pyro_tkam._checks import options as options
from pyro_tkam._checks import sequence as sequence
from pyro_tkam._checks import share as share
from pyro_tkam._checks import sizes as sizes
from pyro_tkam._checks import whole_number as whole_number
from pyro_tkam._checks import words as words
from pyro_tkam.ops._arguments import dense as dense

T = TypeVar("T")


def known(argument: str, name: object, table: Mapping[str, T]) -> T:
    """Look up a name that the user gave."""
    if not isinstance(name, str) or name not in table:
        raise ValueError(f"{argument} must be one of {', '.join(map(repr, table))}, got {name!r}")
    return table[name]


def text(argument: str, value: object) -> None:
    """Check that ``value`` is a nonempty string."""
    if not isinstance(value, str) or not value:
        raise TypeError(f"{argument} must be a string, got {value!r}")


def integer(argument: str, value: int, at_least: int) -> int:
    """Check that ``value`` is an integer of at least ``at_least``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{argument} must be an int, got {value!r}")
    if value < at_least:
        raise ValueError(f"{argument} must be at least {at_least}, got {value}")
    return whole_number(argument, value, at_least)


def interval(low: float, high: float) -> tuple[float, float]:
    """Check that ``low < high``, both finite."""
    low = number("low", low)
    high = number("high", high)
    if max(abs(low), abs(high)) > torch.finfo(torch.get_default_dtype()).max:
        raise ValueError(
            f"low and high must be in the range of the default dtype, got low={low}, high={high}"
        )
    if low >= high:
        raise ValueError(f"low must be below high, got low={low:g}, high={high:g}")
    return low, high


def same_dtype(argument: str, value: Tensor, like: Tensor, of: str) -> None:
    """Check that ``value`` is a tensor with the dtype of ``like``."""
    dense(argument, value)
    if value.dtype != like.dtype:
        raise TypeError(
            f"{argument} must have the dtype of {of}, {like.dtype}, got {value.dtype}: convert it "
            f"with .to({like.dtype})"
        )


def last_dimension(argument: str, value: Tensor, size: int) -> None:
    """Check that ``value`` is a tensor whose last dimension has size ``size``."""
    dense(argument, value)
    if value.dim() == 0 or value.shape[-1] != size:
        raise ValueError(f"{argument} must have shape (*, {size}), got {tuple(value.shape)}")


def broadcastable(argument: str, value: Tensor, shape: torch.Size, of: str = "batch_shape") -> None:
    """Check that the shape of ``value`` broadcasts against ``shape``."""
    pairs = zip(reversed(value.shape), reversed(shape), strict=False)
    if any(a != b and 1 not in (a, b) for a, b in pairs):
        raise ValueError(
            f"{argument} must broadcast against {of} {tuple(shape)}, got shape {tuple(value.shape)}"
        )
