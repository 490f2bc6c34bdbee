"""
Three ways to run a model at many positions, behind one interface, and how one of them is chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import pyro
import torch
from torch import Tensor

from pyro_tkam.infer.model.attempt import attempt
from pyro_tkam.infer.model.evaluate import ModelTerms


class Runner(Protocol):
    """Runs a model at positions ``(rows, *local, dim)``."""

    name: str

    def __init__(self, terms: ModelTerms) -> None: ...

    def log_terms(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Return log prior and log likelihood, each ``(rows, *local)``."""

    def values(self, position: Tensor) -> dict[str, Tensor]:
        """Return the values of the latent sites, each ``(rows, *site shape)``."""


class VmapRunner:
    """Runs under ``torch.func.vmap``: any model without enumeration or branches on its values."""

    name = "vmap"

    def __init__(self, terms: ModelTerms) -> None:
        self.terms = terms

    def log_terms(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Return log prior and log likelihood."""
        with pyro.validation_enabled(False):
            return torch.func.vmap(self.terms.one)(position)

    def values(self, position: Tensor) -> dict[str, Tensor]:
        """Return the values of the latent sites."""
        with pyro.validation_enabled(False):
            return torch.func.vmap(self.terms.values)(position)


class PlateRunner:
    """Runs under an outer plate: any model whose batch dimensions are all declared by plates."""

    name = "plate"

    def __init__(self, terms: ModelTerms) -> None:
        self.terms = terms

    def log_terms(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Return log prior and log likelihood."""
        return self.terms.plated(position)

    def values(self, position: Tensor) -> dict[str, Tensor]:
        """Return the values of the latent sites."""
        return self.terms.plated_values(position)

    def draw_prior(self, normal: Tensor) -> Tensor:
        """Draw positions from the prior."""
        return self.terms.plated_draw_prior(normal)


class LoopRunner:
    """Runs one position after another: any model, slowly; the measure of the others."""

    name = "loop"

    def __init__(self, terms: ModelTerms) -> None:
        self.terms = terms

    def log_terms(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Return log prior and log likelihood."""
        priors, likelihoods = zip(*[self.terms.one(each) for each in position], strict=True)
        return torch.stack(priors), torch.stack(likelihoods)

    def values(self, position: Tensor) -> dict[str, Tensor]:
        """Return the values of the latent sites."""
        runs = [self.terms.values(each) for each in position]
        return {name: torch.stack([run[name] for run in runs]) for name in runs[0]}

    def draw_prior(self, normal: Tensor) -> Tensor:
        """Draw positions from the prior."""
        return torch.stack([self.terms.draw_prior(each) for each in normal])


RUNNERS: dict[str, type[Runner]] = {
    each.name: each for each in (VmapRunner, PlateRunner, LoopRunner)
}


def choose_runner(
    terms: ModelTerms, position: Tensor, preferred: Sequence[str] = ("vmap", "plate")
) -> Runner:
    """Return the first runner that agrees with the loop.

    :param terms: the model.
    :param position: where to compare, ``(rows, *local, dim)``.
    :param preferred: names of the runners to try, in order.
    :raises ValueError: if the model gives other values when it is run again.
    """
    loop = LoopRunner(terms)
    if not _agree(loop.log_terms(position), loop.log_terms(position)):
        raise ValueError(
            "model must give the same log density at the same values of its latent sites, got "
            "another; it must not draw random numbers outside pyro.sample"
        )
    batched = (RUNNERS[name](terms) for name in preferred)
    return next((runner for runner in batched if works(runner, loop, position)), loop)


def works(runner: Runner, loop: Runner, position: Tensor) -> bool:
    """Tell whether a runner gives the loop's values."""
    return attempt(lambda: _agree(runner.log_terms(position), loop.log_terms(position))) or False


def _agree(values: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> bool:
    return all(
        a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-4, equal_nan=True)
        for a, b in zip(values, expected, strict=True)
    )
