"""Layers of a Transformer: self-attention, attention to a memory, and a two-layer network."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from pyro_tkam.ops._concrete import is_concrete

Pair = tuple[Tensor, Tensor]
"""Keys and values, each of shape ``(*batch, heads, length, width / heads)``."""


@dataclass(frozen=True)
class Encoded:
    """
    The output of an encoder for a sequence, to which a decoder attends.

    :param features: shape ``(*batch, length, width)``.
    :param mask: which positions are part of the sequence, Booleans of shape ``(*batch, length)``.
    """

    features: Tensor
    mask: Tensor

    def pooled(self) -> Tensor:
        """Return the mean of the features over the sequence, shape ``(*batch, width)``."""
        mask = self.mask.unsqueeze(-1).to(self.features.dtype)
        return (self.features * mask).sum(-2) / mask.sum(-2)


class AttentionBlock(PyroModule):
    """
    Self-attention, attention to a memory, and a two-layer network, each added to its input
    (Vaswani et al. 2017, arXiv:1706.03762).

    :param width: features per position; a multiple of ``num_heads``.
    :param num_heads: heads of each attention.
    :param attends: whether there is a memory to attend to.
    """

    def __init__(self, width: int, num_heads: int, attends: bool = True) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norms = PyroModule[nn.ModuleList](nn.LayerNorm(width) for _ in range(2 + attends))
        self.to_qkv = PyroModule[nn.Linear](width, 3 * width, bias=False)
        if attends:
            self.to_query = PyroModule[nn.Linear](width, width, bias=False)
            self.to_memory = PyroModule[nn.Linear](width, 2 * width, bias=False)
        self.joins = PyroModule[nn.ModuleList](
            nn.Linear(width, width, bias=False) for _ in range(1 + attends)
        )
        self.expand = PyroModule[nn.Linear](width, 4 * width)
        self.contract = PyroModule[nn.Linear](4 * width, width)

    def _heads(self, x: Tensor) -> Tensor:
        """Split off the heads: ``(*, length, width)`` to ``(*, heads, length, width / heads)``."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(-2, -3)

    def _attend(
        self, query: Tensor, pair: Pair, *, causal: bool = False, mask: Tensor | None = None
    ) -> Tensor:
        """
        Attend to keys and values; only positions in ``mask``, ``(*batch, length)``, are visible.
        """
        key, value = pair
        shown = None if mask is None else mask.unsqueeze(-2).unsqueeze(-2)
        # Fused kernels have no rule for torch.func.vmap.
        fused = is_concrete(query) and is_concrete(key)
        with nullcontext() if fused else sdpa_kernel(SDPBackend.MATH):
            found = nn.functional.scaled_dot_product_attention(
                query, key, value, attn_mask=shown, is_causal=causal
            )
        return found.transpose(-2, -3).flatten(-2)

    def memory(self, features: Tensor) -> Pair:
        """
        Return the keys and values of a memory, given its features, ``(*batch, length, width)``.
        """
        key, value = self.to_memory(features).chunk(2, -1)
        return self._heads(key), self._heads(value)

    def forward(
        self,
        x: Tensor,
        memory: Pair | None = None,
        past: Pair | None = None,
        *,
        causal: bool = False,
        mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
    ) -> tuple[Tensor, Pair]:
        """
        Return the new features, and keys and values of all positions so far.

        :param x: features, shape ``(*batch, length, width)``.
        :param memory: the result of :meth:`memory`; None if there is none.
        :param past: keys and values of the positions before ``x``; None if there are none.
        :param causal: hide later positions from earlier ones.
        :param mask: which positions are shown, shape ``(*batch, length)``; None shows all.
        :param memory_mask: which positions of the memory are shown; None shows all.
        """
        query, key, value = (
            self._heads(part) for part in self.to_qkv(self.norms[0](x)).chunk(3, -1)
        )
        if past is not None:
            key, value = (torch.cat(pair, -2) for pair in zip(past, (key, value), strict=True))
        x = x + self.joins[0](self._attend(query, (key, value), causal=causal, mask=mask))
        if memory is not None:
            query = self._heads(self.to_query(self.norms[1](x)))
            x = x + self.joins[1](self._attend(query, memory, mask=memory_mask))
        x = x + self.contract(nn.functional.gelu(self.expand(self.norms[-1](x))))
        return x, (key, value)
