"""Distributions of data around the generator's output."""

import math

import torch
from pyro.nn import PyroModule
from torch import Tensor

from pyro_tkam.distributions import IsotropicNormal


class GaussianLikelihood(PyroModule):
    """
    ``x = x̃ + σ ε`` with standard normal noise in every element (Raj 2025, arXiv:2506.14167, Eq. 20).

    :param noise_scale: the standard deviation ``σ``, in units of the data.
    :param event_dim: number of dimensions of one datum.
    :raises ValueError: for a scale that is not positive and finite.

    >>> GaussianLikelihood(0.5)(torch.zeros(4, 3)).event_shape
    torch.Size([3])
    """

    noise_scale: Tensor

    def __init__(self, noise_scale: float = 1.0, event_dim: int = 1) -> None:
        super().__init__()
        if not (noise_scale > 0 and math.isfinite(noise_scale)):
            raise ValueError(f"noise_scale: got {noise_scale}, takes a positive finite number")
        self.event_dim = event_dim
        self.register_buffer("noise_scale", torch.tensor(float(noise_scale)))

    def forward(self, location: Tensor) -> IsotropicNormal:
        """
        Return the distribution of data around a location.

        :param location: the generator's output ``x̃``, shape ``(*batch, *event)``.
        """
        return IsotropicNormal(location, self.noise_scale.to(location.dtype), self.event_dim)
