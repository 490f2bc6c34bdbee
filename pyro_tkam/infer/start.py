"""Where chains start."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from pyro_tkam.infer.density import Density
from pyro_tkam.infer.layout import Layout
from pyro_tkam.ops.langevin import Point

MAX_TRIES = 100


def find_start(density: Density, num: int, draw: Callable[[int], Tensor] | None = None) -> Tensor:
    """Draw ``num`` positions, anew where the density or its gradient isn't finite.

    :param density: what is to be sampled.
    :param num: number of rows.
    :param draw: draws positions; the density's own way if None.
    :return: positions, ``(num, *local, dim)``.
    :raises ValueError: if 100 draws weren't enough; it names the site.
    """
    draw = draw or density.draw_start
    position = draw(num)
    for _ in range(MAX_TRIES):
        finite = finite_rows(density.point(position))
        if finite.all():
            return position
        position = torch.where(finite.reshape(-1, *(1,) * (position.ndim - 1)), position, draw(num))
    return checked_start(density, position, f"no finite start found in {MAX_TRIES} tries; at every one")


def given_start(density: Density, params: Mapping[str, Tensor], num: int) -> Tensor:
    """Join initial parameters into positions ``(num, *local, dim)``.

    :param density: what is to be sampled.
    :param params: unconstrained values ``(num, *shape)`` by site.
    :param num: number of rows.
    :raises ValueError: if sites or shapes don't fit, or the density isn't finite there.
    """
    check_params(density.layout, params, (num,))
    position = density.layout.flatten({name: value.detach() for name, value in params.items()}, 1)
    return checked_start(density, position, "initial_params are no valid start:")


def check_params(layout: Layout, params: Mapping[str, Tensor], lead: tuple[int, ...]) -> None:
    """Raise unless parameters have the sites and shapes of a layout, with leading dimensions ``lead``."""
    if set(params) != set(layout.sites):
        raise ValueError(f"initial_params must hold the sites {sorted(layout.sites)}, got {sorted(params)}")
    for name, site in layout.sites.items():
        wanted = (*lead, *site.shape)
        if tuple(params[name].shape) != wanted:
            raise ValueError(f"initial_params[{name!r}] must have shape {wanted}, got {tuple(params[name].shape)}")


def checked_start(density: Density, position: Tensor, complaint: str) -> Tensor:
    """Return a position, or raise with what isn't finite there."""
    finite = finite_rows(density.point(position))
    if finite.all():
        return position
    row = int((~finite).nonzero()[0])
    raise ValueError(f"{complaint} {density.offence(position[row])} in chain {row}")


def finite_rows(point: Point) -> Tensor:
    """Tell which rows of a point have finite density and gradient everywhere, ``(rows,)``."""
    finite = torch.isfinite(point.log_density).reshape(len(point.position), -1).all(-1)
    return finite & torch.isfinite(point.gradient).reshape(len(point.position), -1).all(-1)
