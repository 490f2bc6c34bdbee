"""autoMALA."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_tkam._checks import flag, length
from pyro_tkam._checks import options as known_options
from pyro_tkam.infer.mcmc.adaptation import (
    FrameAdaptation,
    RoundAdaptation,
    transient_steps,
)
from pyro_tkam.infer.mcmc.chains import Adaptation
from pyro_tkam.infer.mcmc.kernels.base import LangevinKernel
from pyro_tkam.infer.mcmc.metric import DENSITY_FRAME, Metric
from pyro_tkam.infer.model.potential import Potential
from pyro_tkam.infer.model.sites import Model
from pyro_tkam.ops.automala import NUM_UNIFORMS, automala_step
from pyro_tkam.ops.langevin import Noise, Point, StepInfo, Target, Tuning

LARGEST_FRAME = 256
"""Dimensions up to which a full covariance is worth its ``dim²`` operations a step."""


class AutoMALA(LangevinKernel):
    """autoMALA: MALA that searches for its step size at each step, reversibly.

    Biron-Lattes et al. 2024, arXiv:2310.16782; Raj 2025, arXiv:2506.14167, Eq. 82-85; see
    :func:`pyro_tkam.ops.automala.automala_step`. The initial step of the search and the scales of
    the preconditioner change only between rounds of doubling length during warm-up. The first three
    rounds skip the reversibility check and the Metropolis test (unless ``num_unadjusted`` says
    otherwise), because a chain that starts in a steep tail would stay there.

    If all chains have the same target (no local data, no temperatures), the published kernel runs
    in coordinates ``y = L⁻¹(z - μ)``, in which the draws of the last round have mean 0 and
    covariance 1, so the three kinds of preconditioner agree, and correlations don't slow the kernel
    down. The change of variables happens between rounds; within a round, only the coordinates
    differ from a run without it.

    :param model: a Pyro model, or
    :param potential_fn: from unconstrained values by site to the potential energy; sampled from
        ``initial_params``.
    :param step_size: leapfrog step size at which the first searches start.
    :param min_step_size: a search that goes below it rejects the step.
    :param max_step_size: a search that goes above it rejects the step. Both are lengths in the
        kernel's coordinates: after the first round of a standardized run, in standard deviations.
    :param standardize: whether these coordinates are standardized, for up to 256 dimensions.
    :param options: see :class:`LangevinKernel`.
    :raises ValueError: unless ``0 < min_step_size <= step_size <= max_step_size``.

    >>> import pyro, pyro.distributions as dist
    >>> from pyro.infer import MCMC
    >>> def model():
    ...     pyro.sample("z", dist.Normal(0.0, 1.0))
    >>> mcmc = MCMC(AutoMALA(model), num_samples=3, warmup_steps=20, disable_progbar=True)
    >>> mcmc.run()
    >>> mcmc.get_samples()["z"].shape
    torch.Size([3])
    """

    def __init__(
        self,
        model: Model | None = None,
        potential_fn: Potential | None = None,
        *,
        step_size: float = 0.5,
        min_step_size: float = 1e-8,
        max_step_size: float = 1e8,
        standardize: bool = True,
        **options: Any,
    ) -> None:
        smallest = length("min_step_size", min_step_size)
        largest = length("max_step_size", max_step_size)
        known_options("AutoMALA", options, AutoMALA.__init__, LangevinKernel.__init__)
        super().__init__(model, potential_fn, step_size=step_size, **options)
        if not smallest <= self.initial_step_size <= largest:
            raise ValueError(
                "min_step_size, step_size and max_step_size must be positive and in "
                f"increasing order, got {min_step_size}, {step_size} and {max_step_size}"
            )
        self.standardize = flag("standardize", standardize)
        self.limits = (smallest, largest)

    def step(
        self, point: Point, target: Target, tuning: Tuning, adjusted: bool
    ) -> tuple[Point, StepInfo]:
        """Make a step of all rows; without the Metropolis test if not ``adjusted``."""
        noise = Noise.draw(point, NUM_UNIFORMS)
        return automala_step(point, target, tuning, noise, adjusted, limits=self.limits)

    def unadjusted_steps(self, warmup_steps: int) -> int:
        """Return the length of the first three rounds, unless it was given."""
        return transient_steps(warmup_steps) if self.num_unadjusted is None else self.num_unadjusted

    def unadjusted_start(self, num_steps: int) -> int:
        """Return a quarter of the steps, unless their number was given."""
        return num_steps // 4 if self.num_unadjusted is None else self.num_unadjusted

    def carried_step_size(self, step_size: Tensor, mean_accepted: Tensor) -> Tensor:
        """
        Return the mean accepted step, within the limits (Raj 2025, arXiv:2506.14167); the old one
        without any.
        """
        return torch.where(mean_accepted.isnan(), step_size, mean_accepted).clamp(*self.limits)

    def adaptation(
        self, warmup_steps: int, dim: int | None = None, metric: Metric | None = None
    ) -> Adaptation:
        """Return adaptation between rounds, of the frame too where that is wanted and possible."""
        if self.standardize and dim is not None and dim <= LARGEST_FRAME:
            frame = DENSITY_FRAME if metric is None else metric.frame
            return FrameAdaptation(warmup_steps, self.limits, frame)
        return RoundAdaptation(warmup_steps, self.limits)
