"""Where chains start."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from pyro_tkam.infer.model.coordinates import Layout
from pyro_tkam.infer.model.density import Density
from pyro_tkam.ops.batched import Batched
from pyro_tkam.ops.langevin import Point

MAX_TRIES = 100


@dataclass(frozen=True)
class Draws(Batched):
    """Where chains might start.

    :param position: ``(rows, *local, dim)``.
    """

    position: Tensor


class Startable(Protocol):
    """A log density at which chains may start."""

    def draw_start(self, num: int) -> Tensor:
        """Draw positions ``(num, *local, dim)`` at which chains might start."""

    def point(self, position: Tensor) -> Point:
        """Evaluate the joint density and its gradient."""

    def offense(self, position: Tensor) -> str:
        """Say what isn't finite at one position ``(*local, dim)``."""


AnyDraws = TypeVar("AnyDraws", bound=Draws)


def find_start(density: Startable, num: int, draw: Callable[[int], Tensor] | None = None) -> Point:
    """Draw ``num`` positions, anew where the density or its gradient isn't finite.

    :param density: what is to be sampled.
    :param num: number of rows.
    :param draw: draws positions; the density's own way if None.
    :return: the positions and the density there.
    :raises ValueError: if 100 draws weren't enough; it names the site.
    """
    draw = draw or density.draw_start
    return find_finite(density, lambda: Draws(draw(num)))[1]


def find_finite(density: Startable, draw: Callable[[], AnyDraws]) -> tuple[AnyDraws, Point]:
    """
    Draw as :func:`find_start` does, positions and what belongs to them, and return both with the
    density there. Any finite row of a later draw takes the place of one that isn't.
    """
    draws = draw()
    point = density.point(draws.position)
    for _ in range(MAX_TRIES):
        missing = (~finite_rows(point)).nonzero().squeeze(-1)
        if not len(missing):
            return draws, point
        others = draw()
        there = density.point(others.position)
        found = finite_rows(there).nonzero().squeeze(-1)[: len(missing)]
        missing = missing[: len(found)]
        draws = draws.put(missing, others.take(found))
        point = point.put(missing, there.take(found))
    complaint = f"model must have a finite density at some start, got none in {MAX_TRIES} tries:"
    return draws, checked_start(density, draws.position, complaint)


def given_start(density: Density, params: Mapping[str, Tensor], num: int) -> Point:
    """Evaluate initial parameters, joined into positions ``(num, *local, dim)``.

    :param density: what is to be sampled.
    :param params: unconstrained values ``(num, *shape)`` by site.
    :param num: number of rows.
    :raises ValueError: if sites or shapes don't fit, or the density isn't finite there.
    """
    check_params(density.layout, params, (num,))
    position = density.layout.flatten({name: value.detach() for name, value in params.items()}, 1)
    return checked_start(
        density, position, "initial_params must have a finite density, got one where"
    )


def floating_params(params: Any) -> Mapping[str, Tensor]:
    """
    Return initial parameters.

    :raises TypeError: if they are not floating-point tensors by site.
    """
    if not isinstance(params, Mapping):
        raise TypeError(f"initial_params must be a mapping, got {type(params).__name__}")
    for name, value in params.items():
        if not isinstance(value, Tensor) or not value.is_floating_point():
            got = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f"initial_params[{name!r}] must be a floating-point tensor, got {got}")
    return params


def check_params(layout: Layout, params: Mapping[str, Tensor], lead: tuple[int, ...]) -> None:
    """
    Raise unless parameters have the sites and shapes of a layout, with leading dimensions ``lead``.
    """
    if set(params) != set(layout.sites):
        raise ValueError(
            f"initial_params must hold the sites {sorted(layout.sites)}, got {sorted(params)}"
        )
    for name, site in layout.sites.items():
        wanted = (*lead, *site.shape)
        if tuple(params[name].shape) != wanted:
            raise ValueError(
                f"initial_params[{name!r}] must have shape {wanted}, got "
                f"{tuple(params[name].shape)}"
            )


def checked_start(density: Startable, position: Tensor, complaint: str) -> Point:
    """Evaluate a position, or raise with what isn't finite there."""
    point = density.point(position)
    finite = finite_rows(point)
    if finite.all():
        return point
    row = int((~finite).nonzero()[0])
    raise ValueError(f"{complaint} {density.offense(position[row])} in chain {row}")


def finite_rows(point: Point) -> Tensor:
    """Tell which rows of a point have finite density and gradient everywhere, ``(rows,)``."""
    finite = torch.isfinite(point.log_density).reshape(len(point.position), -1).all(-1)
    return finite & torch.isfinite(point.gradient).reshape(len(point.position), -1).all(-1)
