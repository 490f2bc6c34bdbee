"""Integers that stand for classes."""

import torch
from torch import Tensor

from pyro_tkam.ops._concrete import is_concrete


def check_symbols(name: str, value: Tensor, num_classes: int) -> None:
    """
    Check integers from 0 to ``num_classes - 1``.

    :param name: the argument's name, for the error.
    :param value: integers of any shape.
    :param num_classes: number of classes.
    :raises TypeError: for values that are not integers.
    :raises ValueError: for a value outside the classes.
    """
    if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
        raise TypeError(f"{name} must hold integers, got {value.dtype}")
    if (
        value.numel()
        and is_concrete(value)
        and not bool(((value >= 0) & (value < num_classes)).all())
    ):
        wrong = value[(value < 0) | (value >= num_classes)][0]
        raise ValueError(f"{name} must hold classes from 0 to {num_classes - 1}, got {int(wrong)}")
