"""Data that a generator cannot reach."""

import warnings
from typing import Any

from torch import Tensor

from pyro_tkam.models.likelihood import GaussianLikelihood
from pyro_tkam.ops._concrete import is_concrete


def tell_of_values_out_of_reach(
    generator: Any, likelihood: Any, x: Tensor, name: str = "x"
) -> None:
    """
    Warn of data outside [0, 1] if the mean of a Gaussian likelihood ends in a sigmoid.

    :param generator: maps latents to means of data.
    :param likelihood: the likelihood around its output; others have a range of their own.
    :param x: data; with those of missing rows, which are zero.
    :param name: of the data.
    """
    network = getattr(generator, "outer", generator)
    ends_in_sigmoid = getattr(network, "ends_in_sigmoid", False)
    if not ends_in_sigmoid or type(likelihood) is not GaussianLikelihood or not is_concrete(x):
        return
    low, high = float(x.min()), float(x.max())
    if low < 0 or high > 1:
        warnings.warn(
            f"{name} has values from {low:.4g} to {high:.4g}, which the generator cannot reach, as "
            "it ends in a sigmoid: make the model with output='none'",
            stacklevel=2,
        )
