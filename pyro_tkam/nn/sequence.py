"""A generator of sequences: a causal Transformer decoder that attends to a latent."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from pyro_tkam.nn import _checks
from pyro_tkam.ops._concrete import is_concrete
from pyro_tkam.ops._precision import at_least_single
from pyro_tkam.ops.symbols import check_symbols


@dataclass(frozen=True)
class DecoderCache:
    """
    State that earlier positions leave for later ones, and the latent's keys and values.

    :param tokens: tokens so far, shape ``(*batch, length)``.
    :param memory: keys and values of the latent for each layer.
    :param past: keys and values of the earlier positions for each layer; empty at the start.
    """

    tokens: Tensor
    memory: tuple[tuple[Tensor, Tensor], ...]
    past: tuple[tuple[Tensor, Tensor], ...]


class _Block(PyroModule):
    """
    Causal self-attention, attention to the latent, and a two-layer network, each added to its
    input.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norms = PyroModule[nn.ModuleList](nn.LayerNorm(width) for _ in range(3))
        self.to_qkv = PyroModule[nn.Linear](width, 3 * width, bias=False)
        self.to_query = PyroModule[nn.Linear](width, width, bias=False)
        self.to_memory = PyroModule[nn.Linear](width, 2 * width, bias=False)
        self.joins = PyroModule[nn.ModuleList](
            nn.Linear(width, width, bias=False) for _ in range(2)
        )
        self.expand = PyroModule[nn.Linear](width, 4 * width)
        self.contract = PyroModule[nn.Linear](4 * width, width)

    def _heads(self, x: Tensor) -> Tensor:
        """Move heads in front: ``(*, length, width)`` to ``(*, heads, length, width / heads)``."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(-2, -3)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, causal: bool) -> Tensor:
        # Fused kernels have no rule for torch.func.vmap.
        fused = is_concrete(query) and is_concrete(key)
        with nullcontext() if fused else sdpa_kernel(SDPBackend.MATH):
            found = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=causal)
        return found.transpose(-2, -3).flatten(-2)

    def memory(self, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values of the latent's slots ``(*, slots, width)``."""
        key, value = self.to_memory(slots).chunk(2, -1)
        return self._heads(key), self._heads(value)

    def forward(
        self, x: Tensor, memory: tuple[Tensor, Tensor], past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        query, key, value = (
            self._heads(part) for part in self.to_qkv(self.norms[0](x)).chunk(3, -1)
        )
        if past is not None:
            key, value = (torch.cat(pair, -2) for pair in zip(past, (key, value), strict=True))
        x = x + self.joins[0](self._attend(query, key, value, causal=past is None))
        x = x + self.joins[1](
            self._attend(self._heads(self.to_query(self.norms[1](x))), *memory, causal=False)
        )
        x = x + self.contract(nn.functional.gelu(self.expand(self.norms[2](x))))
        return x, (key, value)


NUM_SLOTS = 4
"""Vectors that the latent is mapped to, for the decoder to attend to."""


class SequenceGenerator(PyroModule):
    r"""
    A Transformer decoder: logits of each token, given the earlier tokens and a latent.

    .. math:: \log p(x | z) = \sum_t \log \mathrm{softmax}(η_t(x_{<t}, z))_{x_t}

    The latent is mapped to a few slots, and every layer attends to them (the sequence generator of
    Raj 2025, arXiv:2506.14167, Sec. 5.2; Vaswani et al. 2017). Besides attention, a position sees
    the previous ``local`` tokens through a convolution, which learns short contexts quickly.

    :param latent_dim: number of latents ``Q``.
    :param num_classes: number of tokens in the alphabet.
    :param max_length: longest sequence.
    :param width: features per position; a multiple of ``num_heads``.
    :param num_heads: heads of each attention.
    :param num_layers: number of layers.
    :param local: number of preceding tokens in the convolution.
    :raises ValueError: for sizes below one and a width that the heads do not divide.

    >>> generator = SequenceGenerator(latent_dim=3, num_classes=7, max_length=5, width=8,
    ...     num_heads=2, num_layers=1)
    >>> generator(torch.randn(4, 3), torch.randint(7, (4, 5))).shape
    torch.Size([4, 5, 7])
    >>> generator.sample(torch.randn(4, 3)).shape
    torch.Size([4, 5])
    """

    def __init__(
        self,
        latent_dim: int,
        num_classes: int,
        max_length: int,
        *,
        width: int = 128,
        num_heads: int = 4,
        num_layers: int = 2,
        local: int = 4,
    ) -> None:
        super().__init__()
        self.latent_dim = _checks.integer("latent_dim", latent_dim, 1)
        self.num_classes = _checks.integer("num_classes", num_classes, 1)
        self.max_length = _checks.integer("max_length", max_length, 1)
        self.local = _checks.integer("local", local, 1)
        if _checks.integer("width", width, 1) % _checks.integer("num_heads", num_heads, 1):
            raise ValueError(f"width must be a multiple of num_heads, got {width} and {num_heads}")
        self.slots = PyroModule[nn.Linear](latent_dim, NUM_SLOTS * width)
        # The token after the last of the alphabet stands before the start.
        self.embed = PyroModule[nn.ModuleList](
            nn.Embedding(num_classes + 1, width) for _ in range(local)
        )
        self.position = nn.Parameter(0.02 * torch.randn(max_length, width))
        self.blocks = PyroModule[nn.ModuleList](
            _Block(width, num_heads) for _ in range(_checks.integer("num_layers", num_layers, 1))
        )
        self.norm = PyroModule[nn.LayerNorm](width)
        self.to_logits = PyroModule[nn.Linear](width, num_classes)
        for table in self.embed:
            nn.init.normal_(table.weight, std=0.3 / local**0.5)

    def forward(self, z: Tensor, tokens: Tensor) -> Tensor:
        """
        Return the logits of every token, given the earlier tokens.

        :param z: latents, shape ``(*batch_z, Q)``.
        :param tokens: integers, shape ``(*batch_tokens, length)``; the batches broadcast against
            each other.
        :returns: shape ``(*broadcast, length, num_classes)``; position ``t`` depends on
            ``tokens[..., :t]`` only.
        :raises ValueError: for sequences longer than ``max_length``, tokens outside the alphabet,
            and the wrong number of latents.
        :raises TypeError: for tokens that are not integers.
        """
        self._check_length(tokens.shape[-1])
        check_symbols("tokens", tokens, self.num_classes)
        batch = torch.broadcast_shapes(z.shape[:-1], tokens.shape[:-1])
        logits, _ = self._decode(tokens.expand(*batch, -1), tokens.shape[-1], self._memory(z), None)
        return logits

    def start(self, z: Tensor) -> DecoderCache:
        """
        Return the cache before the first token.

        :param z: latents, shape ``(*batch, Q)``.
        """
        empty = torch.zeros(*z.shape[:-1], 0, dtype=torch.int64, device=z.device)
        return DecoderCache(empty, self._memory(z), ())

    def step(self, cache: DecoderCache) -> tuple[Tensor, DecoderCache]:
        """
        Return the logits of the next token, at the cost of one position.

        :param cache: the result of :meth:`start` or :meth:`append`.
        :returns: logits of shape ``(*batch, num_classes)``, and the cache to append a token to.
        :raises ValueError: after ``max_length`` tokens.
        """
        length = cache.tokens.shape[-1] + 1
        self._check_length(length)
        filler = cache.tokens.new_zeros(*cache.tokens.shape[:-1], 1)
        tokens = torch.cat([cache.tokens, filler], -1)
        logits, past = self._decode(tokens, 1, cache.memory, cache.past or None)
        return logits.squeeze(-2), DecoderCache(cache.tokens, cache.memory, past)

    def append(self, cache: DecoderCache, token: Tensor) -> DecoderCache:
        """
        Return the cache with one more token.

        :param cache: the result of :meth:`step`.
        :param token: integers, shape ``batch``.
        :raises ValueError: for a token outside the alphabet.
        :raises TypeError: for tokens that are not integers.
        """
        check_symbols("token", token, self.num_classes)
        return DecoderCache(
            torch.cat([cache.tokens, token.unsqueeze(-1)], -1), cache.memory, cache.past
        )

    @torch.no_grad()
    def sample(self, z: Tensor, length: int | None = None) -> Tensor:
        """
        Draw sequences token by token, each at the cost of one position.

        :param z: latents, shape ``(*batch, Q)``.
        :param length: number of tokens; None takes ``max_length``.
        :returns: integers of shape ``(*batch, length)``.
        :raises ValueError: for more than ``max_length``.
        """
        length = self.max_length if length is None else length
        self._check_length(length)
        cache = self.start(z)
        for _ in range(length):
            logits, cache = self.step(cache)
            symbols = torch.distributions.Categorical(
                logits=at_least_single(logits), validate_args=False
            )
            cache = self.append(cache, symbols.sample())
        return cache.tokens

    def _check_length(self, length: int) -> None:
        if not 1 <= length <= self.max_length:
            raise ValueError(f"length must be from 1 to max_length={self.max_length}, got {length}")

    def _memory(self, z: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
        _checks.last_dimension("z", z, self.latent_dim)
        slots = self.slots(z).unflatten(-1, (NUM_SLOTS, -1))
        return tuple(block.memory(slots) for block in self.blocks)

    def _decode(
        self,
        tokens: Tensor,
        last: int,
        memory: tuple[tuple[Tensor, Tensor], ...],
        past: tuple[tuple[Tensor, Tensor], ...] | None,
    ) -> tuple[Tensor, tuple[tuple[Tensor, Tensor], ...]]:
        """
        Return logits of the ``last`` positions of ``tokens``, and all positions' keys and values.
        """
        length = tokens.shape[-1]
        before = nn.functional.pad(tokens, (self.local, 0), value=self.num_classes)
        views = (
            before[..., self.local - k : self.local - k + length][..., -last:]
            for k in range(1, self.local + 1)
        )
        x = self.position[length - last : length]
        x = x + sum(table(view) for table, view in zip(self.embed, views, strict=True))
        kept = []
        for i, block in enumerate(self.blocks):
            x, keys_and_values = block(x, memory[i], None if past is None else past[i])
            kept.append(keys_and_values)
        return self.to_logits(self.norm(x)), tuple(kept)
