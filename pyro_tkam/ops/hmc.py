"""Hamiltonian trajectories of a batch whose rows all make the same number of leapfrog steps.

Shapes are those of :mod:`pyro_tkam.ops.langevin`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_tkam.ops.batched import choose
from pyro_tkam.ops.langevin import (
    DIVERGENCE_THRESHOLD,
    Noise,
    Point,
    StepInfo,
    Target,
    Tuning,
    kick,
    kinetic,
    log_ratio,
)


class Parking:
    """Keeps rows and data at their last point where density and gradient are finite.

    :param start: where they start, with finite density.

    ``failed`` tells which were parked, ``(rows, *local)``; ``outside`` tells which of these were
    because the density was zero.
    """

    def __init__(self, start: Point) -> None:
        self.failed = torch.zeros_like(start.log_density, dtype=torch.bool)
        self.outside = self.failed
        self._used = False

    def reached(self, end: Point, point: Point) -> Point:
        """Return the end of a step from a point, or that point where the row is parked."""
        finite = torch.isfinite(end.log_density + end.gradient.sum(-1))
        if not finite.all():
            self.outside = self.outside | (~self.failed & (end.log_density == -torch.inf))
            self.failed = self.failed | ~finite
            self._used = True
        return choose(~self.failed, end, point) if self._used else end


def trajectory(
    start: Point, momentum: Tensor, step_size: Tensor, scale: Tensor, num_steps: int, target: Target
) -> tuple[Point, Tensor, Tensor, Tensor]:
    """Make leapfrog steps with whitened momentum ``p = s m`` and mass ``M = s^-2``.

    ``p½ = p + ε/2 s ∇``, then ``z' = z + ε s p½`` and ``p½' = p½ + ε s ∇'``, the last of these
    halved (Neal 2011, arXiv:1206.1901, Eq. 5.18-5.20). A row and datum at which density or gradient
    is not finite is parked at its last finite point, so that the target is evaluated at no
    position of which nothing is known.

    :param start: where to start, with finite density.
    :param momentum: whitened momentum, ``(rows, *local, dim)``.
    :param step_size: ``ε``, broadcastable to ``(rows, *local)``.
    :param scale: ``s``, broadcastable to ``(rows, *local, dim)``.
    :param num_steps: leapfrog steps, at least 1.
    :param target: the log density.
    :return: the end, the momentum there, where the trajectory failed, ``(rows, *local)``, and where
        it did so because the density was zero.

    >>> def normal(position, rows=None):
    ...     return Point(position, -0.5 * position.square().sum(-1), -position)
    >>> quarter, steps = torch.pi / 2, 100
    >>> end, momentum, failed, _ = trajectory(
    ...     normal(torch.zeros(1, 1)), torch.ones(1, 1), torch.tensor(quarter / steps),
    ...     torch.ones(1), steps, normal)
    >>> round(end.position.item(), 3), abs(round(momentum.item(), 3)), failed.item()
    (1.0, 0.0, False)
    """
    stride = step_size.unsqueeze(-1) * scale
    point = start
    middle = kick(momentum, stride, start.gradient)
    parking = Parking(start)
    for step in range(num_steps):
        point = parking.reached(target(torch.addcmul(point.position, stride, middle)), point)
        if step < num_steps - 1:
            middle = torch.addcmul(middle, stride, point.gradient)
        else:
            middle = kick(middle, stride, point.gradient)
    return point, middle, parking.failed, parking.outside


def hmc_step(
    point: Point,
    target: Target,
    tuning: Tuning,
    noise: Noise,
    num_steps: int,
    adjusted: bool = True,
) -> tuple[Point, StepInfo]:
    """Make a step of Hamiltonian Monte Carlo, which leaves ``π`` invariant.

    The number of steps may be random but may not depend on the state. A trajectory with a point
    that is not finite is rejected; the reverse one would be too.

    :param point: current state.
    :param target: the log density.
    :param tuning: ``ε`` as ``step_size`` and ``s`` as ``scale``.
    :param noise: from :meth:`Noise.draw` with ``num_uniforms >= 1``.
    :param num_steps: leapfrog steps, at least 1.
    :param adjusted: False takes every finite proposal that does not diverge.
    :return: the new state and what happened.
    """
    end, momentum, failed, outside = trajectory(
        point, noise.momentum, tuning.step_size, tuning.scale, num_steps, target
    )
    ratio = log_ratio(point, noise.momentum, end, momentum).masked_fill(failed, -torch.inf)
    accepted = ratio > (noise.uniforms[..., 0].log() if adjusted else -DIVERGENCE_THRESHOLD)
    evaluations = torch.full_like(accepted, num_steps, dtype=torch.int64)
    info = StepInfo(
        acceptance_rate=ratio.exp().clamp(max=1),
        accepted=accepted,
        diverging=(ratio < -DIVERGENCE_THRESHOLD) & ~outside,
        reversible=torch.ones_like(accepted),
        energy=kinetic(noise.momentum) - point.log_density,
        step_size=tuning.step_size.expand_as(ratio),
        evaluations=evaluations,
        screenings=torch.zeros_like(evaluations),
        row_evaluations=evaluations,
        failed=failed,
        outside=outside,
    )
    return choose(accepted, end, point), info
