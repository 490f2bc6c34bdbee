"""Unconstrained coordinates of positive-definite matrices, for which torch has no bijection."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Transform, biject_to, constraints


def bijection(support: Any) -> Transform:
    """Return the bijection from the reals to a support: torch's, or that of matrices here."""
    if support is constraints.positive_definite:
        return PositiveDefinite()
    return biject_to(support)


class PositiveDefinite(Transform):
    """Maps ``d (d + 1) / 2`` reals to ``L Lᵀ``, the logs of the diagonal of ``L`` first.

    >>> PositiveDefinite()(torch.tensor([0.0, 0.0, 2.0]))
    tensor([[1., 2.],
            [2., 5.]])
    """

    domain = constraints.real_vector
    codomain = constraints.positive_definite
    bijective = True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PositiveDefinite)

    def __hash__(self) -> int:
        return hash(PositiveDefinite)

    def _call(self, x: Tensor) -> Tensor:
        size = _size(x.shape[-1])
        row, column = torch.tril_indices(size, size, -1, device=x.device)
        below = x.new_zeros(*x.shape[:-1], size * size)
        index = (row * size + column).expand(*x.shape[:-1], -1)
        below = below.scatter(-1, index, x[..., size:]).unflatten(-1, (size, size))
        factor = below + x[..., :size].exp().diag_embed()
        return factor @ factor.mT

    def _inverse(self, y: Tensor) -> Tensor:
        factor = torch.linalg.cholesky(y)
        row, column = torch.tril_indices(y.shape[-1], y.shape[-1], -1, device=y.device)
        diagonal = factor.diagonal(dim1=-2, dim2=-1).log()
        return torch.cat([diagonal, factor[..., row, column]], -1)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Return ``d log 2 + Σ_i (d + 1 - i) x_i`` over the diagonal, ``i`` from 0."""
        size = y.shape[-1]
        weight = size + 1 - torch.arange(size, dtype=x.dtype, device=x.device)
        return size * math.log(2) + (weight * x[..., :size]).sum(-1)

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        """Return the shape of matrices with coordinates of some shape."""
        size = _size(shape[-1])
        return torch.Size((*shape[:-1], size, size))

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        """Return the shape of the coordinates of matrices of some shape."""
        return torch.Size((*shape[:-2], shape[-1] * (shape[-1] + 1) // 2))


def _size(number: int) -> int:
    return (math.isqrt(8 * number + 1) - 1) // 2
