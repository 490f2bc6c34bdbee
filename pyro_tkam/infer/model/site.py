"""One site of a run: its role, its masks and its log density."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.util import scale_and_mask
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor
from torch.distributions import biject_to

from pyro_tkam.ops._precision import at_least_single

Site = dict[str, Any]
"""A node of a Pyro trace."""


def is_latent(site: Site) -> bool:
    """Tell whether a site is drawn, and no plate's subsample."""
    return (
        site["type"] == "sample"
        and not site["is_observed"]
        and not isinstance(site["fn"], _Subsample)
    )


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
    of it away.
    """
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
    Tell whether a site has no mask of whatever values, itself or anywhere inside its distribution.
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

    What a mask hides of the data may be anything, padding or NaN: another value takes its place, so
    that its gradient is zero as well.
    """
    fn, value = site["fn"], site["value"]
    if site["is_observed"]:
        value = _without_hidden(site)
    log_prob: Tensor = at_least_single(fn.log_prob(value, *site["args"], **site["kwargs"]))
    return log_prob


def site_log_prob(site: Site) -> Tensor:
    """Return a site's log density with its scale and mask."""
    return scale_and_mask(unscaled_log_prob(site), site["scale"], site["mask"])


def _without_hidden(site: Site) -> Tensor:
    """Return observed values with what masks hide replaced by some value of the support."""
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
    """Return some value in a distribution's support; None where none is known."""
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
