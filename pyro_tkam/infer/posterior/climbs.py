"""Optima that climbs from prior draws, and from lines through known optima, end at."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from pyro_tkam.infer.posterior.lines import lines_through, rises_between
from pyro_tkam.infer.posterior.optima import MOST_STEPS, Optima, find_optima, none_of
from pyro_tkam.infer.posterior.target import PosteriorTarget, ReferenceDraws

CLIMB_SHARE = 0.2
"""Most of what is left of a budget that a batch of climbs takes."""

MOST_CLIMBS, BATCH, CLIMB_SECONDS, WIDE_SHARE = 2**14, 2048, 1.0, 0.04
"""How many prior draws climb in all where that takes few seconds and little of the budget."""

LARGEST_WIDENED = 20
"""Dimensions up to which more climbs than the first may find another basin."""

MOST_LINED, LINE_STARTS = 2, 64
LINES_SHARE = 0.05


class Climbs:
    """Climbs from prior draws, each of which climbs once.

    :param target: the posterior.
    :param draws: prior draws.
    :ivar optima: where climbs ended so far.
    """

    def __init__(self, target: PosteriorTarget, draws: ReferenceDraws) -> None:
        self.target, self.draws = target, draws
        self.optima = none_of(target.dim)
        self._climbed = draws.log_weights == -torch.inf
        self._impossible = int(self._climbed.sum())
        possible = draws.positions[~self._climbed].double()
        spread = possible.std(0, correction=0)
        self._center = possible.mean(0)
        self._scale = torch.where(spread.isfinite() & (spread > 0), spread, 1.0)

    def __len__(self) -> int:
        """How many prior draws climbed."""
        return int(self._climbed.sum()) - self._impossible

    def climb(self, rows: Tensor) -> Optima:
        """Climb from some of the prior draws, and return the optima that are new."""
        rows = rows[~self._climbed[rows]]
        self._climbed[rows] = True
        return self._add(self._ends(self.draws.positions[rows]))

    def widen(self) -> None:
        """Climb from peaks on lines, and from many more prior draws where that is cheap."""
        if self.target.dim > LARGEST_WIDENED:
            return
        budget = self.target.budget
        for location in self.optima.location[:MOST_LINED]:
            lines = lines_through(
                location, self._center, self._scale, self.target.density.layout.names
            )
            if budget.affords(lines[..., 0].numel(), share=LINES_SHARE) == lines[..., 0].numel():
                self._add(self._from_lines(lines.to(self.target.dtype)))
        begin, end = time.process_time(), budget.spent + WIDE_SHARE * budget.left
        rows = (~self._climbed).nonzero().squeeze(-1)[: MOST_CLIMBS - len(self)]
        for batch in rows.split(BATCH):
            if time.process_time() - begin > CLIMB_SECONDS or budget.spent > end:
                break
            self.climb(batch)

    def _from_lines(self, lines: Tensor) -> Optima:
        """Return the optima above the peaks of lines; no hits of prior draws."""
        values = self.target.log_joint(lines.flatten(0, 1)).unflatten(0, lines.shape[:2])
        peak = rises_between(values)
        starts, heights = lines[peak], values[peak]
        away = (self.optima.distance(starts) > self.optima.reach).all(0)
        highest = heights[away].topk(min(LINE_STARTS, int(away.sum()))).indices
        found = self._ends(starts[away][highest])
        return found.without_hits()

    def _ends(self, starts: Tensor) -> Optima:
        if not len(starts):
            return none_of(self.target.dim)
        most = self.target.budget.affords(MOST_STEPS, each=len(starts), share=CLIMB_SHARE)
        return find_optima(self.target, starts, self._scale, most)

    def _add(self, found: Optima) -> Optima:
        new = self.optima.beyond(found)
        self.optima = self.optima.joined(found)
        return new
