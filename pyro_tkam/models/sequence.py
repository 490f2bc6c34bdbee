"""Sequences given a latent: the distribution of an autoregressive decoder."""

from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from pyro_tkam._checks import instance, whole_number
from pyro_tkam.models.likelihood import Likelihood
from pyro_tkam.nn import SequenceGenerator
from pyro_tkam.ops._arguments import finite, floating, shape
from pyro_tkam.ops._points import expanded_shape
from pyro_tkam.ops._precision import at_least_single


def check_decoder(decoder: Any, z: Any, name: str = "z") -> None:
    """
    Check that an object is a decoder and that it can read the latents.

    :param decoder: the value of the argument ``decoder``.
    :param z: latents.
    :param name: name of the latents, for the error.
    :raises TypeError: for other types.
    :raises ValueError: for another shape.
    """
    instance("decoder", decoder, SequenceGenerator, "a SequenceGenerator")
    floating(name, z)
    if z.shape[-1:] != (decoder.latent_dim,):
        raise ValueError(
            f"{name} must have shape (*batch, {decoder.latent_dim}), got {tuple(z.shape)}"
        )


class DecodedSequence(TorchDistribution):
    """
    Sequences from a decoder, ``log p(x | z) = Σ_t log p(x_t | x_{<t}, z)``.

    Scoring takes one pass over all positions. Sampling proceeds token by token, with a cache.

    :param decoder: the decoder.
    :param z: latents, shape ``(*batch, Q)``.
    :param length: number of tokens per event; None takes the decoder's ``max_length``.

    >>> decoder = SequenceGenerator(3, num_classes=7, max_length=5, width=8, num_heads=2,
    ...     num_layers=1)
    >>> fn = DecodedSequence(decoder, torch.randn(4, 1, 3))
    >>> fn.event_shape, fn.expand((4, 2)).log_prob(torch.zeros(2, 5, dtype=torch.int64)).shape
    (torch.Size([5]), torch.Size([4, 2]))
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(self, decoder: SequenceGenerator, z: Tensor, length: int | None = None) -> None:
        check_decoder(decoder, z)
        longest = decoder.max_length
        if length is not None and whole_number("length", length, 1) > longest:
            raise ValueError(f"length must be at most {longest}, the decoder's, got {length}")
        self.decoder = decoder
        self.z = z
        event = torch.Size([longest if length is None else length])
        super().__init__(z.shape[:-1], event, validate_args=False)

    @constraints.dependent_property(is_discrete=True)
    def support(self) -> constraints.Constraint:
        """Sequences of integers from 0 to one less than the size of the alphabet."""
        return constraints.independent(
            constraints.integer_interval(0, self.decoder.num_classes - 1), 1
        )

    def expand(self, batch_shape: Any, _instance: Any = None) -> "DecodedSequence":
        """
        Return the distribution with a larger batch shape; nothing is copied.

        :param batch_shape: shape to which ``batch_shape`` broadcasts.
        :raises ValueError: for any other shape.
        """
        batch_shape = expanded_shape(self.batch_shape, batch_shape)
        new: DecodedSequence = self._get_checked_instance(DecodedSequence, _instance)
        new.decoder = self.decoder
        new.z = self.z
        super(DecodedSequence, new).__init__(batch_shape, self.event_shape, validate_args=False)
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        """
        Return the log probability of sequences.

        :param value: integers, shape ``(*sample, *batch, length)``, or a shape that broadcasts
            against it.
        :return: shape ``(*sample, *batch)``, in nats per sequence.
        :raises ValueError: for sequences longer than the decoder's, and tokens outside its
            alphabet.
        :raises TypeError: for tokens that are not integers.
        """
        log_probs = at_least_single(self.decoder(self.z, value)).log_softmax(-1)
        tokens = value.expand(log_probs.shape[:-1]).unsqueeze(-1)
        log_prob = log_probs.gather(-1, tokens).sum((-1, -2))
        return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """
        Draw sequences.

        :param sample_shape: shape of independent draws.
        :return: integers of shape ``(*sample_shape, *batch, length)``.
        """
        z = self.z.expand(
            shape("sample_shape", sample_shape) + self.batch_shape + self.z.shape[-1:]
        )
        return self.decoder.sample(z, self.event_shape[0])


class SequenceLikelihood(Likelihood):
    """
    Sequences from a decoder that attends to the latent and reads the tokens before each position.

    In a ``TKAM``, use ``torch.nn.Identity()`` as the generator, because the decoder needs the
    latent itself and also reads data.

    :param decoder: the decoder.

    >>> likelihood = SequenceLikelihood(SequenceGenerator(3, 7, 5, width=8, num_heads=2,
    ...     num_layers=1))
    >>> likelihood.noiseless(torch.randn(2, 3)).shape
    torch.Size([2, 5])
    """

    takes_integers = True

    def __init__(self, decoder: SequenceGenerator) -> None:
        instance("decoder", decoder, SequenceGenerator, "a SequenceGenerator")
        super().__init__(event_dim=1)
        self.decoder = decoder

    def forward(self, z: Tensor) -> DecodedSequence:
        """
        Return the distribution of sequences.

        :param z: latents, shape ``(*batch, Q)``.
        """
        return DecodedSequence(self.decoder, z)

    def noiseless(self, output: Tensor) -> Tensor:
        """
        Draw sequences, because they have no mean.

        :param output: latents, shape ``(*batch, Q)``.
        :return: integers of shape ``(*batch, max_length)``.
        """
        check_decoder(self.decoder, output, "output")
        finite("output", output)
        return self(output).sample()

    def expected(self, output: Tensor) -> Tensor:
        """
        Raise an error: each token of a sequence depends on earlier tokens, so there is no mean.

        :param output: latents.
        :raises NotImplementedError: always.
        """
        raise NotImplementedError(
            "SequenceLikelihood: a text has no mean; draw texts with complete instead"
        )
