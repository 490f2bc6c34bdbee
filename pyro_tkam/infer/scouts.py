"""A search for modes that a proposal lacks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pyro_tkam.infer.chains import Chains
from pyro_tkam.infer.density import ModelDensity
from pyro_tkam.infer.kernels import LangevinKernel
from pyro_tkam.ops.langevin import Point

NUM_CLIMBERS = 512
FEWEST_CLIMBERS = 16
NUM_CLIMBS = 50
NUM_SCOUTS = 8
WARMUP_STEPS = 64
NUM_DRAWS = 96

Surprise = Callable[[Tensor], Tensor]
"""From positions ``(num, *local, dim)`` to log ratios ``(num, *local)`` of posterior density and proposal."""


class Scouts:
    """Chains at ``t = 1`` that start where prior draws arrive when they climb the posterior density.

    :param kernel: what moves the chains.
    :param density: the posterior's.
    """

    def __init__(self, kernel: LangevinKernel, density: ModelDensity) -> None:
        self.kernel, self.density = kernel, density
        data = max(1, torch.Size(density.layout.local_shape).numel())
        self.num_climbers = max(FEWEST_CLIMBERS, NUM_CLIMBERS // data)
        self.evaluations = 0

    def search(self, surprise: Surprise, limit: float) -> Tensor | None:
        """Return draws of chains, ``(scout, draw, *local, dim)``, that start far apart at surprising places.

        :param surprise: how much denser the posterior is than a proposal.
        :param limit: from where on that is surprising; None is returned if no climb ends above it.
        """
        point = self._climb()
        unseen = (surprise(point.position) > limit) & point.log_density.isfinite()
        self.evaluations += self.num_climbers
        return self._explore(self._far_apart(point, unseen)) if unseen.any() else None

    def _climb(self) -> Point:
        """Climb from prior draws by gradient steps; the step grows after a rise, and shrinks after a fall."""
        draw = self.density.sample_prior if self.density.can_sample_prior() else self.density.draw_start
        self.density.expect(self.num_climbers)
        point = self.density.point(draw(self.num_climbers))
        step = torch.full_like(point.log_density, 0.1)
        for _ in range(NUM_CLIMBS):
            ahead = self.density.point(point.position + step[..., None] * point.gradient)
            higher = ahead.log_density > point.log_density
            step = step * torch.where(higher, 1.5, 0.3)
            point = point.map(lambda old, new, rise=higher: torch.where(_like(rise, old), new, old), ahead)
        self.evaluations += self.num_climbers * (NUM_CLIMBS + 1)
        return point

    def _far_apart(self, point: Point, unseen: Tensor) -> Tensor:
        """Choose the highest of the unseen ends, then again and again the one farthest from those chosen."""
        position = point.position
        best = torch.where(unseen, point.log_density, -torch.inf).argmax(0, keepdim=True)
        chosen, distance = [], torch.full_like(point.log_density, torch.inf)
        for _ in range(NUM_SCOUTS):
            chosen.append(position.gather(0, best[..., None].expand(1, *position.shape[1:])))
            distance = torch.minimum(distance, (position - chosen[-1]).square().sum(-1))
            best = torch.where(unseen, distance, -1.0).argmax(0, keepdim=True)
        return torch.cat(chosen)

    def _explore(self, start: Tensor) -> Tensor:
        """Run chains from the chosen ends."""
        self.density.expect(NUM_SCOUTS)
        chains = Chains.begin(self.kernel, self.density, start, WARMUP_STEPS)
        positions = []
        for index in range(WARMUP_STEPS + NUM_DRAWS):
            info = chains.step()
            self.evaluations += int(info.evaluations.reshape(NUM_SCOUTS, -1).amax(1).sum())
            if index >= WARMUP_STEPS:
                positions.append(chains.point.position)
        return torch.stack(positions, 1)


def _like(rise: Tensor, values: Tensor) -> Tensor:
    return rise.reshape(*rise.shape, *(1,) * (values.ndim - rise.ndim))
