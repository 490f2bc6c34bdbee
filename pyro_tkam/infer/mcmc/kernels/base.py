"""What the Langevin kernels share: the surface of a Pyro kernel over batched steps."""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any, ClassVar

import pyro
import torch
from pyro.infer.autoguide.initialization import init_to_uniform
from pyro.infer.mcmc.mcmc_kernel import MCMCKernel
from torch import Tensor
from torch.distributions import Transform

from pyro_tkam._checks import function, length, whole_number
from pyro_tkam.infer.mcmc.chains import Adaptation, Chains
from pyro_tkam.infer.mcmc.initialization import check_params, find_start, given_start
from pyro_tkam.infer.mcmc.metric import Metric
from pyro_tkam.infer.model.arguments import check_callable
from pyro_tkam.infer.model.density import Density, ModelDensity
from pyro_tkam.infer.model.options import check_options, given_transforms
from pyro_tkam.infer.model.potential import Potential, PotentialDensity
from pyro_tkam.infer.model.requirements import check_data
from pyro_tkam.infer.model.sites import Model, Site
from pyro_tkam.ops.langevin import Point, StepInfo, Target, Tuning


class LangevinKernel(MCMCKernel):
    """A Langevin kernel; see :class:`ULA`, :class:`MALA` and :class:`AutoMALA`.

    In ``pyro.infer.MCMC`` and ``StreamingMCMC`` it moves one chain; :class:`VectorizedMCMC` and
    :class:`ParallelTempering` take its configuration and move many.

    :param model: a Pyro model, or
    :param potential_fn: from unconstrained values by site to the potential energy; sampled from
        ``initial_params``.
    :param step_size: initial step size, positive.
    :param transforms: per site, from values to unconstrained coordinates; Pyro's if None.
    :param max_plate_nesting: number of plate dimensions; found by running the model if None.
    :param init_strategy: where chains start, as in Pyro.
    :param batch_plates: names of plates whose data are sampled independently; found if None.
    :param num_unadjusted: number of first steps without the Metropolis test; the kernel's default
        if None.
    :param trace_graph: record the density's tensor operations once (parameters of the model must
        stay fixed).
    :raises ValueError: if not exactly one of ``model`` and ``potential_fn`` is given, or
        ``step_size`` isn't positive.
    """

    def __init__(
        self,
        model: Model | None = None,
        potential_fn: Potential | None = None,
        *,
        step_size: float,
        transforms: Mapping[str, Transform] | None = None,
        max_plate_nesting: int | None = None,
        init_strategy: Callable[[Site], Any] = init_to_uniform,
        batch_plates: Sequence[str] | None = None,
        num_unadjusted: int | None = None,
        trace_graph: bool = True,
    ) -> None:
        if (model is None) == (potential_fn is None):
            raise ValueError(
                "exactly one of model and potential_fn must be given, got "
                f"{'neither' if model is None else 'both'}"
            )
        if model is not None:
            check_callable(model)
        else:
            function("potential_fn", potential_fn, "a dictionary of unconstrained values")
        if num_unadjusted is not None:
            whole_number("num_unadjusted", num_unadjusted, 0)
        check_options(transforms, init_strategy, max_plate_nesting, batch_plates, trace_graph)
        self.model = model
        self.potential_fn = potential_fn
        self.initial_step_size = length("step_size", step_size)
        self.num_unadjusted = num_unadjusted
        self.transforms = given_transforms(transforms)
        self._options: dict[str, Any] = {
            "transforms": transforms,
            "max_plate_nesting": max_plate_nesting,
            "init_strategy": init_strategy,
            "batch_plates": batch_plates,
            "trace_graph": trace_graph,
        }
        self._initial_params: dict[str, Tensor] | None = None
        self._chains: Chains | None = None
        super().__init__()

    #: chains of a :class:`VectorizedMCMC` for which no number is given
    default_num_chains: ClassVar[int] = 1
    #: warm-up steps of these if none is given; as many as draws if None
    default_warmup_steps: ClassVar[int | None] = None

    @abstractmethod
    def step(
        self, point: Point, target: Target, tuning: Tuning, adjusted: bool
    ) -> tuple[Point, StepInfo]:
        """Make a step of all rows; without the Metropolis test if not ``adjusted``."""

    def unadjusted_start(self, num_steps: int) -> int:
        """Return the number of first steps without the Metropolis test in a short run from afar."""
        return self.num_unadjusted or 0

    def unadjusted_steps(self, warmup_steps: int) -> int:
        """Return the number of first steps without the Metropolis test."""
        return self.num_unadjusted or 0

    def carried_step_size(self, step_size: Tensor, mean_accepted: Tensor) -> Tensor:
        """Return the step size of the next training iteration.

        :param step_size: that of the last one, any shape.
        :param mean_accepted: mean of its accepted steps, of that shape; NaN where none was
            accepted.
        """
        return step_size

    @abstractmethod
    def adaptation(
        self, warmup_steps: int, dim: int | None = None, metric: Metric | None = None
    ) -> Adaptation:
        """
        Return how the tuning changes during warm-up, and the frame if all chains share one
        ``dim``-d law, for a known metric of the target.
        """

    def tuning(self, point: Point, metric: Metric | None = None) -> Tuning:
        """
        Return the tuning to start with, for a point whose first dimension is the chains' and a
        known metric of the target.
        """
        rest = point.log_density[0]
        return Tuning(
            torch.full_like(rest, self.initial_step_size), torch.ones_like(point.position[0])
        )

    def density(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        params: Mapping[str, Tensor] | None,
        **options: Any,
    ) -> Density:
        """Return the density to sample.

        :param args: the model's arguments.
        :param kwargs: the model's keyword arguments.
        :param params: unconstrained values of one chain by site; needed for a ``potential_fn``.
        :param options: further options of :class:`ModelDensity`.
        :raises ValueError: if a ``potential_fn`` comes without parameters.
        """
        if self.model is not None:
            return ModelDensity(self.model, args, kwargs, **(self._options | options))
        if params is None:
            raise ValueError(
                "initial_params must be given for a kernel made from potential_fn, got None"
            )
        assert self.potential_fn is not None
        return PotentialDensity(self.potential_fn, params, self._options["transforms"])

    @property
    def has_own_start(self) -> bool:
        """Whether chains start by an initialization strategy that was given."""
        return self._options["init_strategy"] is not init_to_uniform

    def further_statistics(self, info: StepInfo, tuning: Tuning) -> dict[str, Tensor]:
        """Return what else is worth recording of a step with a tuning, by name."""
        return {}

    def with_options(self, **options: Any) -> LangevinKernel:
        """Return the same kernel with other options of :class:`ModelDensity`."""
        other = copy(self)
        other._options = self._options | options
        return other

    def with_model(self, model: Model) -> LangevinKernel:
        """Return the same kernel for another model."""
        other = copy(self)
        other.model = model
        return other

    @property
    def samples_jointly(self) -> bool:
        """Whether all data are sampled as a whole, whatever their plates."""
        plates = self._options["batch_plates"]
        return plates is not None and len(plates) == 0

    # The surface that pyro.infer.MCMC uses.

    def setup(self, warmup_steps: int, *args: Any, **kwargs: Any) -> None:
        """Prepare one chain.

        :raises ValueError: if the model or its data are not what they must be.
        """
        if self.model is not None:
            with pyro.validation_enabled(True):  # MCMC has turned it off
                checked = check_data(self.model, args, kwargs)
            args = checked.args
            kwargs = checked.kwargs
        params = self._initial_params
        density = self.density(args, kwargs, params)
        if moving := density.moving_supports():
            raise ValueError(
                "kernel must be run by VectorizedMCMC for this model, got MCMC, which "
                f"transforms each site separately: the supports of {moving} depend on other "
                "sites"
            )
        self.transforms = density.transforms
        chains = self._first_chain(density, params, warmup_steps)
        self._initial_params = density.layout.unflatten(chains.position[0])
        self._chains = chains
        self._last_params = self._initial_params
        self._divergences: list[int] = []
        self._accepted = 0.0

    def _first_chain(
        self, density: Density, params: dict[str, Tensor] | None, warmup_steps: int
    ) -> Chains:
        """Return one chain at given parameters, or where the initialization puts it."""
        if params is not None:
            check_params(density.layout, params, ())
            start = given_start(density, {name: value[None] for name, value in params.items()}, 1)
        else:
            start = find_start(density, 1)
        return Chains.begin(self, density, start, warmup_steps)

    def sample(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """Make one step; parameters other than those returned last are taken as the new state."""
        chains = self._running()
        if params is not self._last_params:
            check_params(chains.density.layout, params, ())
            chains.move_to(chains.density.layout.flatten(params).detach()[None])
        info = chains.step()
        sampled = chains.index - chains.warmup_steps
        if sampled > 0:
            self._accepted += info.acceptance_rate.mean().item()
            if info.diverging.any():
                self._divergences.append(sampled - 1)
        self._last_params = chains.density.layout.unflatten(chains.position[0])
        return self._last_params

    @property
    def initial_params(self) -> dict[str, Tensor] | None:
        """Unconstrained values by site with which a chain starts."""
        return self._initial_params

    @initial_params.setter
    def initial_params(self, params: dict[str, Tensor]) -> None:
        self._initial_params = params

    @property
    def step_size(self) -> float:
        """Current step size (the mean over local data)."""
        return (
            self._chains.tuning.step_size.mean().item()
            if self._chains is not None
            else self.initial_step_size
        )

    def logging(self) -> OrderedDict[str, str]:
        """Return what the progress bar shows."""
        info = self._running().last_info
        rate = float("nan") if info is None else info.acceptance_rate.mean().item()
        return OrderedDict([("step size", f"{self.step_size:.2e}"), ("acc. prob", f"{rate:.3f}")])

    def diagnostics(self) -> dict[str, Any]:
        """
        Return the indices of divergent draws and the mean acceptance probability after warm-up.
        """
        chains = self._running()
        return {
            "divergences": self._divergences,
            "acceptance rate": self._accepted / max(1, chains.index - chains.warmup_steps),
        }

    def cleanup(self) -> None:
        """Forget the chain; may be called again."""
        self._chains = None
        self._initial_params = None

    def __getstate__(self) -> dict[str, Any]:
        """Return the configuration; a running chain stays behind."""
        return self.__dict__ | {"_chains": None, "_last_params": None}

    def _running(self) -> Chains:
        if self._chains is None:
            raise RuntimeError("setup() must be called before the kernel is used")
        return self._chains


def check_kernel(kernel: Any) -> LangevinKernel:
    """Return a kernel.

    :raises TypeError: if it is not a kernel.
    """
    if not isinstance(kernel, LangevinKernel):
        raise TypeError(f"kernel must be an EnsembleHMC, ULA, MALA or AutoMALA, got {kernel!r}")
    return kernel
