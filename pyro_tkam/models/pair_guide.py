"""The approximate posterior of a latent that two sequences share."""

from __future__ import annotations

import pyro
import torch
from pyro.distributions import Independent, Normal
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_tkam._checks import instance, whole_number
from pyro_tkam.models._names import tell_of_other_parameters
from pyro_tkam.models.seq2seq import Seq2SeqTKAM, checked_sequences
from pyro_tkam.nn import SequenceEncoder
from pyro_tkam.nn.attention import Encoded
from pyro_tkam.nn.ended import ended_excess
from pyro_tkam.ops._arguments import dense
from pyro_tkam.ops._precision import at_least_single


def check_pairs(
    model: Seq2SeqTKAM, source: Tensor, target: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """
    Check that sequences fit a model and that there are as many sources as targets.

    :param model: the model.
    :param source: integers, shape ``(batch, length)``.
    :param target: likewise, or None.
    :return: both, unchanged.
    :raises TypeError: for tensors that don't hold integers.
    :raises ValueError: for other shapes, symbols outside the alphabets, and tensors without rows.
    """
    dense("source", source)
    checked_sequences("source", source, model.source_decoder)
    checked_sequences("target", target, model.target_decoder)
    if len(source) == 0:
        raise ValueError("source must have at least one row, got none")
    if target is not None and len(target) != len(source):
        raise ValueError(
            f"target must have one row for each of {len(source)} sources, got {len(target)}"
        )
    return source, target


class PairGuide(PyroModule):
    """
    ``q(z | source)`` and ``q(z | source, target)``, Gaussians whose networks read the sequences.

    The first reads the features of the model's encoder, whose parameters remain parameters of the
    model. The second adds two corrections to the output for the first. One comes from an encoder of
    the target, which attends to the encoded source. The other comes from
    :func:`~pyro_tkam.nn.ended_excess`: which symbols are more or less frequent in the target than
    the decoder predicts at the mean of ``q(z | source)``. Without these corrections, the second
    would carry no information beyond the source. The guide takes the arguments of the model, so it
    works with any objective that takes a guide, and for the evidence of sources alone or of pairs.
    Train guide and model with :class:`PairELBO`.

    :param model: the model.
    :param num_layers: number of layers of the target's encoder.

    >>> from pyro_tkam.models import TKAM
    >>> model = TKAM.seq2seq(7, 9, max_source=5, max_target=6, latent_dim=3, width=8,
    ...     num_heads=2, context_widths=(8,))
    >>> guide, source = PairGuide(model), torch.tensor([[2, 3, 0], [2, 5, 6]])
    >>> guide(source).shape, guide(source, torch.tensor([[8, 0], [8, 2]])).shape
    (torch.Size([2, 3]), torch.Size([2, 3]))
    """

    def __init__(self, model: Seq2SeqTKAM, num_layers: int = 1) -> None:
        instance("model", model, Seq2SeqTKAM, "a Seq2SeqTKAM")
        super().__init__()
        self._model = (model,)  # in a tuple, so that its parameters are not the guide's
        decoder = model.target_decoder
        width = model.encoder.width
        self.latent_dim = decoder.latent_dim
        self.reader = SequenceEncoder(
            decoder.num_classes,
            decoder.max_length,
            width=width,
            num_heads=model.encoder.blocks[0].num_heads,
            num_layers=num_layers,
            attends=True,
        )
        self.alone, self.both = (
            PyroModule[nn.Sequential](
                nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, 2 * self.latent_dim)
            )
            for inputs in (width, 2 * width)
        )
        self.from_excess = PyroModule[nn.Linear](decoder.num_classes, self.latent_dim)
        nn.init.normal_(self.from_excess.weight, std=0.3)
        with torch.no_grad():  # both posteriors start near the prior's reference
            for network in (self.alone, self.both):
                network[-1].weight.mul_(0.1)

    def forward(
        self, source: Tensor, target: Tensor | None = None, size: int | None = None
    ) -> Tensor:
        """
        Draw the latents of a mini-batch.

        :param source: integers, shape ``(batch, length)``.
        :param target: targets, of the same form; None draws from ``q(z | source)``.
        :param size: the length of the whole data set.
        :return: shape ``(batch, Q)``.
        """
        tell_of_other_parameters(self)
        source, target = check_pairs(self._model[0], source, target)
        rows = len(source)
        size = rows if size is None else whole_number("size", size, rows)
        with pyro.plate("data", size, subsample=torch.arange(rows) if rows < size else None):
            return pyro.sample("z", self.posterior(self._model[0].encoder(source), target))

    def posterior(self, encoded: Encoded, target: Tensor | None = None) -> Independent:
        """
        Return ``q(z | source)``, or ``q(z | source, target)``.

        :param encoded: the source, encoded by the model's encoder.
        :param target: integers, shape ``(batch, length)``, or None.
        :return: a distribution of batch shape ``(batch,)`` and event shape ``(Q,)``.
        """
        pooled = encoded.pooled()
        output = at_least_single(self.alone(pooled))
        expected = output[..., : self.latent_dim].detach()
        if target is not None:
            read = self.reader(target, encoded).pooled()
            output = output + at_least_single(self.both(torch.cat([pooled, read], -1)))
            decoder = self._model[0].target_decoder
            with torch.no_grad():
                excess = ended_excess(decoder, expected, target, encoded)
            moved = at_least_single(self.from_excess(excess.asinh()))  # asinh tames long targets
            output = output + nn.functional.pad(moved, (0, self.latent_dim))
        location, log_scale = output.chunk(2, -1)
        return Normal(location, log_scale.exp(), validate_args=False).to_event(1)
