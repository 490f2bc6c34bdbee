"""A fast function with a plain, differentiable twin."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor


class Twin(Protocol):
    """
    The same function twice: ``plain`` in differentiable operations, and a hand-written version that
    is fast and needs little memory.
    """

    def plain(self, *tensors: Any) -> Tensor:
        """Evaluate differentiably."""
        ...

    def forward(self, *tensors: Any) -> Tensor:
        """Evaluate fast."""
        ...

    def backward(
        self, grad: Tensor, needed: Sequence[bool], *tensors: Any
    ) -> tuple[Tensor | None, ...]:
        """Compute the gradients that are needed, fast."""
        ...


def evaluate(twin: Twin, *tensors: Tensor | None) -> Tensor:
    """
    Evaluate fast, with fast first gradients; higher ones, and ``vmap``, use the plain version.
    """
    result: Tensor = _Fast.apply(twin, *tensors)
    return result


class _Fast(torch.autograd.Function):
    @staticmethod
    def forward(twin: Twin, *tensors: Tensor | None) -> Tensor:
        return twin.forward(*tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.twin, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[1:]
        gradients = _plain_gradients if torch.is_grad_enabled() else type(ctx.twin).backward
        return None, *gradients(ctx.twin, grad, needed, *ctx.saved_tensors)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], twin: Twin, *tensors: Tensor | None
    ) -> tuple[Tensor, int]:
        return torch.func.vmap(twin.plain, in_dims=in_dims[1:])(*tensors), 0


# ``apply`` asks for it at each call.
_Fast.forward.__signature__ = inspect.signature(_Fast.forward)  # type: ignore[attr-defined]


def _plain_gradients(
    twin: Twin, grad: Tensor, needed: Sequence[bool], *tensors: Tensor | None
) -> tuple[Tensor | None, ...]:
    """Compute gradients that can be differentiated again."""

    def of_needed(*changed: Tensor) -> Tensor:
        values = iter(changed)
        return twin.plain(
            *(next(values) if need else x for need, x in zip(needed, tensors, strict=True))
        )

    pull_back: Any = torch.func.vjp(
        of_needed, *(x for need, x in zip(needed, tensors, strict=True) if need)
    )[1]
    gradients = iter(pull_back(grad))
    return tuple(next(gradients) if need else None for need in needed)
