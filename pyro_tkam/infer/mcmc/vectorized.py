"""MCMC whose chains all move in one batch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any

import torch
from pyro.infer.mcmc.util import diagnostics, print_summary
from torch import Tensor
from torch.distributions import Transform

from pyro_tkam._checks import function, whole_number, words
from pyro_tkam._threads import in_turn
from pyro_tkam.infer.mcmc.chains import Chains
from pyro_tkam.infer.mcmc.ensemble_adaptation import (
    EnsembleAdaptation,
    effective_draws,
    window_ends,
)
from pyro_tkam.infer.mcmc.ensemble_start import EnsembleStart
from pyro_tkam.infer.mcmc.initialization import find_start, floating_params, given_start
from pyro_tkam.infer.mcmc.judging import (
    ChainRun,
    chain_verdict,
    prior_notes,
    warn_of,
    warn_of_prior,
)
from pyro_tkam.infer.mcmc.kernels.base import LangevinKernel, check_kernel
from pyro_tkam.infer.mcmc.kernels.ensemble_hmc import EnsembleHMC
from pyro_tkam.infer.mcmc.metric import Metric, estimated
from pyro_tkam.infer.mcmc.nearer_normal import nearer_density, positions_in
from pyro_tkam.infer.mcmc.resumable import BatchRun, Sampled, check_mass, select_draws
from pyro_tkam.infer.model.coordinates import around_mean
from pyro_tkam.infer.model.density import Density, ModelDensity
from pyro_tkam.infer.model.options import given_transforms
from pyro_tkam.infer.model.requirements import check_data
from pyro_tkam.infer.model.sites import FirstRun
from pyro_tkam.infer.results import Verdict
from pyro_tkam.ops.langevin import StepInfo

LARGE = 1e9
"""Bytes of draws that are told of."""

STATISTICS = ("acceptance_rate", "step_size", "diverging", "energy", "reversible", "failed")


def _last(steps: Tensor) -> Tensor:
    return steps[-1]


def _mean(steps: Tensor) -> Tensor:
    return steps.mean(0)


def _any(steps: Tensor) -> Tensor:
    return steps.any(0)


def _sum(steps: Tensor) -> Tensor:
    return steps.sum(0)


MERGED = {
    "acceptance_rate": _mean,
    "diverging": _any,
    "failed": _any,
    "capped": _any,
    "n_steps": _sum,
}
"""What is recorded of several steps that make one draw; of others the last."""


class VectorizedMCMC(BatchRun):
    """Runs many chains of a kernel in one batch, with the interface of :class:`pyro.infer.MCMC`.

    Chains start from an ensemble of 64 or more that is tempered from the prior to the posterior
    (:class:`SMC`), in four populations that share only temperature, metric and step size; chains
    with ``initial_params``, or with a kernel that has its own ``init_strategy``, start there. All
    chains share the tuning found during warm-up. After :meth:`run`, ``sample_stats`` holds
    ``lp, acceptance_rate, step_size, diverging, energy, reversible, failed, n_steps`` (evaluations
    of density and gradient), ``ancestor`` (draw of the prior from which a chain descends) and, with
    :class:`EnsembleHMC`, ``capped`` (trajectories cut short), each ``(chain, draw, *local)``.
    Densities ``lp`` are of the coordinates that chains move in. :attr:`verdict` says what is wrong
    with the draws, and a warning reports it. A run may be interrupted and resumed (:attr:`state`,
    :meth:`resume`, ``checkpoint``).

    :param kernel: an :class:`EnsembleHMC`, :class:`ULA`, :class:`MALA` or :class:`AutoMALA`.
    :param num_samples: number of draws kept of each chain.
    :param warmup_steps: number of steps at the posterior that adapt the kernel and are dropped; if
        None, 220 with an :class:`EnsembleHMC` and ``num_samples`` with others.
    :param initial_params: unconstrained values by site, with a leading dimension ``num_chains``
        (none when it is 1); a kernel made from a ``potential_fn`` needs them, because nothing else
        defines its sites.
    :param num_chains: number of chains; if None, 64 with an :class:`EnsembleHMC` and 1 with others.
    :param hook_fn: called as ``hook_fn(kernel, params, stage, i)`` after each step, with all
        chains' parameters (of the whole ensemble during its warm-up).
    :param disable_progbar: show no progress.
    :param transforms: per site, from values to the unconstrained coordinates that the draws are
        mapped back with.
    :param save_params: names of the sites to keep; all if None.
    :param checkpoint: file to write the state to; the next run on the same arguments resumes from
        it, to the same bits. None writes no file.
    :param checkpoint_every: steps between two writes.
    :param thin: number of steps for each draw that is kept; the last step gives its values.
    :param standard_normal: move in coordinates with a standard normal prior where sites have them,
        as :class:`InverseTransformReparam` does by hand. This helps where the scale of a site is
        itself a latent of which the data say little, as in a funnel. If None, an
        :class:`EnsembleHMC` changes to them during its warm-up where the posterior is nearer to a
        normal in them, by a nat or more. It does not with ``hook_fn``, which would see other
        coordinates, ``initial_params`` or ``transforms``, for data with latents of their own,
        enumerated sites, more than 512 dimensions or a warm-up of fewer than 55 steps.
    :raises TypeError: if ``kernel`` isn't one of these.
    :raises ValueError: if a number is out of range, ``initial_params`` does not have one set of
        values for each chain, or it or ``transforms`` comes with ``standard_normal``.

    >>> import pyro, torch, pyro.distributions as dist
    >>> from pyro_tkam.infer import MALA
    >>> def model():
    ...     pyro.sample("z", dist.Normal(2.0, 1.0))
    >>> mcmc = VectorizedMCMC(MALA(model), num_samples=100, warmup_steps=50, num_chains=32,
    ...     disable_progbar=True)
    >>> mcmc.run()
    >>> mcmc.get_samples(group_by_chain=True)["z"].shape
    torch.Size([32, 100])
    """

    settings = ("thin", "standard_normal")
    entries = frozenset({"start", "moving", "changed", *settings})

    def __init__(
        self,
        kernel: LangevinKernel,
        num_samples: int,
        warmup_steps: int | None = None,
        initial_params: Mapping[str, Tensor] | None = None,
        num_chains: int | None = None,
        hook_fn: Callable[[LangevinKernel, dict[str, Tensor], str, int], None] | None = None,
        disable_progbar: bool = False,
        transforms: Mapping[str, Transform] | None = None,
        save_params: Sequence[str] | None = None,
        checkpoint: str | PathLike[str] | None = None,
        checkpoint_every: int = 100,
        thin: int = 1,
        standard_normal: bool | None = None,
    ) -> None:
        kernel = check_kernel(kernel)
        num_chains = kernel.default_num_chains if num_chains is None else num_chains
        warmup_steps = kernel.default_warmup_steps if warmup_steps is None else warmup_steps
        super().__init__(
            kernel,
            num_samples,
            warmup_steps,
            num_chains,
            disable_progbar,
            checkpoint,
            checkpoint_every,
        )
        if hook_fn is not None:
            function("hook_fn", hook_fn, "kernel, parameters, stage and step")
        self.hook_fn = hook_fn
        if save_params is not None:
            words("save_params", save_params, "names of sites")
        self.save_params = save_params
        self.thin = whole_number("thin", thin, 1)
        self.transforms = given_transforms(transforms)
        if standard_normal is not None and not isinstance(standard_normal, bool):
            raise TypeError(f"standard_normal must be True, False or None, got {standard_normal!r}")
        self.standard_normal = standard_normal
        for name, given in (("initial_params", initial_params), ("transforms", transforms)):
            if standard_normal and given is not None:
                raise ValueError(
                    f"standard_normal must be False or None with {name}, which refer to "
                    "unconstrained coordinates, got True"
                )
        if initial_params is not None:
            initial_params = floating_params(initial_params)
            if num_chains == 1:
                initial_params = {name: value[None] for name, value in initial_params.items()}
            for name, value in initial_params.items():
                if value.shape[:1] != (num_chains,):
                    raise ValueError(
                        f"initial_params[{name!r}] must have a first dimension of {num_chains}, "
                        f"the number of chains, got shape {tuple(value.shape)}"
                    )
        self._initial_params = initial_params
        self._samples: dict[str, Tensor] = {}
        self._first: FirstRun | None = None
        self._verdict: Verdict | None = None
        self._diagnostics: list[dict[str, Any]] = [{} for _ in range(num_chains)]
        self.sample_stats: dict[str, Tensor] = {}

    @in_turn
    def run(self, *args: Any, **kwargs: Any) -> None:
        """Run all chains on the model's arguments.

        :raises ValueError: if the model or its data are not what they must be, or ``save_params``
            or ``transforms`` names a site that the model doesn't have.
        :raises KeyboardInterrupt: after Ctrl-C, between two steps; the draws made so far are kept.
        """
        if self.kernel.model is not None:
            checked = check_data(self.kernel.model, args, kwargs)
            args = checked.args
            kwargs = checked.kwargs
            self._first = checked.first
        self._args = args
        self._kwargs = kwargs
        self._samples = {}
        self.sample_stats = {}
        self._diagnostics = [{} for _ in range(self.num_chains)]
        self._verdict = None
        self._run(args, kwargs)
        warn_of(self.verdict, "the draws")
        warn_of_prior(self._density, args, kwargs)

    @property
    def verdict(self) -> Verdict:
        """Whether the draws can be trusted, and why.

        :raises RuntimeError: before there are draws.
        """
        if self._verdict is None:
            self._verdict = chain_verdict(self._chain_run()) + prior_notes(self._density)
        return self._verdict

    def get_samples(
        self, num_samples: int | None = None, group_by_chain: bool = False
    ) -> dict[str, Tensor]:
        """
        Return draws by site, ``(chain * draw, ...)``, or ``(chain, draw, ...)`` grouped by chain.

        :param num_samples: if given, draw this many with replacement.
        :param group_by_chain: keep the chain dimension.
        """
        return select_draws(self._drawn(), num_samples, group_by_chain)

    def diagnostics(self) -> dict[str, Any]:
        """
        Return effective sample size and split R-hat by site, divergences and acceptance rate by
        chain.
        """
        drawn = self._drawn()
        result = diagnostics(self._density.layout.angles_around_mean(drawn))
        for name in self._diagnostics[0]:
            result[name] = {f"chain {i}": each[name] for i, each in enumerate(self._diagnostics)}
        return result

    def summary(self, prob: float = 0.9) -> None:
        """Print means, quantiles and diagnostics of the draws; angles around their mean direction.

        :param prob: mass of the credible interval.
        :raises ValueError: if it is not between 0 and 1.
        """
        draws = self._drawn()
        shown = self._density.layout.angles_around_mean(draws)
        print_summary(shown, prob=check_mass(prob))
        print(
            f"Number of divergences: {sum(len(each['divergences']) for each in self._diagnostics)}"
        )
        print(self.verdict)

    def _begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.device:
        given = self._initial_params
        prototype = None if given is None else {name: value[0] for name, value in given.items()}
        self._density = density = self.kernel.density(
            args, kwargs, prototype, first=self._first, standard_normal=bool(self.standard_normal)
        )
        self._first = None
        self._check_names(density)
        self._tell_size(density)
        self.kernel.transforms = density.transforms
        self._chains: Chains | None = None
        self._start: EnsembleStart | None = None
        self._changed = False
        if given is not None:
            point = given_start(density, given, self.num_chains)
        elif self.kernel.has_own_start:
            point = find_start(density, self.num_chains)
        else:
            own = isinstance(self.kernel, EnsembleHMC)
            run = (self.kernel.model, self.kernel.potential_fn)
            mover = self.kernel if own else EnsembleHMC(*run)
            self._start = EnsembleStart(
                self.kernel, mover, density, self.num_chains, rows_go_on=own
            )
            return self._start.ensemble.path.device
        self._chains = Chains.begin(self.kernel, density, point, self.warmup_steps)
        return point.position.device

    def _prepare(self) -> bool:
        if self._chains is not None or self._start is None:
            return False
        self._start.ensemble.rung()
        if self._start.ensemble.done:
            self._chains = self._start.chains(self.warmup_steps)
        return True

    def _tell_size(self, density: Density) -> None:
        """Warn of draws that take much memory, before they are made."""
        numbers = density.layout.dim * math.prod(density.layout.local_shape)
        draws = self.num_chains * self.num_samples
        size = 2 * draws * numbers * torch.get_default_dtype().itemsize  # coordinates and values
        if size > LARGE:
            warnings.warn(
                f"the draws will take {size / 1e9:.1f} GB of memory, {self.num_chains} chains of "
                f"{self.num_samples} draws of {numbers} numbers; lower num_samples to save "
                f"memory, and raise thin above {self.thin} to keep the quality of the draws",
                UserWarning,
                stacklevel=4,
            )

    def _check_names(self, density: Density) -> None:
        """Refuse names of sites that are none, before anything is drawn."""
        sites = sorted(density.layout.sites)
        for name, given in (("save_params", self.save_params), ("transforms", self.transforms)):
            if unknown := [site for site in given or () if site not in sites]:
                raise ValueError(f"{name} must be among the sites {sites}, got {unknown}")

    def _drawn(self) -> dict[str, Tensor]:
        if not self._samples:
            raise RuntimeError("run() must be called first: there are no draws yet")
        return self._samples

    def _sampled(self) -> Sampled:
        return self._density if self._start is None else self._start.target

    def _step(self, index: int) -> dict[str, Tensor]:
        chains = self._moving
        if self._start is not None and index == self.warmup_steps:
            self._start.end_warmup(chains)
        skipped = 0 if index < self.warmup_steps else self.thin - 1
        steps = [self._recorded(chains.step()) for _ in range(1 + skipped)]
        records = {
            name: MERGED.get(name, _last)(torch.stack([each[name] for each in steps]))
            for name in steps[0]
        }
        if index + 1 == self._steps_before_change:
            self._change_coordinates()
            chains = self._moving
        return {"position": chains.position, "lp": chains.point.log_density, **records}

    def _recorded(self, info: StepInfo) -> dict[str, Tensor]:
        """Return what to keep of a step."""
        records = {name: getattr(info, name) for name in STATISTICS}
        records["failed"] = info.failed & ~info.outside
        records["n_steps"] = info.evaluations
        return records | self.kernel.further_statistics(info, self._moving.tuning)

    @property
    def _steps_before_change(self) -> int | None:
        """After how many steps coordinates may change: at the end of the last window but one."""
        given = (self.hook_fn, self._initial_params, self.transforms, self.standard_normal)
        adaptation = self._moving.adaptation
        may = (
            all(each is None for each in given)
            and self._start is not None
            and isinstance(adaptation, EnsembleAdaptation)
            and adaptation.dense
            and isinstance(self._density, ModelDensity)
            and not self._density.structure.enumerated
            and not self._changed
        )
        ends = window_ends(self.warmup_steps)
        return ends[-2] if may and len(ends) > 1 else None

    def _change_coordinates(self) -> None:
        """Go on in coordinates with a standard normal prior if it is nearer to a normal there."""
        adaptation = self._moving.adaptation
        assert isinstance(adaptation, EnsembleAdaptation)
        assert adaptation.window is not None
        old = self._density
        found = nearer_density(adaptation.window, self._sampled(), old.constrain, self._in_normal)
        if found is None:
            return
        draws = torch.cat([adaptation.window, self._moving.position.unsqueeze(1)], 1)
        moved = positions_in(found, old.constrain(draws.flatten(0, 1)))
        if moved is None:
            return
        moved = moved.unflatten(0, draws.shape[:2])
        former = Metric.identity(moved[0, 0])
        metric = estimated(moved.flatten(0, 1), effective_draws(moved), former, dense=True)
        self._go_on_in(found, moved[:, -1].contiguous(), metric)

    def _refuse_of_coordinates(self) -> None:
        """Refuse what is of unconstrained coordinates, in a run that has changed them."""
        for name in ("hook_fn", "transforms"):
            if getattr(self, name) is not None:
                raise ValueError(
                    f"state must come from a run in unconstrained coordinates, to which {name} "
                    "refers, got one that has changed its coordinates"
                )

    def _in_normal(self) -> ModelDensity:
        """Return the density in coordinates with a standard normal prior."""
        with torch.random.fork_rng(devices=[]):  # draws are the same where it isn't used
            density = self.kernel.density(
                self._args, self._kwargs, None, standard_normal=True, batch_plates=()
            )
        assert isinstance(density, ModelDensity)
        return density

    def _go_on_in(
        self, density: ModelDensity, position: Tensor, metric: Metric | None = None
    ) -> None:
        """Go on in other coordinates, from positions ``(chains, dim)`` and a metric in them."""
        self._changed = True
        self._density = density
        self.kernel.transforms = density.transforms
        point = density.point(position)
        done = window_ends(self.warmup_steps)[-2]
        unadjusted = self.kernel.unadjusted_steps(self.warmup_steps)
        left = self.warmup_steps - done
        self._chains = Chains.begin(self.kernel, density, point, left, metric)
        self._chains.num_unadjusted = max(0, unadjusted - done)

    def _after_step(self, index: int) -> None:
        if self.hook_fn is not None:
            warm = index < self.warmup_steps
            params = self._density.layout.unflatten(self._moving.position)
            self.hook_fn(
                self.kernel,
                params,
                "Warmup" if warm else "Sample",
                index - (not warm) * self.warmup_steps,
            )

    @property
    def _moving(self) -> Chains:
        assert self._chains is not None
        return self._chains

    def _state(self) -> dict[str, Any]:
        return {
            "start": None if self._start is None else self._start.save(),
            "moving": None if self._chains is None else self._chains.state(),
            "changed": self._changed,
            **{name: getattr(self, name) for name in self.settings},
        }

    def _load(self, state: dict[str, Any]) -> None:
        if self._start is not None:
            self._start.load(state["start"])
        if state["moving"] is not None:
            if self._start is not None:
                self._chains = self._start.chains(self.warmup_steps)
                self._start.load(state["start"])  # it has chosen rows anew
            if state["changed"]:
                self._refuse_of_coordinates()
                self._go_on_in(self._in_normal(), state["moving"]["point"][0])
            self._moving.load(state["moving"])

    def _status(self) -> dict[str, str]:
        if self._chains is None:
            assert self._start is not None
            return {"t": f"{self._start.ensemble.state.t.min():.2e}"}
        info = self._moving.last_info
        if info is None:
            return {}
        return {
            "step size": f"{info.step_size.mean():.2e}",
            "acc. prob": f"{info.acceptance_rate.mean():.3f}",
        }

    def _finish(self) -> None:
        if not self._records:
            return
        kept = {
            name: value[: self.num_draws].transpose(0, 1) for name, value in self._records.items()
        }
        self._positions = self._turned(kept.pop("position"))
        # As they lie in memory: in the other order they would be copied.
        self._density.check_independence(self._positions.transpose(0, 1).flatten(0, 1))
        self._samples = self._constrain(self._positions)
        if self._start is not None:
            ancestors = self._start.ancestors
            kept["ancestor"] = ancestors.unsqueeze(1).expand(
                len(ancestors), self.num_draws, *ancestors.shape[1:]
            )
        self.sample_stats = kept
        diverging = (
            kept["diverging"].flatten(2).any(-1)
            if kept["diverging"].ndim > 2
            else kept["diverging"]
        )
        self._diagnostics = [
            {
                "divergences": each.nonzero().squeeze(-1).tolist(),
                "acceptance rate": rate.mean().item(),
            }
            for each, rate in zip(diverging, kept["acceptance_rate"], strict=True)
        ]

    def _chain_run(self) -> ChainRun:
        if not self._samples:
            raise RuntimeError("run() must be called first: there are no results yet")
        stats = self.sample_stats
        adaptation = self._moving.adaptation
        growth = adaptation.growth if isinstance(adaptation, EnsembleAdaptation) else None
        if growth is not None:
            names = self._density.layout.names
            flat = torch.tensor([name in self._density.improper_sites() for name in names])
            growth = torch.where(flat.to(growth.device), growth, 1.0)
        return ChainRun(
            draws=self._positions.flatten(2),
            names=self._density.layout.names,
            acceptance=stats["acceptance_rate"],
            diverging=stats["diverging"],
            failed=stats["failed"],
            capped=stats.get("capped"),
            energy=stats["energy"] if isinstance(self.kernel, EnsembleHMC) else None,
            groups=None if self._start is None else self._start.populations,
            growth=growth,
        )

    def _turned(self, position: Tensor) -> Tensor:
        """Turn the angles of all draws ``(chain, draw, ...)`` around their mean direction."""
        periods = self._density.layout.periods
        if periods is None:  # nothing to turn, and no copy
            return position
        return around_mean(position.flatten(0, 1), periods).unflatten(0, position.shape[:2])

    def _constrain(self, position: Tensor) -> dict[str, Tensor]:
        density = self._density
        values = density.constrain(position)
        if self.transforms is not None:
            coordinates = density.layout.unflatten(position)
            values |= {name: each.inv(coordinates[name]) for name, each in self.transforms.items()}
        return {name: values[name] for name in (self.save_params or sorted(values))}
