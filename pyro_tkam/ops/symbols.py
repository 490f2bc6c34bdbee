"""Integers that stand for classes."""

import torch
from torch import Tensor

from pyro_tkam.ops._arguments import dense
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
    dense(name, value)
    if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
        raise TypeError(f"{name} must hold integers, got {value.dtype}")
    if (
        value.numel()
        and is_concrete(value)
        and not bool(((value >= 0) & (value < num_classes)).all())
    ):
        wrong = value[(value < 0) | (value >= num_classes)][0]
        raise ValueError(f"{name} must hold classes from 0 to {num_classes - 1}, got {int(wrong)}")


END = 0
"""The symbol after the last one of a sequence of variable length, and what pads it."""

UNKNOWN = 1
"""The symbol that stands for whatever is not in the alphabet."""


def until_end(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """
    Return sequences whose symbols after the first :data:`END` are padding, and their lengths.

    :param tokens: integers, shape ``(*batch, length)``.
    :return: integers of the same shape, and the numbers of symbols before the end, shape ``batch``.

    >>> until_end(torch.tensor([[3, 2, 0, 5], [3, 2, 4, 5]]))
    (tensor([[3, 2, 0, 0],
            [3, 2, 4, 5]]), tensor([2, 4]))
    """
    inside = (tokens != END).long().cumprod(-1)
    return tokens * inside, inside.sum(-1)


def padded(tokens: Tensor, length: int) -> Tensor:
    """
    Return sequences that are cut or padded with :data:`END`.

    :param tokens: integers, shape ``(*batch, any)``.
    :param length: the new last dimension.
    """
    return torch.nn.functional.pad(tokens, (0, length - tokens.shape[-1]), value=END)
