"""Dataclasses of tensors that share their leading dimensions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Self, TypeVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batched:
    """A frozen dataclass of tensors, tuples of tensors and other such dataclasses, mapped as one.

    >>> @dataclass(frozen=True)
    ... class Pair(Batched):
    ...     left: Tensor
    ...     right: Tensor
    >>> Pair(torch.arange(3), torch.ones(3, 2)).take(torch.tensor([2])).left
    tensor([2])
    """

    def map(self, function: Callable[..., Tensor], *others: Self) -> Self:
        """
        Apply ``function`` to each tensor, with the same tensors of ``others`` as further arguments.
        """
        names = [field.name for field in fields(self)]
        return type(self)(
            *[_map(function, [getattr(each, name) for each in (self, *others)]) for name in names]
        )

    def take(self, rows: Tensor) -> Self:
        """Return the rows with these indices."""
        return self.map(lambda tensor: tensor[rows])

    def put(self, rows: Tensor, values: Self) -> Self:
        """Return a copy in which the rows with these indices are replaced."""
        return self.map(lambda tensor, value: tensor.index_copy(0, rows, value), values)


AnyBatched = TypeVar("AnyBatched", bound=Batched)


def choose(condition: Tensor, yes: AnyBatched, no: AnyBatched) -> AnyBatched:
    """
    Take ``yes`` where ``condition`` holds, else ``no``; tensors may have further trailing
    dimensions.
    """
    masks = {condition.ndim: condition}

    def pick(new: Tensor, old: Tensor) -> Tensor:
        if new.ndim not in masks:
            masks[new.ndim] = condition.reshape(
                condition.shape + (1,) * (new.ndim - condition.ndim)
            )
        return torch.where(masks[new.ndim], new, old)

    return yes.map(pick, no)


def _map(function: Callable[..., Tensor], values: list[Any]) -> Any:
    first = values[0]
    if isinstance(first, Tensor):
        return function(*values)
    if isinstance(first, Batched):
        return first.map(function, *values[1:])
    if isinstance(first, tuple):
        return tuple(_map(function, list(group)) for group in zip(*values, strict=True))
    return first
