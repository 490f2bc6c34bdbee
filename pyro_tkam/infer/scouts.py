"""A search for modes that tempered chains have missed."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_tkam.infer.chains import Chains
from pyro_tkam.infer.density import ModelDensity
from pyro_tkam.infer.kernels import LangevinKernel
from pyro_tkam.ops.langevin import Point

NUM_CLIMBERS = 512
NUM_CLIMBS = 50
NUM_SCOUTS = 8
WARMUP_STEPS = 64
FEWEST_SHARE = 0.1
"""Share of the draws near a scout below which it has found something that they have not."""


class Scouts:
    """Chains at ``t = 1`` that start far apart, where prior draws arrive when they climb the posterior density.

    :param kernel: what moves the chains.
    :param density: the posterior's.
    """

    def __init__(self, kernel: LangevinKernel, density: ModelDensity) -> None:
        self.kernel, self.density = kernel, density
        self.evaluations = 0

    def unseen(self, draws: Tensor) -> Tensor:
        """Return the chains of scouts that sit where hardly any draw is, ``(scout, draw, *local, dim)``.

        :param draws: posterior draws ``(chain, draw, *local, dim)``; scouts make as many in a chain.
        """
        positions = self._explore(self._far_apart(self._climb()), draws.shape[1])
        return positions[_share_nearby(positions, draws.flatten(0, 1)) < FEWEST_SHARE]

    def _climb(self) -> Point:
        """Climb from prior draws by gradient steps; the step grows after a rise, and shrinks after a fall."""
        draw = self.density.sample_prior if self.density.can_sample_prior() else self.density.draw_start
        self.density.expect(NUM_CLIMBERS)
        point = self.density.point(draw(NUM_CLIMBERS))
        step = torch.full_like(point.log_density, 0.1)
        for _ in range(NUM_CLIMBS):
            ahead = self.density.point(point.position + step[..., None] * point.gradient)
            higher = ahead.log_density > point.log_density
            step = step * torch.where(higher, 1.5, 0.3)
            point = point.map(lambda old, new, rise=higher: torch.where(_like(rise, old), new, old), ahead)
        self.evaluations += NUM_CLIMBERS * (NUM_CLIMBS + 1)
        return point

    def _far_apart(self, point: Point) -> Tensor:
        """Choose the highest end, then again and again the one farthest from those chosen, for each datum."""
        position, finite = point.position, point.log_density.isfinite()
        best = point.log_density.nan_to_num(-torch.inf).argmax(0, keepdim=True)
        chosen, distance = [], torch.full_like(point.log_density, torch.inf)
        for _ in range(NUM_SCOUTS):
            chosen.append(position.gather(0, best[..., None].expand(1, *position.shape[1:])))
            distance = torch.minimum(distance, (position - chosen[-1]).square().sum(-1))
            best = torch.where(finite, distance, -1.0).argmax(0, keepdim=True)
        return torch.cat(chosen)

    def _explore(self, start: Tensor, num_draws: int) -> Tensor:
        """Run chains from the chosen ends."""
        self.density.expect(NUM_SCOUTS)
        chains = Chains.begin(self.kernel, self.density, start, WARMUP_STEPS)
        positions = []
        for index in range(WARMUP_STEPS + num_draws):
            info = chains.step()
            self.evaluations += int(info.total_evaluations)
            if index >= WARMUP_STEPS:
                positions.append(chains.position)
        return torch.stack(positions, 1)


def _share_nearby(scouts: Tensor, draws: Tensor) -> Tensor:
    """Share of the draws ``(draw, *local, dim)`` where each scout's own are, of the worst datum, ``(scout,)``."""
    centre, scale = scouts.mean(1, keepdim=True), scouts.std(1, keepdim=True).clamp_min(1e-6)
    reach = ((scouts - centre) / scale).square().sum(-1).amax(1, keepdim=True)
    near = ((draws - centre) / scale).square().sum(-1) <= 2 * reach
    return near.to(draws).mean(1).reshape(len(scouts), -1).amin(1)


def _like(rise: Tensor, values: Tensor) -> Tensor:
    return rise.reshape(*rise.shape, *(1,) * (values.ndim - rise.ndim))
