"""An ensemble that is tempered from a reference to the posterior: where chains start."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from pyro_tkam.infer.mcmc.chains import Chains, Mover
from pyro_tkam.infer.mcmc.metric import LARGEST_DENSE, FramedTarget, Metric, estimated
from pyro_tkam.infer.mcmc.path import Path
from pyro_tkam.infer.mcmc.step_size import StepSizeSearch, step_size_rate
from pyro_tkam.infer.model.coordinates import around_mean
from pyro_tkam.infer.model.cost import seconds_of
from pyro_tkam.ops.annealing import log_weight_increments, next_temperature
from pyro_tkam.ops.langevin import Point, StepInfo, Target, Tuning
from pyro_tkam.ops.resampling import systematic
from pyro_tkam.ops.shrinkage import effective_rows

POPULATIONS = 4
"""Groups between which nothing is resampled, so that they may disagree."""

MOVES = 3
MOST_RUNGS = 300
REFERENCE_FACTOR = 4
"""Draws from the reference for each row of the ensemble."""

MOST_REFERENCE_DRAWS = 1_000_000
MOST_REFERENCE_SECONDS = 10.0  # that evaluations take
FEWEST_FOUND = 8


class EnsembleMover(Protocol):
    """What moves an ensemble: a kernel whose step size follows an acceptance rate."""

    target_accept_prob: float
    initial_step_size: float

    def step(
        self, point: Point, target: Target, tuning: Tuning, adjusted: bool
    ) -> tuple[Point, StepInfo]:
        """Make a step of all rows."""


@dataclass
class EnsembleState:
    """Where a tempered ensemble is, after a whole number of rungs.

    :param t: inverse temperature, ``(*local)``, in double precision.
    :param position: ``(rows, *local, dim)``.
    :param rest: log joint minus log reference there, ``(rows, *local)``.
    :param log_evidence: of each population, ``(populations, *local)``, in double precision.
    :param ancestors: number of the reference draw each row descends from, ``(rows, *local)``.
    :param metric: of the rows.
    :param step_size: in that metric, ``(*local)``.
    :param rungs: temperatures so far.
    :param gradients: of each row so far.
    """

    t: Tensor
    position: Tensor
    rest: Tensor
    log_evidence: Tensor
    ancestors: Tensor
    metric: Metric
    step_size: Tensor
    rungs: int = 0
    gradients: int = 0


@dataclass(frozen=True)
class Rung:
    """What an ensemble found at a temperature.

    :param t: inverse temperature, ``(*local)``.
    :param metric: of its rows.
    :param step_size: in that metric, ``(*local)``.
    """

    t: Tensor
    metric: Metric
    step_size: Tensor


class TemperedEnsemble:
    """Sequential Monte Carlo from a reference to the posterior (Del Moral, Doucet and Jasra 2006).

    Each rung raises ``t`` until the effective sample size of the incremental weights is the wanted
    share of the rows, resamples within populations, takes the metric from the rows, and moves them
    by a few steps with an adapting step size. Temperature, metric and step size are shared; with
    local plates each datum has its own.

    The reference is drawn until four times as many rows as wanted have a finite density. Where
    draws of the prior find none, the reference is ``N(0, 2²)`` of all coordinates.

    :param mover: moves the rows.
    :param path: from the reference to the posterior.
    :param rows: size of the ensemble, a multiple of four.
    :param ess_threshold: the share, in (0, 1).
    :param schedule: what a run before found at each rung, to be used as it is: then the estimate of
        the evidence is unbiased.
    """

    def __init__(
        self,
        mover: EnsembleMover,
        path: Path,
        rows: int,
        ess_threshold: float = 0.5,
        schedule: Sequence[Rung] | None = None,
    ) -> None:
        self.mover = mover
        self.path = path
        self.rows = rows
        self.ess_threshold = ess_threshold
        self.schedule = schedule
        self.num_populations = POPULATIONS if schedule is None else 1
        self.search = StepSizeSearch(mover.target_accept_prob)
        self.dense = not path.layout.local_shape and path.layout.dim <= LARGEST_DENSE
        self._state: EnsembleState | None = None

    @property
    def state(self) -> EnsembleState:
        """Where it is."""
        if self._state is None:
            raise RuntimeError("rung() must be called first: there is no state yet")
        return self._state

    @property
    def done(self) -> bool:
        """Whether every datum is at the posterior."""
        return self._state is not None and bool((self._state.t >= 1).all())

    @property
    def log_evidence(self) -> Tensor:
        """Log evidence ``(*local)``: consistent, and biased low as the rows tune themselves."""
        each = self.state.log_evidence
        return each.logsumexp(0) - math.log(len(each))

    @property
    def populations(self) -> Tensor:
        """Number of the population of each row, ``(rows,)``."""
        each = torch.arange(self.num_populations, device=self.state.position.device)
        return each.repeat_interleave(self.rows // self.num_populations)

    def rung(self) -> None:
        """Raise the temperature, resample, and move; the first time, draw the reference before.

        :raises ValueError: after 300 rungs, or if no draw of the reference has a finite density; it
            names the site.
        """
        if self._state is None:
            self._state = self._draw_reference()
        state = self._state
        if state.rungs == MOST_RUNGS:
            raise ValueError(
                f"model must have a posterior that {MOST_RUNGS} tempered steps from its prior "
                f"can reach, got stuck at t = {state.t.min():.3g}; use narrower priors"
            )
        if self.schedule is None:
            t = next_temperature(state.rest, state.t, self.ess_threshold)
        else:
            t = self.schedule[state.rungs].t
        self._resample(log_weight_increments(state.rest, t - state.t))
        state.t = t
        if self.schedule is None:
            effective = self._effective_rows()
            state.metric = estimated(state.position, effective, state.metric, self.dense)
        else:
            state.metric = self.schedule[state.rungs].metric
            state.step_size = self.schedule[state.rungs].step_size
        self._move()
        state.rungs += 1

    @property
    def found(self) -> Rung:
        """What it found at the last rung."""
        return Rung(self.state.t, self.state.metric, self.state.step_size)

    def chains(self, kernel: Mover, warmup_steps: int) -> Chains:
        """Return chains that go on from all rows at the posterior."""
        state = self.state
        target = self.path.at(torch.ones_like(state.t))
        point = target.point(state.position)
        chains = Chains.begin(kernel, target, point, warmup_steps, state.metric)
        chains.tuning = Tuning(state.step_size, state.metric.scale)
        return chains

    def _resample(self, log_weights: Tensor) -> None:
        state = self.state
        by_population = log_weights.unflatten(0, (self.num_populations, -1)).movedim(1, -1)
        size = by_population.shape[-1]
        state.log_evidence = state.log_evidence + by_population.logsumexp(-1) - math.log(size)
        chosen = systematic(by_population, self.rows // self.num_populations).movedim(-1, 1)
        offset = size * torch.arange(self.num_populations, device=chosen.device)
        rows = (chosen + offset.reshape(-1, *(1,) * (chosen.ndim - 1))).flatten(0, 1)
        position = state.position.take_along_dim(rows.unsqueeze(-1), 0)
        state.position = around_mean(position, self.path.layout.periods)
        state.ancestors = state.ancestors.take_along_dim(rows, 0)

    def _effective_rows(self) -> float:
        return max(2.0, effective_rows(self.state.position)) if self.dense else float(self.rows)

    def _move(self) -> None:
        state = self.state
        frame = state.metric.frame
        target = FramedTarget(self.path.at(state.t), frame)
        point = target(frame.inner(state.position))
        state.gradients += 1
        self.search.restart()
        for _ in range(MOVES):
            tuning = Tuning(state.step_size, state.metric.scale)
            point, info = self.mover.step(point, target, tuning, True)
            if self.schedule is None:
                rate = step_size_rate(info)
                state.step_size = self.search.update(state.step_size, rate, tried=info.step_size[0])
            state.gradients += int(info.row_evaluations.max())
        state.position = frame.outer(point.position)
        state.rest = point.parts[1]

    def _draw_reference(self) -> EnsembleState:
        """Draw rows with finite density, from the prior or else around 0."""
        found, offense = self._found_by_reference()
        if found is None and not self.path.density.starts_normal:
            self.path = self.path.from_normal()
            found, _ = self._found_by_reference()
        if found is None:
            raise ValueError(
                f"model must have a finite density at {FEWEST_FOUND} or more {offense}"
            )
        return found

    def _found_by_reference(self) -> tuple[EnsembleState | None, str]:
        """Draw rows with finite density, in the order of drawing, or tell why there are few."""
        wanted = REFERENCE_FACTOR * self.rows
        seconds = 0.0
        kept: list[Point] = []
        flags: list[Tensor] = []
        while sum(len(each.position) for each in kept) < wanted:
            tried = self.rows * len(flags)
            if tried >= MOST_REFERENCE_DRAWS or seconds > MOST_REFERENCE_SECONDS:
                break
            begin = time.process_time()
            if len(flags) % REFERENCE_FACTOR == 0:
                drawn = self.path.density.sample_reference(wanted).split(self.rows)
            point = self.path.point(drawn[len(flags) % REFERENCE_FACTOR], torch.ones(()))
            seconds += seconds_of(self.path.cost, self.rows, begin)
            flags.append(_finite(point))
            kept.append(point.take(_of_all_data(flags[-1]).nonzero().squeeze(-1)))
        found = min(wanted, sum(len(each.position) for each in kept))
        found -= found % POPULATIONS
        if found < FEWEST_FOUND:
            worst = int(_of_all_data(flags[-1]).int().argmin())
            offense = self.path.density.offense(point.position[worst])
            return None, f"of {self.rows * len(flags)} draws of its prior, got {found}: {offense}"
        finite = torch.cat(flags)
        # Drawing ends at a row that is finite for all data: without it, the shares are unbiased.
        before = int(torch.searchsorted(_of_all_data(finite).cumsum(0), found))
        state = self._first_state(
            kept[0].map(lambda *each: torch.cat(each)[:found], *kept[1:]),
            finite[:before].double().mean(0).log(),
            len(flags),
        )
        return state, ""

    def _first_state(self, point: Point, log_share: Tensor, batches: int) -> EnsembleState:
        found, *local = point.log_density.shape
        device = point.position.device
        zeros = torch.zeros(local, dtype=torch.float64, device=device)
        numbers = torch.arange(found, device=device).reshape(-1, *(1,) * len(local))
        return EnsembleState(
            t=zeros,
            position=point.position,
            rest=point.parts[1],
            log_evidence=zeros.expand(self.num_populations, *local) + log_share,
            ancestors=numbers.expand(found, *local),
            metric=Metric.identity(point.position[0]),
            step_size=point.log_density.new_full(local, self.mover.initial_step_size),
            gradients=batches,
        )

    def save(self) -> dict[str, Any]:
        """Return numbers and tensors from which to go on."""
        if self._state is None:
            return {}
        return vars(self._state) | {
            "metric": self._state.metric.state(),
            "from_normal": self.path.density.starts_normal,
        }

    def load(self, saved: dict[str, Any]) -> None:
        """Go on from what :meth:`save` returned."""
        if not saved:
            return
        state = saved | {"metric": Metric.of_state(saved["metric"])}
        if state.pop("from_normal") and not self.path.density.starts_normal:
            self.path = self.path.from_normal()
        self._state = EnsembleState(**state)


def _finite(point: Point) -> Tensor:
    """Tell of each row and datum, ``(rows, *local)``, whether everything about it is finite."""
    return torch.isfinite(point.log_density + point.gradient.sum(-1))


def _of_all_data(flags: Tensor) -> Tensor:
    """Tell which rows are flagged for all data."""
    return flags.reshape(len(flags), -1).all(-1)
