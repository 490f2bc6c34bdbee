"""Optima at which climbs end, from prior draws and from lines through known optima."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_tkam.infer.model.attempt import attempt
from pyro_tkam.infer.model.summands import OneSummand
from pyro_tkam.infer.posterior.lines import lines_through, rises_between
from pyro_tkam.infer.posterior.optima import (
    MOST_STEPS,
    NARROW,
    RULE_OF_THREE,
    UNLIKE,
    Optima,
    find_optima,
    none_of,
)
from pyro_tkam.infer.posterior.target import PosteriorTarget, ReferenceDraws
from pyro_tkam.ops.climb import climb

CLIMB_SHARE = 0.2
"""Most of what is left of a budget that a batch of climbs takes."""

MOST_CLIMBS = 2**14
BATCH = 2048
CLIMB_SECONDS = 1.0
WIDE_SHARE = 0.04
"""How many prior draws climb in all where that takes few seconds and little of the budget."""

FEWEST = 16
GROWTH = 4
"""Climbs of a batch: how few are worth it, and how many times as many as before."""

LARGEST_WIDENED = 20
"""Dimensions up to which more climbs than the first may find another basin."""

SUMMAND_STARTS = 8
SUMMAND_SHARE = 0.005
"""Climbs by a choice of summands, and most of what is left of a budget that they take."""

MOST_SCREENED = 2**18
SCREEN_SECONDS = 2.0
SCREEN_SHARE = 0.1
EXPLAINED = 2.0
"""Most prior draws, seconds and share of the budget to look for narrow modes
where known ones have different widths; nats by which a draw's density may exceed theirs."""

MOST_LINED = 2
LINE_STARTS = 64
SCREEN_STARTS = 64


@dataclass(frozen=True)
class _Pace:
    """What some climbs cost.

    :param climbs: how many there were.
    :param seconds: seconds for the density, as counted by the target.
    :param evaluations: evaluations of the density and its gradient.
    """

    climbs: int
    seconds: float
    evaluations: int

    def affords(self, seconds: float, evaluations: float) -> float:
        """Return how many climbs these seconds and evaluations allow."""
        return self.climbs * min(seconds / self.seconds, evaluations / self.evaluations)


class Climbs:
    """Climbs from prior draws, each of which climbs once.

    :param target: the posterior.
    :param draws: prior draws.
    :param seconds_a_draw: seconds per prior draw, including its density.
    :ivar optima: where climbs ended so far.
    :ivar explained: how many prior draws without a climb are no denser than the known modes
        explain.
    """

    def __init__(
        self, target: PosteriorTarget, draws: ReferenceDraws, seconds_a_draw: float
    ) -> None:
        self.target = target
        self.draws = draws
        self.seconds_a_draw = seconds_a_draw
        self.optima = none_of(target.dim)
        self.explained = 0
        self._pace = _Pace(0, 1.0, 1)
        self._climbed = draws.log_weights == -torch.inf
        self._impossible = int(self._climbed.sum())
        possible = draws.positions[~self._climbed].double()
        spread = possible.std(0, correction=0)
        self._center = possible.mean(0)
        self._scale = torch.where(spread.isfinite() & (spread > 0), spread, 1.0)

    def __len__(self) -> int:
        """How many prior draws have been starts of a climb."""
        return int(self._climbed.sum()) - self._impossible

    @property
    def num_seen(self) -> int:
        """How many prior draws would have shown another mode by lying in its basin."""
        return len(self) + self.explained

    def climb(self, rows: Tensor) -> Optima:
        """Climb from some of the prior draws, and return the optima that are new."""
        rows = rows[~self._climbed[rows]]
        self._climbed[rows] = True
        begin = self.target.seconds
        spent = self.target.budget.spent
        new = self._add(self._ends(self.draws.positions[rows]))
        seconds = self.target.seconds - begin
        evaluations = self.target.budget.spent - spent
        self._pace = _Pace(len(rows), max(seconds, 1e-6), max(evaluations, 1))
        return new

    def widen(self) -> None:
        """Climb from peaks on lines, and from many more prior draws where that is cheap."""
        if self.target.dim > LARGEST_WIDENED or not len(self):
            return
        budget = self.target.budget
        begin = self.target.seconds
        end = budget.spent + WIDE_SHARE * budget.left
        for location in self.optima.location[:MOST_LINED]:
            names = self.target.density.layout.names
            lines = lines_through(location, self._center, self._scale, names)
            points = lines.shape[0] * lines.shape[1]
            affordable = min(CLIMB_SECONDS / self.seconds_a_draw, end - budget.spent)
            if points <= affordable:
                self._add(self._from_lines(lines.to(self.target.dtype)))
        while True:
            seconds = CLIMB_SECONDS - (self.target.seconds - begin)
            climbs = self._pace.affords(seconds, end - budget.spent)
            num = int(min(climbs, GROWTH * self._pace.climbs, BATCH, MOST_CLIMBS - len(self)))
            rows = (~self._climbed).nonzero().squeeze(-1)[: max(0, num)]
            if len(rows) < FEWEST:
                break
            self.climb(rows)

    def divide(self) -> None:
        """
        Climb with only one summand of each sum of densities in the model, and then continue with
        all: next to a wide peak, the basin of a narrow one may contain no prior draw.
        """
        starts = self.draws.positions[self.draws.log_weights > -torch.inf][:SUMMAND_STARTS]
        most = self.target.budget.affords(MOST_STEPS, each=len(starts), share=SUMMAND_SHARE)
        if self.target.dim > LARGEST_WIDENED or not len(starts) or most == 0:
            return
        summand = OneSummand()
        evaluate = self.target.of_summand(summand)
        if attempt(lambda: evaluate(starts)) is None:
            return
        begin = self.target.seconds
        for turn in range(summand.num_turns):
            if self.target.seconds - begin > CLIMB_SECONDS:
                break
            summand.turn = turn
            ends = attempt(lambda: climb(evaluate, starts, self._scale, most))
            if ends is not None:
                self._add(self._ends(ends.position).without_hits())

    def screen(self) -> None:
        """
        Search more prior draws for narrow modes if the widths of the known modes differ greatly.

        A draw in the basin of an unknown mode is denser than the known modes explain; climbs start
        at such draws. All others are explained.
        """
        wanted = math.ceil(RULE_OF_THREE * NARROW**self.target.dim)
        if self.optima.unlikeness < UNLIKE or wanted > MOST_SCREENED:
            return
        most = self.target.budget.affords(MOST_SCREENED, share=SCREEN_SHARE)
        self._explain(self.draws.positions[~self._climbed], self.draws.log_joint[~self._climbed])
        begin = self.target.seconds
        while (left := SCREEN_SECONDS - (self.target.seconds - begin)) > 0 and most > 0:
            num = min(most, wanted - self.num_seen)
            if num <= 0:
                break
            drawn = self.target.draw(num, left)
            most -= len(drawn.positions)
            self._explain(drawn.positions, drawn.log_joint)

    def _explain(self, positions: Tensor, log_joint: Tensor) -> None:
        """
        Climb from the draws with the largest excess density; then count the draws that known modes
        explain. A draw that is as dense as a mode predicts lies in its basin.
        """
        excess = log_joint - self.optima.log_joint(positions).logsumexp(0)
        starts = excess.topk(min(SCREEN_STARTS, len(excess))).indices
        starts = starts[excess[starts] > EXPLAINED]
        if len(starts):
            self._add(self._ends(positions[starts]).without_hits())
        each = self.optima.log_joint(positions)
        excess = log_joint - each.logsumexp(0)
        self.explained += int((excess <= EXPLAINED).sum())
        self.optima = self.optima.hit_by(each[:, excess.abs() <= EXPLAINED].argmax(0))

    def _from_lines(self, lines: Tensor) -> Optima:
        """
        Return the optima to which peaks on lines lead; they count as without hits by prior draws.
        """
        values = self.target.log_joint(lines.flatten(0, 1)).unflatten(0, lines.shape[:2])
        peak = rises_between(values)
        starts = lines[peak]
        heights = values[peak]
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
