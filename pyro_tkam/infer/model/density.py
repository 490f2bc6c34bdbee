"""
The log density of a Pyro model, split into prior and likelihood, on batches of flat coordinates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from pyro.infer.autoguide.initialization import init_to_uniform
from torch import Tensor
from torch.distributions import Transform

from pyro_tkam._checks import flag, mapping, one_of
from pyro_tkam.distributions import JointEnergy
from pyro_tkam.infer.model.arguments import check_callable, told_of
from pyro_tkam.infer.model.batching import (
    RUNNERS,
    KnownTerms,
    LoopRunner,
    Runner,
    choose_runner,
    first_prior_draws,
    gradient,
)
from pyro_tkam.infer.model.compiled import TracedFunction
from pyro_tkam.infer.model.coordinates import Layout, StandardNormal, Unconstrained, is_fixed
from pyro_tkam.infer.model.cost import Cost
from pyro_tkam.infer.model.evaluate import REFERENCE_SCALE, LogTerms, ModelTerms
from pyro_tkam.infer.model.failures import by_rows
from pyro_tkam.infer.model.known import treats_each_datum_alone
from pyro_tkam.infer.model.layouts import lay_out
from pyro_tkam.infer.model.options import check_options
from pyro_tkam.infer.model.plates import (
    CHECKED_DRAWS,
    check_draws,
    common_plates,
    independent_plates,
    trial_terms,
)
from pyro_tkam.infer.model.reference import Reference
from pyro_tkam.infer.model.sites import (
    FirstRun,
    Model,
    Plates,
    Site,
    Structure,
    centered_like,
    first_run,
    is_improper,
    is_plain,
    is_unmasked,
    signature,
    unwrapped,
)
from pyro_tkam.infer.model.summands import OneSummand
from pyro_tkam.ops.batched import Batched
from pyro_tkam.ops.langevin import Point

CACHED_NUMBERS = 2**20
"""
Rows times data that are evaluated at once: 64 rows of 300,000 data take 12 ms a row together, and 4
ms a row by three.
"""

_POSITIONS_COMPARED = 16
"""Number of starting points at which supports are compared."""


@dataclass(frozen=True)
class SplitPoint(Batched):
    """A position with log prior and log likelihood, each ``(rows, *local)``, and their gradients.

    :param position: coordinates, ``(rows, *local, dim)``.
    :param log_prior: log prior of the coordinates.
    :param log_likelihood: log likelihood.
    :param prior_gradient: ``(rows, *local, dim)``.
    :param likelihood_gradient: ``(rows, *local, dim)``.
    """

    position: Tensor
    log_prior: Tensor
    log_likelihood: Tensor
    prior_gradient: Tensor
    likelihood_gradient: Tensor


class Density(Protocol):
    """What the samplers need of a log density."""

    @property
    def layout(self) -> Layout:
        """Where each site lies in a position."""

    @property
    def transforms(self) -> dict[str, Transform]:
        """From the sites' values to their unconstrained coordinates."""

    def moving_supports(self) -> list[str]:
        """Return the sites whose support depends on other sites."""

    def check_independence(self, positions: Tensor) -> None:
        """Check again, at draws of a run, whether local data are independent."""

    def point(self, position: Tensor, rows: Tensor | None = None) -> Point:
        """Evaluate the joint density and its gradient."""

    @property
    def records_graphs(self) -> bool:
        """Whether evaluations may be recorded as lists of tensor operations."""

    @property
    def most_rows(self) -> int | None:
        """Rows that are evaluated at once; None for any number."""

    @property
    def loops(self) -> bool:
        """Whether the model is run at one position after another."""

    def reference_terms(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """
        Return the log reference density and the rest of the log joint, differentiable in the
        position.
        """

    def known_reference(self) -> KnownTerms | None:
        """Return these terms where they are known without another run, or None."""

    @property
    def starts_normal(self) -> bool:
        """Whether the reference is ``N(0, 2²)`` of all coordinates."""

    def from_normal(self) -> Density:
        """Return the same density with this reference."""

    def sample_reference(self, num: int) -> Tensor:
        """Draw ``num`` positions from the reference density."""

    def log_density(self, position: Tensor, rows: Tensor | None = None) -> Tensor:
        """Evaluate the joint density alone."""

    def draw_start(self, num: int) -> Tensor:
        """Draw positions ``(num, *local, dim)`` at which chains might start."""

    def constrain(self, position: Tensor) -> dict[str, Tensor]:
        """Return the sites' values ``(*lead, ...)`` at positions ``(*lead, *local, dim)``."""

    def improper_sites(self) -> list[str]:
        """Return the sites of which no proper prior is known."""

    def offense(self, position: Tensor) -> str:
        """Say which term isn't finite at one position ``(*local, dim)``."""


class ModelDensity:
    """Log prior and log likelihood of a Pyro model on positions ``(rows, *local, dim)``.

    A plate is local if every site with a density lies in it and perturbing one datum's latents
    moves no other datum's terms; then each datum has its own terms, else there is one term a row.

    :param model: a Pyro model.
    :param args: its arguments.
    :param kwargs: its keyword arguments.
    :param transforms: per site, from values to unconstrained coordinates, where they should not be
        Pyro's.
    :param init_strategy: where chains start, a Pyro initialization.
    :param max_plate_nesting: number of plate dimensions; found by running the model if None.
    :param batch_plates: names of the local plates, which are checked; or the plates themselves,
        where :func:`independent_plates` has found them before; found here if None.
    :param standard_normal: use coordinates with a standard normal prior at sites that have an
        inverse CDF.
    :param vectorization: ``"vmap"``, ``"plate"`` or ``"loop"``; chosen by comparison with the loop
        if None.
    :param preferred: the order in which they are tried then.
    :param trace_graph: run as a list of tensor operations, recorded once; the model's parameters
        must not change.
    :param first: a run of the model on these arguments, if there is one.
    :raises NotImplementedError: if the model subsamples.
    :raises ValueError: if the model has no latent site, a site can't be sampled, or
        ``batch_plates`` aren't local.
    """

    def __init__(
        self,
        model: Model,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        transforms: Mapping[str, Transform] | None = None,
        init_strategy: Callable[[Site], Any] = init_to_uniform,
        max_plate_nesting: int | None = None,
        batch_plates: Sequence[str] | Plates | None = None,
        standard_normal: bool = False,
        vectorization: str | None = None,
        preferred: Sequence[str] = ("vmap", "plate"),
        trace_graph: bool = True,
        first: FirstRun | None = None,
    ) -> None:
        if vectorization is not None:
            one_of("vectorization", vectorization, RUNNERS)
        check_callable(model)
        check_options(transforms, init_strategy, max_plate_nesting, batch_plates, trace_graph)
        flag("standard_normal", standard_normal)
        if not isinstance(args, tuple):
            raise TypeError(f"args must be a tuple of the model's arguments, got {args!r}")
        if kwargs is not None:
            mapping("kwargs", kwargs, "names of arguments to their values")
        self._model = model
        self._init_strategy = init_strategy
        self._transforms = dict(transforms or {})
        self._standard_normal = standard_normal
        self._from_normal = False
        self._trace_graph = trace_graph
        self._args = args
        self._kwargs = dict(kwargs or {})
        self._nesting = max_plate_nesting
        if first is None or max_plate_nesting is not None:
            self._find_structure(init_strategy, max_plate_nesting)
        else:
            self.structure = Structure.of(first)
        self._refuse_nesting(max_plate_nesting)
        self._refuse_plates(batch_plates, common_plates(self.structure.plain))
        joint = self._make_terms({})
        runner = (
            RUNNERS[vectorization](joint)
            if vectorization
            else choose_runner(joint, preferred, keep=trace_graph)
        )
        self.local_plates = self._find_local(type(runner), batch_plates)
        self._known = None if self.local_plates else runner.known
        self._bind(type(runner))

    def _find_local(self, runner: type[Runner], wanted: Sequence[str] | Plates | None) -> Plates:
        """Find the plates whose data are independent, or check those that are wanted."""
        if isinstance(wanted, Mapping):
            return dict(wanted)
        candidates = common_plates(self.structure.plain)
        chosen = (
            candidates
            if wanted is None
            else {name: candidates[name] for name in wanted if name in candidates}
        )
        run = (self._model, self._args, self._kwargs, self.structure.plain)
        trials = trial_terms(*run, self.structure.max_plate_nesting)
        local = independent_plates(trials, chosen, runner)
        self._refuse_plates(wanted, local)
        return local

    def _refuse_nesting(self, nesting: int | None) -> None:
        """Refuse fewer plate dimensions than the plates of the model need."""
        stacks = [site["cond_indep_stack"] for _, site in self.structure.sites()]
        dims = [-frame.dim for stack in stacks for frame in stack if frame.vectorized]
        taken = max(dims, default=0)
        if nesting is not None and nesting < taken:
            raise ValueError(
                f"max_plate_nesting must be at least {taken}, the model's own, got {nesting}"
            )

    def _refuse_plates(self, wanted: Sequence[str] | Plates | None, taken: Plates) -> None:
        """Refuse requested plates that can't be local."""
        refused = [name for name in wanted or () if name not in taken]
        if refused:
            raise ValueError(
                "batch_plates must name plates that hold every site and do not couple data, "
                f"got {refused}; plates that hold every site: "
                f"{sorted(common_plates(self.structure.plain))}"
            )

    def _bind(self, runner: type[Runner]) -> None:
        """Make the terms of the local plates, and their runner."""
        self.terms = self._make_terms(self.local_plates)
        self._prototype = self.terms.coordinates(self.structure.trace)
        self._runner = runner(self.terms)
        self._prior_runner: Runner | None = None
        self._record_graphs()

    def rebind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> ModelDensity:
        """
        Return the density of the same model with other arguments and with the current values of its
        parameters.

        The findings about its plates and about how to run it are kept. The model runs once, without
        a draw, unless the arguments have the shapes that it knows and no coordinate depends on
        their values.

        :param args: its arguments.
        :param kwargs: its keyword arguments.
        :raises ValueError: if a local plate is gone.
        """
        new = copy(self)
        new._known = None
        new._args = args
        new._kwargs = dict(kwargs)
        if not self._knows(args, new._kwargs):
            new._find_structure(
                centered_like(self.structure.trace), self.structure.max_plate_nesting
            )
            plates = common_plates(new.structure.plain)
            if missing := [name for name in self.local_plates if name not in plates]:
                raise ValueError(
                    f"model must keep its plates between calls, got {missing} that no longer hold "
                    "every site"
                )
            new.local_plates = {name: plates[name] for name in self.local_plates}
        new._bind(type(self._runner))
        if self._prior_runner is not None:
            new._prior_runner = type(self._prior_runner)(new.terms)
        return new

    def _knows(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Tell whether a run with these arguments would reveal nothing new about the structure."""
        if signature((args, kwargs)) != signature((self._args, self._kwargs)):
            return False
        nodes = self.structure.trace.nodes
        normal = (
            isinstance(site.coordinate, StandardNormal) for site in self.layout.sites.values()
        )
        return all(normal) and all(is_unmasked(nodes[name]) for name in self.structure.latent)

    def _find_structure(self, init: Callable[[Site], Any], nesting: int | None) -> None:
        run = (self._model, self._args, self._kwargs)
        self.structure = Structure.of(
            told_of(lambda: first_run(*run, init, nesting), "model", *run)
        )

    def _make_terms(self, local: Plates) -> ModelTerms:
        layout = lay_out(self.structure, local.values(), self._transforms, self._standard_normal)
        return ModelTerms(self._model, self._args, self._kwargs, self.structure, layout)

    def _record_graphs(self) -> None:
        self._joint = self._recorded(_joint_gradient)
        self._split = self._recorded(_split_gradient)
        self._values = self._recorded(_split_values, part_of=(self._split, 2))

    def _recorded(
        self,
        function: Callable[..., tuple[Tensor, ...]],
        part_of: tuple[TracedFunction, int] | None = None,
    ) -> TracedFunction:
        """Return a function of log terms and positions, for the terms of this model."""
        known = self._known
        return TracedFunction(
            partial(function, self.log_terms),
            self._trace_graph,
            None
            if known is None
            else lambda: (known.position, function(known.terms, known.position)),
            row_by_row=self.loops,
            most_rows=self.most_rows,
            part_of=part_of,
        )

    @property
    def layout(self) -> Layout:
        """Where each site lies in a position."""
        return self.terms.layout

    @property
    def most_rows(self) -> int:
        """
        Rows that are evaluated at once, limited so that the numbers for all data stay in cache.
        """
        values = (torch.as_tensor(site["value"]) for _, site in self.structure.sites())
        return max(1, CACHED_NUMBERS // max(value.numel() for value in values))

    @property
    def records_graphs(self) -> bool:
        """Whether evaluations may be recorded as lists of tensor operations."""
        return self._trace_graph

    @property
    def loops(self) -> bool:
        """Whether the model is run at one position after another."""
        return isinstance(self._runner, LoopRunner)

    @property
    def _reference(self) -> Reference:
        prior = self.terms.prior_names
        return Reference(self.structure, self.layout, prior, self._from_normal)

    @property
    def starts_normal(self) -> bool:
        """Whether the reference is ``N(0, 2²)`` of all coordinates, not the prior."""
        return not self._reference.is_prior

    def from_normal(self) -> ModelDensity:
        """Return the same density with this reference."""
        other = copy(self)
        other._from_normal = True
        return other

    @property
    def vectorization(self) -> str:
        """How the model is run at many positions."""
        return self._runner.name

    @property
    def transforms(self) -> dict[str, Transform]:
        """
        From the sites' values to their unconstrained coordinates, at the sites that use them; see
        :meth:`moving_supports`.
        """
        nodes = self.structure.trace.nodes
        sites = self.layout.sites
        return {
            name: site.coordinate.transform(nodes[name]["fn"]).inv
            for name, site in sites.items()
            if isinstance(site.coordinate, Unconstrained)
        }

    def moving_supports(self) -> list[str]:
        """
        Return the sites whose support differs between some positions. For them, :attr:`transforms`
        holds only the transforms of one run.
        """
        transforms = self.transforms
        if self._has_fixed_supports():
            return []
        position = self.draw_start(_POSITIONS_COMPARED)
        values = self._runner.values(position)
        return [
            name
            for name, coordinates in self.layout.unflatten(position).items()
            if name in transforms
            and not torch.allclose(values[name], transforms[name].inv(coordinates), equal_nan=True)
        ]

    def _has_fixed_supports(self) -> bool:
        """Tell whether all sites are unconstrained, by maps that are the same in every run."""
        nodes = self.structure.trace.nodes
        return all(
            isinstance(site.coordinate, Unconstrained)
            and (site.coordinate.given is not None or is_fixed(nodes[name]["fn"].support))
            for name, site in self.layout.sites.items()
        )

    @property
    def prior_is_standard_normal(self) -> bool:
        """Whether the prior of all coordinates is standard normal."""
        all_normal = all(
            isinstance(site.coordinate, StandardNormal) for site in self.layout.sites.values()
        )
        return all_normal and self._only_latent_prior()

    @property
    def is_of_prior(self) -> bool:
        """Whether the model has latent sites only, so that there is nothing but a prior."""
        known = {*self.structure.latent, *self.structure.enumerated}
        return all(name in known for name, _ in self.structure.sites())

    @property
    def has_normal_coordinates(self) -> bool:
        """Whether the prior of some coordinates was made standard normal."""
        sites = self.layout.sites.values()
        return any(isinstance(site.coordinate, StandardNormal) for site in sites)

    def log_terms(self, position: Tensor) -> LogTerms:
        """
        Return log prior and log likelihood, each ``(rows, *local)``, differentiable in the
        position.
        """
        return self._runner.log_terms(position)

    def reference_terms(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """
        Return the log density from which tempering starts (:class:`Reference`) and the rest of the
        log joint, each ``(rows, *local)``, differentiable in the position.
        """
        return self._reference.split(position, *self.log_terms(position))

    def known_reference(self) -> KnownTerms | None:
        """Return these terms where they are known without another run, or None."""
        known = self._known
        if known is None:
            return None
        return KnownTerms(
            known.position, lambda position: self._reference.split(position, *known.terms(position))
        )

    def reference_values(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Return what :meth:`reference_terms` does, without gradients."""
        return self._reference.split(position, *self.split_values(position))

    def sample_reference(self, num: int) -> Tensor:
        """Draw ``num`` positions from the reference, ``(num, *local, dim)``."""
        if self._reference.is_prior:
            return self.sample_prior(num)
        shape = (num, *self._prototype.shape)
        return REFERENCE_SCALE * torch.randn_like(self._prototype.expand(shape))

    def point(self, position: Tensor, rows: Tensor | None = None) -> Point:
        """Evaluate log prior + log likelihood and the gradient; ``rows`` makes no difference."""
        return Point(position, *by_rows(self._joint, position))

    @property
    def costs(self) -> tuple[Cost | None, Cost | None]:
        """The cost of a batch without and with gradients, if these were recorded."""
        return self._values.cost, self._joint.cost

    def summand_point(self, position: Tensor, summand: OneSummand) -> Point:
        """Evaluate like :meth:`point`, but with one summand of each sum, by running the model."""
        with summand:
            return Point(position, *by_rows(partial(_joint_gradient, self.log_terms), position))

    def log_density(self, position: Tensor, rows: Tensor | None = None) -> Tensor:
        """Evaluate log prior + log likelihood; ``rows`` makes no difference."""
        log_prior, log_likelihood = self.split_values(position)
        return log_prior + log_likelihood

    def split(self, position: Tensor) -> SplitPoint:
        """Evaluate log prior and log likelihood, and both gradients."""
        return SplitPoint(position, *by_rows(self._split, position))

    def split_values(self, position: Tensor) -> tuple[Tensor, ...]:
        """Evaluate log prior and log likelihood alone."""
        return by_rows(self._values, position)

    def constrain(self, position: Tensor) -> dict[str, Tensor]:
        """
        Return the sites' values at positions ``(*lead, *local, dim)``, each ``(*lead, *site
        shape)``.
        """
        if self._has_fixed_supports():
            transforms = self.transforms
            return {
                name: transforms[name].inv(value)
                for name, value in self.layout.unflatten(position).items()
            }
        lead = position.shape[: position.ndim - 1 - len(self.layout.local_shape)]
        values = self._runner.values(position.reshape(-1, *position.shape[len(lead) :]))
        return {name: value.reshape((*lead, *value.shape[1:])) for name, value in values.items()}

    def draw_start(self, num: int) -> Tensor:
        """Draw positions ``(num, *local, dim)`` by the initialization strategy."""
        if self._init_strategy is init_to_uniform:
            return 4 * torch.rand_like(self._prototype.expand(num, *self._prototype.shape)) - 2
        run = (self._model, self._args, self._kwargs, self._init_strategy, self._nesting)
        return torch.stack([self.terms.coordinates(first_run(*run).trace) for _ in range(num)])

    def can_sample_prior(self) -> bool:
        """Tell whether running the model draws from the prior that :meth:`split` scores."""
        sites = [self.structure.trace.nodes[name] for name in self.structure.latent]
        return self._only_latent_prior() and all(
            is_plain(site) and not is_improper(site) for site in sites
        )

    def sample_prior(self, num: int) -> Tensor:
        """Draw ``num`` positions from the prior, ``(num, *local, dim)``."""
        normal = torch.randn_like(self._prototype.expand(num, *self._prototype.shape))
        if self.prior_is_standard_normal:
            return normal
        if self._prior_runner is None:
            self._prior_runner, drawn = first_prior_draws(self._runner, normal)
            return drawn
        return self._prior_runner.draw_prior(normal)

    def check_independence(self, positions: Tensor) -> None:
        """
        Check again whether the data of the local plates are independent, at draws from a run.

        :param positions: ``(rows, *local, dim)``; some of them are used.
        :raises CoupledDataError: if the data are not independent; names the plates.
        """
        few = len(positions) < 2
        if not self.local_plates or few or treats_each_datum_alone(self._model):
            return
        base = positions[:: max(1, len(positions) // CHECKED_DRAWS)][:CHECKED_DRAWS]

        def mix(kept: Tensor, dim: int) -> Tensor:
            shape = [len(base)] + [1] * (base.ndim - 1)
            shape[1 + self.layout.local_dims.index(dim)] = kept.shape[1]
            return torch.where(kept.reshape(shape), base, base.roll(len(base) // 2, 0))

        def log_joint(position: Tensor) -> Tensor:
            log_prior, log_likelihood = self.log_terms(position)
            return log_prior + log_likelihood

        with torch.no_grad():
            check_draws(log_joint, base, mix, self.local_plates)

    def draws_prior_exactly(self) -> bool:
        """
        Tell whether :meth:`sample_prior` is no Markov chain itself, as that of a joint energy is.
        """
        nodes = self.structure.trace.nodes
        return not any(
            isinstance(unwrapped(nodes[name]["fn"]), JointEnergy) for name in self.structure.latent
        )

    def improper_sites(self) -> list[str]:
        """Return the latent sites without a normalizable prior."""
        nodes = self.structure.trace.nodes
        return [name for name in self.structure.latent if is_improper(nodes[name])]

    def offense(self, position: Tensor) -> str:
        """
        Name the first site whose term isn't finite at one position ``(*local, dim)``.
        """
        trace, coordinates = self.terms.run(self.layout.unflatten(position))
        terms = self.terms.site_terms(trace, coordinates)
        bad = [name for name, term in terms.items() if not torch.isfinite(term).all()]
        if not bad:
            return "the gradient is not finite"
        if bad[0] not in self.terms.prior_names and (terms[bad[0]] < torch.inf).all():
            return f"the likelihood is zero: the log density of site {bad[0]!r} is -inf"
        return f"site {bad[0]!r} is not finite"

    def _only_latent_prior(self) -> bool:
        return self.terms.prior_names == list(self.structure.latent)


Terms = Callable[[Tensor], LogTerms]


def _split_values(log_terms: Terms, position: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        return log_terms(position)


def _joint_gradient(log_terms: Terms, position: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        position = position.detach().requires_grad_()
        log_prior, log_likelihood = log_terms(position)
        log_joint = log_prior + log_likelihood
        slope = gradient(log_joint, position)
    return log_joint.detach(), slope


def _split_gradient(log_terms: Terms, position: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    with torch.enable_grad():
        position = position.detach().requires_grad_()
        log_prior, log_likelihood = log_terms(position)
        slopes = gradient(log_prior, position), gradient(log_likelihood, position)
    return log_prior.detach(), log_likelihood.detach(), *slopes
