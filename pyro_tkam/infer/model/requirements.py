"""What a model must have so that it has an evidence."""

from __future__ import annotations

from functools import reduce
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.autoguide.initialization import InitMessenger, init_to_sample
from torch import Tensor

from pyro_tkam.infer.model.site import Site, is_improper, is_prior, unwrapped
from pyro_tkam.infer.model.sites import (
    Model,
    initial_trace,
    refuse_subsampling,
    sample_sites,
)


def check_model(model: Model, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse a model that has no evidence.

    :raises NotImplementedError: if a plate subsamples.
    :raises ValueError: if the model has no likelihood, no data in it, a datum that isn't finite, an
        improper or scaled prior, or data and a distribution that spread each other.
    """
    try:
        with torch.no_grad():
            trace, _ = initial_trace(model, args, kwargs, _proper_sample, None)
    except ZeroDivisionError as error:  # Pyro's, for a plate of size zero
        raise ValueError(
            "model must have data, got a plate of size zero: they are empty or all masked"
        ) from error
    _refuse_without_normalizer(trace)
    sites = list(sample_sites(trace))
    hidden = [site for _, site in sites if not site["is_observed"]]
    observed = [(name, site) for name, site in sites if not is_prior(site)]
    if not observed:
        raise ValueError(
            "model must have an observed site, got none: without data there is no evidence"
        )
    for name, site in observed:
        if _holds_bad_data(site):
            raise ValueError(
                "model must have finite data, got a NaN or an infinity at the observed site "
                f"{name!r}"
            )
        # they spread distributions on purpose
        if not any(each["fn"].has_enumerate_support for each in hidden):
            _refuse_spread(name, site)
    if all(_is_empty(site) for _, site in observed):
        raise ValueError(
            f"model must have data, got observed sites {[name for name, _ in observed]} that are "
            "empty or all masked"
        )


def _refuse_spread(name: str, site: Site) -> None:
    """
    Refuse a value and a distribution that spread each other, as ``(n, 1)`` and ``(n,)`` do to ``(n,
    n)``.

    A plate may have spread the distribution to ``(n, n)`` before: data may repeat along plates
    only.
    """
    fn, value = site["fn"], torch.as_tensor(site["value"])
    batch = value.shape[: value.dim() - fn.event_dim]
    together = torch.broadcast_shapes(batch, fn.batch_shape)
    plates = {frame.dim for frame in site["cond_indep_stack"] if frame.vectorized}
    sizes = (1,) * (len(together) - len(batch)) + batch
    repeated = {dim for dim in range(-len(together), 0) if sizes[dim] == 1 < together[dim]}
    if together not in (batch, fn.batch_shape) or not repeated <= plates:
        raise ValueError(
            "model must have data of the batch shape of their distribution, "
            f"{tuple(fn.batch_shape)}, got {tuple(batch)} at site {name!r}: as they are, they "
            f"would count as {tuple(together)} data"
        )


def check_prior(model: Model, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse a model whose prior has no normalizer.

    :raises NotImplementedError: if a plate subsamples.
    :raises ValueError: if it has none.
    """
    with torch.no_grad(), poutine.block():
        trace = poutine.trace(InitMessenger(_proper_sample)(model)).get_trace(*args, **kwargs)
    _refuse_without_normalizer(trace)


def _refuse_without_normalizer(trace: poutine.Trace) -> None:
    refuse_subsampling(trace)
    sites = list(sample_sites(trace))
    _refuse_improper(sites)
    scaled = [
        name
        for name, site in sites
        if not site["is_observed"] and (torch.as_tensor(site["scale"]) != 1).any()
    ]
    if scaled:
        raise ValueError(
            f"model must have priors without scale, got sites {scaled} scaled by a mini-batch (or "
            "by poutine.scale): they are not normalized, so the evidence is undefined; call it "
            "with all data, or without size"
        )


def _refuse_improper(sites: list[tuple[str, Site]]) -> None:
    improper = [name for name, site in sites if not site["is_observed"] and is_improper(site)]
    if improper:
        raise ValueError(
            f"model must have proper priors, got improper ones at {improper}, so its evidence is "
            "undefined"
        )


def _proper_sample(site: Site) -> Tensor:
    if isinstance(unwrapped(site["fn"]), dist.ImproperUniform):
        _refuse_improper([(site["name"], site)])
    return init_to_sample(site)


def _holds_bad_data(site: Site) -> bool:
    """Tell whether a datum that counts isn't finite."""
    bad = ~torch.as_tensor(site["value"]).isfinite()
    event_dim = site["fn"].event_dim
    bad = bad.flatten(bad.ndim - event_dim).any(-1) if event_dim else bad
    return bool((bad & _mask(site)).any())


def _is_empty(site: Site) -> bool:
    return 0 in site["fn"].batch_shape or not _mask(site).any()


def _mask(site: Site) -> Tensor:
    """Return which data count."""
    masks = [site["mask"], getattr(site["fn"], "_mask", None)]
    given = [torch.as_tensor(mask, dtype=torch.bool) for mask in masks if mask is not None]
    return reduce(torch.logical_and, given, torch.tensor(True))
