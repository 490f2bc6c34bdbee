"""Parallel tempering of any Pyro model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import Any

import torch
from pyro.infer.mcmc.util import diagnostics, print_summary
from torch import Tensor

from pyro_tkam._checks import flag, whole_number
from pyro_tkam._threads import in_turn
from pyro_tkam.infer.mcmc.judging import ChainRun, chain_verdict, prior_notes, warn_of
from pyro_tkam.infer.mcmc.kernels.base import LangevinKernel, check_kernel
from pyro_tkam.infer.mcmc.resumable import BatchRun, check_mass, select_draws
from pyro_tkam.infer.model.coordinates import around_mean
from pyro_tkam.infer.model.density import Density, ModelDensity
from pyro_tkam.infer.model.requirements import check_model
from pyro_tkam.infer.results import Evidence, Verdict
from pyro_tkam.infer.tempering.chains import TemperedChains
from pyro_tkam.infer.tempering.estimates import evidence_from, recorded, run_verdict
from pyro_tkam.infer.tempering.schedule import make_ladder
from pyro_tkam.ops.schedules import communication_barrier, suggested_number
from pyro_tkam.ops.tempering import round_trips

STEP_MARGIN = 3
"""Times the dearest step so far that must be left of the evaluations for another step."""

STATISTICS = ("acceptance_rate", "step_size", "diverging", "energy", "reversible", "failed")
PATHS = ("log_likelihood", "log_prior", "replicas", "positions")
"""What is kept of all temperatures."""


@dataclass(frozen=True)
class PowerPosteriors:
    """Draws from ``p_t(z|x) ∝ p(x|z)^t p(z)`` at all temperatures, and how they mixed.

    :param betas: inverse temperatures ``t``, rising from 0 to 1, ``(temperature,)``.
    :param log_likelihood: ``log p(x|z)``, ``(temperature, chain, draw, *local)``.
    :param log_prior: log prior of the coordinates, of the same shape.
    :param replicas: index process: which replica is at each rung, of the same shape.
    :param positions: coordinates, ``(temperature, chain, draw, *local, dim)``; of ``t = 1`` only,
        unless all were kept.
    :param swap_acceptance: mean swap acceptance of neighbors, ``(temperature - 1,)``.
    :param sample_stats: statistics of the draws at ``t = 1``, as those of :class:`VectorizedMCMC`,
        each ``(chain, draw, *local)``.
    :param evaluations: evaluations of the likelihood, with or without its gradient, by all rows,
        warm-up included.
    :param density: the model's log density, which ``positions`` belong to.
    """

    betas: Tensor
    log_likelihood: Tensor
    log_prior: Tensor
    replicas: Tensor
    positions: Tensor
    swap_acceptance: Tensor
    sample_stats: dict[str, Tensor]
    evaluations: int
    density: ModelDensity

    @property
    def samples(self) -> dict[str, Tensor]:
        """Posterior draws (``t = 1``) by site, each ``(chain, draw, ...)``."""
        return self.density.constrain(self.positions[-1])

    @cached_property
    def verdict(self) -> Verdict:
        """Whether the draws at ``t = 1`` can be trusted, by themselves and by the whole ladder."""
        stats = self.sample_stats
        last = self.positions[-1]
        turned = around_mean(last.flatten(0, 1), self.density.layout.periods)
        posterior = ChainRun(
            draws=turned.unflatten(0, last.shape[:2]).flatten(2),
            names=self.density.layout.names,
            acceptance=stats["acceptance_rate"],
            diverging=stats["diverging"],
            failed=stats["failed"],
            capped=stats.get("capped"),
        )
        return run_verdict(self) + chain_verdict(posterior) + prior_notes(self.density)

    @property
    def round_trips(self) -> Tensor:
        """
        Number of trips of a replica from ``t = 0`` to ``t = 1`` and back, ``(chain, *local)``.
        """
        return round_trips(self.replicas)

    @property
    def barrier(self) -> Tensor:
        """
        Communication barrier ``Λ(t_k)`` at each rung, ``(temperature,)``; its last entry is that of
        the ladder.
        """
        return communication_barrier(1 - self.swap_acceptance)

    @property
    def suggested_num_temperatures(self) -> int:
        """Number of temperatures suggested by the barrier."""
        return suggested_number(self.barrier[-1].item())

    @property
    def rhat(self) -> Tensor:
        """
        Split R-hat of the log likelihood at ``betas[1:]``, ``(temperature - 1, *local)``; 1 where
        chains agree.

        It compares the halves of the chains, so that a single chain is compared with itself. Draws
        at ``t = 0`` come from the prior itself, where their log likelihood may be ``-inf``.
        """
        return recorded(self).rhat

    @property
    def effective_draws(self) -> Tensor:
        """
        Effective sample size of the log likelihood at ``betas[1:]``, ``(temperature - 1, *local)``,
        all chains.
        """
        return recorded(self).effective_draws

    def log_evidence(self, method: str = "auto") -> Evidence:
        """Estimate the log evidence from these draws.

        :param method: ``"steppingstone"``, ``"thermodynamic"``, ``"bar"``, ``"bridge"``, or
            ``"auto"``: the bridge where it agrees with Bennett's ratio, and that ratio elsewhere.
        :raises ValueError: if the method is unknown, or there are too few draws.
        """
        return evidence_from(self, method)


class ParallelTempering(BatchRun):
    """Runs chains at many temperatures in one batch, exchanging states between neighbors.

    Even and odd pairs of neighbors swap alternately, per chain and per datum (Raj 2025,
    arXiv:2506.14167, Eq. 37). Chains start from the prior, which is sampled exactly at ``t = 0``
    where the model allows, in coordinates in which it is standard normal where sites have an
    inverse CDF. The warm-up is made of rounds of doubling length, between which an adaptive ladder
    moves to equal rejection; the first three rounds skip the Metropolis test. Each temperature has
    its own step size and scales. After :meth:`run`, :attr:`verdict` says what is wrong with the
    draws, and a warning reports it. A run may be interrupted and resumed (:attr:`state`,
    :meth:`resume`, ``checkpoint``).

    :param kernel: an :class:`EnsembleHMC`, :class:`ULA`, :class:`MALA` or :class:`AutoMALA` with a
        model.
    :param num_temperatures: number of rungs, at least 2; not used if ``schedule`` is a tensor.
    :param schedule: ``"adaptive"``, ``"power"``, ``"linear"`` or inverse temperatures rising from 0
        to 1.
    :param num_samples: number of draws kept of each chain and temperature.
    :param warmup_steps: number of steps that adapt and are dropped; ``num_samples`` if None.
    :param num_chains: chains at each temperature.
    :param swap_every: number of steps between swaps.
    :param standard_normal: use coordinates with a standard normal prior where sites have them.
    :param keep_all: keep the draws of all temperatures, not only those of ``t = 1``.
    :param max_evaluations: maximum number of evaluations; the run may stop with fewer draws. None
        sets no limit.
    :param disable_progbar: show no progress.
    :param checkpoint: file to write the state to; the next run on the same arguments resumes from
        it, to the same bits. None writes no file.
    :param checkpoint_every: steps between two writes.
    :ivar prepared: the density of the model on arguments that were checked, where it was made
        before; set by :func:`log_evidence`, whose evidence has a verdict of its own.
    :raises TypeError: if ``kernel`` isn't a Langevin kernel.
    :raises ValueError: if the kernel has no model, or a number or schedule is out of range.

    >>> import pyro, torch, pyro.distributions as dist
    >>> from pyro_tkam.infer import AutoMALA
    >>> def model(x):
    ...     z = pyro.sample("z", dist.Normal(0.0, 1.0))
    ...     pyro.sample("x", dist.Normal(z, 0.1), obs=x)
    >>> tempering = ParallelTempering(
    ...     AutoMALA(model), num_temperatures=8, num_samples=200, num_chains=8, disable_progbar=True
    ... )
    >>> tempering.run(torch.tensor(0.3)).log_likelihood.shape
    torch.Size([8, 8, 200])
    """

    entries = TemperedChains.entries

    def __init__(
        self,
        kernel: LangevinKernel,
        *,
        num_temperatures: int = 16,
        schedule: str | Tensor = "adaptive",
        num_samples: int,
        warmup_steps: int | None = None,
        num_chains: int = 1,
        swap_every: int = 1,
        standard_normal: bool = True,
        keep_all: bool = False,
        max_evaluations: int | None = None,
        disable_progbar: bool = False,
        checkpoint: str | PathLike[str] | None = None,
        checkpoint_every: int = 100,
    ) -> None:
        super().__init__(
            check_kernel(kernel),
            num_samples,
            warmup_steps,
            num_chains,
            disable_progbar,
            checkpoint,
            checkpoint_every,
        )
        if kernel.model is None:
            raise ValueError(
                "kernel must be made from a model, because a potential_fn has no prior to "
                "temper from, got one made from potential_fn"
            )
        self.swap_every = whole_number("swap_every", swap_every, 1)
        self.keep_all = flag("keep_all", keep_all)
        self.standard_normal = flag("standard_normal", standard_normal)
        if max_evaluations is not None:
            whole_number("max_evaluations", max_evaluations, 1)
        self.max_evaluations = max_evaluations
        self._ladder = make_ladder(schedule, num_temperatures)
        self.prepared: ModelDensity | None = None
        self.result: PowerPosteriors | None = None

    @in_turn
    def run(self, *args: Any, **kwargs: Any) -> PowerPosteriors:
        """Run on the model's arguments.

        :raises ValueError: for what :func:`log_evidence` refuses of the model and its data, or if
            ``max_evaluations`` ends the warm-up.
        :raises KeyboardInterrupt: after Ctrl-C, between two steps; the draws made so far are kept
            in ``result``.
        """
        assert self.kernel.model is not None
        if self.prepared is None:
            checked = check_model(self.kernel.model, args, kwargs)
            args = checked.args
            kwargs = checked.kwargs
        self.result = None
        self._run(args, kwargs)
        if self.num_draws == 0:
            raise ValueError(
                f"max_evaluations must be enough for a warm-up of {self.warmup_steps} steps, got "
                f"{self.max_evaluations}"
            )
        result = self._finished()
        if self.prepared is None:
            warn_of(result.verdict, "the draws")
        return result

    @property
    def verdict(self) -> Verdict:
        """Whether the draws can be trusted, and why.

        :raises RuntimeError: before there are draws.
        """
        return self._finished().verdict

    def get_samples(
        self, num_samples: int | None = None, group_by_chain: bool = False
    ) -> dict[str, Tensor]:
        """
        Return posterior draws (``t = 1``) by site, as :meth:`VectorizedMCMC.get_samples` does.
        """
        return select_draws(self._finished().samples, num_samples, group_by_chain)

    def diagnostics(self) -> dict[str, Any]:
        """
        Return effective sample size and split R-hat by site at ``t = 1``, and at each temperature.

        The latter are those of the log likelihood: entry ``"temperatures"`` holds ``t``, ``n_eff``
        and ``r_hat``, each with a first dimension ``temperature - 1``, as the prior (``t = 0``) is
        left out.

        :raises ValueError: if there are fewer than 4 draws in a chain.
        """
        result = self._finished()
        rungs = {"t": result.betas[1:], "r_hat": result.rhat, "n_eff": result.effective_draws}
        return {**diagnostics(result.samples), "temperatures": rungs}

    def log_evidence(self, method: str = "auto") -> Evidence:
        """Estimate the log evidence, as :meth:`PowerPosteriors.log_evidence` does."""
        return self._finished().log_evidence(method)

    def summary(self, prob: float = 0.9) -> None:
        """
        Print means, quantiles and diagnostics of the posterior draws, angles around their mean
        direction, and how the temperatures mixed.

        :param prob: mass of the credible interval.
        :raises ValueError: if it is not between 0 and 1.
        """
        result = self._finished()
        shown = result.density.layout.angles_around_mean(result.samples)
        print_summary(shown, prob=check_mass(prob))
        trips = int(result.round_trips.sum())
        barrier = result.barrier[-1].item()
        print(f"Round trips: {trips}; barrier: {barrier:.2f}; temperatures: {len(result.betas)}")
        print(result.verdict)

    def _begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.device:
        density: Density | None = self.prepared
        if density is None:
            density = self.kernel.density(args, kwargs, None, standard_normal=self.standard_normal)
        assert isinstance(density, ModelDensity)
        self._chains = TemperedChains(
            self.kernel, density, self._ladder, self.num_chains, self.warmup_steps, self.swap_every
        )
        return self._chains.point.position.device

    def _must_stop(self) -> bool:
        if self.max_evaluations is None:
            return False
        return (
            int(self._chains.evaluations + STEP_MARGIN * self._chains.dearest_step)
            > self.max_evaluations
        )

    def _sampled(self) -> Density:
        return self._chains.density

    def _step(self, index: int) -> dict[str, Tensor]:
        chains = self._chains
        info = chains.step()
        log_prior, log_likelihood = (chains.by_rung(part) for part in chains.point.parts[:2])
        position = chains.by_rung(chains.point.position)
        records = {name: getattr(info, name) for name in STATISTICS}
        records["failed"] = info.failed & ~info.outside
        last = chains.tuning.map(lambda each: each[-1])
        records |= self.kernel.further_statistics(info, last)
        return {name: each[-self.num_chains :] for name, each in records.items()} | {
            "positions": position if self.keep_all else position[-1:],
            "log_prior": log_prior,
            "log_likelihood": log_likelihood,
            "replicas": chains.by_rung(chains.replicas),
        }

    def _state(self) -> dict[str, Any]:
        return self._chains.state()

    def _load(self, state: dict[str, Any]) -> None:
        saved = len(state["betas"])
        own = len(self._chains.betas)
        if saved != own:
            raise ValueError(
                f"state must have been saved with {own} temperatures, as this run has, got {saved}"
            )
        self._chains.load(state)

    def _status(self) -> dict[str, str]:
        return {"swap rate": f"{self._chains.swap_acceptance.mean():.2f}"}

    def _finish(self) -> None:
        if not self._records:
            return
        kept = {name: value[: self.num_draws] for name, value in self._records.items()}
        chains = self._chains
        last = kept["positions"][:, -1].flatten(0, 1)
        chains.density.check_independence(torch.cat([last, chains.point.position]))
        self.result = PowerPosteriors(
            betas=chains.betas,
            **{name: kept[name].movedim(0, 2) for name in PATHS},
            swap_acceptance=chains.swap_acceptance,
            sample_stats={
                name: each.transpose(0, 1) for name, each in kept.items() if name not in PATHS
            },
            evaluations=int(chains.evaluations),
            density=chains.density,
        )

    def _finished(self) -> PowerPosteriors:
        if self.result is None:
            raise RuntimeError("run() must be called first: there are no results yet")
        return self.result
