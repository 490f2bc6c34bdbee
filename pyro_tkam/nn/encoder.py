"""An encoder of sequences of variable length: a Transformer that sees all positions at once."""

from __future__ import annotations

import math

import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_tkam.nn import _checks
from pyro_tkam.nn.attention import AttentionBlock, Encoded
from pyro_tkam.ops._concrete import is_concrete
from pyro_tkam.ops.symbols import END, check_symbols, padded, until_end


def sinusoids(length: int, width: int) -> Tensor:
    """
    Return features of positions, whose inner products depend on their distance (Vaswani et al.
    2017, arXiv:1706.03762, Sec. 3.5), with a mean square of 0.05.

    :param length: number of positions.
    :param width: number of features.
    :return: shape ``(length, width)``.
    """
    rate = 100.0 ** -(torch.arange(width) // 2 * 2 / width)
    phase = torch.arange(length).unsqueeze(-1) * rate + (torch.arange(width) % 2) * math.pi / 2
    return 0.1**0.5 * phase.sin()


class SequenceEncoder(PyroModule):
    """
    A Transformer encoder: features of each symbol of a sequence, given all symbols.

    A sequence ends before its first 0, and what follows has no effect (Vaswani et al. 2017,
    arXiv:1706.03762). Besides attention, a position sees the ``local`` symbols on either side
    through a convolution.

    :param num_classes: number of symbols, including the 0 that ends a sequence.
    :param max_length: largest number of symbols in a sequence.
    :param width: features per position; a multiple of ``num_heads``.
    :param num_heads: heads of each attention.
    :param num_layers: number of layers.
    :param local: number of symbols on either side in the convolution.
    :param attends: whether the encoder also attends to another encoded sequence.
    :raises ValueError: for sizes below one and a width that the heads do not divide.

    >>> encoder = SequenceEncoder(7, max_length=5, width=8, num_heads=2, num_layers=1)
    >>> encoder(torch.tensor([[3, 4, 0, 0], [3, 4, 5, 6]])).mask
    tensor([[ True,  True,  True, False, False],
            [ True,  True,  True,  True,  True]])
    """

    def __init__(
        self,
        num_classes: int,
        max_length: int,
        *,
        width: int = 128,
        num_heads: int = 4,
        num_layers: int = 2,
        local: int = 2,
        attends: bool = False,
    ) -> None:
        super().__init__()
        self.num_classes = _checks.integer("num_classes", num_classes, 1)
        self.max_length = _checks.integer("max_length", max_length, 1)
        self.local = _checks.integer("local", local, 0)
        _checks.integer("num_layers", num_layers, 1)
        if _checks.integer("width", width, 1) % _checks.integer("num_heads", num_heads, 1):
            raise ValueError(f"width must be a multiple of num_heads, got {width} and {num_heads}")
        _checks.flag("attends", attends)
        self.width = width
        views = 2 * local + 1
        # An extra class stands for the positions before the start.
        self.embed = PyroModule[nn.ModuleList](
            nn.Embedding(num_classes + 1, width) for _ in range(views)
        )
        self.position = nn.Parameter(sinusoids(max_length + 1, width))
        self.blocks = PyroModule[nn.ModuleList](
            AttentionBlock(width, num_heads, attends) for _ in range(num_layers)
        )
        self.norm = PyroModule[nn.LayerNorm](width)
        for table in self.embed:
            nn.init.normal_(table.weight, std=0.3 / views**0.5)

    def forward(self, tokens: Tensor, encoded: Encoded | None = None) -> Encoded:
        """
        Return the features of the symbols and of the end.

        :param tokens: integers, shape ``(*batch, length)``; symbols after the first 0 are padding.
        :param encoded: another sequence, of the same width and batch, if the encoder attends.
        :return: features with one position more than the longest sequence has symbols.
        :raises ValueError: for sequences longer than ``max_length``, symbols outside the alphabet,
            and an ``encoded`` that is missing or that the encoder does not attend to.
        :raises TypeError: for tokens that are not integers.
        """
        check_symbols("tokens", tokens, self.num_classes)
        attends = hasattr(self.blocks[0], "to_memory")
        if attends != (encoded is not None):
            raise ValueError(
                f"encoded must be {'another sequence' if attends else 'None'}, got "
                f"{'None' if encoded is None else 'one'}"
            )
        tokens, lengths = until_end(tokens)
        known = is_concrete(lengths) and lengths.numel()
        longest = int(lengths.max()) if known else tokens.shape[-1]
        if longest > self.max_length:
            raise ValueError(
                f"tokens must have at most max_length={self.max_length} symbols, got {longest}"
            )
        size = longest + 1
        k = self.local
        tokens = padded(tokens, size)
        around = nn.functional.pad(tokens, (k, 0), value=self.num_classes)
        around = nn.functional.pad(around, (0, k), value=END)
        x = self.position[:size]
        x = x + sum(table(around[..., i : i + size]) for i, table in enumerate(self.embed))
        mask = torch.arange(size, device=tokens.device) <= lengths.unsqueeze(-1)
        for block in self.blocks:
            if encoded is None:
                x, _ = block(x, mask=mask)
            else:
                memory = block.memory(encoded.features)
                x, _ = block(x, memory, mask=mask, memory_mask=encoded.mask)
        return Encoded(self.norm(x), mask)
