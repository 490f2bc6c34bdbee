"""Penalties on functions, from a configuration."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pyro_tkam.models import JointPrior, LatentGenerator
from pyro_tkam.nn import KAN, KANEdges, UnivariateFunctions
from pyro_tkam.train.config import PenaltyConfig

NUM_INPUTS = 100
"""Number of standard normal inputs at which the edges of networks are measured."""


def make_penalty(config: PenaltyConfig, model: nn.Module) -> Callable[[nn.Module], Tensor] | None:
    """
    Make the penalty of a run, or None if all weights are 0.

    Networks read latents that are standardized under the reference, so their edges are measured at
    standard normal inputs.

    :param config: the weights.
    :param model: the model, which must have the penalized functions.
    :raises ValueError: for a weight on functions that the model does not have.
    """
    energies = _weights(config, "energy")
    generator = _weights(config, "generator")
    if any(energies.values()) and not any(True for _ in _energies(model)):
        raise ValueError(
            "penalty.energy_* must be 0 for a prior without energies that are functions, got "
            f"{energies}"
        )
    if any(generator.values()) and not any(True for _ in _networks(model)):
        raise ValueError(
            f"penalty.generator_* must be 0 for a generator that is no KAN, got {generator}"
        )
    if not any((*energies.values(), *generator.values())):
        return None

    def penalty(model: nn.Module) -> Tensor:
        total = torch.zeros(())
        if any(energies.values()):
            total = total + sum(_of(part, energies) for part in _energies(model))
        if any(generator.values()):
            total = total + sum(_of(part, generator) for part in _networks(model))
        return total

    return penalty


def _weights(config: PenaltyConfig, part: str) -> dict[str, float]:
    return {name: getattr(config, f"{part}_{name}") for name in ("l1", "entropy", "smoothness")}


def _energies(model: Any) -> Iterator[UnivariateFunctions | KAN]:
    """Iterate over the prior's banks of energies, or over the network of a joint energy."""
    if isinstance(model.prior, JointPrior):
        yield from (part for part in [model.prior.energy] if isinstance(part, KAN))
        return
    for part in model.prior.modules():
        if isinstance(part, UnivariateFunctions) and not isinstance(part, KANEdges):
            yield part


def _networks(model: nn.Module) -> Iterator[KAN]:
    """Iterate over the networks that read latents."""
    for part in model.modules():
        if isinstance(part, LatentGenerator) and isinstance(part.outer, KAN):
            yield part.outer


def _of(part: UnivariateFunctions | KAN, weights: dict[str, float]) -> Tensor:
    samples = None
    if isinstance(part, KAN):
        first = part.layers[0]
        samples = torch.randn(NUM_INPUTS, first.in_features).to(first.coefficients)
    penalty: Callable[..., Tensor] = part.regularization
    return penalty(samples, **weights)
