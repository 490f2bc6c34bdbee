"""
Maximum likelihood from tempered chains, whose value is an estimate of the evidence, as a Pyro ELBO.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pyro_tkam._checks import length, number, one_of, whole_number
from pyro_tkam.infer.mcmc.kernels.base import LangevinKernel
from pyro_tkam.infer.mcmc.kernels.ula import ULA
from pyro_tkam.infer.objectives.chains import ChainMLE, KernelFactory, PosteriorDraws
from pyro_tkam.infer.objectives.posterior import BoundModel
from pyro_tkam.infer.tempering.chains import TemperedChains
from pyro_tkam.infer.tempering.schedule import FixedLadder
from pyro_tkam.ops.estimators import steppingstone, thermodynamic
from pyro_tkam.ops.schedules import power_law

ESTIMATORS = {"steppingstone": steppingstone, "thermodynamic": thermodynamic}


def _constant(exponent: Any) -> Callable[[int], float]:
    value = number("exponent", exponent)
    return lambda step: value


def _last(positions: Tensor, log_likelihood: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
    return positions[-1], torch.full_like(log_likelihood[-1], 1 / log_likelihood.shape[1])


def _reweighted(positions: Tensor, log_likelihood: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
    return positions[-2], ((betas[-1] - betas[-2]) * log_likelihood[-2]).softmax(0)


#: Posterior draws and their weights from the ends of all chains, ``(temperature, chain, *local,
#: ...)``.
GRADIENTS = {"last": _last, "reweighted": _reweighted}


class SteppingstoneMLE(ChainMLE):
    """
    Maximum likelihood with chains at several temperatures, ``p_t(z|x) ∝ p(x|z)^t p(z)``, that
    exchange states.

    The value is minus the steppingstone or the thermodynamic estimate of the log evidence (Raj
    2025, arXiv:2506.14167, Eq. 31 and 35), from the second half of the steps. Its derivative with
    the draws held fixed is *not* the gradient of the log evidence, because it ignores that the
    draws depend on the parameters. The exact one, ``Σ_k (t_{k+1} E_{k+1}[∇L] - t_k E_k[∇L])``,
    telescopes to ``E_{t=1}[∇L]``, so the gradient comes from the ends of the chains at ``t = 1``,
    as in :class:`LangevinMLE`.

    :param kernel: see :class:`LangevinMLE`; step sizes are carried for each temperature.
    :param estimator: ``"steppingstone"`` or ``"thermodynamic"``; they have the same gradient.
    :param num_temperatures: rungs of the ladder ``t_k = (k / K)^r``, ``t = 0`` and ``t = 1`` among
        them.
    :param exponent: ``r``, or a function from the training step to it, such as
        ``partial(schedules.cyclic_exponent, total=2000, start=4.0, end=1.0)``.
    :param num_steps: steps at each temperature, at least 2.
    :param num_chains: chains of each datum and temperature.
    :param swap_every: number of steps between swaps.
    :param gradient: ``"last"`` takes the chains at ``t = 1``; ``"reweighted"`` takes those of the
        rung before, with weights ``softmax(Δt L)`` over the chains of a datum.
    :param log_prior_gradient: see :class:`LangevinMLE`; the prior draws are those of ``t = 0``.
    :param persistent: see :class:`LangevinMLE`.
    :param options: of the kernel, such as ``step_size``.
    :raises ValueError: for an unknown name, numbers out of range, and options that the kernel
        refuses.
    :raises TypeError: for another kernel.

    >>> import pyro, torch, pyro.distributions as dist
    >>> def model(x):
    ...     loc = pyro.param("loc", torch.tensor(0.0))
    ...     with pyro.plate("data", len(x)):
    ...         z = pyro.sample("z", dist.Normal(loc, 1.0))
    ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
    >>> objective = SteppingstoneMLE(step_size=0.1, num_temperatures=3, num_steps=10)
    >>> svi = pyro.infer.SVI(model, None, pyro.optim.Adam({"lr": 0.1}), loss=objective)
    >>> loss = svi.step(torch.ones(5))
    """

    def __init__(
        self,
        kernel: KernelFactory | LangevinKernel = ULA,
        *,
        estimator: str = "steppingstone",
        num_temperatures: int = 5,
        exponent: float | Callable[[int], float] = 4.0,
        num_steps: int = 20,
        num_chains: int = 1,
        swap_every: int = 1,
        gradient: str = "last",
        log_prior_gradient: str = "quadrature",
        persistent: bool = False,
        **options: Any,
    ) -> None:
        for name, value, table in (
            ("estimator", estimator, ESTIMATORS),
            ("gradient", gradient, GRADIENTS),
        ):
            one_of(name, value, table)
        whole_number("num_steps", num_steps, 2)
        whole_number("swap_every", swap_every, 1)
        if gradient == "reweighted" and num_chains < 2:
            raise ValueError(
                f'num_chains must be at least 2 with gradient="reweighted", got {num_chains}'
            )
        self.num_temperatures = whole_number("num_temperatures", num_temperatures, 2)
        self.swap_every = swap_every
        self.exponent = exponent if callable(exponent) else _constant(exponent)
        length("exponent", self.exponent(0))
        super().__init__(kernel, num_steps, num_chains, log_prior_gradient, persistent, options)
        self._estimate = ESTIMATORS[estimator]
        self._posterior = GRADIENTS[gradient]

    def _sample(self, bound: BoundModel, guide: Any) -> PosteriorDraws:
        betas = power_law(self.num_temperatures, self.exponent(self.step), dtype=torch.float64)
        chains = TemperedChains(
            bound.kernel, bound.density, FixedLadder(betas), self.num_chains, 0, self.swap_every
        )
        chains.move_to(self._start(bound, chains.point.position))
        self._prepare(chains)
        fresh = chains.tuning.step_size
        step_size = self._carried(len(fresh), fresh)
        shaped = step_size.reshape(-1, *(1,) * (fresh.dim() - 1)).expand_as(fresh)
        chains.set_tuning(replace(chains.tuning, step_size=shaped))
        infos = []
        log_likelihoods = []
        for _ in range(self.num_steps):
            infos.append(chains.step())
            log_likelihoods.append(chains.by_rung(chains.point.parts[1]))
        kept = torch.stack(log_likelihoods[self.num_steps // 2 - 1 :], 2)
        # Every draw counts as a chain, since nothing is asked of the standard error.
        evidence = self._estimate(kept.flatten(1, 2).unsqueeze(2), chains.betas).value
        positions = chains.by_rung(chains.point.position)
        posterior, weights = self._posterior(positions, log_likelihoods[-1], chains.betas)
        next_step_size, statistics = self._summary(
            step_size, infos, evidence, chains.swap_acceptance
        )
        return PosteriorDraws(
            posterior, weights, positions[0], chains.point.position, next_step_size, statistics
        )
