"""A masked network from latents to the parameters of the conditional densities of later latents."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.nn.functional import linear, silu

from pyro_tkam.nn import _checks
from pyro_tkam.ops.bases import BASES, BasisFunctions, Picklable

Features = Callable[[Tensor], Tensor]
GRID_SIZE, REACH = 8, 3.0  # grid of a KAN's radial functions; hidden units have a size of about 1
CONTEXTS = {"perceptron": 0, "kan": 0}
FUNCTIONS = 1 + GRID_SIZE  # functions per unit


@dataclass(frozen=True, eq=False)
class Masked(Picklable):
    """
    A layer whose units are sorted by the last block that they see.

    :param weight: shape ``(out, in)``, zero where a unit must not see an input.
    :param bias: shape ``(out,)``.
    :param inputs: number of inputs that the units of each block see.
    :param units: slice of the units of each block.
    """

    weight: Tensor
    bias: Tensor
    inputs: tuple[int, ...]
    units: tuple[slice, ...]

    def __call__(self, features: Tensor) -> Tensor:
        """Return all units, shape ``(*batch, out)``."""
        return linear(features, self.weight, self.bias)

    def of_block(self, known: Tensor, place: int) -> Tensor:
        """
        Return the units of one block.

        :param known: the features known so far, shape ``(*batch, inputs[place])``.
        :param place: which block, counted from 1; 0 is the extra input before the first block.
        """
        rows = self.units[place]
        return linear(known, self.weight[rows, : self.inputs[place]], self.bias[rows])


class MaskedLinear(PyroModule):
    """
    A linear layer whose units see only the features of earlier blocks (Germain et al. 2015,
    arXiv:1502.03509).

    :param features: number of features of the extra input before the first block, then of each
        block.
    :param units: number of units, in the same order.
    :param own: whether units also see the features of their own block.
    """

    mask: Tensor

    def __init__(self, features: Sequence[int], units: Sequence[int], own: bool) -> None:
        super().__init__()
        totals = list(accumulate(features, initial=0))
        self._inputs = tuple(totals[1:] if own else totals[:-1])
        self._units = tuple(slice(*ends) for ends in pairwise(accumulate(units, initial=0)))
        mask = torch.zeros(sum(units), sum(features))
        for rows, count in zip(self._units, self._inputs, strict=True):
            mask[rows, :count] = 1
        self.register_buffer("mask", mask, persistent=False)
        seen = mask.sum(1, keepdim=True).clamp_min(1)
        self.weight = nn.Parameter((torch.rand_like(mask) * 2 - 1) * (3 / seen).sqrt() * mask)
        self.bias = nn.Parameter(torch.zeros(len(mask)))

    def bound(self, reads: Tensor | None = None) -> Masked:
        """
        Read the parameters once.

        :param reads: 0 for features that no unit may see and 1 for all others; None shows all.
        """
        mask = self.mask if reads is None else self.mask * reads
        return Masked(self.weight * mask, self.bias, self._inputs, self._units)


@dataclass(frozen=True, eq=False)
class KANFeatures(Picklable):
    """
    The functions of a unit that a Kolmogorov-Arnold layer sums: SiLU and a basis.

    :param basis: the basis.
    """

    basis: BasisFunctions

    def __call__(self, units: Tensor) -> Tensor:
        """
        Return the features of units; the features of one unit are adjacent.

        :param units: shape ``(*batch, N)``.
        :return: shape ``(*batch, N (1 + G))``.
        """
        return torch.cat([silu(units)[..., None], self.basis(units)], -1).flatten(-2)


class BoundContext(Picklable):
    """
    A context network whose parameters have been read: a function of latents.

    :param layers: its layers.
    :param features: maps from the inputs, and from the units of a layer, to the next layer's
        features.
    :param low: lower bound to which latents are clamped.
    :param high: upper bound, likewise.
    :param extra: extra input before the first block, shape ``(*batch, C)``.
    """

    def __init__(
        self,
        layers: Sequence[Masked],
        features: tuple[Features, Features],
        low: float,
        high: float,
        extra: Tensor | None = None,
    ) -> None:
        self.layers = tuple(layers)
        self.features = features
        self.low = low
        self.high = high
        self.extra = extra

    def __call__(self, z: Tensor) -> Tensor:
        """
        Return the outputs for all latents.

        :param z: standardized latents, shape ``(*batch, Q)``.
        :return: shape ``(*batch, outputs)``.
        """
        of_inputs, of_units = self.features
        known = of_inputs(z.clamp(self.low, self.high))
        if self.extra is not None:
            extra = self.extra.to(z).expand(*known.shape[:-1], -1)
            known = torch.cat([extra, known], -1)
        *hidden, last = self.layers
        for layer in hidden:
            known = of_units(layer(known))
        return last(known)

    def given(self, extra: Tensor) -> "BoundContext":
        """
        Return the same function with another extra input before the first block.

        :param extra: shape ``(*batch, C)``.
        """
        return BoundContext(self.layers, self.features, self.low, self.high, extra)

    def by_block(self, batch_shape: torch.Size) -> Callable[[Tensor | None], Tensor]:
        """
        Return a function from a block's latents to the outputs for the next block; pass None before
        the first. All its calls together cost as much as one call of the network.

        :param batch_shape: shape of the batch of latents.
        """
        of_inputs, of_units = self.features
        *hidden, last = self.layers
        like = last.weight
        state = [like.new_zeros(*batch_shape, 0) for _ in self.layers]
        place = 0

        def following(block: Tensor | None) -> Tensor:
            nonlocal place
            if block is not None:
                new = of_inputs(block.clamp(self.low, self.high))
            elif self.extra is not None:
                new = self.extra.to(like).expand(*batch_shape, -1)
            else:
                new = like.new_zeros(*batch_shape, 0)
            for depth, layer in enumerate(hidden):
                state[depth] = torch.cat([state[depth], new], -1)
                new = of_units(layer.of_block(state[depth], place))
            state[-1] = torch.cat([state[-1], new], -1)
            place += 1
            return last.of_block(state[-1], place)

        return following


class ContextNetwork(PyroModule):
    """
    A masked perceptron or KAN: the outputs for a latent depend only on latents of earlier blocks.

    ``extra -> hidden -> ... -> outputs`` with the masks of Germain et al. 2015 (arXiv:1502.03509).
    Hidden units are divided evenly among the blocks, in order. The outputs start at 0. An edge of a
    KAN is a sum of ``SiLU`` and radial functions, each with its own weight.

    :param blocks: sizes of the blocks of latents.
    :param outputs: number of outputs for each latent.
    :param hidden: widths of the hidden layers.
    :param kind: ``"perceptron"`` or ``"kan"``.
    :param extra: number of inputs that all outputs see, such as a one-hot label.
    :param low: lower bound to which latents are clamped, because the basis of the densities ends
        there.
    :param high: upper bound, likewise.
    :raises ValueError: for another kind.

    >>> network = ContextNetwork((2, 1), outputs=3, hidden=(8,))
    >>> network.bound()(torch.zeros(5, 3)).shape
    torch.Size([5, 9])
    """

    first_grid: Tensor
    later_grid: Tensor
    reads: Tensor

    def __init__(
        self,
        blocks: Sequence[int],
        outputs: int,
        hidden: Sequence[int] = (300, 300),
        *,
        kind: str = "perceptron",
        extra: int = 0,
        low: float = -4.0,
        high: float = 4.0,
    ) -> None:
        super().__init__()
        _checks.known("kind", kind, CONTEXTS)
        blocks = _checks.sizes("blocks", blocks)
        if not blocks:
            raise ValueError("blocks must hold at least one size, got ()")
        hidden = _checks.sizes("hidden", hidden)
        _checks.integer("outputs", outputs, 1)
        _checks.integer("extra", extra, 0)
        self.low, self.high = _checks.interval(low, high)
        self._latents = sum(blocks)
        inputs = [extra, *blocks]
        self._kan = kind == "kan"
        if self._kan:
            self.register_buffer("first_grid", torch.linspace(low, high, GRID_SIZE))
            self.register_buffer("later_grid", torch.linspace(-REACH, REACH, GRID_SIZE))
            inputs = [extra, *(FUNCTIONS * size for size in blocks)]
        layers = []
        for width in hidden:
            units = _shares(width, len(blocks), has_extra=extra > 0)
            layers.append(MaskedLinear(inputs, units, own=True))
            inputs = [(FUNCTIONS if self._kan else 1) * count for count in units]
        layers.append(MaskedLinear(inputs, [0, *(outputs * size for size in blocks)], own=False))
        nn.init.zeros_(layers[-1].weight)
        self.layers = PyroModule[nn.ModuleList](layers)
        self.register_buffer("reads", torch.ones(layers[0].weight.shape[1]))

    def bound(self) -> BoundContext:
        """Read the parameters once."""
        first, *others = self.layers
        layers = [first.bound(self.reads), *(layer.bound() for layer in others)]
        return BoundContext(layers, self._features(), self.low, self.high)

    @torch.no_grad()
    def forget(self, latents: Tensor, z: Tensor) -> None:
        """
        Permanently remove the effect of some latents on all outputs, except for its average.

        :param latents: which latents to remove, bools of shape ``(Q,)``.
        :param z: standardized latents over which to average, shape ``(num, Q)``.
        """
        of_inputs, _ = self._features()
        average = of_inputs(z.clamp(self.low, self.high)).mean(0)
        gone = latents.repeat_interleave(len(average) // len(latents)) & (self._of_latents > 0)
        first = self.layers[0]
        weight = first.weight * first.mask
        first.bias += weight[:, -len(average) :] @ (average * gone)
        self._of_latents[gone] = 0

    @property
    def _of_latents(self) -> Tensor:
        """The part of ``reads`` for the latents; it follows the extra input."""
        per = FUNCTIONS if self._kan else 1
        return self.reads[len(self.reads) - per * self._latents :]

    def _features(self) -> tuple[Features, Features]:
        if not self._kan:
            return _same, silu
        first, later = (
            KANFeatures(BASES["rbf"](grid, torch.ones_like(grid[0]), 0))
            for grid in (self.first_grid, self.later_grid)
        )
        return first, later


def _same(units: Tensor) -> Tensor:
    return units


def _shares(width: int, blocks: int, has_extra: bool) -> list[int]:
    """Divide a hidden layer's units among all blocks except the last, which no output may see."""
    places = blocks - 1 + has_extra
    ends = [math.floor(width * i / places) for i in range(places + 1)] if places else [0]
    counts = [end - start for start, end in pairwise(ends)]
    return [*([] if has_extra else [0]), *counts, 0]
