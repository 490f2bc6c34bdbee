"""Latents in an order, each a tilted Gaussian given the earlier ones; exact densities and draws."""

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor
from torch.distributions import constraints

from pyro_tkam._checks import function, whole_number
from pyro_tkam.distributions.checked import CheckedDistribution
from pyro_tkam.distributions.conditional import Conditionals
from pyro_tkam.distributions.normal_tails import nearer_tail, normal_score_of_tails
from pyro_tkam.ops._arguments import shape
from pyro_tkam.ops._concrete import is_concrete
from pyro_tkam.ops._points import expanded_shape
from pyro_tkam.ops._precision import in_full_precision
from pyro_tkam.ops.bases import Picklable
from pyro_tkam.ops.shared_cells import SharedCells

#: from the last block's draws (None before the first) to the next block's densities
NextBlock = Callable[[Tensor | None], Conditionals]


class Conditioner(Protocol):
    """
    The densities of all latents, given the latents of earlier blocks.

    It may also have a method ``by_block(batch_shape) -> NextBlock``, which does the same block by
    block at the total cost of one call.
    """

    def __call__(self, z: Tensor) -> Conditionals:
        """
        Return the densities of all latents, each read off those of earlier blocks.

        :param z: shape ``(*batch, Q)``.
        :return: of batch shape ``(*batch, Q)`` or what broadcasts to it.
        """


class AutoregressiveTilted(Picklable, CheckedDistribution):
    """
    A joint density of ``Q`` latents: a product of exactly normalized conditional densities.

    ``p(z) = Π_q p_q(z_q | z_<block(q))``, ``p_q(z | c) = exp(Σ_i c_i B_i(z)) N(z; 0, 1) / Z(c)``,
    with coefficients ``c`` that depend on the latents of earlier blocks. This is a hierarchy that
    keeps inverse transform sampling, as suggested in Raj 2025, arXiv:2506.14167, Sec. 5.3; the
    order is that of Knothe and Rosenblatt. One block is the independent prior; ``Q`` blocks are
    fully autoregressive. ``log_prob`` of a batch takes one parallel pass. Draws invert the
    Rosenblatt transform, with one pass per block and pathwise gradients.

    :param conditioner: from latents ``(*batch, Q)`` to the :class:`Conditionals` of all of them.
        Those of a latent must not depend on its own block or later blocks. See :class:`Conditioner`
        for how to make draws cheap.
    :param blocks: sizes of the blocks, in order; they sum to ``Q``.
    :param cells: the basis ``B`` and its cells; shared by all distributions of one basis.
    :param batch_shape: shape of the batch of contexts that the conditioner holds.
    :param validate_args: whether to check values given to ``log_prob``.
    :raises ValueError: for blocks that are empty.
    :raises TypeError: for a conditioner that cannot be called.

    >>> cells = SharedCells.over(-4.0, 4.0, like=torch.zeros(()))
    >>> def follow(z):  # the second latent leans to where the first one is
    ...     first = torch.zeros_like(z[..., :1]), z[..., :1]
    ...     return Conditionals(torch.cat(first, -1)[..., None] * cells.basis.grid)
    >>> pair = AutoregressiveTilted(follow, (1, 1), cells)
    >>> z = pair.sample((5,))
    >>> z.shape, pair.log_prob(z).shape
    (torch.Size([5, 2]), torch.Size([5]))
    >>> bool((pair.from_uniform(pair.to_uniform(z)) - z).abs().max() < 1e-4)
    True
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self,
        conditioner: Callable[[Tensor], Conditionals],
        blocks: Sequence[int],
        cells: SharedCells,
        batch_shape: Any = (),
        *,
        validate_args: bool | None = None,
    ) -> None:
        function("conditioner", conditioner, "latents")
        if not shape("blocks", blocks) or min(blocks) < 1:
            raise ValueError(f"blocks must be sizes of at least 1, got {tuple(blocks)}")
        if not isinstance(cells, SharedCells):
            raise TypeError(f"cells must be SharedCells, got {type(cells).__name__}")
        batch_shape = shape("batch_shape", batch_shape)
        self.conditioner = conditioner
        self.blocks = tuple(blocks)
        self.cells = cells
        self.edges = cells.edges  # tells the dtype to what asks for a tensor of the distribution
        self.contexts = batch_shape  # which expand leaves, so that rows are scored once
        super().__init__(batch_shape, torch.Size([sum(blocks)]), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        """
        Return the distribution with a larger batch shape; nothing is copied.

        :param batch_shape: shape to which ``batch_shape`` broadcasts.
        :raises ValueError: for a shape to which it does not.
        """
        batch_shape = expanded_shape(self.batch_shape, batch_shape)
        new: Self = self._get_checked_instance(AutoregressiveTilted, _instance)
        new.conditioner = self.conditioner
        new.blocks = self.blocks
        new.cells = self.cells
        new.edges = self.edges
        new.contexts = self.contexts
        super(AutoregressiveTilted, new).__init__(
            batch_shape, self.event_shape, validate_args=False
        )
        new._validate_args = self._validate_args
        return new

    def conditionals(self, value: Tensor) -> Conditionals:
        """
        Return the density of every latent, given those of earlier blocks.

        :param value: shape ``(*batch, Q)``.
        """
        return self.conditioner(value)

    @in_full_precision
    def log_prob(self, value: Tensor) -> Tensor:
        """
        Return the log density. Beyond the cells, which end at 9, the formula itself is used.

        :param value: shape ``(*sample, *batch, Q)``, or what broadcasts with it.
        :return: shape ``(*sample, *batch)``.
        """
        self._check_value(value)
        whole = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        value = self._at_contexts(value)
        return self.conditionals(value).log_prob(self.cells, value).sum(-1).expand(whole)

    @in_full_precision
    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """
        Draw exactly, block after block, with pathwise gradients.

        :param sample_shape: shape of independent draws.
        :return: shape ``(*sample_shape, *batch_shape, Q)``.
        """
        u = torch.rand(
            self._extended_shape(sample_shape), dtype=self.edges.dtype, device=self.edges.device
        )
        return self.from_uniform(u.clamp_min(torch.finfo(u.dtype).tiny))

    @in_full_precision
    def to_uniform(self, value: Tensor) -> Tensor:
        """
        Return the Rosenblatt transform ``u_q = F_q(z_q | z_<block(q))`` (Rosenblatt 1952).

        For draws of this density, the results are independent and uniform, which tests goodness of
        fit.

        :param value: shape ``(*batch, Q)``.
        :return: shape ``(*batch, Q)``.
        """
        below, _ = self._tails(value)
        return below

    @in_full_precision
    def from_uniform(self, u: Tensor) -> Tensor:
        """
        Return the inverse of the Rosenblatt transform.

        :param u: probabilities, shape ``(*batch, Q)``.
        :return: shape ``(*batch, Q)``.
        """
        self._check_value(u, "u")
        if self._validate_args and is_concrete(u) and not bool(((u >= 0) & (u <= 1)).all()):
            raise ValueError("u must hold probabilities from 0 to 1, got values outside")
        return self._by_block(u, None)

    @in_full_precision
    def to_normal(self, value: Tensor) -> Tensor:
        """
        Return ``Φ^{-1}(F_q(z_q | z_<block(q)))``: coordinates in which the density is N(0, I), each
        computed from the nearer tail.

        :param value: shape ``(*batch, Q)``.
        :return: shape ``(*batch, Q)``.
        """
        return normal_score_of_tails(*self._tails(value))

    @in_full_precision
    def from_normal(self, normal: Tensor) -> Tensor:
        """
        Return the inverse of :meth:`to_normal`.

        :param normal: shape ``(*batch, Q)``.
        :return: shape ``(*batch, Q)``.
        """
        self._check_value(normal, "normal")
        return self._by_block(nearer_tail(normal), normal > 0)

    @in_full_precision
    def quadrature_error(self, value: Tensor) -> Tensor:
        """
        Return the largest estimated error of ``log Z`` among the latents' densities, from a
        comparison with cells four times as fine.

        :param value: latents that are the context, shape ``(*batch, Q)``.
        :return: shape ``batch``.
        """
        self._check_value(value)
        gaps = self.conditionals(value).quadrature_error(self.cells, self.cells.refined(4))
        return gaps.amax(-1).expand(value.shape[:-1])

    @torch.no_grad()
    def dependence(self, num_samples: int = 500) -> Tensor:
        """
        Return how much each latent's density depends on each latent before it, in nats.

        Entry ``(q, j)`` is ``E KL(p_q(·|z) || p_q(·|z'))``, where ``z'`` is a draw ``z`` whose
        latent ``j`` is that of another draw: what predicting latent ``q`` loses if it is told a
        wrong ``z_j``. It is estimated from draws, so that small entries may be negative.

        :param num_samples: number of draws, at least 2.
        :return: shape ``(Q, Q)``, zero where latent ``j`` is not in an earlier block than ``q``.
        :raises ValueError: for fewer draws, and for a density with a batch shape.
        """
        whole_number("num_samples", num_samples, 2)
        if self.batch_shape:
            raise ValueError(f"batch_shape must be (), got {tuple(self.batch_shape)}")
        z = self.sample((num_samples,))
        right = self.conditionals(z).log_prob(self.cells, z)
        lost = torch.zeros(z.shape[-1], z.shape[-1], dtype=z.dtype, device=z.device)
        for part in self.slices:
            for j in range(part.start, part.stop):
                other = z.clone()
                other[:, j] = z[:, j].roll(1)
                wrong = self.conditionals(other).log_prob(self.cells, z)
                lost[part.stop :, j] = (right - wrong).mean(0)[part.stop :]
        return lost

    def _check_value(self, value: Tensor, name: str = "value") -> None:
        super()._check_value(value, name)
        if value.dtype != self.edges.dtype:
            raise TypeError(
                f"{name} must have the dtype of the cells, {self.edges.dtype}, got {value.dtype}"
            )

    @property
    def slices(self) -> list[slice]:
        """The positions of the blocks among the latents."""
        return [slice(*ends) for ends in pairwise(accumulate(self.blocks, initial=0))]

    def _tails(self, value: Tensor) -> tuple[Tensor, Tensor]:
        self._check_value(value)
        whole = torch.broadcast_shapes(value.shape, self.batch_shape + self.event_shape)
        value = self._at_contexts(value)
        below, above = self.conditionals(value).tails(self.cells, value)
        return below.expand(whole), above.expand(whole)

    def _at_contexts(self, value: Tensor) -> Tensor:
        """Expand values to the contexts that differ, and no further."""
        return value.expand(*torch.broadcast_shapes(value.shape[:-1], self.contexts), -1)

    def _by_block(self, u: Tensor, upper: Tensor | None) -> Tensor:
        """Invert the conditional CDFs of one block after another."""
        whole = torch.broadcast_shapes(u.shape, self.batch_shape + self.event_shape)
        u = u.expand(whole)
        make = getattr(self.conditioner, "by_block", None)
        following = (
            _Repeated(self.conditioner, self.slices, u) if make is None else make(whole[:-1])
        )
        drawn: list[Tensor] = []
        for part in self.slices:
            conditionals = following(drawn[-1] if drawn else None)
            above = None if upper is None else upper.expand(whole)[..., part]
            drawn.append(conditionals.inverse(self.cells, u[..., part], above))
        return torch.cat(drawn, -1)


class _Repeated:
    """Calls the whole conditioner for each block, with zeros for the latents that are to come."""

    def __init__(
        self, conditioner: Callable[[Tensor], Conditionals], slices: list[slice], like: Tensor
    ) -> None:
        self.conditioner = conditioner
        self.slices = slices
        self.zeros = torch.zeros_like(like)
        self.drawn = list[Tensor]()

    def __call__(self, last: Tensor | None) -> Conditionals:
        self.drawn += [] if last is None else [last]
        part = self.slices[len(self.drawn)]
        known = torch.cat([*self.drawn, self.zeros[..., part.start :]], -1)
        return self.conditioner(known).latents(part)
