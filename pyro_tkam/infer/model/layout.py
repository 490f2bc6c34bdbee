"""Where each latent site lies in a flat vector of coordinates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_tkam.infer.model.coordinates import Coordinate


@dataclass(frozen=True)
class SiteLayout:
    """One latent site.

    :param shape: of its coordinates, batch and event.
    :param event_dim: number of event dimensions of the coordinates.
    :param coordinate: what the coordinates mean.
    """

    shape: tuple[int, ...]
    event_dim: int
    coordinate: Coordinate


@dataclass(frozen=True)
class Layout:
    """
    How sites are laid out in vectors ``(*lead, *local, dim)``; each datum holds its own
    coordinates.

    :param sites: the latent sites by name, in order.
    :param local_dims: plate dimensions (negative, from the left) that are local.
    :param local_shape: their sizes.
    """

    sites: Mapping[str, SiteLayout]
    local_dims: tuple[int, ...]
    local_shape: tuple[int, ...]

    @property
    def dim(self) -> int:
        """Number of coordinates of a datum (of everything, if nothing is local)."""
        return sum(self._size(site) for site in self.sites.values())

    def flatten(self, coordinates: Mapping[str, Tensor], lead: int = 0) -> Tensor:
        """Join the sites' coordinates ``(*lead, *shape)`` into ``(*lead, *local, dim)``."""
        parts = []
        for name, site in self.sites.items():
            value = (
                coordinates[name].movedim(self._axes(site), self._front(lead))
                if self.local_dims
                else coordinates[name]
            )
            parts.append(value.reshape((*value.shape[:lead], *self.local_shape, self._size(site))))
        return torch.cat(parts, -1)

    def unflatten(self, position: Tensor) -> dict[str, Tensor]:
        """Split ``(*lead, *local, dim)`` into the sites' coordinates ``(*lead, *shape)``."""
        lead = position.ndim - 1 - len(self.local_shape)
        sizes = [self._size(site) for site in self.sites.values()]
        coordinates = {}
        for (name, site), part in zip(self.sites.items(), position.split(sizes, -1), strict=True):
            value = part.reshape((*position.shape[:-1], *self._rest(site)))
            coordinates[name] = (
                value.movedim(self._front(lead), self._axes(site)) if self.local_dims else value
            )
        return coordinates

    def _axes(self, site: SiteLayout) -> tuple[int, ...]:
        return tuple(dim - site.event_dim for dim in self.local_dims)

    def _front(self, lead: int) -> tuple[int, ...]:
        return tuple(range(lead, lead + len(self.local_dims)))

    def _rest(self, site: SiteLayout) -> tuple[int, ...]:
        local = {axis % len(site.shape) for axis in self._axes(site)}
        return tuple(size for axis, size in enumerate(site.shape) if axis not in local)

    def _size(self, site: SiteLayout) -> int:
        return math.prod(self._rest(site))
