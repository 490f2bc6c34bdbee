"""
Three ways to run a model at many positions, behind one interface, and how one of them is chosen.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pyro
import torch
from torch import Tensor

from pyro_tkam.infer.model.attempt import attempt
from pyro_tkam.infer.model.evaluate import LogTerms, ModelTerms

_CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-4, "equal_nan": True}

One = Callable[[Tensor], Any]
"""From one position to a tensor, or a tuple or dictionary of some."""


class Runner:
    """Runs a model at positions ``(rows, *local, dim)``.

    :param terms: the model.
    """

    name: ClassVar[str]

    def __init__(self, terms: ModelTerms) -> None:
        self.terms = terms

    def log_terms(self, position: Tensor) -> LogTerms:
        """Return log prior and log likelihood, each ``(rows, *local)``."""
        result: LogTerms = self._run(self.terms.one, self.terms.plated, position)
        return result

    def site_terms(self, position: Tensor) -> dict[str, Tensor]:
        """Return the log density of each site, unsummed, each ``(rows, *batch)``."""
        terms = self.terms
        result: dict[str, Tensor] = self._run(terms.unsummed, terms.plated_unsummed, position)
        return result

    def values(self, position: Tensor) -> dict[str, Tensor]:
        """Return the values of the latent sites, each ``(rows, *site shape)``."""
        terms = self.terms
        result: dict[str, Tensor] = self._run(terms.values, terms.plated_values, position)
        return result

    def draw_prior(self, normal: Tensor) -> Tensor:
        """
        Draw positions from the prior.

        :param normal: standard normal; used as it is where that is the prior of the coordinates.
        """
        terms = self.terms
        result: Tensor = self._run(terms.draw_prior, terms.plated_draw_prior, normal)
        return result

    @abstractmethod
    def _run(self, one: One, plated: One, position: Tensor) -> Any:
        """Run, by a function of one position or by one of all of them under an outer plate."""


class VmapRunner(Runner):
    """Runs under ``torch.func.vmap``: any model without branches on its values."""

    name = "vmap"

    def _run(self, one: One, plated: One, position: Tensor) -> Any:
        return vmapped(one, position)


class PlateRunner(Runner):
    """Runs under an outer plate: any model whose batch dimensions are all declared by plates."""

    name = "plate"

    def _run(self, one: One, plated: One, position: Tensor) -> Any:
        return plated(position)


class LoopRunner(Runner):
    """Runs one position after another: any model, slowly; the measure of the others."""

    name = "loop"

    def _run(self, one: One, plated: One, position: Tensor) -> Any:
        return looped(one, position)


RUNNERS: dict[str, type[Runner]] = {
    each.name: each for each in (VmapRunner, PlateRunner, LoopRunner)
}


def vmapped(one: One, rows: Tensor) -> Any:
    """Run at all rows by ``torch.func.vmap``, each with random numbers of its own."""
    with pyro.validation_enabled(False):
        return torch.func.vmap(one, randomness="different")(rows)


def looped(one: Callable[[Any], Any], rows: Tensor | dict[str, Tensor]) -> Any:
    """Run at one row after another, and stack what comes out."""
    if isinstance(rows, Tensor):
        return _stacked([one(row) for row in rows])
    each = zip(*rows.values(), strict=True)
    return _stacked([one(dict(zip(rows, row, strict=True))) for row in each])


def _stacked(results: list[Any]) -> Any:
    first = results[0]
    if isinstance(first, dict):
        return {name: _stacked([each[name] for each in results]) for name in first}
    if isinstance(first, tuple):
        return tuple(_stacked(list(column)) for column in zip(*results, strict=True))
    return torch.stack(results)


def choose_runner(terms: ModelTerms, preferred: Sequence[str] = ("vmap", "plate")) -> Runner:
    """Return the first runner that gives one of several positions the terms of a single run.

    :param terms: the model.
    :param preferred: names of the runners to try, in order.
    :raises ValueError: if the model gives other values when it is run again.
    """
    position = terms.positions_to_compare()
    expected = terms.first_terms(position[0])
    for name in preferred:
        runner = RUNNERS[name](terms)
        if agrees(runner, position, expected):
            return runner
    if not _agree(terms.one(position[0]), expected):
        raise ValueError(
            "model gives another log density at the same values of its latent sites; "
            "it must not draw random numbers outside pyro.sample"
        )
    return LoopRunner(terms)


def agrees(runner: Runner, position: Tensor, expected: LogTerms) -> bool:
    """Tell whether a runner gives the first of several positions these terms."""
    got = attempt(lambda: runner.log_terms(position))
    return got is not None and _agree((got[0][0], got[1][0]), expected)


def prior_runner(runner: Runner) -> Runner:
    """Return a runner that can draw from the prior, of a model that another one evaluates."""
    terms = runner.terms
    position = terms.positions_to_compare()
    plated = PlateRunner(terms)
    if agrees(plated, position, terms.first_terms(position[0])):
        return plated
    # Some distributions can't be drawn from under vmap.
    drawn = attempt(lambda: runner.draw_prior(torch.randn_like(position)))
    return LoopRunner(terms) if drawn is None else runner


def _agree(values: LogTerms, expected: LogTerms) -> bool:
    return all(
        got.shape == wanted.shape and torch.allclose(got, wanted, **_CLOSE)
        for got, wanted in zip(values, expected, strict=True)
    )
