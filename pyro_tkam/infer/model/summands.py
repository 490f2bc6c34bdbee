"""One summand at a time of the sums of densities in a model, such as those of mixtures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pyro_tkam.infer.model.enumeration import log_sum

FEWEST_TURNS = 8
MOST_TURNS = 32
"""Choices of summands that are made at least, and at most; as many as the longest sum has."""

MOST_SUMS = 1024
"""Sums of a run that get choices of their own; further ones share them."""


class OneSummand(TorchFunctionMode):
    """
    Replaces each log-sum-exp by one of its terms while a model runs inside this context.

    Each turn chooses another summand of each sum, in random order, so that each summand has a turn.
    A sum that keeps its dimension is a normalization and is not replaced.

    :ivar longest: summands of the longest sum so far.
    :ivar turn: which choice is made; a number below :attr:`num_turns`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.longest = 0
        self.turn = 0
        self._index = 0
        self._orders = torch.rand(MOST_SUMS, FEWEST_TURNS).argsort(1)

    @property
    def num_turns(self) -> int:
        """How many turns there are: 0 if no sum has occurred."""
        return min(max(self.longest, FEWEST_TURNS), MOST_TURNS) if self.longest else 0

    def __enter__(self) -> OneSummand:
        """Begin a run of the model."""
        self._index = 0
        super().__enter__()
        return self

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Choose a summand if a function is the log of a sum."""
        choose = _SUMS.get(func)
        chosen = None if choose is None else choose(self._choice, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {})) if chosen is None else chosen

    def _choice(self, size: int) -> int:
        """Return the index of the chosen summand among ``size``."""
        self.longest = max(self.longest, size)
        order = self._orders[self._index % MOST_SUMS]
        self._index += 1
        if size > FEWEST_TURNS:
            return (int(order[0]) + self.turn) % size
        return int(order[self.turn % FEWEST_TURNS]) % size


Choice = Callable[[int], int]


def _of_two(choice: Choice, input: Tensor, other: Tensor, **others: Any) -> Tensor | None:
    if others:
        return None
    return torch.broadcast_tensors(input, other)[choice(2)]


def _of_dimension(
    choice: Choice, input: Tensor, dim: Any, keepdim: bool = False, **others: Any
) -> Tensor | None:
    (axis,) = dim if isinstance(dim, tuple | list) and len(dim) == 1 else (dim,)
    if others or keepdim or not isinstance(axis, int) or input.ndim == 0:
        return None
    return input.select(axis, choice(input.shape[axis]))


_SUMS: dict[Any, Callable[..., Tensor | None]] = {
    **dict.fromkeys((torch.logaddexp, Tensor.logaddexp), _of_two),
    **dict.fromkeys(
        (torch.logsumexp, Tensor.logsumexp, torch.special.logsumexp, log_sum), _of_dimension
    ),
}
