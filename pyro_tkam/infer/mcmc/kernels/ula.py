"""The unadjusted Langevin algorithm."""

from __future__ import annotations

from typing import Any

from pyro_tkam._checks import options as known_options
from pyro_tkam.infer.mcmc.adaptation import NoAdaptation
from pyro_tkam.infer.mcmc.chains import Adaptation
from pyro_tkam.infer.mcmc.kernels.base import LangevinKernel
from pyro_tkam.infer.mcmc.metric import Metric
from pyro_tkam.infer.model.potential import Potential
from pyro_tkam.infer.model.sites import Model
from pyro_tkam.ops.langevin import Noise, Point, StepInfo, Target, Tuning, ula_step


class ULA(LangevinKernel):
    """
    Unadjusted Langevin algorithm: ``z' = z + η ∇log π(z) + √(2η) ξ``.

    See Raj 2025, arXiv:2506.14167, Eq. 36.

    Its draws are biased by an amount of order ``η``; a non-finite proposal is rejected and counts
    as a divergence.

    :param model: a Pyro model, or
    :param potential_fn: from unconstrained values by site to the potential energy; sampled from
        ``initial_params``.
    :param step_size: ``η``, in units of a variance.
    :param options: see :class:`LangevinKernel`.

    >>> import pyro, torch, pyro.distributions as dist
    >>> from pyro.infer import MCMC
    >>> def model():
    ...     pyro.sample("z", dist.Normal(0.0, 1.0))
    >>> mcmc = MCMC(ULA(model, step_size=0.1), num_samples=3, warmup_steps=0, disable_progbar=True)
    >>> mcmc.run()
    >>> mcmc.get_samples()["z"].shape
    torch.Size([3])
    """

    def __init__(
        self,
        model: Model | None = None,
        potential_fn: Potential | None = None,
        *,
        step_size: float = 0.01,
        **options: Any,
    ) -> None:
        known_options("ULA", options, ULA.__init__, LangevinKernel.__init__)
        super().__init__(model, potential_fn, step_size=step_size, **options)

    def step(
        self, point: Point, target: Target, tuning: Tuning, adjusted: bool
    ) -> tuple[Point, StepInfo]:
        """Make a step of all rows; without the Metropolis test if not ``adjusted``."""
        return ula_step(point, target, tuning, Noise.draw(point, 0))

    def adaptation(
        self, warmup_steps: int, dim: int | None = None, metric: Metric | None = None
    ) -> Adaptation:
        """Return no adaptation: a fixed step is what defines the bias."""
        return NoAdaptation()
