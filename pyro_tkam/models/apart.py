"""Models whose data cannot be coupled by their shapes, whatever the number of data."""

from typing import Any

from pyro.nn import PyroModule
from pyro.nn.module import PyroModuleList
from torch import nn

from pyro_tkam.models.kart import KARTGenerator, LatentGenerator
from pyro_tkam.models.likelihood import (
    BernoulliLikelihood,
    ContinuousBernoulliLikelihood,
    GaussianLikelihood,
)
from pyro_tkam.models.prior import JointPrior, MixturePrior, TiltedPrior
from pyro_tkam.nn import KAN, AutoregressivePrior, KANLayer, UnivariateFunctions
from pyro_tkam.nn.basis import Basis
from pyro_tkam.nn.context import ContextNetwork, MaskedLinear

GENERATORS = {LatentGenerator: 1, KARTGenerator: 2}
"""Number of dimensions of one datum's latents that a generator maps to one datum."""
LIKELIHOODS = (GaussianLikelihood, BernoulliLikelihood, ContinuousBernoulliLikelihood)
"""Those whose datum has as many dimensions as its location."""
ON_THE_LAST_DIMENSION = frozenset(
    {
        *(*GENERATORS, TiltedPrior, MixturePrior, JointPrior, AutoregressivePrior),
        *(KAN, KANLayer, UnivariateFunctions, Basis, ContextNetwork, MaskedLinear),
        *(nn.Linear, nn.LayerNorm, nn.Identity, nn.Sequential, nn.ModuleList),
        *(nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.GELU, nn.Tanh, nn.Sigmoid, nn.Softplus),
        *(PyroModule[nn.LayerNorm], PyroModuleList),
    }
)
"""Modules that act on each element or on the last dimension, besides what a generator sums."""


def dims_apart(prior: Any, generator: Any, likelihood: Any) -> int | None:
    """
    Return the number of dimensions of one datum's latents for which a model's parts keep data
    apart; None if their shapes leave it open.

    The generator maps these dimensions, and no others, to those of one datum, and the likelihood
    takes as many as one datum has.

    :param prior: module that returns the prior.
    :param generator: module from latents to locations.
    :param likelihood: module from locations to a distribution of data.
    """
    dims = GENERATORS.get(type(generator))
    known = (
        dims is not None
        and isinstance(prior, nn.Module)
        and type(likelihood) in LIKELIHOODS
        and likelihood.event_dim == len(generator.data_shape)
        and all(
            type(module) in ON_THE_LAST_DIMENSION
            for part in (prior, generator)
            for module in part.modules()
        )
    )
    return dims if known else None
