"""Chains at all temperatures in one batch, under way."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pyro_tkam.infer.mcmc.adaptation import doubling_rounds, transient_steps
from pyro_tkam.infer.mcmc.chains import Mover
from pyro_tkam.infer.mcmc.initialization import find_start
from pyro_tkam.infer.model.coordinates import Chart
from pyro_tkam.infer.model.density import ModelDensity
from pyro_tkam.infer.tempering.schedule import Ladder
from pyro_tkam.ops.batched import AnyBatched
from pyro_tkam.ops.langevin import Point, StepInfo, Tuning, open_uniform
from pyro_tkam.ops.tempering import swap


class TemperedTarget:
    """``log π_t = log prior + t log likelihood`` of rows that have a temperature each.

    Its points carry log prior, log likelihood and their gradients, so that a state can change its
    temperature.

    :param density: the model's.
    :param betas: ``t`` of each row, ``(rows,)``.
    """

    def __init__(self, density: ModelDensity, betas: Tensor) -> None:
        self.density = density
        self.betas = betas.reshape(-1, *(1,) * len(density.layout.local_shape))

    def __call__(self, position: Tensor, rows: Tensor | None = None) -> Point:
        """Evaluate positions."""
        split = self.density.split(position)
        parts = (
            split.log_prior,
            split.log_likelihood,
            split.prior_gradient,
            split.likelihood_gradient,
        )
        return self.temper(position, parts, rows)

    def log_density(self, position: Tensor, rows: Tensor | None = None) -> Tensor:
        """Evaluate the log density alone."""
        log_prior, log_likelihood = self.density.split_values(position)
        return _combined(
            log_prior, log_likelihood, self.betas if rows is None else self.betas[rows]
        )

    def temper(
        self, position: Tensor, parts: tuple[Tensor, ...], rows: Tensor | None = None
    ) -> Point:
        """
        Combine the parts at the rows' temperatures; at ``t = 0`` the likelihood may be anything.
        """
        log_prior, log_likelihood, prior_gradient, likelihood_gradient = parts
        betas = self.betas if rows is None else self.betas[rows]
        log_density = _combined(log_prior, log_likelihood, betas)
        gradient = _combined(prior_gradient, likelihood_gradient, betas.unsqueeze(-1))
        return Point(position, log_density, gradient, parts)


def _combined(prior: Tensor, likelihood: Tensor, betas: Tensor) -> Tensor:
    return torch.where(betas > 0, torch.addcmul(prior, betas, likelihood), prior)


class _Start:
    """A density at which chains start, by the evaluations that tempering makes anyway."""

    def __init__(self, density: ModelDensity) -> None:
        self.density = density

    def draw_start(self, num: int) -> Tensor:
        """Draw positions as the density does."""
        return self.density.draw_start(num)

    def point(self, position: Tensor) -> Point:
        """Evaluate the joint density and its gradient."""
        split = self.density.split(position)
        return Point(
            position,
            split.log_prior + split.log_likelihood,
            split.prior_gradient + split.likelihood_gradient,
        )

    def offense(self, position: Tensor) -> str:
        """Say what isn't finite at one position."""
        return self.density.offense(position)


class TemperedChains:
    """Chains at all temperatures; rows are ordered by temperature, then by chain.

    Where the prior can be sampled, the rows at ``t = 0`` are drawn from it anew at each step; a
    kernel moves the others. Step sizes and scales are those of each temperature; chains share them.

    :param kernel: what moves them.
    :param density: what they sample.
    :param ladder: the temperatures.
    :param num_chains: chains at each temperature.
    :param warmup_steps: length of the warm-up.
    :param swap_every: number of steps between swaps.
    """

    #: what a state is made of
    entries = frozenset(
        {
            "index",
            "swaps",
            "evaluations",
            "dearest_step",
            "betas",
            "point",
            "replicas",
            "rejections",
            "tuning",
            "adaptation",
            "resultant",
        }
    )

    def __init__(
        self,
        kernel: Mover,
        density: ModelDensity,
        ladder: Ladder,
        num_chains: int,
        warmup_steps: int,
        swap_every: int,
    ) -> None:
        self.kernel = kernel
        self.density = density
        self.ladder = ladder
        self.num_chains = num_chains
        self.warmup_steps = warmup_steps
        self.swap_every = swap_every
        self.round_ends = doubling_rounds(warmup_steps)
        self.num_unadjusted = max(
            kernel.unadjusted_steps(warmup_steps), transient_steps(warmup_steps)
        )
        self.adaptation = kernel.adaptation(warmup_steps)
        self.index = 0
        self.swaps = 0
        betas = ladder.start()
        can_sample = density.can_sample_prior()
        self.exact_prior = can_sample and density.draws_prior_exactly()
        self.num_drawn = num_chains * self.exact_prior
        draw = density.sample_prior if can_sample else density.draw_start
        position = find_start(_Start(density), len(betas) * num_chains, draw).position
        self._set_betas(betas.to(position))
        self.point = self._target(position)
        self.evaluations: Tensor | int = 2 * len(position)  # one to find a start, one there
        self.dearest_step = torch.zeros((), dtype=torch.int64, device=position.device)
        self.set_tuning(
            kernel.tuning(self._by_chain(self.point.map(lambda each: each[self.num_drawn :])))
        )
        periods = density.layout.periods
        self._chart = None if periods is None else Chart(periods)
        rungs = torch.arange(len(betas), device=position.device).repeat_interleave(num_chains)
        ones = torch.ones_like(self.point.log_density, dtype=torch.int64)
        self.replicas = ones * rungs.reshape(-1, *(1,) * (ones.ndim - 1))
        self._forget_rejections()

    def step(self) -> StepInfo:
        """
        Move all rows by one step, swap neighbors and adapt; return the outcome at the moved rows.
        """
        moved, info = self._move()
        moved = self._turned(moved)
        if self.index < self.warmup_steps:
            by_chain = self._by_chain(info)
            positions = self._by_chain(moved).position
            self.set_tuning(self.adaptation.update(self.tuning, positions, by_chain))
        self.point = self._join(moved)
        self.evaluations = self.evaluations + info.total_evaluations
        self.dearest_step = torch.maximum(
            self.dearest_step, info.total_evaluations.long() + self.num_drawn
        )
        if (self.index + 1) % self.swap_every == 0:
            self._swap()
        self.index += 1
        if self.index in self.round_ends:
            self._new_round()
        return info

    def _move(self) -> tuple[Point, StepInfo]:
        start = (
            self.point.map(lambda each: each[self.num_drawn :]) if self.num_drawn else self.point
        )
        return self.kernel.step(
            start, self._moved_target, self._row_tuning, self.index >= self.num_unadjusted
        )

    def _turned(self, moved: Point) -> Point:
        """Turn angles towards those of all chains at their temperature."""
        if self._chart is None:
            return moved
        by_chain = self.by_rung(moved.position).transpose(0, 1)
        turned = self._chart.turned(by_chain).transpose(0, 1).flatten(0, 1)
        return replace(moved, position=turned)

    def _join(self, moved: Point) -> Point:
        if not self.num_drawn:
            return moved
        drawn = self._drawn_target(self.density.sample_prior(self.num_drawn))
        self.evaluations += self.num_drawn
        return drawn.map(lambda new, old: torch.cat([new, old]), moved)

    def _swap(self) -> None:
        log_likelihood = self.by_rung(self.point.parts[1])
        uniforms = open_uniform((len(self.betas) // 2, *log_likelihood.shape[1:]), log_likelihood)
        swapped = swap(log_likelihood, self.betas, uniforms, odd=bool(self.swaps % 2))
        position, *parts = (
            swapped.apply(self.by_rung(each)).flatten(0, 1)
            for each in (self.point.position, *self.point.parts)
        )
        self.point = self._target.temper(position, tuple(parts))
        self.replicas = swapped.apply(self.by_rung(self.replicas)).flatten(0, 1)
        self._accepted[swapped.lower] += swapped.acceptance_rate.flatten(1).mean(1)
        self._tried[swapped.lower] += 1
        self.swaps += 1

    def _new_round(self) -> None:
        if (self._tried > 0).all():
            self._set_betas(self.ladder.update(self.betas, 1 - self.swap_acceptance))
            self.point = self._target.temper(self.point.position, self.point.parts)
        self._forget_rejections()

    @property
    def swap_acceptance(self) -> Tensor:
        """
        Mean acceptance probability of each pair since the last round began, ``(temperature - 1,)``.
        """
        return self._accepted / self._tried.clamp_min(1)

    def by_rung(self, values: Tensor) -> Tensor:
        """View rows ``(temperature * chain, ...)`` as ``(temperature, chain, ...)``."""
        return values.unflatten(0, (-1, self.num_chains))

    def set_tuning(self, tuning: Tuning) -> None:
        """
        Set step sizes ``(rungs, *local)`` and scales ``(rungs, *local, dim)`` of the rungs that are
        moved.
        """
        self.tuning = tuning
        self._row_tuning = tuning.map(lambda each: each.repeat_interleave(self.num_chains, 0))

    def move_to(self, position: Tensor) -> None:
        """Set the state to positions ``(rows, *local, dim)``."""
        self.point = self._target(position)

    def state(self) -> dict[str, Any]:
        """Return numbers and tensors from which to go on."""
        return {
            "index": self.index,
            "swaps": self.swaps,
            "evaluations": int(self.evaluations),
            "dearest_step": int(self.dearest_step),
            "betas": self.betas,
            "point": [self.point.position, *self.point.parts],
            "replicas": self.replicas,
            "rejections": [self._accepted, self._tried],
            "tuning": [self.tuning.step_size, self.tuning.scale],
            "adaptation": self.adaptation.state(),
            "resultant": None if self._chart is None else self._chart.resultant,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.index = state["index"]
        self.swaps = state["swaps"]
        self.evaluations = state["evaluations"]
        self.dearest_step = torch.full_like(self.dearest_step, state["dearest_step"])
        self._set_betas(state["betas"])
        self.set_tuning(Tuning(*state["tuning"]))
        position, *parts = state["point"]
        self.point = self._target.temper(position, tuple(parts))
        self.replicas = state["replicas"]
        self._accepted, self._tried = (each.clone() for each in state["rejections"])
        self.adaptation.load(state["adaptation"])
        if self._chart is not None:
            self._chart.resultant = state["resultant"]

    def _set_betas(self, betas: Tensor) -> None:
        rows = betas.repeat_interleave(self.num_chains)
        self.betas = betas
        self._target = TemperedTarget(self.density, rows)
        self._drawn_target = TemperedTarget(self.density, rows[: self.num_drawn])
        self._moved_target = TemperedTarget(self.density, rows[self.num_drawn :])

    def _by_chain(self, rows: AnyBatched) -> AnyBatched:
        return rows.map(lambda each: self.by_rung(each).transpose(0, 1))

    def _forget_rejections(self) -> None:
        self._accepted = self.betas.new_zeros(len(self.betas) - 1)
        self._tried = torch.zeros_like(self._accepted)
