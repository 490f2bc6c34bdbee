"""Random-walk Metropolis for tempered ensembles."""

from __future__ import annotations

from dataclasses import replace

import torch

from pyro_tkam._checks import length, whole_number, within
from pyro_tkam.ops.langevin import Noise, Point, StepInfo, Target, Tuning
from pyro_tkam.ops.random_walk import random_walk_step


class RandomWalk:
    """Random-walk Metropolis moves for :class:`SMC`, of models without gradients.

    :param num_steps: Metropolis steps that make one move, at least 1.
    :param step_size: step size at which adaptation starts, positive, in standard deviations.
    :param target_accept_prob: acceptance rate to adapt to, in (0, 1).
    :raises ValueError: if a number is out of range.

    >>> RandomWalk(num_steps=20).num_steps
    20
    """

    needs_gradients = False

    def __init__(
        self, num_steps: int = 10, step_size: float = 2.38, target_accept_prob: float = 0.25
    ) -> None:
        self.num_steps = whole_number("num_steps", num_steps, 1)
        self.initial_step_size = length("step_size", step_size)
        self.target_accept_prob = within("target_accept_prob", target_accept_prob, 0, 1)

    def step(
        self, point: Point, target: Target, tuning: Tuning, adjusted: bool
    ) -> tuple[Point, StepInfo]:
        """Make ``num_steps`` steps of all rows; the rate of acceptance is their mean."""
        infos = []
        for _ in range(self.num_steps):
            point, info = random_walk_step(point, target, tuning, Noise.draw(point, 1))
            infos.append(info)
        rate = torch.stack([info.acceptance_rate for info in infos]).mean(0)
        evaluations = infos[-1].evaluations * self.num_steps
        info = replace(
            infos[-1],
            acceptance_rate=rate,
            evaluations=evaluations,
            row_evaluations=evaluations,
        )
        return point, info
