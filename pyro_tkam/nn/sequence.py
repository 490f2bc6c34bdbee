"""
A generator of sequences: a causal Transformer decoder that attends to a latent and optionally to
another sequence.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_tkam.nn import _checks
from pyro_tkam.nn.attention import AttentionBlock, Encoded, Pair
from pyro_tkam.ops._concrete import is_concrete
from pyro_tkam.ops._precision import at_least_single
from pyro_tkam.ops.symbols import check_symbols


@dataclass(frozen=True)
class DecoderCache:
    """
    The state that later positions need: keys and values of earlier positions and of the memory.

    :param tokens: tokens so far, shape ``(*batch, length)``.
    :param memory: for each layer, keys and values of the latent and, if there is one, of an encoded
        sequence.
    :param past: for each layer, keys and values of the earlier positions; empty at the start.
    :param mask: which positions of the memory are shown; None shows all.
    :param shift: what the latent adds to the features of every position; None adds nothing.
    """

    tokens: Tensor
    memory: tuple[Pair, ...]
    past: tuple[Pair, ...]
    mask: Tensor | None = None
    shift: Tensor | None = None

    def rows(self, index: Tensor) -> DecoderCache:
        """
        Return a cache in which each row continues a chosen row, as in a beam search.

        Tensors from the latent and the memory are not reindexed, so they must be constant along
        that dimension.

        :param index: which row each new row continues, shape ``(*batch, new)``, along the dimension
            that follows ``batch``.
        """
        axis = index.dim() - 1

        def taken(values: Tensor) -> Tensor:
            shape = index.shape + (1,) * (values.dim() - index.dim())
            return values.take_along_dim(index.view(shape), axis)

        past = tuple((taken(key), taken(value)) for key, value in self.past)
        return replace(self, tokens=taken(self.tokens), past=past)


NUM_SLOTS = 4
"""Number of vectors to which the latent is mapped, for the decoder to attend to."""


class SequenceGenerator(PyroModule):
    r"""
    A Transformer decoder: logits of each token, given the earlier tokens and a latent.

    .. math:: \log p(x | z) = \sum_t \log \mathrm{softmax}(η_t(x_{<t}, z))_{x_t}

    The latent is mapped to a few vectors, to which every layer attends (the sequence generator of
    Raj 2025, arXiv:2506.14167, Sec. 5.2; Vaswani et al. 2017). If another sequence is given, every
    layer attends to it, too. Besides attention, a position sees the previous ``local`` tokens
    through a convolution, which learns short contexts quickly.

    :param latent_dim: number of latents ``Q``.
    :param num_classes: number of tokens in the alphabet.
    :param max_length: longest sequence.
    :param width: features per position; a multiple of ``num_heads``.
    :param num_heads: heads of each attention.
    :param num_layers: number of layers.
    :param local: number of preceding tokens in the convolution.
    :param adds_latent: also add a linear map of the latent to the features of every position. A
        decoder learns to use it sooner than attention.
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
        adds_latent: bool = False,
    ) -> None:
        super().__init__()
        self.latent_dim = _checks.integer("latent_dim", latent_dim, 1)
        self.num_classes = _checks.integer("num_classes", num_classes, 1)
        self.max_length = _checks.integer("max_length", max_length, 1)
        self.local = _checks.integer("local", local, 1)
        _checks.integer("num_layers", num_layers, 1)
        if _checks.integer("width", width, 1) % _checks.integer("num_heads", num_heads, 1):
            raise ValueError(f"width must be a multiple of num_heads, got {width} and {num_heads}")
        _checks.flag("adds_latent", adds_latent)
        self.slots = PyroModule[nn.Linear](latent_dim, NUM_SLOTS * width)
        # An extra token stands for the positions before the start.
        self.embed = PyroModule[nn.ModuleList](
            nn.Embedding(num_classes + 1, width) for _ in range(local)
        )
        self.position = nn.Parameter(0.02 * torch.randn(max_length, width))
        self.blocks = PyroModule[nn.ModuleList](
            AttentionBlock(width, num_heads) for _ in range(num_layers)
        )
        self.norm = PyroModule[nn.LayerNorm](width)
        self.to_logits = PyroModule[nn.Linear](width, num_classes)
        for table in self.embed:
            nn.init.normal_(table.weight, std=0.3 / local**0.5)
        self.add: nn.Linear | None = None
        if adds_latent:
            self.add = PyroModule[nn.Linear](latent_dim, width, bias=False)
            nn.init.normal_(self.add.weight, std=0.3)

    def forward(self, z: Tensor, tokens: Tensor, encoded: Encoded | None = None) -> Tensor:
        """
        Return the logits of every token, given the earlier tokens.

        :param z: latents, shape ``(*batch_z, Q)``.
        :param tokens: integers, shape ``(*batch_tokens, length)``; the batches broadcast against
            each other.
        :param encoded: another sequence of the same ``width`` to attend to; its batch broadcasts
            too.
        :returns: shape ``(*broadcast, length, num_classes)``; position ``t`` depends on
            ``tokens[..., :t]`` only.
        :raises ValueError: for sequences longer than ``max_length``, tokens outside the alphabet,
            and the wrong number of latents.
        :raises TypeError: for tokens that are not integers.
        """
        check_symbols("tokens", tokens, self.num_classes)
        if tokens.dim() == 0 or not 1 <= tokens.shape[-1] <= self.max_length:
            raise ValueError(
                f"tokens must have shape (*batch, length) with a length from 1 to "
                f"max_length={self.max_length}, got {tuple(tokens.shape)}"
            )
        cache = self.start(z, encoded)
        _checks.broadcastable(
            "tokens", tokens[..., 0], cache.tokens.shape[:-1], "the latents' batch"
        )
        batch = torch.broadcast_shapes(cache.tokens.shape[:-1], tokens.shape[:-1])
        logits, _ = self._decode(tokens.expand(*batch, -1), tokens.shape[-1], cache)
        return logits

    def start(self, z: Tensor, encoded: Encoded | None = None) -> DecoderCache:
        """
        Return the cache before the first token.

        :param z: latents, shape ``(*batch, Q)``.
        :param encoded: another sequence to attend to; its batch broadcasts against that of the
            latents.
        """
        memory, mask, batch = self._memory(z, encoded)
        empty = torch.zeros(*batch, 0, dtype=torch.int64, device=z.device)
        shift = None if self.add is None else self.add(z).unsqueeze(-2)
        return DecoderCache(empty, memory, (), mask, shift)

    def step(self, cache: DecoderCache) -> tuple[Tensor, DecoderCache]:
        """
        Return the logits of the next token, at the cost of one position.

        :param cache: the result of :meth:`start` or :meth:`append`.
        :returns: logits of shape ``(*batch, num_classes)``, and the cache to append a token to.
        :raises ValueError: after ``max_length`` tokens, and for logits that are NaN.
        """
        length = cache.tokens.shape[-1] + 1
        self._check_length(length)
        filler = cache.tokens.new_zeros(*cache.tokens.shape[:-1], 1)
        tokens = torch.cat([cache.tokens, filler], -1)
        logits, past = self._decode(tokens, 1, cache)
        if is_concrete(logits) and bool(logits.isnan().any()):
            raise ValueError("z must give logits without NaN, got NaN")
        return logits.squeeze(-2), replace(cache, past=past)

    def append(self, cache: DecoderCache, token: Tensor) -> DecoderCache:
        """
        Return the cache with one more token.

        :param cache: the result of :meth:`step`.
        :param token: integers, shape ``batch``.
        :raises ValueError: for a token outside the alphabet.
        :raises TypeError: for tokens that are not integers.
        """
        check_symbols("token", token, self.num_classes)
        return replace(cache, tokens=torch.cat([cache.tokens, token.unsqueeze(-1)], -1))

    @torch.no_grad()
    def sample(self, z: Tensor, length: int | None = None) -> Tensor:
        """
        Draw sequences token by token, each at the cost of one position.

        :param z: latents, shape ``(*batch, Q)``.
        :param length: number of tokens; None takes ``max_length``.
        :returns: integers of shape ``(*batch, length)``.
        :raises ValueError: for more than ``max_length``.
        """
        length = self.max_length if length is None else _checks.integer("length", length, 1)
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

    def _memory(
        self, z: Tensor, encoded: Encoded | None
    ) -> tuple[tuple[Pair, ...], Tensor | None, torch.Size]:
        """
        Return each layer's keys and values, the mask of visible positions, and the batch shape.
        """
        _checks.last_dimension("z", z, self.latent_dim)
        if not torch.is_autocast_enabled(z.device.type):
            _checks.same_dtype("z", z, self.slots.weight, "the weights")
        features = self.slots(z).unflatten(-1, (NUM_SLOTS, -1))
        batch = z.shape[:-1]
        mask = None
        if encoded is not None:
            if not isinstance(encoded, Encoded):
                raise TypeError(f"encoded must be an Encoded or None, got {encoded!r}")
            _checks.last_dimension("encoded.features", encoded.features, features.shape[-1])
            batch = torch.broadcast_shapes(batch, encoded.mask.shape[:-1])
            both = [features, encoded.features.to(features.dtype)]
            features = torch.cat([part.expand(*batch, -1, -1) for part in both], -2)
            slots = encoded.mask.new_ones(*encoded.mask.shape[:-1], NUM_SLOTS)
            mask = torch.cat([slots, encoded.mask], -1)
        return tuple(block.memory(features) for block in self.blocks), mask, batch

    def _decode(
        self, tokens: Tensor, last: int, cache: DecoderCache
    ) -> tuple[Tensor, tuple[Pair, ...]]:
        """
        Return the logits of the ``last`` positions of ``tokens``, and the keys and values of all
        positions.
        """
        length = tokens.shape[-1]
        before = nn.functional.pad(tokens, (self.local, 0), value=self.num_classes)
        views = (
            before[..., self.local - k : self.local - k + length][..., -last:]
            for k in range(1, self.local + 1)
        )
        x = self.position[length - last : length]
        x = x + sum(table(view) for table, view in zip(self.embed, views, strict=True))
        if cache.shift is not None:
            x = x + cache.shift
        kept = []
        for i, block in enumerate(self.blocks):
            x, keys_and_values = block(
                x,
                cache.memory[i],
                cache.past[i] if cache.past else None,
                causal=last == length and not cache.past,
                memory_mask=cache.mask,
            )
            kept.append(keys_and_values)
        return self.to_logits(self.norm(x)), tuple(kept)
