"""Lines through an optimum, on which models often have another one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

POINTS = 128
FARTHEST_SHIFT = 4.0
LARGEST_FACTOR = 3.0
"""How far lines reach: in standard deviations of the prior, and in multiples of the optimum."""


def lines_through(location: Tensor, center: Tensor, scale: Tensor, sites: Sequence[str]) -> Tensor:
    """
    Return points on lines along which models repeat themselves: one coordinate moves, or those of
    a site (and of all sites) shift together, or are stretched and reflected about the prior's
    center.

    :param location: an optimum, ``(dim,)``.
    :param center: of the prior, ``(dim,)``.
    :param scale: standard deviations of the prior, ``(dim,)``.
    :param sites: the name of the site of each coordinate.
    :return: ``(line, point, dim)``.

    >>> location, center = torch.tensor([1.0, 2.0]), torch.zeros(2)
    >>> lines_through(location, center, torch.ones(2), ["z", "z"]).shape  # 2 + 1 + 1 lines
    torch.Size([4, 128, 2])
    """
    dim = len(location)
    blocks = torch.stack(
        [torch.tensor([each == name for each in sites]) for name in dict.fromkeys(sites)]
        + [torch.ones(dim, dtype=torch.bool)]
    ).unique(dim=0)
    blocks = blocks.to(location.device)
    steps = torch.linspace(-1, 1, POINTS, dtype=location.dtype, device=location.device)[:, None]
    single = torch.eye(dim, dtype=torch.bool, device=location.device)[:, None]
    moved = torch.where(single, center + FARTHEST_SHIFT * steps * scale, location)
    shifted = location + FARTHEST_SHIFT * steps * scale * blocks[:, None]
    stretched = center + LARGEST_FACTOR * steps * (location - center)
    stretched = torch.where(blocks[:, None], stretched, location)
    return torch.cat([moved, shifted, stretched])


def rises_between(values: Tensor) -> Tensor:
    """Return which values ``(line, point)`` are higher than both neighbors."""
    inner = values[:, 1:-1]
    peak = (inner > values[:, :-2]) & (inner >= values[:, 2:])
    return torch.nn.functional.pad(peak, (1, 1))
