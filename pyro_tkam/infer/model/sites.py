"""What a Pyro model is made of: its sites, their roles and its plates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pyro import poutine
from pyro.infer import config_enumerate
from pyro.infer.autoguide.initialization import InitMessenger
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor
from torch.distributions import Transform, biject_to

from pyro_tkam.distributions.normal_quantile import normal_quantile
from pyro_tkam.infer.model.circles import turns_of
from pyro_tkam.infer.model.coordinates import Layout, SiteLayout, StandardNormal, Unconstrained
from pyro_tkam.infer.model.site import Site, is_deterministic, is_latent, is_plain

Model = Callable[..., Any]


@dataclass(frozen=True)
class Structure:
    """The static structure of a model, read from one run.

    :param trace: that run, in which discrete sites are enumerated.
    :param plain: a run in which they are drawn.
    :param max_plate_nesting: number of plate dimensions.
    :param latent: names of the latent sites that are sampled, in order.
    :param enumerated: names of the discrete sites that are summed out.
    """

    trace: poutine.Trace
    plain: poutine.Trace
    max_plate_nesting: int
    latent: tuple[str, ...]
    enumerated: tuple[str, ...]

    @staticmethod
    def of(run: FirstRun) -> Structure:
        """
        Read the structure from what :func:`first_run` returned, and check that it can be sampled.

        :raises NotImplementedError: if a plate subsamples.
        :raises ValueError: if a discrete site can't be enumerated or there is nothing to sample.
        """
        refuse_subsampling(run.trace)
        hidden = [(name, site) for name, site in sample_sites(run.trace) if is_latent(site)]
        enumerated = tuple(name for name, site in hidden if _is_enumerated(name, site))
        latent = tuple(name for name, _ in hidden if name not in enumerated)
        if not latent:
            raise ValueError("model must have a continuous latent site to sample, got none")
        return Structure(run.trace, run.plain, run.max_plate_nesting, latent, enumerated)

    def sites(self) -> Iterator[tuple[str, Site]]:
        """Iterate over the sites that have a density."""
        return sample_sites(self.trace)

    def layout(
        self,
        local: Iterable[tuple[int, int]],
        transforms: dict[str, Transform],
        standard_normal: bool,
    ) -> Layout:
        """Lay out the latent sites.

        :param local: dimension and size of the local plates.
        :param transforms: from a site's values to its coordinates, where they aren't Pyro's.
        :param standard_normal: use standard normal coordinates where a site has them.
        :raises ValueError: if a site's support depends on an enumerated site.
        """
        wanted = standard_normal and not self.enumerated
        sites = {}
        for name in self.latent:
            site = self.trace.nodes[name]
            if wanted and is_plain(site) and normal_quantile(site["fn"]) is not None:
                sites[name] = SiteLayout(
                    tuple(site["value"].shape), site["fn"].event_dim, StandardNormal()
                )
            else:
                given = transforms[name].inv if name in transforms else turns_of(site)
                sites[name] = unconstrained(name, site, Unconstrained(given))
        local = sorted(local)
        return Layout(sites, tuple(dim for dim, _ in local), tuple(size for _, size in local))


@dataclass(frozen=True)
class FirstRun:
    """What a model was found to be by running it.

    :param trace: the run, in which discrete sites are enumerated.
    :param plain: a run in which they are drawn.
    :param max_plate_nesting: number of plate dimensions.
    """

    trace: poutine.Trace
    plain: poutine.Trace
    max_plate_nesting: int


def first_run(
    model: Model,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    init: Callable[[Site], Any],
    nesting: int | None,
) -> FirstRun:
    """Run a model once, latent sites set by an initialization.

    It is run again with its discrete sites enumerated, if there are any, but the values of the
    others stay: below an enumerated site a distribution has a dimension more than what is drawn.

    :param nesting: number of plate dimensions; those that its plates take if None.
    """
    with poutine.block():
        plain = poutine.trace(InitMessenger(_explained(init))(model)).get_trace(*args, **kwargs)
        if nesting is None:
            nesting = plate_nesting(plain)
        hidden = [(name, site) for name, site in sample_sites(plain) if is_latent(site)]
        if not any([_is_enumerated(name, site) for name, site in hidden]):
            return FirstRun(plain, plain, nesting)
        values = InitMessenger(lambda site: plain.nodes[site["name"]]["value"])
        enumerating = poutine.enum(config_enumerate(model), first_available_dim=-1 - nesting)
        trace = poutine.trace(values(enumerating)).get_trace(*args, **kwargs)
        return FirstRun(trace, plain, nesting)


def plate_nesting(trace: poutine.Trace) -> int:
    """Return how many dimensions the vectorized plates of a run take."""
    stacks = [site["cond_indep_stack"] for site in trace.nodes.values() if site["type"] == "sample"]
    return max((-frame.dim for stack in stacks for frame in stack if frame.vectorized), default=0)


def centered_like(trace: poutine.Trace) -> Callable[[Site], Any]:
    """
    Make an initialization at the center of supports, which draws nothing: priors may be slow to
    draw from.

    :param trace: a run of the same model, which tells dtypes and devices.
    """

    def initialize(site: Site) -> Tensor:
        transform = biject_to(site["fn"].support)
        shape = transform.inverse_shape(site["fn"].shape())
        center: Tensor = transform(trace.nodes[site["name"]]["value"].new_zeros(shape))
        return center

    return initialize


def signature(arguments: Any) -> Any:
    """
    Return all of a model's arguments but the values of tensors, to compare; objects of other kinds
    equal none.
    """
    if isinstance(arguments, Tensor):
        return arguments.shape, arguments.dtype, arguments.device
    if isinstance(arguments, dict):
        return {key: signature(value) for key, value in arguments.items()}
    if isinstance(arguments, tuple | list):
        return [signature(value) for value in arguments]
    return arguments if isinstance(arguments, int | float | str | None) else object()


def sample_sites(trace: poutine.Trace) -> Iterator[tuple[str, Site]]:
    """Iterate over the sites of a trace that have a density, in order."""
    for name, site in trace.nodes.items():
        if (
            site["type"] == "sample"
            and not isinstance(site["fn"], _Subsample)
            and not is_deterministic(site)
        ):
            yield name, site


def refuse_subsampling(trace: poutine.Trace) -> None:
    """Raise if a plate draws a random subsample."""
    for name, site in trace.nodes.items():
        fn = site["fn"] if site["type"] == "sample" else None
        if (
            isinstance(fn, _Subsample)
            and fn.subsample_size is not None
            and fn.subsample_size < fn.size
        ):
            raise NotImplementedError(
                f"model must have plates that take all data, got {name!r}, which draws "
                f"{fn.subsample_size} of {fn.size}: a model with random subsamples has no "
                "posterior and no evidence"
            )


def _is_enumerated(name: str, site: Site) -> bool:
    fn = site["fn"]
    if fn.has_enumerate_support:
        return True
    if fn.support.is_discrete:
        raise ValueError(
            f"model must have discrete sites with a finite support to enumerate, got {name!r} "
            f"({type(fn).__name__}); sum it out of the model or observe it"
        )
    return False


def _explained(init: Callable[[Site], Any]) -> Callable[[Site], Any]:
    """Make an initialization name the site at which it can't work."""

    def initialize(site: Site) -> Any:
        if _is_enumerated(site["name"], site):
            return site["fn"].sample()
        try:
            return init(site)
        except NotImplementedError as error:
            raise ValueError(
                f"model must have priors that can be sampled, got {type(site['fn']).__name__} (an "
                f"improper prior?) at {site['name']!r}; pass init_strategy=init_to_value(...)"
            ) from error

    return initialize


def unconstrained(name: str, site: Site, coordinate: Unconstrained) -> SiteLayout:
    """
    Lay out a site in unconstrained coordinates.

    :raises ValueError: if they are not as many for each datum as there are values.
    """
    inverse = coordinate.transform(site["fn"]).inv
    value_shape = tuple(site["value"].shape)
    shape = tuple(inverse.forward_shape(site["value"].shape))
    event_dim = site["fn"].event_dim - inverse.domain.event_dim + inverse.codomain.event_dim
    if len(shape) - event_dim != len(value_shape) - site["fn"].event_dim:
        raise ValueError(
            "model must have latent sites whose support does not depend on a site that is summed "
            f"out, got {name!r} with values of shape {value_shape} and coordinates of shape {shape}"
        )
    return SiteLayout(shape, event_dim, coordinate)
