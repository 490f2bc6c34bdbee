"""The autoregressive tilted prior as a module: a context network and the tilts that it sets."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_tkam.distributions import (
    AutoregressiveTilted,
    Conditionals,
    LabeledAutoregressive,
    SharedCells,
)
from pyro_tkam.nn import _checks
from pyro_tkam.nn.context import CONTEXTS, BoundContext, ContextNetwork
from pyro_tkam.nn.density_fit import DensityFit, fit_density, fit_marginals
from pyro_tkam.ops.bases import Picklable
from pyro_tkam.ops.symbols import check_symbols

LARGEST = 20.0  # bound on the absolute value of a coefficient
LARGEST_SHIFT = 3.0  # bound on how far context shifts a location or a log scale


class TiltsByContext(Picklable):
    """
    The map from latents to their conditional densities.

    :param network: the context network; None if no latent has a context.
    :param start: network outputs for an empty context, shape ``(Q, outputs)``.
    :param layout: number of components, and whether locations and scales depend on the context.
    :param loc: location of the latents, shape ``(Q,)``.
    :param scale: scale of the latents, shape ``(Q,)``.
    """

    def __init__(
        self,
        network: BoundContext | None,
        start: Tensor,
        layout: tuple[int, bool],
        loc: Tensor,
        scale: Tensor,
    ) -> None:
        self.network = network
        self.start = start
        self.layout = layout
        self.loc = loc
        self.scale = scale

    def given(self, extra: Tensor) -> "TiltsByContext":
        """Return the same densities with extra context for all blocks, shape ``(*batch, C)``."""
        assert self.network is not None
        network = self.network.given(extra)
        return TiltsByContext(network, self.start, self.layout, self.loc, self.scale)

    def __call__(self, z: Tensor) -> Conditionals:
        """Return the densities of all latents, ``z`` of shape ``(*batch, Q)``."""
        if self.network is None:
            return self._densities(self.start, slice(None))
        outputs = self.network((z - self.loc) / self.scale)
        return self._densities(outputs.unflatten(-1, (len(self.start), -1)), slice(None))

    def by_block(self, batch_shape: torch.Size) -> Callable[[Tensor | None], Conditionals]:
        """Return a function from a block's latents to the next block's densities."""
        network = None if self.network is None else self.network.by_block(batch_shape)
        place = 0

        def following(block: Tensor | None) -> Conditionals:
            nonlocal place
            if network is None:
                return self._densities(self.start, slice(None))
            if block is not None:
                known = slice(place - block.shape[-1], place)
                block = (block - self.loc[known]) / self.scale[known]
            outputs = network(block).unflatten(-1, (-1, self.start.shape[-1]))
            part = slice(place, place + outputs.shape[-2])
            place = part.stop
            return self._densities(outputs, part)

        return following

    def _densities(self, outputs: Tensor, part: slice) -> Conditionals:
        """Turn network outputs, ``(*batch, part, outputs)``, into the densities of some latents."""
        components, moves = self.layout
        outputs = outputs if self.network is None else outputs + self.start[part]
        loc = self.loc[part]
        scale = self.scale[part]
        log_weights = None
        if moves:
            shift = LARGEST_SHIFT * (outputs[..., :2] / LARGEST_SHIFT).tanh()
            loc = loc + scale * shift[..., 0]
            scale = scale * shift[..., 1].exp()
            outputs = outputs[..., 2:]
        if components > 1:
            log_weights = outputs[..., :components].log_softmax(-1)
            outputs = outputs[..., components:].unflatten(-1, (components, -1))
        return Conditionals(LARGEST * (outputs / LARGEST).tanh(), log_weights, loc, scale)


class BoundPrior(Picklable):
    """
    The density of a prior whose parameters have been read, as a function of labels.

    :param tilts: the conditioner.
    :param blocks: sizes of the blocks.
    :param cells: the basis and its cells.
    :param num_labels: number of labels.
    """

    def __init__(
        self, tilts: TiltsByContext, blocks: tuple[int, ...], cells: SharedCells, num_labels: int
    ) -> None:
        self.tilts = tilts
        self.blocks = blocks
        self.cells = cells
        self.num_labels = num_labels

    def __call__(self, label: Tensor | None = None) -> AutoregressiveTilted:
        """
        Return the density.

        :param label: integers of any shape ``batch``, the batch shape of what is returned.
        """
        if label is None:
            return AutoregressiveTilted(self.tilts, self.blocks, self.cells)
        check_symbols("label", label, self.num_labels)
        one_hot = nn.functional.one_hot(label, self.num_labels).to(self.tilts.start.dtype)
        return AutoregressiveTilted(self.tilts.given(one_hot), self.blocks, self.cells, label.shape)


class AutoregressivePrior(PyroModule):
    """
    Ordered latents, each a tilted Gaussian whose tilt depends on the earlier latents.

    ``p(z) = Π_q p_q(z_q | z_<block(q))``, ``p_q(z | c) ∝ exp(Σ_i c_i B_i(z)) N(z; 0, 1)`` and ``c =
    c⁰ + network(earlier blocks)``; see :class:`~pyro_tkam.distributions.AutoregressiveTilted`. The
    network's outputs start at 0, so training starts from the independent prior. Coefficients stay
    below 20 in absolute value.

    :param latent_dim: number ``Q`` of latents.
    :param blocks: number of blocks, with sizes as equal as possible, or the sizes of the blocks;
        None puts each latent in its own block (fully autoregressive).
    :param basis: ``"rbf"``, ``"bspline"`` or ``"rswaf"``.
    :param grid_size: number of centers on [``low``, ``high``].
    :param low: lower end of the basis.
    :param high: upper end of the basis.
    :param context: kind of the network, ``"perceptron"`` or ``"kan"``.
    :param hidden: widths of its hidden layers.
    :param num_components: components of each conditional density; their weights depend on the
        context.
    :param moves: whether locations and scales depend on the context too.
    :param num_labels: number of labels, each with its own density; 0 for none.
    :raises ValueError: for sizes below one, blocks that do not sum to ``latent_dim``, an unknown
        basis or context.

    >>> prior = AutoregressivePrior(5, hidden=(16,))
    >>> prior().sample((3,)).shape
    torch.Size([3, 5])
    """

    loc: Tensor
    scale: Tensor

    def __init__(
        self,
        latent_dim: int,
        blocks: int | Sequence[int] | None = None,
        *,
        basis: str = "rbf",
        grid_size: int = 16,
        low: float = -4.0,
        high: float = 4.0,
        context: str = "perceptron",
        hidden: Sequence[int] = (300, 300),
        num_components: int = 1,
        moves: bool = False,
        num_labels: int = 0,
    ) -> None:
        super().__init__()
        latent_dim = _checks.integer("latent_dim", latent_dim, 1)
        _checks.known("context", context, CONTEXTS)
        _checks.sizes("hidden", hidden)
        _checks.flag("moves", moves)
        self.blocks = _sizes(blocks, latent_dim)
        self._cells = (low, high, grid_size, basis)
        self._layout = (_checks.integer("num_components", num_components, 1), bool(moves))
        functions = SharedCells.over(*self._cells, like=torch.zeros(())).basis.num_functions
        outputs = num_components * functions + 2 * bool(moves)
        outputs += num_components if num_components > 1 else 0
        start = torch.zeros(latent_dim, outputs)
        if num_components > 1:  # equal components would stay equal
            start[:, -num_components * functions :].uniform_(-0.5, 0.5)
        self.start = nn.Parameter(start)
        self.register_buffer("loc", torch.zeros(latent_dim))
        self.register_buffer("scale", torch.ones(latent_dim))
        self.num_labels = _checks.integer("num_labels", num_labels, 0)
        independent = len(self.blocks) == 1 and num_labels == 0
        self.network = (
            None
            if independent
            else ContextNetwork(
                self.blocks, outputs, hidden, kind=context, extra=num_labels, low=low, high=high
            )
        )

    def forward(self, label: Tensor | None = None) -> AutoregressiveTilted:
        """
        Return the current distribution, of event shape ``(Q,)``.

        :param label: with ``num_labels``, integers of any shape ``batch``, the batch shape of the
            result.
        :raises ValueError: for a label if the prior has no labels, or a missing label if it has
            labels.
        """
        if (label is None) != (self.num_labels == 0):
            got = "None" if label is None else "labels"
            wanted = "given for a prior with" if self.num_labels else "None for a prior without"
            raise ValueError(f"label must be {wanted} labels, got {got}")
        bound = self.bound()
        return bound() if label is None else bound(label)

    def bound(self) -> "BoundPrior":
        """Read the parameters once, and return the density as a function of labels."""
        network = None if self.network is None else self.network.bound()
        tilts = TiltsByContext(network, self.start, self._layout, self.loc, self.scale)
        cells = SharedCells.over(*self._cells, like=self.start)
        return BoundPrior(tilts, self.blocks, cells, self.num_labels)

    @torch.no_grad()
    def start_from(self, samples: Tensor, shares: Tensor) -> None:
        """
        Start from the best independent densities for single components; mixtures stay unchanged.

        :param samples: standardized draws, shape ``(N, Q)``.
        :param shares: weights of the draws that sum to one, shape ``(N,)``.
        :raises ValueError: for other shapes and numbers that are not finite.
        """
        _checks.last_dimension("samples", samples, len(self.loc))
        _checks.dense("shares", shares)
        if samples.dim() != 2 or shares.shape != samples.shape[:1]:
            raise ValueError(
                f"samples and shares must have shapes (N, {len(self.loc)}) and (N,), got "
                f"{tuple(samples.shape)} and {tuple(shares.shape)}"
            )
        for name, value in (("samples", samples), ("shares", shares)):
            if value.is_complex() or not len(value) or not bool(value.isfinite().all()):
                raise ValueError(f"{name} must be finite real numbers, got other values")
        components, moves = self._layout
        if components > 1:
            return
        cells = SharedCells.over(*self._cells, like=self.start.double())
        coefficients = fit_marginals(cells, samples.double(), shares.double())
        share = (coefficients / LARGEST).clamp(-0.95, 0.95)
        self.start[:, 2 * moves :] = LARGEST * share.atanh().to(self.start)

    def fit(
        self,
        samples: Tensor,
        weights: Tensor | None = None,
        *,
        label: Tensor | None = None,
        **options: Any,
    ) -> DensityFit:
        """
        Fit the density to draws by maximum likelihood, with early stopping on held-out draws.

        First, the locations and scales of the latents are set to those of the draws.

        :param samples: shape ``(N, Q)``.
        :param weights: of the draws, not negative, shape ``(N,)``; None gives all the same weight.
        :param label: with ``num_labels``, shape ``(N,)``.
        :param options: see :func:`~pyro_tkam.nn.density_fit.fit_density`.
        :return: mean log density of the draws used for the fit and of the held-out draws, in nats.
        :raises ValueError: for draws that are not finite or have the wrong shape, and negative
            weights.
        """
        return fit_density(self, samples, weights, label, **options)

    @torch.no_grad()
    def prune(self, least: float = 0.01, num_samples: int = 500) -> Tensor:
        """
        Permanently remove latents from the context if they hardly change any later latent's
        density.

        A latent is removed from the context if its :meth:`dependence
        <pyro_tkam.distributions.AutoregressiveTilted.dependence>` is below ``least`` everywhere;
        its average contribution to the coefficients stays.

        :param least: smallest divergence, in nats, that keeps a latent in the context.
        :param num_samples: number of draws.
        :return: whether each latent is in the context of later ones, shape ``(Q,)``.
        :raises ValueError: if the prior has labels, because dependences may differ between labels,
            and for a negative ``least``.
        """
        _checks.number("least", least, at_least=0)
        if self.num_labels:
            raise ValueError(f"num_labels must be 0 for pruning, got {self.num_labels}")
        _checks.integer("num_samples", num_samples, 1)
        density = self()
        keeps = density.dependence(num_samples).amax(0) >= least
        if self.network is not None:
            z = (density.sample((num_samples,)) - self.loc) / self.scale
            self.network.forget(~keeps, z)
        return keeps


def _sizes(blocks: int | Sequence[int] | None, latent_dim: int) -> tuple[int, ...]:
    if blocks is None:
        return (1,) * latent_dim
    if isinstance(blocks, int):
        if not 1 <= blocks <= latent_dim:
            raise ValueError(f"blocks must be from 1 to latent_dim={latent_dim}, got {blocks}")
        return tuple(
            latent_dim * (i + 1) // blocks - latent_dim * i // blocks for i in range(blocks)
        )
    sizes = _checks.sizes("blocks", blocks)
    if sum(sizes) != latent_dim:
        raise ValueError(
            f"blocks must be sizes of at least 1 that sum to latent_dim={latent_dim}, got {sizes}"
        )
    return sizes


class LabeledAutoregressivePrior(PyroModule):
    """
    A label coupled to ordered latents; see :class:`~pyro_tkam.distributions.LabeledAutoregressive`.

    :param num_labels: number of labels.
    :param latent_dim: number ``Q`` of latents.
    :param blocks: see :class:`AutoregressivePrior`.
    :param options: further options of :class:`AutoregressivePrior`.

    >>> prior = LabeledAutoregressivePrior(10, 5, hidden=(8,))
    >>> prior().given(torch.tensor([3, 7])).sample().shape
    torch.Size([2, 5])
    """

    def __init__(
        self,
        num_labels: int,
        latent_dim: int,
        blocks: int | Sequence[int] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        num_labels = _checks.integer("num_labels", num_labels, 1)
        self.latents = AutoregressivePrior(latent_dim, blocks, num_labels=num_labels, **options)
        self.logits = nn.Parameter(torch.zeros(num_labels))

    def forward(self) -> LabeledAutoregressive:
        """Return the current distribution, of event shape ``(Q,)``."""
        return LabeledAutoregressive(self.logits, self.latents.bound())
