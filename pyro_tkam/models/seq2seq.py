"""Sequence to sequence: both depend on one latent, and the target also depends on the source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import pyro
import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor
from torch.distributions import Independent, Normal, constraints

from pyro_tkam._checks import flag, function, instance
from pyro_tkam._threads import PYRO, in_turn
from pyro_tkam.models._draws import undone_by_errors
from pyro_tkam.models._names import tell_of_other_parameters
from pyro_tkam.models.sequence import check_decoder
from pyro_tkam.models.tkam import check_sizes
from pyro_tkam.nn import AutoregressivePrior, SequenceEncoder, SequenceGenerator
from pyro_tkam.nn.attention import Encoded
from pyro_tkam.nn.ended import Beams, beam_search, ended_log_prob, sample_ended
from pyro_tkam.ops._arguments import dense, shape
from pyro_tkam.ops._points import expanded_shape
from pyro_tkam.ops.spread import spread_normals
from pyro_tkam.ops.symbols import check_symbols, padded, until_end

if TYPE_CHECKING:
    from pyro_tkam.models.pair_guide import PairGuide


class EndedSequence(TorchDistribution):
    """
    Sequences of variable length from a decoder; see :func:`~pyro_tkam.nn.ended_log_prob`.

    A sequence ends before its first 0. The probabilities of all sequences of at most
    ``max_length`` symbols sum to one, and padding changes nothing.

    :param decoder: the decoder.
    :param z: latents, shape ``(*batch, Q)``.
    :param encoded: another sequence to attend to, of batch shape ``batch``.

    >>> decoder = SequenceGenerator(3, num_classes=7, max_length=5, width=8, num_heads=2,
    ...     num_layers=1)
    >>> fn = EndedSequence(decoder, torch.randn(2, 3))
    >>> short, long = torch.tensor([[3, 4]]), torch.tensor([[3, 4, 0, 0, 0]])
    >>> torch.allclose(fn.log_prob(short), fn.log_prob(long))
    True
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(
        self, decoder: SequenceGenerator, z: Tensor, encoded: Encoded | None = None
    ) -> None:
        check_decoder(decoder, z)
        if encoded is not None:
            instance("encoded", encoded, Encoded, "an encoded sequence or None")
        self.decoder = decoder
        self.z = z
        self.encoded = encoded
        super().__init__(z.shape[:-1], torch.Size([decoder.max_length]), validate_args=False)

    @constraints.dependent_property(is_discrete=True)
    def support(self) -> constraints.Constraint:
        """Sequences of integers from 0 to one less than the size of the alphabet."""
        return constraints.independent(
            constraints.integer_interval(0, self.decoder.num_classes - 1), 1
        )

    def expand(self, batch_shape: Any, _instance: Any = None) -> EndedSequence:
        """
        Return the distribution with a larger batch shape; nothing is copied.

        :param batch_shape: shape to which ``batch_shape`` broadcasts.
        :raises ValueError: for any other shape.
        """
        batch_shape = expanded_shape(self.batch_shape, batch_shape)
        new: EndedSequence = self._get_checked_instance(EndedSequence, _instance)
        new.decoder = self.decoder
        new.z = self.z
        new.encoded = self.encoded
        super(EndedSequence, new).__init__(batch_shape, self.event_shape, validate_args=False)
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        """
        Return the log probability of sequences.

        :param value: integers, shape ``(*sample, *batch, length)``, or a shape that broadcasts
            against it.
        :return: shape ``(*sample, *batch)``, in nats per sequence.
        :raises ValueError: for more than ``max_length`` symbols, and symbols outside the alphabet.
        :raises TypeError: for symbols that are not integers.
        """
        log_prob = ended_log_prob(self.decoder, self.z, value, self.encoded)
        return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """
        Draw sequences.

        :param sample_shape: shape of independent draws.
        :return: integers of shape ``(*sample_shape, *batch, max_length)``.
        """
        z = self.z.expand(
            shape("sample_shape", sample_shape) + self.batch_shape + self.z.shape[-1:]
        )
        return sample_ended(self.decoder, z, self.encoded)


class Seq2SeqTKAM(PyroModule):
    """
    Two sequences that share one latent: ``p(z) p(source | z) p(target | z, source)``.

    The decoder of the target attends to the latent and to the encoded source (the text-to-text
    models of Raj 2025, arXiv:2506.14167, Sec. 5.2). With suitable training, the latent carries what
    the source leaves open; see :class:`PairELBO`. Sequences are integers that end before their
    first 0; 1 stands for unknown symbols. Sites: ``"z"``, ``"source"`` and ``"target"``, in the
    plate ``"data"``. :meth:`TKAM.seq2seq` makes one from sizes.

    :param prior: module that returns the current prior when called without arguments.
    :param source_decoder: maps latents to sources.
    :param encoder: encodes sources, with the width of ``target_decoder``.
    :param target_decoder: maps latents and encoded sources to targets.

    >>> from pyro_tkam.models import TKAM, PairGuide
    >>> model = TKAM.seq2seq(7, 9, max_source=5, max_target=6, latent_dim=3, width=8,
    ...     num_heads=2, context_widths=(8,))
    >>> source, target = model.generate(4)
    >>> source.shape, target.shape
    (torch.Size([4, 5]), torch.Size([4, 6]))
    >>> guide = PairGuide(model)
    >>> model.respond(source, guide, num=2).shape, model.search(source, guide).tokens.shape
    (torch.Size([2, 4, 6]), torch.Size([4, 5, 6]))
    """

    def __init__(
        self,
        prior: AutoregressivePrior,
        source_decoder: SequenceGenerator,
        encoder: SequenceEncoder,
        target_decoder: SequenceGenerator,
    ) -> None:
        function("prior", prior, "no arguments")
        for name, part, kind in (
            ("source_decoder", source_decoder, SequenceGenerator),
            ("encoder", encoder, SequenceEncoder),
            ("target_decoder", target_decoder, SequenceGenerator),
        ):
            instance(name, part, kind, f"a {kind.__name__}")
        super().__init__()
        self.prior = prior
        self.source_decoder = source_decoder
        self.encoder = encoder
        self.target_decoder = target_decoder

    def forward(
        self, source: Tensor | None = None, target: Tensor | None = None, size: int | None = None
    ) -> tuple[Tensor, ...]:
        """
        Run the generative process.

        :param source: a mini-batch of sources, integers of shape ``(batch, length)``, or None to
            draw both sequences.
        :param target: targets, of the same form; None for sources alone, with the model ``p(z)
            p(source | z)``.
        :param size: with ``source``, the length of the whole data set, which sets the scale of the
            plate; without, the number of rows to draw.
        :return: the sequences that are observed or drawn, padded with 0 to the longest lengths.
        :raises ValueError: for targets without sources or with another number of rows, sequences
            that are too long, symbols outside the alphabet, and a missing or too small ``size``.
        :raises TypeError: for symbols that are not integers.
        """
        tell_of_other_parameters(self)
        rows, size = check_sizes(source, size, data_name="source")
        source, target = self._checked(source, target)
        with pyro.plate("data", size, subsample=torch.arange(rows) if rows < size else None):
            z = pyro.sample("z", self.prior())
            drawn = source is None
            source = pyro.sample("source", EndedSequence(self.source_decoder, z), obs=source)
            if target is None and not drawn:
                return (source,)
            fn = EndedSequence(self.target_decoder, z, self.encoder(source))
            return source, pyro.sample("target", fn, obs=target)

    def _checked(
        self, source: Tensor | None, target: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Check sequences, and pad them to the longest lengths."""
        if source is None and target is not None:
            raise ValueError("target must be None without a source, got one")
        if target is not None:
            dense("target", target)
            if target.dim() != 2:
                raise ValueError(
                    f"target must have shape (batch, length), got {tuple(target.shape)}"
                )
        if source is not None and target is not None and len(target) != len(source):
            raise ValueError(
                f"target must have one row for each of {len(source)} sources, got {len(target)}"
            )
        return (
            checked_sequences("source", source, self.source_decoder),
            checked_sequences("target", target, self.target_decoder),
        )

    @torch.no_grad()
    def generate(self, num: int) -> tuple[Tensor, Tensor]:
        """
        Draw pairs of sequences: latents from the prior, then sources, then targets.

        :param num: number of pairs.
        :return: sources and targets, shapes ``(num, max_source)`` and ``(num, max_target)``.
        :raises ValueError: for fewer than one pair.
        """
        check_sizes(None, num, "num")
        with PYRO, poutine.block():
            source, target = self(size=num)
        return source, target

    @in_turn
    @torch.no_grad()
    @undone_by_errors()
    def respond(
        self,
        source: Tensor,
        guide: PairGuide,
        *,
        num: int = 1,
        num_beams: int | None = None,
        spread: bool = False,
    ) -> Tensor:
        """
        Draw targets in one pass: ``z ~ q(z | source)``, then decode.

        :param source: integers, shape ``(batch, length)``.
        :param guide: gives ``q(z | source)``.
        :param num: number of targets for each source.
        :param num_beams: None draws the symbols, too; otherwise only the latent is drawn, and a
            search with this many beams finds its most probable target.
        :param spread: whether the latents of one source lie apart: each is a draw of ``q(z |
            source)``, and together they have its mean, so that a few targets are less often alike.
            The draws are then not independent; see :func:`~pyro_tkam.ops.spread.spread_normals`.
        :return: integers of shape ``(num, batch, max_target)``.
        :raises TypeError: for a guide without ``posterior``, sources that are not integers, and
            ``spread`` with a posterior that is not Gaussian.
        :raises ValueError: for fewer than one target or beam, and sources that do not fit.
        """
        check_sizes(None, num, "num")
        flag("spread", spread)
        z, encoded = self._latents(source, guide, num, spread)
        if num_beams is None:
            return sample_ended(self.target_decoder, z, encoded)
        several = Encoded(
            encoded.features.expand(num, -1, -1, -1), encoded.mask.expand(num, -1, -1)
        )
        found = beam_search(self.target_decoder, z.unsqueeze(-2), several, num_beams)
        return found.tokens[..., 0, :]

    @in_turn
    @torch.no_grad()
    @undone_by_errors()
    def search(
        self, source: Tensor, guide: PairGuide, *, num_beams: int = 5, num_draws: int = 8
    ) -> Beams:
        """
        Search for the most probable targets, averaged over draws of ``q(z | source)``.

        :param source: integers, shape ``(batch, length)``.
        :param guide: gives ``q(z | source)``.
        :param num_beams: number of targets, and of prefixes that the search keeps.
        :param num_draws: number of draws of the latent over which probabilities are averaged; see
            :func:`~pyro_tkam.nn.beam_search`.
        :return: the best targets first, of shapes ``(batch, beams, max_target)`` and ``(batch,
            beams)``.
        """
        check_sizes(None, num_draws, "num_draws")
        z, encoded = self._latents(source, guide, num_draws)
        return beam_search(self.target_decoder, z.movedim(0, -2), encoded, num_beams)

    def _latents(
        self, source: Tensor, guide: PairGuide, num: int, spread: bool = False
    ) -> tuple[Tensor, Encoded]:
        if not hasattr(guide, "posterior"):
            raise TypeError(f"guide must be a PairGuide, got {type(guide).__name__}")
        dense("source", source)
        check_sizes(source, None, data_name="source")
        checked_sequences("source", source, self.source_decoder)
        with poutine.block():
            encoded = self.encoder(source)
            fn = guide.posterior(encoded)
            if not spread:
                return fn.sample((num,)), encoded
            gaussian = fn.base_dist if isinstance(fn, Independent) else fn
            instance("guide's posterior", gaussian, Normal, "Gaussian with spread=True")
            return gaussian.loc + gaussian.scale * spread_normals(num, gaussian.loc), encoded


def checked_sequences(
    name: str, tokens: Tensor | None, decoder: SequenceGenerator
) -> Tensor | None:
    """
    Check sequences against a decoder's alphabet, and pad them to its longest length.

    :param name: name of the argument, for the error.
    :param tokens: integers, shape ``(batch, length)``, or None.
    :param decoder: the decoder that scores the sequences.
    """
    if tokens is None:
        return None
    dense(name, tokens)
    if tokens.dim() != 2:
        raise ValueError(f"{name} must have shape (batch, length), got {tuple(tokens.shape)}")
    check_symbols(name, tokens, decoder.num_classes)
    tokens, lengths = until_end(tokens)
    longest = tokens.shape[-1] if tokens.shape[-1] <= decoder.max_length else int(lengths.max())
    if longest > decoder.max_length:
        raise ValueError(f"{name} must have at most {decoder.max_length} symbols, got {longest}")
    return padded(tokens, decoder.max_length)
