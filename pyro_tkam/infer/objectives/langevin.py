"""Maximum likelihood by Langevin sampling of the posterior, as a Pyro ELBO."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pyro_tkam._checks import one_of
from pyro_tkam.infer.mcmc.chains import Chains
from pyro_tkam.infer.mcmc.kernels.base import LangevinKernel
from pyro_tkam.infer.mcmc.kernels.ula import ULA
from pyro_tkam.infer.objectives.chains import ChainMLE, KernelFactory, PosteriorDraws
from pyro_tkam.infer.objectives.posterior import BoundModel
from pyro_tkam.ops.langevin import Point

GUIDE_OBJECTIVES = ("elbo", "inclusive")


class LangevinMLE(ChainMLE):
    """
    Maximum likelihood with posterior draws by a Langevin kernel, the latents of each datum sampled
    separately.

    The gradient is ``-Σ_b E[∇ log p(x_b | z) + ∇ log p(z)]`` over the ends of chains that start
    from the prior and make ``num_steps`` steps on ``p(z | x_b)`` (Raj 2025, arXiv:2506.14167, Eq.
    16-19 and 36). Its bias falls with the number of steps, and with :class:`ULA` it is of order
    ``η``. Chains run in coordinates whose prior is standard normal where sites have an inverse CDF,
    in unconstrained ones elsewhere.

    The *value* is ``-Σ_b E[log p(x_b | z)]``, because posterior draws alone give no evidence. It is
    below the negative log evidence by ``KL(p(z|x) ‖ p(z))`` and must not be compared with the
    values of other objectives.

    With a *guide*, the chains refine its draws: from ``z_0 ~ q(z | x_b)``, detached, ``num_steps``
    steps on ``p(z | x_b)`` lead to ``z_K``, at which the model learns as above. The guide learns

    - with ``guide_objective="elbo"`` from its own draws, by the pathwise gradient of
      ``Σ_b E_q[log p(x_b, z_0) - log q(z_0 | x_b)]`` (Hoffman 2017, PMLR 70:1510), which the
      chains' first evaluation of the likelihood gives too;
    - with ``"inclusive"`` from the chains' ends, by ``-Σ_b E[∇ log q(z_K | x_b)]``, the gradient of
      ``KL(q_K ‖ q)`` from their law, held fixed, to the guide (amortized MCMC; Li, Turner & Liu
      2017, arXiv:1702.08343). The guide covers everything that the chains reach, but it learns only
      what the steps add, so it needs many steps.

    Use it as ``SVI(model, guide, optim, loss=LangevinMLE(ULA, step_size=0.1))`` or, with a torch
    optimizer, as ``LangevinMLE(...)(model, None)(*args).backward()``.

    :param kernel: :class:`ULA`, :class:`MALA` or :class:`AutoMALA`, or an instance, whose model is
        not used. ``AutoMALA`` starts with the mean accepted step size of the last training step;
        its ``min_step_size``, ``max_step_size`` and ``num_unadjusted`` select the paper's variant.
        Unless ``num_unadjusted`` is given, the first quarter of the steps skip the Metropolis test,
        because chains would otherwise stay in steep tails.
    :param num_steps: steps of each chain.
    :param num_chains: chains of each datum.
    :param log_prior_gradient: ``"quadrature"`` differentiates the normalized log density;
        ``"contrastive"`` subtracts its average over as many prior draws, which are the chains'
        starting points unless there is a guide.
    :param guide_objective: ``"elbo"`` or ``"inclusive"``, see above; the former needs a guide that
        can be reparameterized.
    :param persistent: continue where the chains of the last training step ended; every call must
        get the same data, and no guide.
    :param options: of the kernel, such as ``step_size``.
    :raises ValueError: for an unknown name, numbers below one, and options that the kernel refuses.
    :raises TypeError: for another kernel.

    >>> import pyro, torch, pyro.distributions as dist
    >>> def model(x):
    ...     loc = pyro.param("loc", torch.tensor(0.0))
    ...     with pyro.plate("data", len(x)):
    ...         z = pyro.sample("z", dist.Normal(loc, 1.0))
    ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
    >>> objective = LangevinMLE(ULA, step_size=0.1, num_steps=10)
    >>> svi = pyro.infer.SVI(model, None, pyro.optim.Adam({"lr": 0.1}), loss=objective)
    >>> loss = svi.step(torch.ones(5))
    """

    takes_guide = True

    def __init__(
        self,
        kernel: KernelFactory | LangevinKernel = ULA,
        *,
        num_steps: int = 20,
        num_chains: int = 1,
        log_prior_gradient: str = "quadrature",
        guide_objective: str = "elbo",
        persistent: bool = False,
        **options: Any,
    ) -> None:
        one_of("guide_objective", guide_objective, GUIDE_OBJECTIVES)
        self.guide_objective = guide_objective
        super().__init__(kernel, num_steps, num_chains, log_prior_gradient, persistent, options)

    def _sample(self, bound: BoundModel, guide: Any) -> PosteriorDraws:
        start, prior, lower_bound = self._beginning(bound, guide)
        chains = Chains.begin(bound.kernel, bound.density, start, warmup_steps=0)
        self._prepare(chains)
        step_size = self._carried(1, start.position)
        chains.tuning = replace(
            chains.tuning, step_size=step_size[0].expand_as(chains.tuning.step_size)
        )
        infos = [chains.step() for _ in range(self.num_steps)]
        next_step_size, statistics = self._summary(step_size, infos, None, None)
        weights = torch.full_like(chains.point.log_density, 1 / self.num_chains)
        position = chains.position
        return PosteriorDraws(
            position, weights, prior, position, next_step_size, statistics, lower_bound
        )

    def _beginning(
        self, bound: BoundModel, guide: Any
    ) -> tuple[Point, Tensor | None, Tensor | None]:
        """
        Return where the chains start, draws of the prior where there are any, and what a guide
        maximizes.
        """
        if guide is None:
            return *self._continued(bound), None
        by_bound = self.guide_objective == "elbo"
        drawn, start = bound.draw_guide(guide, self.num_chains, reparameterized=by_bound)
        prior = (
            bound.draw_prior(self.num_chains) if self.log_prior_gradient == "contrastive" else None
        )
        return start, prior, bound.lower_bound(drawn, start).mean(0).sum() if by_bound else None

    def _continued(self, bound: BoundModel) -> tuple[Point, Tensor]:
        """Return where chains without a guide start, and draws of the prior."""
        # Chains that go on need no check of where they would have started.
        first = bound.draw_start(self.num_chains) if self._last is None else None
        prior = bound.draw_prior(self.num_chains) if first is None else first.position
        start = self._start(bound, prior)
        return bound.density.point(start) if first is None else first, prior
