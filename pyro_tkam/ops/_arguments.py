"""Checks of tensors and shapes that are given as arguments."""

from collections.abc import Sequence
from typing import Any

import torch
from numpy import ndarray
from torch import Tensor

from pyro_tkam._checks import LARGEST
from pyro_tkam.ops._concrete import is_concrete


def dense(name: str, value: Any) -> None:
    """
    Refuse what is no tensor with values in its memory.

    :param name: of the argument.
    :param value: its value.
    :raises TypeError: for another type.
    :raises ValueError: for a sparse tensor and one on the meta device.
    """
    if not isinstance(value, Tensor):
        remedy = ": convert it with torch.as_tensor" if isinstance(value, ndarray) else ""
        raise TypeError(f"{name} must be a tensor, got {type(value).__name__}{remedy}")
    if value.layout != torch.strided:
        raise ValueError(f"{name} must be a dense tensor, got the layout {value.layout}")
    if value.is_meta and is_concrete(value):
        raise ValueError(f"{name} must be a tensor with values, got one on the meta device")


def floating(name: str, value: Any) -> None:
    """
    Refuse what is no tensor of real numbers in floating point.

    :param name: of the argument.
    :param value: its value.
    :raises TypeError: for another type.
    """
    dense(name, value)
    if not value.is_floating_point():
        raise TypeError(f"{name} must be a floating-point tensor, got {value.dtype}")


def floating_dtype(name: str, value: Any) -> None:
    """
    Refuse what is no dtype of real numbers in floating point.

    :param name: of the argument.
    :param value: its value.
    :raises TypeError: for anything else.
    """
    if not isinstance(value, torch.dtype) or not value.is_floating_point:
        raise TypeError(f"{name} must be a floating-point dtype, got {value!r}")


def finite(name: str, value: Any) -> None:
    """
    Refuse what is no tensor of finite numbers in floating point.

    :param name: of the argument.
    :param value: its value.
    :raises TypeError: for another type.
    :raises ValueError: for NaN and infinities.
    """
    floating(name, value)
    wrong = value.numel() - int(value.isfinite().sum())
    if wrong:
        raise ValueError(f"{name} must be finite, got {wrong} elements that are NaN or infinite")


def shape(name: str, value: Any) -> torch.Size:
    """
    Return a shape.

    :param name: of the argument.
    :param value: whole numbers.
    :raises TypeError: for another type.
    :raises ValueError: for numbers below 0, or beyond 64 bits.

    >>> shape("sample_shape", [2, 3])
    torch.Size([2, 3])
    """
    size = None
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        try:
            size = torch.Size(value)
        except TypeError:
            size = None
    if size is None:
        raise TypeError(f"{name} must be a tuple of integers, got {value!r}")
    if any(each < 0 or each > LARGEST for each in size):
        raise ValueError(f"{name} must hold integers from 0 to 2^63 - 1, got {value!r}")
    return size
