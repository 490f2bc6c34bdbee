"""What the objectives that sample the posterior by Langevin chains share."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any, ClassVar

import torch
from pyro.util import warn_if_nan
from torch import Tensor

from pyro_tkam._checks import flag, one_of, whole_number
from pyro_tkam.infer.mcmc.chains import Chains
from pyro_tkam.infer.mcmc.kernels.base import LangevinKernel
from pyro_tkam.infer.model.draws import Particles
from pyro_tkam.infer.objectives.base import MaximumLikelihood
from pyro_tkam.infer.objectives.posterior import BoundModel, holding_prior
from pyro_tkam.infer.tempering.chains import TemperedChains
from pyro_tkam.ops.langevin import StepInfo

STUCK_SHARE = 0.002
"""Share of chains that may stand still beyond what chance explains."""

STUCK_FACTOR = 5.0
"""Times the expected share of chains that never accept, as acceptance differs between data."""

KernelFactory = Callable[..., LangevinKernel]


@dataclass(frozen=True)
class ChainStatistics:
    """
    Statistics of the chains.

    :param log_evidence: estimate of each datum's log evidence, of the local plates' shape, or None.
    :param acceptance_rate: mean acceptance probability at each temperature that a kernel moves,
        ``(rungs,)``.
    :param step_size: step size with which these steps started, ``(rungs,)``.
    :param swap_rate: mean swap acceptance of neighbors, ``(rungs - 1,)``, or None without
        temperatures.
    """

    log_evidence: Tensor | None
    acceptance_rate: Tensor
    step_size: Tensor
    swap_rate: Tensor | None = None

    @property
    def metrics(self) -> dict[str, Tensor]:
        """Acceptance and step size of the coldest chains, and the mean swap rate."""
        swaps = {} if self.swap_rate is None else {"swap_rate": self.swap_rate.mean()}
        return {"acceptance": self.acceptance_rate[-1], "step_size": self.step_size[-1], **swaps}


@dataclass(frozen=True)
class PosteriorDraws:
    """
    Where chains ended, as positions without gradients.

    :param posterior: ``(rows, *local, dim)``.
    :param weights: of these, ``(rows, *local)``, summing to one over the rows.
    :param prior: draws of the prior, ``(rows, *local, dim)``; None where chains start elsewhere and
        none are needed.
    :param last: where every chain ended, from which persistent ones go on.
    :param next_step_size: step size to carry to the next training step, ``(rungs,)``.
    :param statistics: statistics of the chains.
    :param lower_bound: the bound that a guide maximizes with its own draws, a scalar with its
        gradient.
    """

    posterior: Tensor
    weights: Tensor
    prior: Tensor | None
    last: Tensor
    next_step_size: Tensor
    statistics: ChainStatistics
    lower_bound: Tensor | None = None


Values = dict[str, Tensor]
"""Values of the latent sites at the posterior draws, by name."""


def _quadrature(
    bound: BoundModel, draws: PosteriorDraws, values: Values
) -> tuple[Particles, Tensor]:
    particles = bound.score(values)
    return particles, (draws.weights * particles.log_prior).sum()


def _contrastive(
    bound: BoundModel, draws: PosteriorDraws, values: Values
) -> tuple[Particles, Tensor]:
    assert draws.prior is not None
    rows = len(draws.posterior)
    prior = bound.values(draws.prior)
    both = bound.score({name: torch.cat([value, prior[name]]) for name, value in values.items()})
    log_prior = both.log_prior.expand(both.log_likelihood.shape)
    particles = Particles(
        log_prior[:rows], both.log_likelihood[:rows], None, both.scale, both.values
    )
    return particles, (draws.weights * log_prior[:rows]).sum() - log_prior[rows:].mean(0).sum()


#: How the log-prior of posterior draws is differentiated (Raj 2025, Eq. 17-19).
LOG_PRIOR_GRADIENTS = {"quadrature": _quadrature, "contrastive": _contrastive}


class ChainMLE(MaximumLikelihood):
    """
    Maximum likelihood from the ends of Langevin chains; see :class:`LangevinMLE` and
    :class:`SteppingstoneMLE`.

    Training steps are counted, step sizes carried and persistent chains moved only by calls that
    take gradients.
    """

    #: whether chains may start from a guide
    takes_guide: ClassVar[bool] = False

    def __init__(
        self,
        kernel: KernelFactory | LangevinKernel,
        num_steps: int,
        num_chains: int,
        log_prior_gradient: str,
        persistent: bool,
        options: dict[str, Any],
    ) -> None:
        for name, value in (("num_steps", num_steps), ("num_chains", num_chains)):
            whole_number(name, value, 1)
        one_of("log_prior_gradient", log_prior_gradient, LOG_PRIOR_GRADIENTS)
        super().__init__(num_particles=num_chains)
        self.kernel = _configured(kernel, options)
        self.num_steps = num_steps
        self.num_chains = num_chains
        self.persistent = flag("persistent", persistent)
        self.log_prior_gradient = log_prior_gradient
        self._score = LOG_PRIOR_GRADIENTS[log_prior_gradient]
        self._bound: BoundModel | None = None
        self._warned = False
        self._forget()

    def _forget(self) -> None:
        self.step = 0
        self._step_size: Tensor | None = None
        self._last: Tensor | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the training step, the step sizes and, where they are persistent, the chains."""
        return {"step": self.step, "step_size": self._step_size, "chains": self._last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Continue from a state.

        :param state: what :meth:`state_dict` returned.
        """
        self.step = state["step"]
        self._step_size = state["step_size"]
        self._last = state["chains"]

    def _get_trace(
        self, model: Any, guide: Any, args: Any, kwargs: Any
    ) -> tuple[PosteriorDraws, Values]:
        """Run the chains and return where they end, also as values of the latent sites."""
        if guide is not None and not self.takes_guide:
            raise ValueError(
                f"guide must be None, because chains start from the prior, got {guide!r}"
            )
        if guide is not None and self.persistent:
            raise ValueError(
                "persistent must be False with a guide, from which chains start each time, got True"
            )
        with holding_prior(model):
            self._bound = self._bind(model, args, kwargs)
            with self._bound.frozen(guide):
                draws = self._sample(self._bound, guide)
                return draws, self._bound.values(draws.posterior)

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        """
        Return the value as a scalar whose gradient is the estimated gradient of the negative log
        evidence.

        :param model: a Pyro model; ``args`` and ``kwargs`` are passed to it.
        :param guide: None, or a guide where the objective takes one.
        :return: nats, scaled from the mini-batch to all data.
        :raises ValueError: for a guide that is not taken, a model that chains can't sample, and
            persistent chains of a mini-batch.
        """
        draws, values = self._get_trace(model, guide, args, kwargs)
        assert self._bound is not None
        particles, log_prior = self._score(self._bound, draws, values)
        log_likelihood = (draws.weights * particles.log_likelihood).sum()
        evidence = draws.statistics.log_evidence
        value = log_likelihood.detach() if evidence is None else evidence.sum()
        surrogate = log_likelihood + log_prior
        if draws.lower_bound is not None:
            surrogate = surrogate + draws.lower_bound
        elif guide is not None:
            surrogate = surrogate + (draws.weights * self._bound.score_guide(guide, values)).sum()
        loss = -particles.scale * (value + surrogate - surrogate.detach())
        self.statistics = draws.statistics
        if torch.is_grad_enabled():
            self._advance(draws)
        warn_if_nan(loss, "loss")
        return loss

    @abstractmethod
    def _sample(self, bound: BoundModel, guide: Any) -> PosteriorDraws:
        """Run the chains, from the guide's draws if there is one."""

    def _bind(self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> BoundModel:
        if self._bound is not None and self._bound.model == model:  # bound methods are equal
            return self._bound.rebind(args, kwargs)
        if self._bound is not None:
            self._forget()  # what it carries belongs to another model
        return BoundModel(model, self.kernel, args, kwargs)

    def _advance(self, draws: PosteriorDraws) -> None:
        self.step += 1
        self._step_size = draws.next_step_size
        self._last = draws.last if self.persistent else None

    def _start(self, bound: BoundModel, drawn: Tensor) -> Tensor:
        """Return where chains start: at draws from the prior, or where persistent ones ended."""
        if self.persistent and bound.is_mini_batch:
            raise ValueError(
                "persistent must be False for mini-batches, because each chain belongs to one "
                "datum, got True"
            )
        if not self.persistent or self._last is None:
            return drawn
        if self._last.shape != drawn.shape:
            raise ValueError(
                "persistent must be False if the number of data changes, got chains of shape "
                f"{tuple(self._last.shape)} for data that need {tuple(drawn.shape)}"
            )
        return self._last.to(drawn)

    def _prepare(self, chains: Chains | TemperedChains) -> None:
        """Let chains leave their start: an exact kernel may reject for ever in a steep tail."""
        if self._last is None or not self.persistent:
            chains.num_unadjusted = self.kernel.unadjusted_start(self.num_steps)

    def _carried(self, rungs: int, like: Tensor) -> Tensor:
        """Return the step sizes ``(rungs,)`` to start with."""
        if self._step_size is None:
            return like.new_full((rungs,), self.kernel.initial_step_size)
        return self._step_size.to(like)

    def _summary(
        self,
        step_size: Tensor,
        infos: Sequence[StepInfo],
        log_evidence: Tensor | None,
        swap_rate: Tensor | None,
    ) -> tuple[Tensor, ChainStatistics]:
        """Return the next step size and the statistics of the steps of this call."""
        rungs = len(step_size)
        accepted, used, rate = (
            torch.stack([getattr(info, name).reshape(rungs, -1) for info in infos])
            for name in ("accepted", "step_size", "acceptance_rate")
        )
        mean_accepted = (accepted * used).sum((0, 2)) / accepted.sum((0, 2))
        statistics = ChainStatistics(log_evidence, rate.mean((0, 2)), step_size, swap_rate)
        self._warn_of_stuck(accepted[:, -1] > 0, rate[:, -1])
        return self.kernel.carried_step_size(step_size, mean_accepted), statistics

    def _warn_of_stuck(self, accepted: Tensor, rate: Tensor) -> None:
        """Warn, once, where more of the coldest chains never move than their acceptance explains.

        :param accepted: whether a step was accepted, ``(steps, chains)``.
        :param rate: acceptance probabilities.
        """
        stuck = (~accepted.any(0)).double().mean().item()
        expected = (1 - rate.double().mean()).pow(len(rate)).item()
        if self._warned or stuck <= STUCK_SHARE + STUCK_FACTOR * expected:
            return
        self._warned = True
        warnings.warn(
            f"{stuck:.1%} of the chains did not move in {len(rate)} steps, so the gradient "
            "comes partly from their starting points; use a smaller step_size or more steps",
            stacklevel=2,
        )


def _configured(kernel: KernelFactory | LangevinKernel, options: dict[str, Any]) -> LangevinKernel:
    """Return a kernel that holds the options; the model in it is a stand-in."""
    if isinstance(kernel, LangevinKernel):
        if options:
            raise ValueError(
                f"options must be passed to the kernel itself, got {sorted(options)} with a "
                "kernel instance"
            )
        return kernel
    made = kernel(_no_model, **options) if _makes(kernel, options) else None
    if not isinstance(made, LangevinKernel):
        raise TypeError(
            f"kernel must be ULA, MALA, AutoMALA or an instance of one of them, got {kernel!r}"
        )
    return made


def _makes(kernel: Any, options: dict[str, Any]) -> bool:
    """Tell whether something can be called on a model with options."""
    if isinstance(kernel, type):
        return issubclass(kernel, LangevinKernel)
    if not callable(kernel):
        return False
    try:
        signature(kernel).bind(_no_model, **options)
    except TypeError:
        return False
    return True


def _no_model() -> None:
    raise RuntimeError("the kernel of an objective has no model of its own")
