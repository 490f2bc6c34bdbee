"""An ensemble that is tempered from a reference to the posterior: where chains start."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from pyro_tkam.infer.mcmc.chains import Chains, Mover
from pyro_tkam.infer.mcmc.ensemble_metric import LARGEST_DENSE, Metric, estimated
from pyro_tkam.infer.mcmc.metric import FramedTarget
from pyro_tkam.infer.mcmc.path import Path
from pyro_tkam.infer.mcmc.step_size import StepSizeSearch, joint_acceptance
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
MOST_REFERENCE_SECONDS = 10.0


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


class TemperedEnsemble:
    """Sequential Monte Carlo from a reference to the posterior (Del Moral, Doucet and Jasra 2006).

    Each rung raises ``t`` until the effective sample size of the incremental weights is the wanted
    share of the rows, resamples within populations, takes the metric from the rows, and moves them
    by a few steps with an adapting step size. Temperature, metric and step size are shared; with
    local plates each datum has its own.

    The reference is drawn until four times as many rows as wanted have a finite density.

    :param mover: moves the rows.
    :param path: from the reference to the posterior.
    :param rows: size of the ensemble, a multiple of four.
    :param ess_threshold: the share, in (0, 1).
    """

    def __init__(
        self, mover: EnsembleMover, path: Path, rows: int, ess_threshold: float = 0.5
    ) -> None:
        self.mover, self.path, self.rows, self.ess_threshold = mover, path, rows, ess_threshold
        self.search = StepSizeSearch(mover.target_accept_prob)
        self.dense = not path.layout.local_shape and path.layout.dim <= LARGEST_DENSE
        self._state: EnsembleState | None = None

    @property
    def state(self) -> EnsembleState:
        """Where it is."""
        if self._state is None:
            raise RuntimeError("rung() must be called before there is a state")
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
        each = torch.arange(POPULATIONS, device=self.state.position.device)
        return each.repeat_interleave(self.rows // POPULATIONS)

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
                f"model must have a posterior that {MOST_RUNGS} tempered steps reach from its "
                f"prior, got stuck at t = {state.t.min():.3g}; use narrower priors"
            )
        t = next_temperature(state.rest, state.t, self.ess_threshold)
        self._resample(log_weight_increments(state.rest, t - state.t))
        state.t = t
        state.metric = estimated(state.position, self._effective_rows(), state.metric, self.dense)
        self._move()
        state.rungs += 1

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
        by_population = log_weights.unflatten(0, (POPULATIONS, -1)).movedim(1, -1)
        size = by_population.shape[-1]
        state.log_evidence = state.log_evidence + by_population.logsumexp(-1) - math.log(size)
        chosen = systematic(by_population, self.rows // POPULATIONS).movedim(-1, 1)
        offset = size * torch.arange(POPULATIONS, device=chosen.device)
        rows = (chosen + offset.reshape(-1, *(1,) * (chosen.ndim - 1))).flatten(0, 1)
        state.position = state.position.take_along_dim(rows.unsqueeze(-1), 0)
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
            rate = joint_acceptance(info.acceptance_rate)
            state.step_size = self.search.update(state.step_size, rate)
            state.gradients += int(info.row_evaluations.max())
        state.position, state.rest = frame.outer(point.position), point.parts[1]

    def _draw_reference(self) -> EnsembleState:
        kept: list[Point] = []
        found = drawn = 0
        begin = time.monotonic()
        while found < REFERENCE_FACTOR * self.rows:
            point = self.path.point(self.path.density.sample_reference(self.rows), torch.ones(()))
            finite = _finite(point)
            kept.append(point.take(finite.nonzero().squeeze(-1)))
            found, drawn = found + int(finite.sum()), drawn + self.rows
            over = time.monotonic() - begin > MOST_REFERENCE_SECONDS
            if (over or drawn >= MOST_REFERENCE_DRAWS) and found < self.rows:
                raise ValueError(
                    f"model must have a finite density at some of {drawn} draws of its prior, got "
                    f"{found}: {self.path.density.offense(point.position[int(finite.argmin())])}"
                )
            if over or drawn >= MOST_REFERENCE_DRAWS:
                break
        found -= found % POPULATIONS
        found = min(found, REFERENCE_FACTOR * self.rows)
        point = kept[0].map(lambda *each: torch.cat(each)[:found], *kept[1:])
        local = point.log_density.shape[1:]
        share = math.log((found - 1) / (drawn - 1)) if drawn > found else 0.0
        one = point.log_density.new_full(local, self.mover.initial_step_size)
        zeros = torch.zeros(local, dtype=torch.float64, device=one.device)
        numbers = torch.arange(found, device=one.device).reshape(-1, *(1,) * len(local))
        return EnsembleState(
            t=zeros,
            position=point.position,
            rest=point.parts[1],
            log_evidence=zeros.expand(POPULATIONS, *local) + share,
            ancestors=numbers.expand(found, *local),
            metric=Metric.identity(point.position[0]),
            step_size=one,
            gradients=-(-drawn // self.rows),
        )

    def save(self) -> dict[str, Any]:
        """Return numbers and tensors from which to go on."""
        if self._state is None:
            return {}
        return vars(self._state) | {"metric": self._state.metric.state()}

    def load(self, saved: dict[str, Any]) -> None:
        """Go on from what :meth:`save` returned."""
        if saved:
            self._state = EnsembleState(**(saved | {"metric": Metric.of_state(saved["metric"])}))


def _finite(point: Point) -> Tensor:
    """Tell of each row whether everything about it is finite."""
    whole = point.log_density + point.gradient.sum(-1)
    return torch.isfinite(whole).reshape(len(whole), -1).all(-1)
