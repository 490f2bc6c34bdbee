"""The sites of a model: which ones there are, and their roles, masks and log densities."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.infer import config_enumerate
from pyro.infer.autoguide.initialization import InitMessenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import biject_to

from pyro_tkam.ops._precision import at_least_single

Model = Callable[..., Any]
Site = dict[str, Any]
"""A node of a Pyro trace."""
Plates = dict[str, tuple[int, int]]
"""Dimension (negative) and size of plates by name."""


def is_latent(site: Site) -> bool:
    """Tell whether a site is drawn and is not the subsample of a plate."""
    return site["type"] == "sample" and not site["is_observed"] and not site_is_subsample(site)


def is_prior(site: Site) -> bool:
    """Tell whether a site counts as prior: a latent one, a ``Delta``, or one that is marked so."""
    is_delta = isinstance(unwrapped(site["fn"]), dist.Delta)
    return not site["is_observed"] or is_delta or bool(site["infer"].get("is_prior"))


def unwrapped(fn: Any) -> Any:
    """Return the distribution inside ``Independent``, ``expand`` and ``mask``."""
    *_, innermost = _layers(fn)
    return innermost


def _layers(fn: Any) -> Iterator[Any]:
    """Iterate over a distribution and those that it wraps, from the outside."""
    wrappers = dist.Independent | dist.ExpandedDistribution | dist.MaskedDistribution
    yield fn
    while isinstance(fn, wrappers):
        fn = fn.base_dist
        yield fn


def is_improper(site: Site) -> bool:
    """
    Tell whether a latent site has no normalizable prior: it never had one, or a mask takes a part
    of it away and leaves infinitely many values.
    """
    if site["fn"].has_enumerate_support:
        return False
    return isinstance(unwrapped(site["fn"]), dist.ImproperUniform) or is_partly_masked(site)


def is_flat(site: Site) -> bool:
    """Tell whether a latent site has no prior at all: an improper one, or all of it masked."""
    return isinstance(unwrapped(site["fn"]), dist.ImproperUniform) or any(
        not torch.as_tensor(mask).any() for mask in masks(site)
    )


def is_deterministic(site: Site) -> bool:
    """Tell whether a site only records a value."""
    fn = site["fn"]
    masked = site["mask"] is False or (
        isinstance(fn, dist.MaskedDistribution) and fn._mask is False
    )
    return bool(site["is_observed"]) and masked


def is_unmasked(site: Site) -> bool:
    """
    Tell whether a site has no mask at all, neither its own nor one inside its distribution.
    """
    return not masks(site)


def is_partly_masked(site: Site) -> bool:
    """Tell whether a mask hides any part of a site."""
    return not all(torch.as_tensor(mask).all() for mask in masks(site))


def masks(site: Site) -> list[Any]:
    """Return the masks of a site and of what its distribution wraps."""
    found = [site["mask"], *(getattr(each, "_mask", None) for each in _layers(site["fn"]))]
    return [mask for mask in found if mask is not None]


def is_plain(site: Site) -> bool:
    """Tell whether a site is neither scaled nor masked, so that its distribution is its prior."""
    scale = site["scale"]
    unscaled = not isinstance(scale, Tensor) and scale == 1.0
    return unscaled and site["mask"] is None and not is_partly_masked(site)


def unscaled_log_prob(site: Site) -> Tensor:
    """
    Return a site's log density before its scale and mask.

    Masked data may be anything, such as padding or NaN. They are replaced, so that their gradient
    is zero, too.
    """
    fn = site["fn"]
    value = site["value"]
    if site["is_observed"]:
        value = _without_hidden(site)
    log_prob: Tensor = at_least_single(fn.log_prob(value, *site["args"], **site["kwargs"]))
    return log_prob


def site_log_prob(site: Site) -> Tensor:
    """Return a site's log density with its scale and mask."""
    return scaled_and_masked(site, unscaled_log_prob(site), site["scale"])


def scaled_and_masked(site: Site, log_prob: Tensor, scale: Any) -> Tensor:
    """
    Scale and mask a site's log density. All values of a discrete latent that is masked are equally
    probable, so that their sum leaves no trace of it.

    :param site: has the mask.
    :param log_prob: its log density.
    :param scale: a number or a tensor.
    """
    masked: Tensor = scale_and_mask(log_prob, scale, site["mask"])
    fn = site["fn"]
    if not is_latent(site) or not fn.has_enumerate_support or is_unmasked(site):
        return masked
    counted = reduce(torch.logical_and, (torch.as_tensor(mask) for mask in masks(site)))
    return masked.where(counted, -math.log(len(fn.enumerate_support(expand=False))))


def _without_hidden(site: Site) -> Tensor:
    """Return observed values in which masked ones are replaced with some value of the support."""
    value: Tensor = site["value"]
    found = [(site["mask"], site["fn"].event_dim)]
    found += [(getattr(each, "_mask", None), each.event_dim) for each in _layers(site["fn"])]
    hiding = [
        mask.reshape(mask.shape + (1,) * event_dim)
        for mask, event_dim in found
        if isinstance(mask, Tensor)
    ]
    harmless = _any_value(site["fn"], value) if hiding else None
    if harmless is None:
        return value
    for mask in hiding:
        value = torch.where(mask, value, harmless)
    return value


def _any_value(fn: Any, like: Tensor) -> Tensor | None:
    """Return some value in a distribution's support; None if none is known."""
    support = fn.support
    if fn.has_enumerate_support:
        value: Tensor = fn.enumerate_support(expand=False)[0]
        return value.to(like.dtype)
    if support.is_discrete:
        return torch.zeros_like(like)
    try:
        transform = biject_to(support)
    except NotImplementedError:
        return None
    shape = transform.inverse_shape(like.shape)
    return transform(like.new_zeros(shape))


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
        for name in enumerated:
            _refuse_loose(name, run.plain.nodes[name])
        return Structure(run.trace, run.plain, run.max_plate_nesting, latent, enumerated)

    @property
    def num_data(self) -> int:
        """How many numbers the densities of one run score."""
        return sum(
            max(math.prod(site["fn"].shape()), torch.as_tensor(site["value"]).numel())
            for _, site in self.sites()
        )

    def sites(self) -> Iterator[tuple[str, Site]]:
        """Iterate over the sites that have a density."""
        return sample_sites(self.trace)


@dataclass(frozen=True)
class FirstRun:
    """What a first run shows about a model.

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

    If there are discrete sites, the model runs again with these enumerated and the same values of
    the others, because a distribution that depends on an enumerated site has an additional
    dimension.

    :param nesting: number of plate dimensions; None takes the number that its plates need.
    """
    with poutine.block():
        plain = poutine.trace(InitMessenger(_explained(init))(model)).get_trace(*args, **kwargs)
        if nesting is None:
            nesting = plate_nesting(plain)
        hidden = [(name, site) for name, site in sample_sites(plain) if is_latent(site)]
        if not any(site["fn"].has_enumerate_support for _, site in hidden):
            return FirstRun(plain, plain, nesting)
        nesting = max(nesting, *(batch_nesting(site) for _, site in sample_sites(plain)))
        values = InitMessenger(lambda site: plain.nodes[site["name"]]["value"])
        enumerating = poutine.enum(config_enumerate(model), first_available_dim=-1 - nesting)
        trace = poutine.trace(values(enumerating)).get_trace(*args, **kwargs)
        return FirstRun(trace, plain, nesting)


def plate_nesting(trace: poutine.Trace) -> int:
    """Return how many dimensions the vectorized plates of a run take."""
    stacks = [site["cond_indep_stack"] for site in trace.nodes.values() if site["type"] == "sample"]
    return max((-frame.dim for stack in stacks for frame in stack if frame.vectorized), default=0)


def batch_nesting(site: Site) -> int:
    """Return how many batch dimensions a site's log density has, in plates or outside of them."""
    value = torch.as_tensor(site["value"])
    return max(len(site["fn"].batch_shape), value.dim() - site["fn"].event_dim)


def same_along(log_prob: Tensor, dims: tuple[int, ...]) -> bool:
    """
    Tell whether draws that all data share have the same log density under every datum's
    distribution.
    """
    first = log_prob
    for dim in dims:
        first = first.narrow(dim, 0, 1)
    return bool((log_prob == first).all())


def centered_like(trace: poutine.Trace) -> Callable[[Site], Any]:
    """
    Make an initialization at the center of supports. It draws nothing, because drawing from priors
    may be slow.

    :param trace: a run of the same model, which determines dtypes and devices.
    """

    def initialize(site: Site) -> Tensor:
        transform = biject_to(site["fn"].support)
        shape = transform.inverse_shape(site["fn"].shape())
        center: Tensor = transform(trace.nodes[site["name"]]["value"].new_zeros(shape))
        return center

    return initialize


def signature(arguments: Any) -> Any:
    """
    Return a model's arguments without the values of tensors, for comparison; other kinds of objects
    never compare equal.
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
        if site["type"] == "sample" and not site_is_subsample(site) and not is_deterministic(site):
            yield name, site


def check_guided(drawn: poutine.Trace, trace: poutine.Trace) -> None:
    """
    Refuse a guide that does not draw what its model draws.

    :param drawn: a run of the guide.
    :param trace: a run of the model.
    :raises ValueError: names the latent sites that the guide lacks, or those that it adds.
    """
    own = {name: site for name, site in sample_sites(drawn) if is_latent(site)}
    latent = [name for name, site in sample_sites(trace) if is_latent(site)]
    if lacking := [name for name in latent if name not in own]:
        raise ValueError(f"guide must draw every latent site, got no draw of the sites {lacking}")
    added = set(own) - set(latent)
    if other := [name for name in own if name in added and not is_auxiliary(own[name])]:
        raise ValueError(
            f"guide must draw only the latent sites {latent} of the model, got {other} too; if "
            'these are auxiliary, mark them with infer={"is_auxiliary": True}'
        )


def is_auxiliary(site: Site) -> bool:
    """Tell whether a guide's site is marked as none of the model's."""
    return bool(site["infer"].get("is_auxiliary"))


def refuse_subsampling(trace: poutine.Trace) -> None:
    """Raise if a plate draws a random subsample."""
    for name, site in trace.nodes.items():
        if not site_is_subsample(site):
            continue
        fn = site["fn"]
        if fn.subsample_size is not None and fn.subsample_size < fn.size:
            raise NotImplementedError(
                f"model must have plates that take all data, got {name!r}, which draws "
                f"{fn.subsample_size} of {fn.size}: a model with random subsamples has no "
                "posterior and no evidence"
            )


def takes_prior_draws(plain: poutine.Trace) -> bool:
    """
    Tell whether a model can be explored only with draws from its prior or a guide, because a
    discrete latent is unbounded.

    :param plain: a run of the model in which discrete sites are drawn.
    """
    return any(
        is_latent(site) and site["fn"].support.is_discrete and not site["fn"].has_enumerate_support
        for _, site in sample_sites(plain)
    )


def _is_enumerated(name: str, site: Site) -> bool:
    fn = site["fn"]
    if fn.has_enumerate_support:
        return True
    if fn.support.is_discrete:
        raise ValueError(
            f"model must have discrete sites with a finite support to enumerate, got {name!r} "
            f"({type(fn).__name__}); sum it out of the model, observe it, use importance "
            "sampling, or, for a Poisson or Geometric, apply InverseTransformReparam"
        )
    return False


def _refuse_loose(name: str, site: Site) -> None:
    """Refuse independent discrete values outside of plates: all would be enumerated as one."""
    plates = {frame.dim for frame in site["cond_indep_stack"] if frame.vectorized}
    batch = site["fn"].batch_shape
    if any(batch[dim] > 1 and dim not in plates for dim in range(-len(batch), 0)):
        raise ValueError(
            "model must have a plate around each dimension of a discrete latent site, got "
            f"{name!r} of batch shape {tuple(batch)} in plates at dimensions {sorted(plates)}"
        )


def _explained(init: Callable[[Site], Any]) -> Callable[[Site], Any]:
    """Make an initialization name the site at which it fails."""

    def initialize(site: Site) -> Any:
        if site["fn"].support.is_discrete:
            return site["fn"].sample()
        try:
            return init(site)
        except NotImplementedError as error:
            raise ValueError(
                f"model must have priors that can be sampled, got {type(site['fn']).__name__} (an "
                f"improper prior?) at {site['name']!r}; pass init_strategy=init_to_value(...) "
                "to a kernel, or a guide to an objective"
            ) from error

    return initialize
