r"""
Weighted sums of basis functions for elements with separate coefficients.

The sums are evaluated plane by plane, one basis function for all elements at a time. Nothing of
size elements × functions is stored, and the backward pass keeps only the inputs. With
:math:`B_j^{(n)}(v) = κ_j^{(n)}(v - o_j)`, where the offsets :math:`o` are optional, the two
functions

.. math::
    S_n(v, o, c)_{ik} = \sum_j c_{kj} B_j^{(n)}(v_{ik}), \quad
    R_n(v, o, g)_{kj} = \sum_i g_{ik} B_j^{(n)}(v_{ik})

are closed under differentiation, so gradients of any order and ``torch.func`` work:

.. math:: \partial_v S_n = S_{n+1}, \quad \partial_c S_n = R_n, \quad
    \partial_{o_j} S_n = -\sum_k c_{kj} R_{n+1, kj}.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

#: elements handled at a time, so that the working set stays in the cache
CHUNK = 1 << 17


class PlaneFamily(Protocol):
    """Functions that can be evaluated in sequence."""

    def planes(self, v: Tensor, offsets: Tensor | None, order: int) -> Iterator[Tensor]:
        """
        Yield derivative ``order`` of each function at ``v``; a plane may change once the next one
        is requested.
        """
        ...


def plane_sum(
    family: PlaneFamily, v: Tensor, offsets: Tensor | None, coefficients: Tensor
) -> Tensor:
    """
    Sum the functions of ``family`` with weights, :math:`S_0`.

    :param v: arguments, any shape that broadcasts against ``batch``.
    :param offsets: shape ``(F,)``, or None.
    :param coefficients: shape ``(*batch, F)``.
    :returns: shape ``broadcast_shapes(v.shape, batch)``.
    """
    batch = coefficients.shape[:-1]
    shape = torch.broadcast_shapes(v.shape, batch)
    batch = shape[len(shape) - len(batch) :]
    rows = v.expand(shape).reshape(-1, batch.numel())
    weights = coefficients.expand(*batch, -1).reshape(batch.numel(), -1)
    return _Sum.apply(rows, offsets, weights, family, 0).reshape(shape)


def _chunks(v: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    size = max(1, CHUNK // max(1, v.shape[1]))
    return zip(v.split(size), *(other.split(size) for other in others), strict=True)


class _Sum(torch.autograd.Function):
    """
    ``S_n``: ``v`` of shape ``(N, K)``, ``coefficients`` of shape ``(K, F)``, result ``(N, K)``.
    """

    @staticmethod
    def forward(
        v: Tensor, offsets: Tensor | None, coefficients: Tensor, family: PlaneFamily, order: int
    ) -> Tensor:
        rows = coefficients.t().contiguous()
        result = torch.zeros_like(v, memory_format=torch.contiguous_format)
        for part, out in _chunks(v, result):
            for plane, row in zip(family.planes(part, offsets, order), rows, strict=True):
                out.addcmul_(plane, row)
        return result

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:3])
        ctx.rest = inputs[3:]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        v, offsets, coefficients = ctx.saved_tensors
        family, order = ctx.rest
        grad_v = grad_offsets = grad_coefficients = None
        if ctx.needs_input_grad[0]:
            grad_v = grad * _Sum.apply(v, offsets, coefficients, family, order + 1)
        if ctx.needs_input_grad[1]:
            grad_offsets = -(
                coefficients * _Moments.apply(v, offsets, grad, family, order + 1)
            ).sum(0)
        if ctx.needs_input_grad[2]:
            grad_coefficients = _Moments.apply(v, offsets, grad, family, order)
        return grad_v, grad_offsets, grad_coefficients, None, None

    @staticmethod
    def vmap(
        info: Any, in_dims: Any, v: Tensor, offsets: Tensor | None, coefficients: Tensor, *rest: Any
    ) -> Any:
        if in_dims[1] is not None:
            return _map_offsets(_Sum, info, in_dims, v, offsets, coefficients, rest)
        size = info.batch_size
        v = _columns(v, in_dims[0], size)
        weights = (
            coefficients.expand(size, -1, -1)
            if in_dims[2] is None
            else coefficients.movedim(in_dims[2], 0)
        )
        result = _Sum.apply(v, offsets, weights.flatten(0, 1), *rest)
        return result.unflatten(1, (size, -1)), 1


class _Moments(torch.autograd.Function):
    """``R_n``: ``v`` and ``weights`` of shape ``(N, K)``, result ``(K, F)``."""

    @staticmethod
    def forward(
        v: Tensor, offsets: Tensor | None, weights: Tensor, family: PlaneFamily, order: int
    ) -> Tensor:
        total: list[Tensor] = []
        for part, weight in _chunks(v, weights):
            product = torch.empty_like(part)
            planes = family.planes(part, offsets, order)
            sums = [torch.mul(plane, weight, out=product).sum(0) for plane in planes]
            total = [a.add_(b) for a, b in zip(total, sums, strict=True)] if total else sums
        return torch.stack(total, -1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:3])
        ctx.rest = inputs[3:]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        v, offsets, weights = ctx.saved_tensors
        family, order = ctx.rest
        grad_v = grad_offsets = grad_weights = None
        if ctx.needs_input_grad[0]:
            grad_v = weights * _Sum.apply(v, offsets, grad, family, order + 1)
        if ctx.needs_input_grad[1]:
            grad_offsets = -(grad * _Moments.apply(v, offsets, weights, family, order + 1)).sum(0)
        if ctx.needs_input_grad[2]:
            grad_weights = _Sum.apply(v, offsets, grad, family, order)
        return grad_v, grad_offsets, grad_weights, None, None

    @staticmethod
    def vmap(
        info: Any, in_dims: Any, v: Tensor, offsets: Tensor | None, weights: Tensor, *rest: Any
    ) -> Any:
        if in_dims[1] is not None:
            return _map_offsets(_Moments, info, in_dims, v, offsets, weights, rest)
        size = info.batch_size
        v = _columns(v, in_dims[0], size)
        weights = _columns(weights, in_dims[2], size)
        return _Moments.apply(v, offsets, weights, *rest).unflatten(0, (size, -1)), 0


def _columns(x: Tensor, dim: int | None, size: int) -> Tensor:
    """Fold a mapped dimension of ``(N, K)`` into the columns: ``(N, size * K)``."""
    x = x.unsqueeze(1).expand(-1, size, -1) if dim is None else x.movedim(dim, 1)
    return x.flatten(1)


def _map_offsets(
    function: Any, info: Any, in_dims: Any, v: Any, offsets: Any, last: Any, rest: Any
) -> Any:
    """Map over offsets one by one: each has planes of its own."""
    parts = [
        [
            x if dim is None else x.select(dim, i)
            for x, dim in zip((v, offsets, last), in_dims[:3], strict=True)
        ]
        for i in range(info.batch_size)
    ]
    return torch.stack([function.apply(*part, *rest) for part in parts]), 0
