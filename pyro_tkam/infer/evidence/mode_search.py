"""A search for modes that a proposal lacks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_tkam.infer.mcmc.chains import Chains
from pyro_tkam.infer.mcmc.kernels.base import LangevinKernel
from pyro_tkam.infer.model.density import ModelDensity
from pyro_tkam.infer.posterior.budget import Budget
from pyro_tkam.ops.batched import choose
from pyro_tkam.ops.langevin import Point

FIRST_STEP = 0.1
GROWTH = 1.5
SHRINKAGE = 0.3
"""Of a climb's step, after a rise and after a fall."""
NUM_CLIMBERS = 512
"""Climbs at a time; those that arrive make room for others."""
FEWEST_CLIMBERS = 16
NUM_CLIMBS = 48
ROUND = 6
"""Steps between looks at who has arrived."""
NUM_ROUNDS = 24
CLIMBER_EVALUATIONS = 1 + NUM_ROUNDS * (ROUND + 1)
CLIMB_SHARE = 0.6
"""Share of what is left of a budget that a search may climb with."""

NUM_SCOUTS = 8
NUM_STEPS = 160
WARMUP_SHARE = 0.4
EXPLORE_SHARE = 0.4
STEP_EVALUATIONS = 10
"""
Share of what is left of a budget that chains may take, and a cautious guess of what a step of one
takes.
"""
SURPRISE = 5.0
"""
Nats by which a posterior may be denser than its proposal at a place before that counts as missed.
"""


@dataclass(frozen=True)
class Known:
    """A proposal, on the scale of the posterior's unnormalized density.

    :param log_density: from positions ``(num, *local, dim)`` to log densities ``(num, *local)``, in
        nats.
    :param typical: log density below which few of its draws lie, ``(*local)``.
    """

    log_density: Callable[[Tensor], Tensor]
    typical: Tensor

    def misses(self, position: Tensor, log_posterior: Tensor) -> Tensor:
        """Tell where a posterior is far denser."""
        return log_posterior - self.log_density(position) > SURPRISE

    def covers(self, position: Tensor, log_posterior: Tensor) -> Tensor:
        """Tell where most of its own draws are, and a posterior is not far denser."""
        log_known = self.log_density(position)
        return (log_known >= self.typical) & (log_posterior - log_known <= SURPRISE)


class Scouts:
    """
    Chains at ``t = 1`` that start where prior draws arrive when they climb the posterior density.

    :param kernel: what moves the chains.
    :param density: the posterior's.
    :param budget: counts their evaluations, and limits them.
    """

    def __init__(self, kernel: LangevinKernel, density: ModelDensity, budget: Budget) -> None:
        self.kernel = kernel
        self.density = density
        self.budget = budget
        data = torch.Size(density.layout.local_shape).numel()
        self.most_climbers = max(FEWEST_CLIMBERS, NUM_CLIMBERS // data)
        self.num_climbers = 0
        self.climbs = self.num_unseen = 0

    def search(self, known: Known) -> Tensor | None:
        """
        Return draws of chains, ``(scout, draw, *local, dim)``, that start far apart where a
        proposal misses mass.

        Where the budget is short, fewer climb, and chains are shorter; both may come to nothing.

        :param known: the proposal.
        :return: None if no climb ends at such a place.
        """
        self.num_climbers = self.budget.affords(
            self.most_climbers, each=CLIMBER_EVALUATIONS, share=CLIMB_SHARE
        )
        if self.num_climbers == 0:
            return None
        position, log_density = self._climb(known)
        self.num_unseen = int((log_density > -torch.inf).sum(0).amax()) if len(position) else 0
        return self._explore(self._far_apart(position, log_density)) if self.num_unseen else None

    def _climb(self, known: Known) -> tuple[Tensor, Tensor]:
        """
        Climb from prior draws; return where the proposal misses mass at the end, and log densities
        there.
        """
        point = self._start()
        step = torch.full_like(point.log_density, FIRST_STEP)
        age = torch.zeros_like(step)
        ends = []
        for _ in range(NUM_ROUNDS):
            for _ in range(ROUND):
                point, step = self._step(point, step)
            age = age + ROUND
            done = known.covers(point.position, point.log_density) | (age >= NUM_CLIMBS)
            unseen = (
                done
                & known.misses(point.position, point.log_density)
                & point.log_density.isfinite()
            )
            rows = unseen.reshape(len(unseen), -1).any(1)
            ends.append(
                (point.position[rows], torch.where(unseen, point.log_density, -torch.inf)[rows])
            )
            self.climbs += int(done.sum())
            point = choose(done, self._start(), point)
            step = torch.where(done, FIRST_STEP, step)
            age = torch.where(done, 0.0, age)
        positions, log_densities = zip(*ends, strict=True)
        return torch.cat(positions), torch.cat(log_densities)

    def _start(self) -> Point:
        draw = (
            self.density.sample_prior
            if self.density.can_sample_prior()
            else self.density.draw_start
        )
        self.budget.spend(self.num_climbers)
        return self.density.point(draw(self.num_climbers))

    def _step(self, point: Point, step: Tensor) -> tuple[Point, Tensor]:
        """Follow the gradient; the step grows after a rise, and shrinks after a fall."""
        self.budget.spend(self.num_climbers)
        ahead = self.density.point(point.position + step[..., None] * point.gradient)
        higher = ahead.log_density > point.log_density
        return choose(higher, ahead, point), step * torch.where(higher, GROWTH, SHRINKAGE)

    def _far_apart(self, position: Tensor, log_density: Tensor) -> Tensor:
        """
        Choose the highest end, then again and again the one farthest from those chosen, for each
        datum.
        """
        best = log_density.argmax(0, keepdim=True)
        chosen = []
        distance = torch.full_like(log_density, torch.inf)
        for _ in range(NUM_SCOUTS):
            chosen.append(position.gather(0, best[..., None].expand(1, *position.shape[1:])))
            distance = torch.minimum(distance, (position - chosen[-1]).square().sum(-1))
            best = torch.where(log_density > -torch.inf, distance, -1.0).argmax(0, keepdim=True)
        return torch.cat(chosen)

    def _explore(self, start: Tensor) -> Tensor:
        """Run chains from the chosen ends."""
        num_steps = self.budget.affords(
            NUM_STEPS, each=STEP_EVALUATIONS * NUM_SCOUTS, share=EXPLORE_SHARE
        )
        warmup_steps = int(WARMUP_SHARE * num_steps)
        chains = Chains.begin(self.kernel, self.density, self.density.point(start), warmup_steps)
        positions = [start[:, None][:, :0]]
        for index in range(num_steps):
            if not self.budget.affords(1, each=STEP_EVALUATIONS * NUM_SCOUTS):
                break
            self.budget.spend(int(chains.step().total_evaluations))
            if index >= warmup_steps:
                positions.append(chains.position[:, None])
        return torch.cat(positions, 1)
