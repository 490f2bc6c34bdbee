"""Positions at which a model is tried, and mixtures of them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pyro_tkam.infer.model.coordinates import AsDrawn, Layout

MOVES = (2.0, 4.0, 8.0)
"""Standard deviations of the prior by which further trials move draws."""
SHARED_DRAWS = 512
"""Least number of a prior's draws that data share."""


class Effort(NamedTuple):
    """How many trials there are: at draws of the prior, and at moved ones (a multiple of three)."""

    drawn: int
    moved: int

    @property
    def total(self) -> int:
        """How many in all."""
        return self.drawn + self.moved


FULL = Effort(12, 3 * len(MOVES))
AGAIN = Effort(3, len(MOVES))
"""Trials of a model that is new, and of one that was tried before at other values."""
KNOWN = Effort(3, 0)
"""Trials of a model whose parts are known: what its shapes couple shows at any values."""


class Trials:
    """
    A position for each trial: draws of the prior, the last ones moved. Where data share a prior,
    each datum has one of all data's draws. Positions of many data are large, so they are made when
    they are used.

    :param layout: of positions.
    :param drawn: draws of the prior, ``(rows, dim)``, of which :func:`draws_needed` says how many.
    :param shared: dimension and size of the plate whose data share a prior; None if none do.
    :param effort: how many there are.
    """

    def __init__(
        self, layout: Layout, drawn: Tensor, shared: tuple[int, int] | None, effort: Effort
    ) -> None:
        self.layout = layout
        self.effort = effort
        self._drawn = torch.where(drawn.isfinite(), drawn, 0.0)
        self._shared = shared if len(drawn) < len(self) else None
        if self._shared is not None:
            size = self._shared[1]
            self._chosen = torch.randint(len(drawn) * size, (len(self), size))
        self._spread = self._scales() * _may_move(self.layout).to(self._drawn)
        self._sizes = torch.tensor(MOVES).repeat_interleave(effort.moved // len(MOVES))

    def __len__(self) -> int:
        return self.effort.total

    def groups(self, most: int) -> tuple[Tensor, ...]:
        """
        Return numbers of the trials that are mixed: the drawn ones, so many at most at a time, and
        the moved ones by threes.
        """
        drawn, moved = torch.arange(len(self)).tensor_split([self.effort.drawn])
        parts = *drawn.tensor_split(-(-len(drawn) // most)), *moved.split(len(MOVES))
        return tuple(part for part in parts if len(part))

    def at(self, rows: Tensor) -> Tensor:
        """Return the positions of some trials, ``(trial, dim)``."""
        position = self._drawn[rows] if self._shared is None else self._given(self._chosen[rows])
        moved = rows - self.effort.drawn
        for row in (moved >= 0).nonzero().squeeze(1).tolist():
            self._move(position[row], int(moved[row]))
        return position

    def _move(self, position: Tensor, turn: int) -> None:
        """Move by some standard deviations, in place: all up, all down, or each its own way."""
        alike = (1.0, -1.0, None)[turn % 3]
        direction = (
            torch.randn_like(position) if alike is None else torch.full_like(position, alike)
        )
        position.addcmul_(direction, self._spread, value=self._sizes[turn].item())

    def _scales(self) -> Tensor:
        """Return standard deviations of the draws, ``(dim,)``."""
        if self._shared is None:
            return self._drawn.std(0)
        dim, size = self._shared
        scales = {}
        for name, value in self.layout.unflatten(self._drawn).items():
            axis = dim - self.layout.sites[name].event_dim
            scale = value.movedim(axis, 1).flatten(0, 1).std(0)
            scales[name] = scale.unsqueeze(0).expand(size, *scale.shape).movedim(0, axis)
        return self.layout.flatten(scales)

    def _given(self, chosen: Tensor) -> Tensor:
        """Give each datum one of all data's draws, ``(trial, datum)``."""
        assert self._shared is not None
        mixed = {}
        for name, value in self.layout.unflatten(self._drawn).items():
            axis = self._shared[0] - self.layout.sites[name].event_dim
            mixed[name] = value.movedim(axis, 1).flatten(0, 1)[chosen].movedim(1, axis)
        return self.layout.flatten(mixed, 1)


def draws_needed(shared: tuple[int, int] | None, effort: Effort) -> int:
    """Return how many draws all trials take, fewer where data share them."""
    num = effort.total
    return num if shared is None else min(num, -(-SHARED_DRAWS // shared[1]) + 1)


def _may_move(layout: Layout) -> Tensor:
    """Return 1 for coordinates that may be moved, and 0 for discrete values, ``(dim,)``."""
    kinds = {
        name: torch.full(site.shape, float(not isinstance(site.coordinate, AsDrawn)))
        for name, site in layout.sites.items()
    }
    return layout.flatten(kinds)


def mix(layout: Layout, position: Tensor, chosen: Tensor, dim: int) -> Tensor:
    """Return positions whose data have the latents of chosen ones, ``(trial, datum)``."""
    mixed = {}
    data = torch.arange(chosen.shape[1], device=chosen.device)
    for name, value in layout.unflatten(position).items():
        axis = dim - layout.sites[name].event_dim
        mixed[name] = value.movedim(axis, 1)[chosen, data].movedim(1, axis)
    return layout.flatten(mixed, 1)
