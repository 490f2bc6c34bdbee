"""Draws of Cholesky factors of LKJ correlation matrices by the onion method."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Beta, Independent, LKJCholesky, TransformedDistribution


def draw(fn: Any, sample_shape: tuple[int, ...] = ()) -> Tensor:
    """
    Return ``fn.sample(sample_shape)``, of an LKJ distribution by a sampler of its own.

    Row ``i`` of the factor (from 0) has squared length ``Beta(i/2, η + (d-1-i)/2)`` left of its
    diagonal and a uniform direction (Lewandowski, Kurowicka and Joe 2009,
    10.1016/j.jmva.2009.04.008, section 3.2). Torch's own sampler has ``Beta(i - 1/2, ...)``, which
    is right for the first two rows alone.

    :param fn: a distribution.
    :param sample_shape: of the draws.

    >>> draw(LKJCholesky(3, 1.0), (5,)).shape
    torch.Size([5, 3, 3])
    """
    if isinstance(fn, LKJCholesky):
        return _onion(fn, torch.Size(sample_shape))
    if _is_lkj(fn) and isinstance(fn, TransformedDistribution):
        value = draw(fn.base_dist, sample_shape)
        for transform in fn.transforms:
            value = transform(value)
        return value
    if _is_lkj(fn):
        return draw(fn.base_dist, sample_shape)
    value = fn.sample(torch.Size(sample_shape))
    return value


def _is_lkj(fn: Any) -> bool:
    """Tell whether there is an LKJ distribution inside others that keep its shape."""
    if isinstance(fn, LKJCholesky):
        return True
    wraps = isinstance(fn, TransformedDistribution | Independent) or hasattr(fn, "_mask")
    return wraps and _is_lkj(fn.base_dist)


def _onion(fn: LKJCholesky, sample_shape: torch.Size) -> Tensor:
    concentration = fn.concentration.unsqueeze(-1)
    row = torch.arange(1, fn.dim, dtype=concentration.dtype, device=concentration.device)
    length = Beta(row / 2, concentration + (fn.dim - 1 - row) / 2).sample(sample_shape)
    shape = (*length.shape[:-1], fn.dim, fn.dim)
    direction = torch.randn(shape, dtype=row.dtype, device=row.device).tril(-1)[..., 1:, :]
    direction = direction / direction.norm(dim=-1, keepdim=True)
    below = torch.nn.functional.pad(length.sqrt().unsqueeze(-1) * direction, (0, 0, 1, 0))
    diagonal = torch.nn.functional.pad((1 - length).sqrt(), (1, 0), value=1.0)
    return below + diagonal.diag_embed()
