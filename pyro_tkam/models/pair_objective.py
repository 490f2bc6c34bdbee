"""The objective for a model of two sequences with a shared latent and for both of its guides."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_tkam._checks import instance, share, whole_number
from pyro_tkam.infer.objectives.base import MaximumLikelihood
from pyro_tkam.models._names import tell_of_other_parameters
from pyro_tkam.models.pair_guide import PairGuide, check_pairs
from pyro_tkam.models.seq2seq import Seq2SeqTKAM
from pyro_tkam.nn import _checks
from pyro_tkam.nn.ended import ended_log_prob
from pyro_tkam.ops._arguments import dense
from pyro_tkam.ops.symbols import END, UNKNOWN


@dataclass(frozen=True)
class PairTerms:
    """
    The terms of the bounds for each pair, in nats; ``z`` is drawn from ``q(z | source, target)``.

    :param source: ``log p(source | z)``.
    :param target: ``log p(target | z, source)``.
    :param information: ``log q(z | source, target) - log p(z)``, an estimate of the information in
        the latent about the pair.
    :param beyond: ``KL(q(z | source, target) || q(z | source))``, the information beyond the
        source.
    """

    source: Tensor
    target: Tensor
    information: Tensor
    beyond: Tensor

    @property
    def metrics(self) -> dict[str, Tensor]:
        """The means of the terms, by name."""
        return {name: value.detach().mean() for name, value in vars(self).items()}


class PairELBO(MaximumLikelihood):
    r"""
    Two evidence lower bounds for pairs: of both sequences, and of the target given the source.

    .. math:: \log p(s, t) \ge E_{q(z|s,t)}[\log p(s|z) + \log p(t|z,s) + \log p(z) - \log q(z|s,t)]

    .. math:: \log \int q(z|s)\, p(t|z,s)\, dz \ge E_{q(z|s,t)}[\log p(t|z,s)]
        - KL(q(z|s,t) \| q(z|s))

    The first trains the model. The second trains generation in one pass, ``z ~ q(z | s)`` and then
    ``t``. There, ``q(z | s)`` is the learned prior of a conditional autoencoder (Sohn et al. 2015).
    An autoregressive decoder can learn to ignore the latent (Bowman et al. 2016, arXiv:1511.06349).
    Therefore, ``free_nats`` of each divergence cost nothing (Kingma et al. 2016, arXiv:1606.04934),
    so the latent can carry that much information about the target beyond the source. Within the
    free nats, ``q(z | s, t)`` gets no gradient from the divergence. The priors ``p(z)`` and ``q(z |
    s)`` still learn from its draws, so that one pass draws latents that the decoder has been
    trained on. ``statistics`` holds the last :class:`PairTerms`.

    :param free_nats: nats of each mean divergence that cost nothing; 0 gives the bounds themselves.
    :param unknown_share: share of the source's symbols that the encoder reads as unknown. This
        trains the symbol 1 and keeps the model from relying on single symbols.
    :raises ValueError: for negative nats and a share outside [0, 1].

    >>> from pyro_tkam.models import TKAM
    >>> model = TKAM.seq2seq(7, 9, max_source=5, max_target=6, latent_dim=3, width=8,
    ...     num_heads=2, context_widths=(8,))
    >>> objective = PairELBO()(model, PairGuide(model))
    >>> objective(torch.tensor([[2, 3, 0], [2, 5, 6]]), torch.tensor([[8, 0], [8, 2]])).backward()
    """

    statistics: PairTerms | None = None

    def __init__(self, free_nats: float = 0.0, unknown_share: float = 0.0) -> None:
        super().__init__()
        self.free_nats = _checks.number("free_nats", free_nats, at_least=0.0)
        share("unknown_share", unknown_share)
        self.unknown_share = unknown_share

    def terms(
        self, model: Seq2SeqTKAM, guide: PairGuide, source: Tensor, target: Tensor
    ) -> PairTerms:
        """
        Return the terms of both bounds, with one draw of the latent for each pair.

        :param model: the model.
        :param guide: the model's guide.
        :param source: integers, shape ``(batch, length)``.
        :param target: likewise.
        """
        _check(model, guide, source, target)
        return self._terms(model, guide, source, target)[0]

    def _terms(
        self, model: Seq2SeqTKAM, guide: PairGuide, source: Tensor, target: Tensor
    ) -> tuple[PairTerms, Callable[[], tuple[Tensor, Tensor]]]:
        """
        Return the terms, and a function that returns the negative log densities of both priors at
        the draws, which it holds fixed.
        """
        encoded = model.encoder(self.read(source))
        prior = model.prior()
        alone = guide.posterior(encoded)
        both = guide.posterior(encoded, target)
        z = both.rsample()
        terms = PairTerms(
            source=ended_log_prob(model.source_decoder, z, source),
            target=ended_log_prob(model.target_decoder, z, target, encoded),
            information=both.log_prob(z) - prior.log_prob(z),
            beyond=kl_divergence(both, alone),
        )
        for module in (model, guide):
            tell_of_other_parameters(module)
        held = z.detach()
        return terms, lambda: (-prior.log_prob(held), -alone.log_prob(held))

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> PairTerms:
        return self.terms(model, guide, *args)

    def read(self, source: Tensor) -> Tensor:
        """
        Return sources in which a random share ``unknown_share`` of the symbols is replaced by
        unknown.

        :param source: integers, shape ``(batch, length)``.
        """
        dense("source", source)
        if source.dtype != torch.int64:
            raise TypeError(f"source must hold integers, got {source.dtype}")
        if self.unknown_share == 0:
            return source
        hidden = torch.rand(source.shape, device=source.device) < self.unknown_share
        return torch.where(hidden & (source != END), UNKNOWN, source)

    def differentiable_loss(
        self,
        model: Seq2SeqTKAM,
        guide: PairGuide,
        source: Tensor,
        target: Tensor,
        size: int | None = None,
    ) -> Tensor:
        """
        Return minus the sum of both bounds as a scalar.

        :param model: the model.
        :param guide: the model's guide.
        :param source: integers, shape ``(batch, length)``.
        :param target: likewise.
        :param size: length of the whole data set; None takes the length of the batch.
        :return: nats, scaled from the mini-batch to all data.
        """
        _check(model, guide, source, target)
        rows = len(source) if size is None else whole_number("size", size, len(source))
        terms, learn = self._terms(model, guide, source, target)
        self.statistics = terms
        costs: Iterable[Tensor] = (terms.information.mean(), terms.beyond.mean())
        if self.free_nats:  # without free nats, keep estimates of a divergence that are negative
            costs = map(self._cost, costs, (nats.mean() for nats in learn()))
        bound = (terms.source + 2 * terms.target).mean() - sum(costs)
        return -bound * rows

    def _cost(self, divergence: Tensor, nats: Tensor) -> Tensor:
        """
        Return a mean divergence, or the free nats if it is smaller. In that case only the prior
        learns, from its negative log density ``nats`` at draws that are held fixed.
        """
        free = self.free_nats + (nats - nats.detach())
        return torch.where(divergence < self.free_nats, free, divergence)


def _check(model: Any, guide: Any, source: Any, target: Any) -> None:
    instance("model", model, Seq2SeqTKAM, "a Seq2SeqTKAM")
    if not hasattr(guide, "posterior"):
        raise TypeError(f"guide must be a PairGuide, got {type(guide).__name__}")
    dense("target", target)
    check_pairs(model, source, target)
