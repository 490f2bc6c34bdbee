"""Maximum likelihood by importance sampling from the prior, as a Pyro ELBO."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pyro.util import warn_if_nan
from torch import Tensor

from pyro_tkam._checks import one_of, share, whole_number
from pyro_tkam.infer.model.attempt import telling_memory
from pyro_tkam.infer.model.draws import Particles, draw_particles
from pyro_tkam.infer.objectives.base import MaximumLikelihood
from pyro_tkam.infer.objectives.structure import KnownStructure
from pyro_tkam.ops.resampling import RESAMPLERS


def _keep(weights: Tensor) -> Tensor:
    return weights


def _center(weights: Tensor) -> Tensor:
    """Subtract the prior's own expectation, taken over the same draws."""
    return weights - 1 / weights.shape[0]


#: How the weights of the log-prior's gradient come from the posterior weights (Raj 2025, Eq.
#: 17-19).
LOG_PRIOR_GRADIENTS: dict[str, Callable[[Tensor], Tensor]] = {
    "quadrature": _keep,
    "contrastive": _center,
}


@dataclass(frozen=True)
class ImportanceStatistics:
    """
    Statistics of an importance estimate, for each datum of the mini-batch.

    :param log_evidence: ``log (1/S) Σ_s w_s``, shape of the local plates.
    :param effective_sample_size: ``(Σ w)² / Σ w²``, between 1 and the number of particles, shaped
        alike.
    """

    log_evidence: Tensor
    effective_sample_size: Tensor

    @property
    def metrics(self) -> dict[str, Tensor]:
        """Mean effective sample size, as ``ess``."""
        return {"ess": self.effective_sample_size.mean()}


class ImportanceMLE(MaximumLikelihood):
    """
    Negative log marginal likelihood, with the posterior's expectations by self-normalized
    importance sampling.

    The value is ``-Σ_b log (1/S) Σ_s p(x_b | z_s)`` and the gradient
    ``-Σ_b Σ_s w_sb ∇[log p(x_b | z_s) + log p(z_s)]`` with weights ``w_sb ∝ p(x_b | z_s)`` (Raj
    2025, arXiv:2506.14167, Eq. 16 and 26-28). The ``S`` draws come from the prior and are shared by
    the batch, so the model runs once per draw. Draws carry no gradient: a prior learns through its
    log density, or through a deterministic function of a fixed one.

    Use it as ``SVI(model, None, optim, loss=ImportanceMLE())`` or, with a torch optimizer, as
    ``ImportanceMLE()(model, None)(*args).backward()``. With a guide, the draws come from the guide,
    one set per datum, and the guide learns from the same weights, ``-Σ w ∇ log q(z|x)`` (reweighted
    wake-sleep's wake phase; the sleep phase is in :class:`WakeSleepMLE`).

    :param num_particles: number of draws ``S``.
    :param resampler: ``"residual"``, ``"multinomial"``, ``"systematic"`` or ``"stratified"``.
    :param ess_threshold: weights of a datum are resampled to multiples of ``1/S`` where their
        effective sample size is below this share of ``S``; 0 never resamples.
    :param log_prior_gradient: ``"quadrature"`` differentiates the normalized log density;
        ``"contrastive"`` replaces the normalizer's gradient by its average over the draws.
    :raises ValueError: for an unknown name, fewer than one particle, or a threshold outside [0, 1].

    >>> import pyro, torch, pyro.distributions as dist
    >>> def model(x):
    ...     loc = pyro.param("loc", torch.tensor(0.0))
    ...     with pyro.plate("data", len(x)):
    ...         z = pyro.sample("z", dist.Normal(loc, 1.0))
    ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
    >>> svi = pyro.infer.SVI(model, None, pyro.optim.Adam({"lr": 0.1}), loss=ImportanceMLE(100))
    >>> loss = svi.step(torch.ones(5))
    """

    def __init__(
        self,
        num_particles: int = 100,
        *,
        resampler: str = "residual",
        ess_threshold: float = 0.5,
        log_prior_gradient: str = "quadrature",
    ) -> None:
        for name, value, table in (
            ("resampler", resampler, RESAMPLERS),
            ("log_prior_gradient", log_prior_gradient, LOG_PRIOR_GRADIENTS),
        ):
            one_of(name, value, table)
        share("ess_threshold", ess_threshold)
        super().__init__(num_particles=whole_number("num_particles", num_particles, 1))
        self.ess_threshold = ess_threshold
        self.statistics: ImportanceStatistics | None = None
        self._resample = RESAMPLERS[resampler]
        self._prior_weights = LOG_PRIOR_GRADIENTS[log_prior_gradient]
        self._structure = KnownStructure()

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Particles:
        structure = self._structure.of(model, guide, args, kwargs)
        with telling_memory("num_particles", self.num_particles):
            return draw_particles(model, guide, self.num_particles, structure, *args, **kwargs)

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        """
        Return the estimate as a scalar whose gradient is the estimated gradient.

        :param model: a Pyro model; ``args`` and ``kwargs`` are passed to it.
        :param guide: a guide, or None for draws from the prior.
        :return: nats, scaled from the mini-batch to all data.
        """
        particles = self._get_trace(model, guide, args, kwargs)
        log_weights = particles.log_weights
        weights, statistics = self._weights(log_weights)
        surrogate = (weights * particles.log_likelihood).sum()
        surrogate = surrogate + (self._prior_weights(weights) * particles.log_prior).sum()
        if guide is not None:
            surrogate = surrogate + self._guide_score(
                weights, particles, model, guide, args, kwargs
            )
        value = statistics.log_evidence.sum()
        loss = -particles.scale * (value + surrogate - surrogate.detach())
        self.statistics = statistics
        warn_if_nan(loss, "loss")
        return loss

    def _guide_score(
        self, weights: Tensor, particles: Particles, model: Any, guide: Any, args: Any, kwargs: Any
    ) -> Tensor:
        """Return the log density by which the guide learns."""
        assert particles.log_proposal is not None
        return (weights * particles.log_proposal).sum()

    def _weights(self, log_weights: Tensor) -> tuple[Tensor, ImportanceStatistics]:
        """
        Return normalized weights, shape ``(particles, *local)``, resampled where too few of them
        count.
        """
        num = log_weights.shape[0]
        total = log_weights.logsumexp(0)
        weights = (log_weights - total).exp()
        size = 1 / weights.square().sum(0)
        statistics = ImportanceStatistics(total - math.log(num), size)
        poor = size < self.ess_threshold * num
        if not bool(poor.any()):
            return weights, statistics
        index = self._resample(log_weights.movedim(0, -1)).movedim(-1, 0)
        resampled = torch.zeros_like(weights).scatter_add(
            0, index, torch.full_like(weights, 1 / num)
        )
        return torch.where(poor, resampled, weights), statistics
