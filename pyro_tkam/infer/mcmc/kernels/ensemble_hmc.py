"""Hamiltonian Monte Carlo tuned by an ensemble of chains."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from pyro_tkam._checks import length, whole_number, within
from pyro_tkam._checks import options as known_options
from pyro_tkam.infer.mcmc.chains import Adaptation, Chains
from pyro_tkam.infer.mcmc.ensemble_adaptation import WINDOWS, EnsembleAdaptation, FixedMetric
from pyro_tkam.infer.mcmc.kernels.base import LangevinKernel
from pyro_tkam.infer.mcmc.metric import LARGEST_DENSE, Metric
from pyro_tkam.infer.mcmc.path import Path
from pyro_tkam.infer.mcmc.tempered_ensemble import TemperedEnsemble
from pyro_tkam.infer.model.density import Density
from pyro_tkam.infer.model.potential import Potential
from pyro_tkam.infer.model.sites import Model
from pyro_tkam.ops.hmc import hmc_step
from pyro_tkam.ops.langevin import Noise, Point, StepInfo, Target, Tuning

ENSEMBLE_ROWS = 64
SHORT_SHARE = 0.1
SHORT_STEP = 1 / 3
"""At a tenth of the iterations steps, and with them trajectories, are a third as long, by which a
chain leaves a place that is too curved for the others' step: it would stay there for hundreds of
iterations otherwise."""


class EnsembleHMC(LangevinKernel):
    """Hamiltonian Monte Carlo whose chains share step size, metric and trajectory length.

    In each iteration, all chains make ``n = ⌈h min(τ/ε, N/2)⌉`` leapfrog steps, ``h ~ U(0, 2)``, in
    coordinates in which the covariance of the ensemble is 1; each chain has its own momentum and
    acceptance. In a tenth of the iterations, each of the ``n`` steps is a third as long. Warm-up
    adapts the metric to all chains together: with shrunk correlations (Schäfer and Strimmer 2005)
    up to 512 dimensions, and with standard deviations alone beyond. It adapts ``ε`` to the harmonic
    mean of the acceptance rates (Hoffman, Radul and Sountsov 2021). Then both are fixed: nothing in
    a step depends on where a chain is, which leaves the target invariant.

    With :class:`VectorizedMCMC`, 64 chains run by default, from a tempered start. In
    ``pyro.infer.MCMC``, each chain is a member of its own warmed-up ensemble.

    :param model: a Pyro model, or
    :param potential_fn: from unconstrained values by site to the potential energy; sampled from
        ``initial_params``.
    :param trajectory_length: ``τ``, mean length in standard deviations, positive.
    :param max_steps: ``N``, the most leapfrog steps of a trajectory, at least 2.
    :param target_accept_prob: acceptance rate to adapt to, in (0, 1).
    :param step_size: ``ε`` with which adaptation starts, in standard deviations.
    :param options: see :class:`LangevinKernel`.
    :raises ValueError: if a number is out of range.

    >>> import pyro, pyro.distributions as dist
    >>> from pyro_tkam.infer import VectorizedMCMC
    >>> def model():
    ...     pyro.sample("z", dist.Normal(0.0, 1.0))
    >>> mcmc = VectorizedMCMC(EnsembleHMC(model), num_samples=100, disable_progbar=True)
    >>> mcmc.run()
    >>> mcmc.get_samples(group_by_chain=True)["z"].shape
    torch.Size([64, 100])
    """

    default_num_chains: ClassVar[int] = ENSEMBLE_ROWS
    default_warmup_steps: ClassVar[int | None] = WINDOWS[-1]

    def __init__(
        self,
        model: Model | None = None,
        potential_fn: Potential | None = None,
        *,
        trajectory_length: float = math.pi / 2,
        max_steps: int = 64,
        target_accept_prob: float = 0.8,
        step_size: float = 0.5,
        **options: Any,
    ) -> None:
        known_options("EnsembleHMC", options, EnsembleHMC.__init__, LangevinKernel.__init__)
        super().__init__(model, potential_fn, step_size=step_size, **options)
        self.trajectory_length = length("trajectory_length", trajectory_length)
        self.max_steps = whole_number("max_steps", max_steps, 2)
        self.target_accept_prob = within("target_accept_prob", target_accept_prob, 0, 1)

    def step(
        self, point: Point, target: Target, tuning: Tuning, adjusted: bool
    ) -> tuple[Point, StepInfo]:
        """Make a trajectory of all rows; without the Metropolis test if not ``adjusted``."""
        stretch, chance = torch.rand(2, dtype=torch.float64).tolist()
        num_steps = max(1, math.ceil(2 * stretch * self.mean_steps(tuning.step_size)))
        if chance < SHORT_SHARE:
            tuning = replace(tuning, step_size=SHORT_STEP * tuning.step_size)
        return hmc_step(point, target, tuning, Noise.draw(point, 1), num_steps, adjusted)

    def further_statistics(self, info: StepInfo, tuning: Tuning) -> dict[str, Tensor]:
        """Return where trajectories are capped."""
        return {"capped": self.capped(tuning.step_size).expand_as(info.step_size)}

    def mean_steps(self, step_size: Tensor) -> float:
        """Return ``min(τ/ε, N/2)``, for the geometric mean of step sizes that differ."""
        mean = step_size.log().mean().exp().item()
        return min(self.trajectory_length / mean, self.max_steps / 2)

    def capped(self, step_size: Tensor) -> Tensor:
        """Tell where trajectories are shorter than wanted, as the most steps are too few."""
        return self.trajectory_length / step_size > self.max_steps / 2

    def tuning(self, point: Point, metric: Metric | None = None) -> Tuning:
        """Return the first step size, in the metric."""
        tuning = super().tuning(point, metric)
        return tuning if metric is None else replace(tuning, scale=metric.scale)

    def adaptation(
        self, warmup_steps: int, dim: int | None = None, metric: Metric | None = None
    ) -> Adaptation:
        """Return windows of metric and step size, starting from a metric."""
        dense = dim is not None and dim <= LARGEST_DENSE
        return EnsembleAdaptation(warmup_steps, self.target_accept_prob, dense, metric)

    def _first_chain(
        self, density: Density, params: dict[str, Tensor] | None, warmup_steps: int
    ) -> Chains:
        """Return one row of an ensemble that is warmed up, whose tuning stays as it is."""
        if params is not None or self.has_own_start:
            return super()._first_chain(density, params, warmup_steps)
        ensemble = TemperedEnsemble(self, Path(density), ENSEMBLE_ROWS)
        while not ensemble.done:
            ensemble.rung()
        warm = ensemble.chains(self, WINDOWS[-1])
        for _ in range(WINDOWS[-1]):
            warm.step()
        row = torch.randint(ENSEMBLE_ROWS, ())
        point = density.point(warm.position[row][None])
        fixed = FixedMetric(warm.adaptation.frame)
        inner = Point(
            fixed.frame.inner(point.position), point.log_density, fixed.frame.pull(point.gradient)
        )
        return Chains(self, density, inner, warm.tuning, fixed, warmup_steps)
