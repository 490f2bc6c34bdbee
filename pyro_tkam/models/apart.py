"""Models whose data cannot be coupled by their shapes, whatever the number of data."""

from typing import Any

from pyro.nn import PyroModule
from torch import Tensor, nn

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
PRIORS = (TiltedPrior, MixturePrior, AutoregressivePrior)
IN_PRIORS = frozenset(
    {*PRIORS, UnivariateFunctions, Basis, ContextNetwork, MaskedLinear, PyroModule[nn.ModuleList]}
)
"""Modules of priors whose batch and events show in a run of the model."""
IN_NETWORKS = frozenset(
    {
        *(KAN, KANLayer, Basis, PyroModule[nn.ModuleList], nn.Sequential),
        *(nn.Linear, nn.LayerNorm, PyroModule[nn.LayerNorm], nn.Identity),
        *(nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.GELU, nn.Tanh, nn.Sigmoid, nn.Softplus),
    }
)
"""Modules that map the last dimension, and leave those before it alone."""
DIMS: dict[Any, dict[str, tuple[int, ...]]] = {
    nn.Linear: {"weight": (2,), "bias": (1,)},
    KANLayer: {
        "coefficients": (3,),
        "scale": (2,),
        "base_weight": (2,),
        "mask": (2,),
        "bias": (1,),
    },
    Basis: {"width": (0,), "grid": (1, 2)},
}
"""Dimensions of what such modules hold; with others, they would add dimensions or drop some."""


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
        and type(likelihood) in LIKELIHOODS
        and likelihood.event_dim == len(generator.data_shape)
        and all(isinstance(each, int | float) for each in (generator.mean, generator.spread))
        and _maps_the_last_dimension(generator.outer)
        and _is_known(prior)
    )
    return dims if known else None


def _is_known(prior: Any) -> bool:
    if type(prior) is JointPrior:
        return _maps_the_last_dimension(prior.energy)
    return type(prior) in PRIORS and all(type(each) in IN_PRIORS for each in prior.modules())


def _maps_the_last_dimension(network: Any) -> bool:
    return isinstance(network, nn.Module) and all(
        type(module) in IN_NETWORKS and _has_usual_dims(module) for module in network.modules()
    )


def _has_usual_dims(module: nn.Module) -> bool:
    usual = DIMS.get(type(module), {})
    held = {name: getattr(module, name, None) for name in usual}
    return all(
        value is None or (isinstance(value, Tensor) and value.dim() in usual[name])
        for name, value in held.items()
    )
