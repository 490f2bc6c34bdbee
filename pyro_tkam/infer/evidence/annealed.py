"""Annealed importance sampling of a Pyro model."""

from __future__ import annotations

import pyro
import torch
from pyro import poutine
from torch import Tensor

from pyro_tkam._checks import whole_number
from pyro_tkam.infer.diagnosis import importance_verdict
from pyro_tkam.infer.mcmc.kernels.base import LangevinKernel
from pyro_tkam.infer.model.density import ModelDensity
from pyro_tkam.infer.results import Evidence
from pyro_tkam.infer.tempering.chains import TemperedChains, TemperedTarget
from pyro_tkam.infer.tempering.schedule import make_ladder
from pyro_tkam.ops.estimators import annealed_log_weights, importance, pareto_smooth

PILOT_TEMPERATURES = 12
PILOT_CHAINS = 8


class Annealing:
    """Particles that start from the prior and go through all temperatures once (Neal 2001).

    A short tempered run finds step sizes, scales and a ladder; each of its intervals is then cut
    into equal parts.

    :param kernel: moves the particles, always with its Metropolis test.
    :param density: the model's.
    :param num_particles: independent particles, at least 25.
    :param steps_between: temperatures in each interval of the pilot's ladder.
    :param warmup_steps: of the pilot.
    :raises ValueError: if the prior can't be sampled exactly, or a number is out of range.
    """

    def __init__(
        self,
        kernel: LangevinKernel,
        density: ModelDensity,
        num_particles: int = 500,
        steps_between: int = 10,
        warmup_steps: int = 128,
    ) -> None:
        if not density.can_sample_prior():
            raise ValueError(
                'model must have a prior that can be sampled exactly for method="ais", got one '
                'that cannot be; use "bar" or "bridge"'
            )
        for name, value, least in (
            ("num_particles", num_particles, 25),
            ("steps_between", steps_between, 1),
            ("warmup_steps", warmup_steps, 0),
        ):
            whole_number(name, value, least)
        self.kernel = kernel
        self.density = density
        self.num_particles = num_particles
        self.steps_between = steps_between
        self.warmup_steps = warmup_steps
        self.evaluations = 0

    def evidence(self) -> Evidence:
        """Run the pilot and the particles, and weigh them."""
        with poutine.block(), pyro.validation_enabled(False):
            log_likelihood, betas = self._anneal(self._pilot())
        log_weights = annealed_log_weights(log_likelihood.unsqueeze(1), betas)
        weights = log_weights.softmax(-1)
        verdict = importance_verdict(pareto_smooth(log_weights).khat, 1 / weights.square().sum(-1))
        return Evidence.of(importance(log_weights), "ais", verdict, evaluations=self.evaluations)

    def _pilot(self) -> TemperedChains:
        ladder = make_ladder("adaptive", PILOT_TEMPERATURES)
        chains = TemperedChains(
            self.kernel, self.density, ladder, PILOT_CHAINS, self.warmup_steps, 1
        )
        for _ in range(self.warmup_steps):
            chains.step()
        self.evaluations = int(chains.evaluations)
        return chains

    def _anneal(self, pilot: TemperedChains) -> tuple[Tensor, Tensor]:
        """
        Return log likelihoods ``(temperature, particle, *local)`` and the inverse temperatures.
        """
        parts = torch.arange(1, self.steps_between + 1).to(pilot.betas) / self.steps_between
        betas = torch.cat(
            [
                pilot.betas[:1],
                (pilot.betas[:-1, None] + pilot.betas.diff()[:, None] * parts).flatten(),
            ]
        )
        betas[-1] = 1.0
        point = self._target(betas[0])(self.density.sample_prior(self.num_particles))
        log_likelihood = [point.parts[1]]
        self.evaluations += self.num_particles
        for index, beta in enumerate(betas[1:]):
            target = self._target(beta)
            interval = index // self.steps_between
            tuning = pilot.tuning.map(
                lambda each, k=interval: each[k].expand(self.num_particles, *each.shape[1:])
            )
            point, info = self.kernel.step(
                target.temper(point.position, point.parts), target, tuning, True
            )
            self.evaluations += int(info.total_evaluations)
            log_likelihood.append(point.parts[1])
        return torch.stack(log_likelihood), betas

    def _target(self, beta: Tensor) -> TemperedTarget:
        return TemperedTarget(self.density, beta.expand(self.num_particles))
