"""Random-walk Metropolis steps of a batch; shapes are those of :mod:`pyro_tkam.ops.langevin`."""

from __future__ import annotations

import torch

from pyro_tkam.ops.batched import choose
from pyro_tkam.ops.langevin import Noise, Point, StepInfo, Target, Tuning


def random_walk_step(
    point: Point, target: Target, tuning: Tuning, noise: Noise
) -> tuple[Point, StepInfo]:
    """Propose ``z' = z + ε s ξ / √dim`` and take it with probability ``min(1, π(z')/π(z))``.

    It leaves ``π`` invariant and needs no gradient (Metropolis et al. 1953); ``ε = 2.38`` is best
    for a Gaussian of many dimensions with standard deviations ``s`` (Roberts, Gelman and Gilks
    1997).

    :param point: current state.
    :param target: the log density.
    :param tuning: ``ε`` as ``step_size`` and ``s`` as ``scale``.
    :param noise: from :meth:`Noise.draw` with ``num_uniforms >= 1``.
    :return: the new state and what happened.

    >>> def normal(position, rows=None):
    ...     return Point(position, -0.5 * position.square().sum(-1), -position)
    >>> point = normal(torch.zeros(4, 2))
    >>> tuning = Tuning(torch.tensor(2.38), torch.ones(2))
    >>> random_walk_step(point, normal, tuning, Noise.draw(point, 1))[0].position.shape
    torch.Size([4, 2])
    """
    stride = tuning.step_size.unsqueeze(-1) * tuning.scale / point.position.shape[-1] ** 0.5
    end = target(torch.addcmul(point.position, stride, noise.momentum))
    difference = end.log_density - point.log_density
    failed = ~torch.isfinite(difference)
    ratio = difference.masked_fill(failed, -torch.inf)
    accepted = ratio > noise.uniforms[..., 0].log()
    once = torch.ones_like(accepted, dtype=torch.int64)
    info = StepInfo(
        acceptance_rate=ratio.exp().clamp(max=1),
        accepted=accepted,
        diverging=torch.zeros_like(accepted),
        reversible=torch.ones_like(accepted),
        energy=-point.log_density,
        step_size=tuning.step_size.expand_as(ratio),
        evaluations=once,
        screenings=torch.zeros_like(once),
        row_evaluations=once,
        failed=failed,
        outside=end.log_density == -torch.inf,
    )
    return choose(accepted, end, point), info
