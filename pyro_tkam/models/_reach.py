"""Data that a generator and its noise cannot reach."""

import math
import warnings
from typing import Any

from torch import Tensor

from pyro_tkam.models.likelihood import GaussianLikelihood
from pyro_tkam.ops._concrete import is_concrete

TAIL = 12.0
"""A model's own draws are told with a probability of 2 exp(-12) at most."""


def tell_of_values_out_of_reach(
    generator: Any, likelihood: Any, x: Tensor, name: str = "x"
) -> None:
    """
    Warn of data that spread further than a model with a sigmoid can generate.

    If the means of a Gaussian likelihood are in [0, 1], the mean of ``(x - 1/2)²`` is at most ``1/4
    + σ²``, up to the noise of ``N`` values: by more than ``2 σ² (√(t/N) + t/N) + σ √(2t/N)`` with a
    probability of ``2 exp(-t)`` at most (Laurent and Massart 2000, Lemma 1).

    :param generator: maps latents to means of data.
    :param likelihood: the likelihood around its output; others have a range of their own.
    :param x: data.
    :param name: of the data.
    """
    network = getattr(generator, "outer", generator)
    ends_in_sigmoid = getattr(network, "ends_in_sigmoid", False)
    if not ends_in_sigmoid or type(likelihood) is not GaussianLikelihood or not is_concrete(x):
        return
    scale = likelihood.noise_scale.detach()
    if not is_concrete(scale):
        return
    noise = float(scale)
    tail = TAIL / x.numel()
    most = 0.25 + noise**2 * (1 + 2 * math.sqrt(tail) + 2 * tail) + noise * math.sqrt(2 * tail)
    if float((x.detach() - 0.5).square().mean()) > most:
        warnings.warn(
            f"{name} has values from {float(x.min()):.4g} to {float(x.max()):.4g}, further from "
            "[0, 1] than a generator that ends in a sigmoid reaches with noise of scale "
            f"{noise:.3g}: make the model with output='none'",
            stacklevel=2,
        )
