"""Sequential Monte Carlo from the prior to the posterior, as a sampler and an evidence."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import nullcontext
from os import PathLike
from typing import Any

import torch
from pyro.infer.mcmc.util import print_summary
from torch import Tensor

from pyro_tkam._checks import flag, whole_number, within
from pyro_tkam._threads import PYRO
from pyro_tkam.infer.mcmc.judging import prior_notes, warn_of, warn_of_prior
from pyro_tkam.infer.mcmc.kernels.ensemble_hmc import EnsembleHMC
from pyro_tkam.infer.mcmc.kernels.random_walk import RandomWalk
from pyro_tkam.infer.mcmc.metric import Metric
from pyro_tkam.infer.mcmc.resumable import BatchRun, Sampled, check_mass, select_draws
from pyro_tkam.infer.mcmc.smc_run import ScheduledRun, prepared
from pyro_tkam.infer.mcmc.tempered_ensemble import POPULATIONS, Rung, TemperedEnsemble
from pyro_tkam.infer.model.arguments import check_callable
from pyro_tkam.infer.model.coordinates import around_mean
from pyro_tkam.infer.model.requirements import check_data, refuse_scaled, scaled_priors
from pyro_tkam.infer.parallel import check_executor, run_seeded
from pyro_tkam.infer.results import Evidence, Finding, Verdict
from pyro_tkam.ops.estimators import Estimate

FEWEST_PARTICLES = 64
FEWEST_RUNS = 4
RHAT_LIMIT = 1.05
"""Between runs. Of runs of ``N`` independent draws it is about ``1 + 1/(2N)``."""

FEWEST_ANCESTORS = 8
LARGEST_ERROR = 0.5  # nats


class SMC(BatchRun):
    """Tempered sequential Monte Carlo of any Pyro model, with its evidence.

    A first run chooses temperatures, metrics and step sizes. Then ``num_runs`` independent runs use
    them unchanged, so each run's estimate of the evidence is unbiased (Del Moral, Doucet and Jasra
    2006, 10.1111/j.1467-9868.2006.00553.x). The mean of the estimates is the evidence, and their
    scatter gives its error. The draws are the rows of these runs at the posterior, each run
    weighted by its evidence.

    Sites with a flat prior start from ``N(0, 2²)`` on unconstrained coordinates.

    :param model: a Pyro model.
    :param num_particles: rows of a run, at least 64.
    :param ess_threshold: share of effective rows to keep at each temperature, in (0, 1).
    :param kernel: makes the moves: an :class:`EnsembleHMC` of this model if None, or a
        :class:`RandomWalk` for a model without gradients.
    :param num_runs: number of runs that estimate the evidence, at least 4.
    :param executor: workers for these runs, see :func:`map_seeded`; results are the same to the bit
        without them.
    :param disable_progbar: show no progress.
    :param checkpoint: file to write the state to; the next run on the same arguments resumes from
        it, to the same bits. None writes no file.
    :param checkpoint_every: temperatures of the first run, and later runs, between two writes.
    :raises TypeError: if ``executor`` is not an executor.
    :raises ValueError: if a number is out of range.

    >>> import pyro, pyro.distributions as dist
    >>> def model(x):
    ...     z = pyro.sample("z", dist.Normal(0.0, 1.0))
    ...     pyro.sample("x", dist.Normal(z, 1.0), obs=x)
    >>> pyro.set_rng_seed(0)
    >>> smc = SMC(model, num_particles=256, disable_progbar=True)
    >>> smc.run(torch.tensor(0.5))
    >>> exact = dist.Normal(0.0, 2.0**0.5).log_prob(torch.tensor(0.5))
    >>> bool(abs(smc.log_evidence.value - exact) < 5 * smc.log_evidence.standard_error)
    True
    """

    entries = frozenset({"pilot", "rungs", "evaluations", "seed"})

    def __init__(
        self,
        model: Callable[..., Any],
        num_particles: int = 512,
        *,
        ess_threshold: float = 0.5,
        kernel: EnsembleHMC | RandomWalk | None = None,
        num_runs: int = FEWEST_RUNS,
        executor: Executor | None = None,
        disable_progbar: bool = False,
        checkpoint: str | PathLike[str] | None = None,
        checkpoint_every: int = 1,
    ) -> None:
        check_callable(model)
        whole_number("num_runs", num_runs, FEWEST_RUNS)
        whole_number("num_particles", num_particles, FEWEST_PARTICLES)
        within("ess_threshold", ess_threshold, 0, 1)
        num_particles = POPULATIONS * -(-num_particles // POPULATIONS)
        kernel = EnsembleHMC(model) if kernel is None else kernel
        if not isinstance(kernel, EnsembleHMC | RandomWalk):
            raise TypeError(f"kernel must be an EnsembleHMC, a RandomWalk or None, got {kernel!r}")
        super().__init__(
            kernel, num_runs, 0, num_particles, disable_progbar, checkpoint, checkpoint_every
        )
        check_executor(executor)
        self.model = model
        self.ess_threshold = ess_threshold
        self.executor = executor
        self._rungs: list[Rung] = []
        self._samples: dict[str, Tensor] = {}

    def run(self, *args: Any, **kwargs: Any) -> None:
        """Run on the model's arguments.

        :raises ValueError: if the model or its data are not what they must be, or the draws find no
            common support of prior and posterior.
        :raises KeyboardInterrupt: after Ctrl-C, between two temperatures or runs.
        """
        with PYRO:
            checked = check_data(self.model, args, kwargs)
        self._args = args = checked.args
        self._kwargs = kwargs = checked.kwargs
        self._scaled = scaled_priors(checked.trace)
        self._samples = {}
        self._rungs = []
        # Threads of an executor take turns themselves, and would wait for this one.
        with PYRO if self.executor is None else nullcontext():
            self._run(args, kwargs)
        warn_of(self.verdict, "the draws", stacklevel=3)
        warn_of_prior(self._density, args, kwargs)

    @property
    def log_evidence(self) -> Evidence:
        """Log evidence by the runs' mean, with its error from their scatter.

        :raises RuntimeError: before a run.
        :raises ValueError: for a model with a scaled prior.
        """
        each = self._finished("log_evidence")
        refuse_scaled(self._scaled)
        value = each.logsumexp(0) - math.log(len(each))
        relative = (each - value).exp()
        error = relative.std(0) / len(each) ** 0.5
        return Evidence.of(
            Estimate(value, error), "smc", self.verdict, evaluations=int(self._evaluations)
        )

    @property
    def log_weights(self) -> Tensor:
        """Log weights of the draws, ``(run, particle, *local)``; they sum to one over both."""
        each = self._finished("log_evidence")
        rows = self._records["position"].shape[1]
        weights = each - each.logsumexp(0) - math.log(rows)
        return weights.unsqueeze(1).expand(len(each), rows, *each.shape[1:])

    @property
    def verdict(self) -> Verdict:
        """Whether draws and evidence can be trusted, and why."""
        positions = self._finished("position")
        turned = around_mean(positions.flatten(0, 1), self._density.layout.periods)
        draws = turned.unflatten(0, positions.shape[:2]).flatten(2)
        findings = []
        between = draws.mean(1).var(0)
        within = draws.var(1).mean(0)
        rhat = torch.where(within > 0, (1 + between / within).sqrt(), 1.0)
        if rhat.max() > RHAT_LIMIT:
            where = self._density.layout.names[int(rhat.argmax())]
            seen = f"R-hat between runs is {rhat.max():.3f} at {where!r} (limit {RHAT_LIMIT})"
            findings.append(Finding("runs disagree", seen, "raise num_particles"))
        ancestors = self._fewest_ancestors()
        if ancestors < FEWEST_ANCESTORS:
            seen = f"the rows of a run descend from {ancestors} draws of the prior"
            findings.append(Finding("few ancestors", seen, "raise num_particles"))
        scatter = self._finished("log_evidence").std(0).max().item()
        if scatter > 2 * LARGEST_ERROR:
            seen = f"the log evidence differs by {scatter:.1f} nats between runs"
            findings.append(Finding("uncertain evidence", seen, "raise num_particles"))
        measures = {
            "largest R-hat between runs": rhat.max().item(),
            "fewest ancestors": float(ancestors),
            "temperatures": float(len(self._rungs)),
        }
        return Verdict(tuple(findings), measures) + prior_notes(self._density)

    @property
    def temperatures(self) -> Tensor:
        """Inverse temperatures, ``(rung, *local)``."""
        return torch.stack([rung.t for rung in self._rungs])

    def get_samples(
        self, num_samples: int | None = None, group_by_chain: bool = False
    ) -> dict[str, Tensor]:
        """
        Return draws by site, ``(draw, ...)``, resampled to equal weights, or with all runs' rows
        ``(run, particle, ...)``, which :attr:`log_weights` belong to.

        :param num_samples: if given, draw this many with replacement.
        :param group_by_chain: keep the run dimension.
        """
        self._finished("position")
        if num_samples is not None:
            whole_number("num_samples", num_samples, 0)
        if flag("group_by_chain", group_by_chain):
            return select_draws(self._samples, num_samples, True)
        weights = self.log_weights
        if weights.ndim > 2:
            raise ValueError(
                "group_by_chain must be True for a model with local plates, where each datum "
                "has its own weights, got False"
            )
        flat = weights.flatten()
        num = len(flat) if num_samples is None else num_samples
        rows = torch.multinomial(flat.exp(), num, replacement=True)
        return {name: value.flatten(0, 1)[rows] for name, value in self._samples.items()}

    def summary(self, prob: float = 0.9) -> None:
        """
        Print means, quantiles and diagnostics of the draws, angles around their mean direction,
        and the evidence.

        :param prob: mass of the credible interval.
        """
        self._finished("position")
        print_summary(self._density.layout.angles_around_mean(self._samples), prob=check_mass(prob))
        print(self.log_evidence)

    @property
    def _gradients(self) -> bool:
        return isinstance(self.kernel, EnsembleHMC)

    def _begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.device:
        self._density, self._path = prepared(self.model, args, kwargs, self._gradients)
        self._seed: int | None = None
        self._runs: Iterator[tuple[dict[str, Tensor], int]] | None = None
        self._pilot = TemperedEnsemble(self.kernel, self._path, self.num_chains, self.ess_threshold)
        self._evaluations = 0
        return self._path.device

    def _prepare(self) -> bool:
        if self._pilot.done:
            if self._seed is None:
                self._seed = int(torch.randint(2**31, ()))
            return False
        self._pilot.rung()
        self._rungs.append(self._pilot.found)
        self._evaluations = self._pilot.state.gradients * self.num_chains
        return True

    def _sampled(self) -> Sampled:
        return self._path.at(torch.ones(()))

    def _step(self, index: int) -> dict[str, Tensor]:
        if self._runs is None:
            self._runs = self._run_from(index)
        kept, gradients = next(self._runs)
        self._evaluations += gradients * self.num_chains
        return kept

    def _run_from(self, first: int) -> Iterator[tuple[dict[str, Tensor], int]]:
        """Start all runs from one on; each has a seed that follows from the pilot's end."""
        assert self._seed is not None, "the pilot is done"
        seeds = [(self._seed + index) % 2**31 for index in range(first, self.num_samples)]
        path = self._pilot.path
        run = ScheduledRun(
            self.model,
            self._args,
            self._kwargs,
            self.kernel,
            self._gradients,
            self.num_chains,
            self._rungs,
            path.density.starts_normal,
            path if self.executor is None else None,
        )
        return run_seeded(run, [(seed, seed) for seed in seeds], self.executor)

    def _state(self) -> dict[str, Any]:
        rungs = [[each.t, each.metric.state(), each.step_size] for each in self._rungs]
        return {
            "pilot": self._pilot.save(),
            "rungs": rungs,
            "evaluations": self._evaluations,
            "seed": self._seed,
        }

    def _load(self, state: dict[str, Any]) -> None:
        self._pilot.load(state["pilot"])
        self._rungs = [Rung(t, Metric.of_state(metric), step) for t, metric, step in state["rungs"]]
        self._evaluations = state["evaluations"]
        self._seed = state["seed"]

    def _status(self) -> dict[str, str]:
        return {"t": f"{self._pilot.state.t.min():.2e}"}

    def _finish(self) -> None:
        self._runs = None  # calls off those that have not begun
        if self._records:
            self._samples = self._density.constrain(self._records["position"][: self.num_draws])

    def _finished(self, name: str) -> Tensor:
        if self.num_draws < self.num_samples:
            raise RuntimeError("run() must be called first: there are no results yet")
        return self._records[name]

    def _fewest_ancestors(self) -> int:
        ancestors = self._finished("ancestor")
        each = ancestors.reshape(*ancestors.shape[:2], -1).sort(1).values
        return int((each.diff(dim=1) > 0).sum(1).min()) + 1
