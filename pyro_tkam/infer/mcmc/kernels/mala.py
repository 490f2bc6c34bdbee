"""The Metropolis-adjusted Langevin algorithm."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pyro_tkam._checks import flag, within
from pyro_tkam._checks import options as known_options
from pyro_tkam.infer.mcmc.adaptation import DualAveragingAdaptation
from pyro_tkam.infer.mcmc.chains import Adaptation
from pyro_tkam.infer.mcmc.kernels.base import LangevinKernel
from pyro_tkam.infer.mcmc.metric import Metric
from pyro_tkam.infer.model.potential import Potential
from pyro_tkam.infer.model.sites import Model
from pyro_tkam.ops.langevin import Noise, Point, StepInfo, Target, Tuning, mala_step


class MALA(LangevinKernel):
    """Metropolis-adjusted Langevin algorithm.

    See Raj 2025, arXiv:2506.14167, Eq. 79-80.

    ``z' = z + η C ∇log π(z) + √(2η) C^{1/2} ξ``, accepted with the Metropolis-Hastings probability.
    During warm-up ``η`` adapts by Pyro's dual averaging and the diagonal ``C`` by Pyro's Welford
    variances.

    :param model: a Pyro model, or
    :param potential_fn: from unconstrained values by site to the potential energy; sampled from
        ``initial_params``.
    :param step_size: initial ``η``, in units of ``C^{-1}`` times a variance.
    :param target_accept_prob: acceptance rate to adapt to, in (0, 1).
    :param adapt_step_size: whether ``η`` adapts.
    :param adapt_mass_matrix: whether ``C`` adapts; it starts as the identity.
    :param options: see :class:`LangevinKernel`.
    :raises ValueError: if ``target_accept_prob`` isn't in (0, 1).

    >>> import pyro, pyro.distributions as dist
    >>> from pyro.infer import MCMC
    >>> def model():
    ...     pyro.sample("z", dist.Normal(0.0, 1.0))
    >>> mcmc = MCMC(MALA(model), num_samples=3, warmup_steps=20, disable_progbar=True)
    >>> mcmc.run()
    >>> mcmc.get_samples()["z"].shape
    torch.Size([3])
    """

    def __init__(
        self,
        model: Model | None = None,
        potential_fn: Potential | None = None,
        *,
        step_size: float = 0.1,
        target_accept_prob: float = 0.574,
        adapt_step_size: bool = True,
        adapt_mass_matrix: bool = True,
        **options: Any,
    ) -> None:
        known_options("MALA", options, MALA.__init__, LangevinKernel.__init__)
        super().__init__(model, potential_fn, step_size=step_size, **options)
        self.target_accept_prob = within("target_accept_prob", target_accept_prob, 0, 1)
        self.adapt_step_size = flag("adapt_step_size", adapt_step_size)
        self.adapt_mass_matrix = flag("adapt_mass_matrix", adapt_mass_matrix)

    def step(
        self, point: Point, target: Target, tuning: Tuning, adjusted: bool
    ) -> tuple[Point, StepInfo]:
        """Make a step of all rows; without the Metropolis test if not ``adjusted``."""
        return mala_step(point, target, tuning, Noise.draw(point, 1), adjusted)

    def tuning(self, point: Point, metric: Metric | None = None) -> Tuning:
        """Return the first step size, with the metric's standard deviations where these adapt."""
        tuning = super().tuning(point, metric)
        if metric is None or not self.adapt_mass_matrix:
            return tuning
        return replace(tuning, scale=metric.spread)

    def adaptation(
        self, warmup_steps: int, dim: int | None = None, metric: Metric | None = None
    ) -> Adaptation:
        """Return dual averaging and Welford variances."""
        return DualAveragingAdaptation(
            warmup_steps, self.target_accept_prob, self.adapt_step_size, self.adapt_mass_matrix
        )
