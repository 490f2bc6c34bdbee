"""A Gaussian likelihood in the units of the data for a generator in standardized units."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyro_tkam._checks import sizes
from pyro_tkam.distributions import IsotropicNormal
from pyro_tkam.models.likelihood import GaussianLikelihood
from pyro_tkam.ops._arguments import dense, finite


class StandardizedNormal(IsotropicNormal):
    """
    ``x = shift + factor · y``, where ``y`` is an :class:`~pyro_tkam.distributions.IsotropicNormal`.

    :param loc: location of ``y``, shape ``(*batch, *event)``.
    :param scale: scale of ``y``.
    :param shift: the shift, which broadcasts to ``event``.
    :param factor: the factor, positive, which broadcasts to ``event``.
    :param event_dim: number of event dimensions.
    """

    def __init__(
        self, loc: Tensor, scale: Tensor, shift: Tensor, factor: Tensor, event_dim: int = 1
    ) -> None:
        super().__init__(loc, scale, event_dim)
        self.shift = shift.to(loc.dtype)
        self.factor = factor.to(loc.dtype)

    @property
    def mean(self) -> Tensor:
        """Shape ``(*batch, *event)``, in the units of the data."""
        return self.shift + self.factor * super().mean

    @property
    def variance(self) -> Tensor:
        """Shape ``(*batch, *event)``, in the units of the data."""
        return self.factor.square() * super().variance

    def expand(self, batch_shape: Any, _instance: Any = None) -> "StandardizedNormal":
        """
        Return the distribution with a larger batch shape; nothing is copied.

        :param batch_shape: shape to which ``batch_shape`` broadcasts.
        """
        new: StandardizedNormal = self._get_checked_instance(StandardizedNormal, _instance)
        new.shift = self.shift
        new.factor = self.factor
        super().expand(batch_shape, new)
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        """
        Return the log density, in the units of the data.

        :param value: shape ``(*sample, *batch, *event)``, or a shape that broadcasts against it.
        """
        volume = self.factor.log().expand(self.event_shape).sum()
        return super().log_prob((value - self.shift) / self.factor) - volume

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """
        Draw events.

        :param sample_shape: shape of independent draws.
        """
        return self.shift + self.factor * super().rsample(sample_shape)


class StandardizedLikelihood(GaussianLikelihood):
    r"""
    ``x = m + s (x̃ + σ ε)``: the generator works in standardized units, everything else in the
    units of the data.

    Rows of features have a mean ``m`` and a standard deviation ``s`` for each feature; images and
    other arrays have one of each, because the noise is the same in all their elements. A constant
    feature keeps its unit (``s = 1``). A guide network for the model reads standardized data.

    :param noise_scale: ``σ``, in units of ``s``.
    :param data_shape: shape of one datum.
    :param learned: make ``noise_scale`` a parameter, initialized at this value.

    >>> likelihood = StandardizedLikelihood(0.5, (2,))
    >>> likelihood.fit(torch.tensor([[10.0, 3.0], [30.0, 5.0]]))
    >>> likelihood(torch.zeros(4, 2)).mean[0]
    tensor([20.,  4.])
    """

    shift: Tensor
    factor: Tensor

    def __init__(
        self, noise_scale: float, data_shape: Sequence[int], *, learned: bool = False
    ) -> None:
        data_shape = sizes("data_shape", data_shape)
        if not data_shape:
            raise ValueError("data_shape must have at least one dimension, got ()")
        super().__init__(noise_scale, len(data_shape), learned=learned)
        self.data_shape = data_shape
        size = data_shape if len(data_shape) == 1 else ()
        self.register_buffer("shift", torch.zeros(size))
        self.register_buffer("factor", torch.ones(size))

    @torch.no_grad()
    def fit(self, rows: Tensor) -> None:
        """
        Set the mean and the standard deviation to those of data.

        :param rows: data, shape ``(num, *data_shape)``, at least two rows.
        :raises TypeError: for anything but a tensor of numbers.
        :raises ValueError: for fewer rows, another shape, NaN and infinities.
        """
        dense("rows", rows)
        if rows.shape[1:] != self.data_shape:
            raise ValueError(
                f"rows must have shape (num, {', '.join(map(str, self.data_shape))}), got "
                f"{tuple(rows.shape)}"
            )
        if len(rows) < 2:
            raise ValueError(f"rows must hold at least 2 rows to standardize, got {len(rows)}")
        finite("rows", rows)
        over = tuple(range(rows.dim() - self.shift.dim()))
        mean = rows.double().mean(over)
        deviation = rows.double().std(over, correction=0)
        self.shift.copy_(mean)
        self.factor.copy_(torch.where(deviation > 0, deviation, 1.0))

    def forward(self, location: Tensor) -> StandardizedNormal:
        """
        Return the distribution of data around a location.

        :param location: the generator's output ``x̃``, shape ``(*batch, *event)``.
        """
        scale = self.noise_scale.to(location.dtype)
        return StandardizedNormal(location, scale, self.shift, self.factor, self.event_dim)


class Standardize(nn.Module):
    """
    The map from data to standardized units, the first layer of a guide network.

    :param likelihood: the likelihood that defines the units.
    """

    shift: Tensor
    factor: Tensor

    def __init__(self, likelihood: StandardizedLikelihood) -> None:
        super().__init__()
        self.register_buffer("shift", likelihood.shift.clone())
        self.register_buffer("factor", likelihood.factor.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(x - m) / s``."""
        return (x - self.shift) / self.factor
