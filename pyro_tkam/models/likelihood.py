"""Distributions of data given the generator's output."""

from typing import ClassVar

import torch
from pyro.nn import PyroModule, PyroParam
from torch import Tensor
from torch.distributions import constraints

from pyro_tkam._checks import flag, length, whole_number
from pyro_tkam.distributions import (
    IsotropicNormal,
    PairwiseBernoulli,
    PairwiseCategorical,
    PairwiseContinuousBernoulli,
)
from pyro_tkam.ops._arguments import floating


class Likelihood(PyroModule):
    """
    A map from the generator's output to a distribution of data.

    :param event_dim: number of dimensions of one datum.
    :raises ValueError: for a negative number.
    """

    #: whether data are integers; otherwise they have the dtype of the output
    takes_integers: ClassVar[bool] = False

    def __init__(self, event_dim: int = 1) -> None:
        super().__init__()
        self.event_dim = whole_number("event_dim", event_dim, 0)

    def noiseless(self, output: Tensor) -> Tensor:
        """
        Return data without the likelihood's noise: their mean.

        :param output: the generator's output.
        :return: shape ``(*batch, *event)``.
        """
        return self(output).mean

    def expected(self, output: Tensor) -> Tensor:
        """
        Return the quantity to average over latents: a mean, or the probabilities of symbols.

        :param output: the generator's output.
        :return: shape ``(*batch, *event)``, plus a last dimension of classes for symbols.
        """
        return self(output).mean


class GaussianLikelihood(Likelihood):
    """
    ``x = x̃ + σ ε`` with standard normal noise in every element.

    See Raj 2025, arXiv:2506.14167, Eq. 20.

    :param noise_scale: the standard deviation ``σ``, in units of the data.
    :param event_dim: number of dimensions of one datum, at least 1.
    :param learned: make ``noise_scale`` a parameter, initialized at this value.
    :raises ValueError: for a scale that is not positive and finite, and for data without a
        dimension.

    >>> GaussianLikelihood(0.5)(torch.zeros(4, 3)).event_shape
    torch.Size([3])
    """

    noise_scale: Tensor

    def __init__(
        self, noise_scale: float = 1.0, event_dim: int = 1, *, learned: bool = False
    ) -> None:
        whole_number("event_dim", event_dim, 1)
        length("noise_scale", noise_scale)
        flag("learned", learned)
        super().__init__(event_dim)
        if learned:
            self.noise_scale = PyroParam(torch.tensor(float(noise_scale)), constraints.positive)
        else:
            self.register_buffer("noise_scale", torch.tensor(float(noise_scale)))

    def forward(self, location: Tensor) -> IsotropicNormal:
        """
        Return the distribution of data around a location.

        :param location: the generator's output ``x̃``, shape ``(*batch, *event)``.
        """
        return IsotropicNormal(location, self.noise_scale.to(location.dtype), self.event_dim)


class BernoulliLikelihood(Likelihood):
    """
    Bits with probabilities ``sigmoid(output)``.

    :param event_dim: number of dimensions of one datum.

    >>> BernoulliLikelihood()(torch.zeros(4, 3)).mean[0]
    tensor([0.5000, 0.5000, 0.5000])
    """

    def forward(self, logits: Tensor) -> PairwiseBernoulli:
        """
        Return the distribution of data.

        :param logits: the generator's output, shape ``(*batch, *event)``; it needs no output
            activation.
        """
        return PairwiseBernoulli(logits, self.event_dim)


class ContinuousBernoulliLikelihood(Likelihood):
    """
    Values in [0, 1] with a continuous Bernoulli distribution with these logits.

    :param event_dim: number of dimensions of one datum.

    >>> ContinuousBernoulliLikelihood()(torch.zeros(4, 3)).mean[0]
    tensor([0.5000, 0.5000, 0.5000])
    """

    def forward(self, logits: Tensor) -> PairwiseContinuousBernoulli:
        """
        Return the distribution of data.

        :param logits: the generator's output, shape ``(*batch, *event)``; it needs no output
            activation.
        """
        return PairwiseContinuousBernoulli(logits, self.event_dim)


class CategoricalLikelihood(Likelihood):
    """
    A symbol at each position with probabilities ``softmax(output)``; with ``event_dim=0``, a single
    label.

    :param event_dim: number of dimensions of one datum.

    >>> CategoricalLikelihood()(torch.zeros(4, 3, 7)).event_shape
    torch.Size([3])
    """

    takes_integers = True

    def forward(self, logits: Tensor) -> PairwiseCategorical:
        """
        Return the distribution of data.

        :param logits: the generator's output, shape ``(*batch, *event, num_classes)``.
        """
        return PairwiseCategorical(logits, self.event_dim)

    def noiseless(self, output: Tensor) -> Tensor:
        """
        Return the most probable symbols.

        :param output: the generator's output.
        :return: integers of shape ``(*batch, *event)``.
        """
        return self._logits(output).argmax(-1)

    def expected(self, output: Tensor) -> Tensor:
        """
        Return the probabilities of the symbols.

        :param output: the generator's output.
        :return: shape ``(*batch, *event, num_classes)``.
        """
        return self._logits(output).softmax(-1)

    def _logits(self, output: Tensor) -> Tensor:
        floating("output", output)
        if output.dim() <= self.event_dim or output.shape[-1] == 0:
            event = "*event, " if self.event_dim else ""
            raise ValueError(
                f"output must have shape (*batch, {event}num_classes), got {tuple(output.shape)}"
            )
        return output
