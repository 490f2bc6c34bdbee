"""
Three ways to run a model at many positions, with one interface, and the choice between them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyro
import torch
from torch import Tensor

from pyro_tkam.infer.model.attempt import attempt
from pyro_tkam.infer.model.evaluate import LogTerms, ModelTerms, are_close
from pyro_tkam.ops._precision import in_full_precision

One = Callable[[Tensor], Any]
"""From one position to a tensor, or a tuple or dictionary of some."""


@dataclass(frozen=True)
class KnownTerms:
    """Two terms of a log density that have already been evaluated, with their gradients.

    :param position: positions of the evaluation, ``(rows, *local, dim)``.
    :param terms: returns the terms there, as a run of the model would, differentiable in the
        position.
    """

    position: Tensor
    terms: Callable[[Tensor], LogTerms]

    @staticmethod
    def of(position: Tensor, terms: LogTerms) -> KnownTerms | None:
        """Keep values and gradients of terms that depend on a position; None if not all finite."""
        known = [(term.detach(), gradient(term, position)) for term in terms]
        at = position.detach()
        if not _all_finite(known):
            return None

        def again(position: Tensor) -> LogTerms:
            moved = position - at
            first, second = (value + (moved * slope).sum(-1) for value, slope in known)
            return first, second

        return KnownTerms(at, again)


class Runner:
    """Runs a model at positions ``(rows, *local, dim)``.

    :param terms: the model.
    :ivar known: the results of the run in which it was compared with a single run, if they were
        kept.
    """

    name: ClassVar[str]

    def __init__(self, terms: ModelTerms) -> None:
        self.terms = terms
        self.known: KnownTerms | None = None

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
        """
        Run with a function of one position, or with a function of all positions under an outer
        plate.
        """


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
    """
    Runs one position after another: any model, but slowly; the other runners are checked against
    it.
    """

    name = "loop"

    def _run(self, one: One, plated: One, position: Tensor) -> Any:
        return looped(one, position)


RUNNERS: dict[str, type[Runner]] = {
    each.name: each for each in (VmapRunner, PlateRunner, LoopRunner)
}


def vmapped(one: One, rows: Tensor) -> Any:
    """Run at all rows with ``torch.func.vmap``, with different random numbers for each row."""
    with pyro.validation_enabled(False):
        return torch.func.vmap(one, randomness="different")(rows)


Rows = dict[str, Tensor]


def at_all_rows(
    one: Callable[[Rows], Rows], rows: Rows, all_at_once: Callable[[Rows], Rows] | None = None
) -> Rows:
    """
    Run at all rows at once; if that fails or gives different values for the first row, run row by
    row.

    :param one: function of one row of each tensor.
    :param rows: tensors with equal numbers of rows.
    :param all_at_once: function of all rows; None takes ``torch.func.vmap`` of ``one``.
    """
    first = one({name: value[0] for name, value in rows.items()})
    run = torch.func.vmap(one) if all_at_once is None else all_at_once
    batched = attempt(lambda: run(rows))
    if batched is not None and all(
        are_close(batched[name][0], value) for name, value in first.items()
    ):
        return batched
    others = zip(*(value[1:] for value in rows.values()), strict=True)
    rest = [one(dict(zip(rows, row, strict=True))) for row in others]
    return {name: torch.stack([each[name] for each in (first, *rest)]) for name in first}


def looped(one: Callable[[Any], Any], rows: Tensor | dict[str, Tensor]) -> Any:
    """Run at one row after another, and stack the results."""
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


def choose_runner(
    terms: ModelTerms, preferred: Sequence[str] = ("vmap", "plate"), *, keep: bool = False
) -> Runner:
    """Return the first runner whose terms at one of several positions equal those of a single run.

    :param terms: the model.
    :param preferred: names of the runners to try, in order.
    :param keep: keep the terms and their gradients at these positions.
    :raises ValueError: if the model gives other values when it is run again.
    """
    position = terms.positions_to_compare()
    expected = terms.first_terms(position[0])
    if (runner := _agreeing(terms, preferred, position, expected, keep)) is not None:
        return runner
    again = terms.one(position[0])
    if _agree(again, expected):
        return LoopRunner(terms)
    if not _agree(terms.one(position[0]), again):
        raise ValueError(
            "model gives a different log density at the same values of its latent sites; it "
            "must not draw random numbers outside pyro.sample"
        )
    # The first run's values don't survive rounding in the coordinates, as near a support's bound.
    return _agreeing(terms, preferred, position, again, keep) or LoopRunner(terms)


def _agreeing(
    terms: ModelTerms, names: Sequence[str], position: Tensor, expected: LogTerms, keep: bool
) -> Runner | None:
    """Return the first runner that gives these terms at the first position; None if none does."""
    runners = (RUNNERS[name](terms) for name in names)
    return next((each for each in runners if agrees(each, position, expected, keep=keep)), None)


def agrees(runner: Runner, position: Tensor, expected: LogTerms, *, keep: bool = False) -> bool:
    """Tell whether a runner gives these terms at the first of several positions.

    :param keep: keep its terms and their gradients.
    """
    with torch.set_grad_enabled(keep or torch.is_grad_enabled()):
        position = position.detach().requires_grad_(keep)
        got = attempt(lambda: runner.log_terms(position))
        if got is None or not _agree((got[0][0], got[1][0]), expected):
            return False
        if keep:
            runner.known = attempt(lambda: KnownTerms.of(position, got))
    return True


def _all_finite(values: list[tuple[Tensor, Tensor]]) -> bool:
    return all(each.isfinite().all() for pair in values for each in pair)


@in_full_precision
def gradient(value: Tensor, position: Tensor) -> Tensor:
    """Return the gradient of each row's value; zero where it doesn't depend on the position."""
    if not value.requires_grad:
        return torch.zeros_like(position)
    return torch.autograd.grad(value.sum(), position, retain_graph=True, materialize_grads=True)[0]


def first_prior_draws(runner: Runner, normal: Tensor) -> tuple[Runner, Tensor]:
    """
    Draw positions from the prior of a model that a runner evaluates.

    :param runner: the runner.
    :param normal: standard normal, as :meth:`Runner.draw_prior` takes it.
    :return: the runner that drew, for further draws, and the positions.
    """
    terms = runner.terms
    drawn = attempt(lambda: terms.compared_draws(normal))
    if drawn is not None:
        return PlateRunner(terms), drawn
    # Some distributions can't be sampled under vmap.
    drawn = attempt(lambda: runner.draw_prior(normal))
    if drawn is not None:
        return runner, drawn
    loop = LoopRunner(terms)
    return loop, loop.draw_prior(normal)


def _agree(values: LogTerms, expected: LogTerms) -> bool:
    return all(are_close(got, wanted) for got, wanted in zip(values, expected, strict=True))
