"""Maps values of a model's latent sites, from any source, to positions of its density."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer.autoguide.initialization import InitMessenger
from torch import Tensor
from torch.distributions import constraints

from pyro_tkam.infer.model.batching import at_all_rows
from pyro_tkam.infer.model.evaluate import ModelTerms
from pyro_tkam.infer.model.handlers import trace_latents


def positions_of_values(terms: ModelTerms, values: Mapping[str, Tensor]) -> Tensor:
    """
    Return the positions ``(rows, *local, dim)`` at which the latent sites have given values.

    A value on the boundary of its site's support, such as a ``Beta`` that was rounded to 1, or
    outside of it, has no coordinates: they are NaN.

    :param terms: of the model.
    :param values: of each latent site, ``(rows, *site shape)``; others are ignored.
    :raises ValueError: if a site is missing or has another shape.
    """
    nodes = terms.structure.trace.nodes
    sites = terms.layout.sites
    if missing := [name for name in sites if name not in values]:
        raise ValueError(
            f"draws must hold every latent site of the model, got none of {missing}: they hold "
            f"{sorted(values)}"
        )
    own = {}
    for name in sites:
        expected = nodes[name]["value"]
        if values[name].shape[1:] != expected.shape:
            raise ValueError(
                f"draws of {name!r} must have the shape {tuple(expected.shape)} of the model's "
                f"site, got {tuple(values[name].shape[1:])}: do they come from another model?"
            )
        own[name] = values[name].to(expected)

    def one(values: dict[str, Tensor]) -> dict[str, Tensor]:
        return _coordinates(terms, values)

    with torch.no_grad():
        return terms.layout.flatten(at_all_rows(one, own), 1)


def _coordinates(terms: ModelTerms, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Coordinates of all sites at one value of each: supports may depend on other sites."""

    def given(site: Any) -> Tensor:
        name = site["name"]
        return values[name] if name in values else site["fn"].sample()

    with poutine.block(), pyro.validation_enabled(False):
        model = InitMessenger(given)(terms.model)
        trace = trace_latents(model, values, terms.args, terms.kwargs)
    coordinates = {}
    for name, site in terms.layout.sites.items():
        fn = trace.nodes[name]["fn"]
        inside = _is_inside(fn.support, values[name])
        inside = inside.flatten(inside.ndim - fn.event_dim).all(-1) if fn.event_dim else inside
        inside = inside.reshape((*inside.shape, *(1,) * site.event_dim))
        coordinate = site.coordinate.of_value(fn, values[name])
        coordinates[name] = torch.where(inside, coordinate, torch.nan)
    return coordinates


def _is_inside(support: Any, value: Tensor) -> Tensor:
    """Tell which elements of a value lie inside their support and off its boundary."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    if support is constraints.simplex:
        return value > 0
    inside = torch.ones_like(value, dtype=torch.bool)
    if hasattr(support, "lower_bound"):
        inside = inside & (value > support.lower_bound)
    if hasattr(support, "upper_bound"):
        inside = inside & (value < support.upper_bound)
    return inside
