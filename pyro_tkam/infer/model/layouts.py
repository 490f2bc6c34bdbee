"""How the latent sites of a model are laid out in flat vectors of coordinates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import (
    AffineTransform,
    ComposeTransform,
    Transform,
    biject_to,
    constraints,
)

from pyro_tkam.distributions.normal_quantile import normal_quantile
from pyro_tkam.infer.model.coordinates import (
    Layout,
    SiteLayout,
    StandardNormal,
    Turns,
    TurnsAround,
    Unconstrained,
    opposite_of_gap,
)
from pyro_tkam.infer.model.sites import (
    Site,
    Structure,
    is_improper,
    is_latent,
    is_plain,
    unwrapped,
)

_ANGLES = (dist.VonMises, dist.SineBivariateVonMises, dist.SineSkewed)
"""Distributions of which every value is an angle in radians."""


def lay_out(
    structure: Structure,
    local: Iterable[tuple[int, int]],
    transforms: dict[str, Transform],
    standard_normal: bool,
) -> Layout:
    """Lay out the latent sites of a model.

    :param structure: of the model.
    :param local: dimension and size of the local plates.
    :param transforms: from a site's values to its coordinates, where they aren't Pyro's.
    :param standard_normal: use standard normal coordinates where a site has them.
    :raises ValueError: if a site's support depends on an enumerated site.
    """
    wanted = standard_normal and not structure.enumerated
    sites = {}
    for name in structure.latent:
        site = structure.trace.nodes[name]
        if wanted and is_plain(site) and normal_quantile(site["fn"]) is not None:
            shape = tuple(site["value"].shape)
            sites[name] = SiteLayout(shape, site["fn"].event_dim, StandardNormal())
        else:
            given = transforms[name].inv if name in transforms else turns_of(site)
            sites[name] = unconstrained(name, site, Unconstrained(given))
    local = sorted(local)
    return Layout(sites, tuple(dim for dim, _ in local), tuple(size for _, size in local))


def unconstrained(name: str, site: Site, coordinate: Unconstrained) -> SiteLayout:
    """
    Lay out a site in unconstrained coordinates.

    :raises ValueError: if a datum has a different number of coordinates than values.
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


def one_turn(
    nodes: Mapping[str, Site], draws: Mapping[str, Tensor] | None = None
) -> dict[str, Transform]:
    """Return, for each site of angles, the map from one turn of them to the reals.

    On one turn, an angle has a density that integrates to one, which it does not have on all reals.
    The turn is cut where the site's own values end, or opposite to most draws.

    :param nodes: of a trace.
    :param draws: of the latent sites, ``(draw, *site shape)``, if there are some.
    """
    latent = {name: site for name, site in nodes.items() if is_latent(site)}
    turns = {name: turns_of(site) for name, site in latent.items()}
    return {
        name: _to_reals(each, _of_site(latent[name], (draws or {}).get(name)))
        for name, each in turns.items()
        if each is not None
    }


def _of_site(site: Site, draws: Tensor | None) -> Tensor | None:
    """Draws as the site has values; None if they are another's, which others refuse."""
    value: Tensor = site["value"]
    return None if draws is None or draws.shape[1:] != value.shape else draws.to(value)


def _to_reals(turns: Turns, draws: Tensor | None) -> Transform:
    middle = torch.tensor(turns.center) if draws is None else opposite_of_gap(draws, turns.period)
    bounds = constraints.interval(middle - turns.period / 2, middle + turns.period / 2)
    cut = TurnsAround(turns.period, turns.center, middle)
    to_values: Transform = ComposeTransform([biject_to(bounds), cut])
    return to_values.inv


def turns_of(site: Site) -> Turns | None:
    """Return the turns of a site of angles, in radians or a multiple; None of another site.

    A site without a proper prior gives None, because there is nothing to draw it from.
    """
    if is_improper(site):
        return None
    fn: Any = unwrapped(site["fn"])
    scale = 1.0
    center = 0.0
    if isinstance(fn, dist.TransformedDistribution):
        for transform in fn.transforms:
            if not isinstance(transform, AffineTransform) or not _are_numbers(transform):
                return None
            center = float(transform.loc) + float(transform.scale) * center
            scale *= abs(float(transform.scale))
        fn = unwrapped(fn.base_dist)
    return Turns(2 * math.pi * scale, center) if isinstance(fn, _ANGLES) else None


def _are_numbers(transform: AffineTransform) -> bool:
    """Tell whether a transform is the same in every run."""
    return all(isinstance(each, int | float) for each in (transform.loc, transform.scale))
