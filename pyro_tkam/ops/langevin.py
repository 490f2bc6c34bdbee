"""Batched steps of the unadjusted and the Metropolis-adjusted Langevin algorithm.

Both are one leapfrog step of a fresh Gaussian momentum (Raj 2025, arXiv:2506.14167, Eq. 36 and
79-80). Every array has the shape ``(rows, *local)`` or ``(rows, *local, dim)``: a row is a chain at
a temperature, and ``local`` are independent data inside it, each with a decision of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pyro_tkam.ops.batched import Batched, choose

DIVERGENCE_THRESHOLD = 1000.0
"""Energy error from which a proposal counts as a divergence, as in Pyro and Stan."""


@dataclass(frozen=True)
class Point(Batched):
    """A position with what was evaluated there.

    :param position: coordinates, ``(rows, *local, dim)``.
    :param log_density: log density up to a constant, ``(rows, *local)``.
    :param gradient: its gradient, ``(rows, *local, dim)``.
    :param parts: further tensors that belong to the position and move with it, each
        ``(rows, *local, ...)``.
    """

    position: Tensor
    log_density: Tensor
    gradient: Tensor
    parts: tuple[Tensor, ...] = ()


class Target(Protocol):
    """A log density that is evaluated on a batch."""

    def __call__(self, position: Tensor, rows: Tensor | None = None) -> Point:
        """
        Evaluate positions ``(n, *local, dim)`` that belong to the batch's rows ``rows`` (None: to
        all of them).
        """

    def log_density(self, position: Tensor, rows: Tensor | None = None) -> Tensor:
        """
        Evaluate the log density alone, ``(n, *local)``; only a search for a step size asks for it.
        """


@dataclass(frozen=True)
class Tuning(Batched):
    """What a kernel keeps fixed within a round.

    :param step_size: positive, broadcastable to ``(rows, *local)``.
    :param scale: standard deviations of the preconditioner, broadcastable to
        ``(rows, *local, dim)``.
    """

    step_size: Tensor
    scale: Tensor


@dataclass(frozen=True)
class Noise(Batched):
    """All randomness of one step, so that a step is a pure function.

    :param momentum: standard normal, ``(rows, *local, dim)``.
    :param uniforms: uniform on (0, 1), ``(rows, *local, k)``, in the order in which the kernel
        reads them.
    """

    momentum: Tensor
    uniforms: Tensor

    @staticmethod
    def draw(point: Point, num_uniforms: int) -> Noise:
        """Draw the noise of one step from torch's global generator."""
        shape = (*point.log_density.shape, num_uniforms)
        return Noise(torch.randn_like(point.position), open_uniform(shape, point.position))


@dataclass(frozen=True)
class StepInfo(Batched):
    """What one step did, each of shape ``(rows, *local)``.

    :param acceptance_rate: acceptance probability of the proposal, 0 where it can't be reversed.
    :param accepted: whether the proposal was taken.
    :param diverging: whether the proposal had a non-finite density or an energy error above 1000.
    :param reversible: False where a reverse search was run and chose another step.
    :param energy: Hamiltonian ``-log pi(z) + |m|^2 / 2`` at the start of the step.
    :param step_size: step size used.
    :param evaluations: number of evaluations of density and gradient, of each row and datum.
    :param screenings: number of evaluations of the density without its gradient.
    :param row_evaluations: number of evaluations of either kind that were made of the row, with all
        its data at once.
    :param failed: where density or gradient was not finite on the way; the proposal is rejected.
    :param outside: where it is because the density was zero, which is no fault of it.
    """

    acceptance_rate: Tensor
    accepted: Tensor
    diverging: Tensor
    reversible: Tensor
    energy: Tensor
    step_size: Tensor
    evaluations: Tensor
    screenings: Tensor
    row_evaluations: Tensor
    failed: Tensor
    outside: Tensor

    @property
    def total_evaluations(self) -> Tensor:
        """
        Evaluations of the target by all rows, with or without gradient, each of a row with all its
        data.
        """
        return self.row_evaluations.reshape(len(self.row_evaluations), -1)[:, 0].sum()


def open_uniform(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Draw uniforms that are never 0 (``torch.rand`` may return 0, whose logarithm is infinite)."""
    return torch.rand(shape, dtype=like.dtype, device=like.device).clamp_min(
        torch.finfo(like.dtype).tiny
    )


def leapfrog(
    start: Point, momentum: Tensor, step_size: Tensor, scale: Tensor, target: Target
) -> tuple[Point, Tensor]:
    """Make one leapfrog step with whitened momentum ``p = s m`` and mass ``M = s^-2``.

    ``p½ = p + ε/2 s ∇``, ``z' = z + ε s p½``, ``p' = p½ + ε/2 s ∇'``.

    :param start: where to start.
    :param momentum: whitened momentum, ``(rows, *local, dim)``.
    :param step_size: leapfrog step ``ε``, ``(rows, *local)``.
    :param scale: ``s``, ``(rows, *local, dim)``.
    :param target: the log density.
    :return: the end point and the momentum there.
    """
    position, middle, stride = drift(start, momentum, step_size, scale)
    end = target(position)
    return end, kick(middle, stride, end.gradient)


def drift(
    start: Point, momentum: Tensor, step_size: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a leapfrog step's end ``z'``, its momentum half-way ``p½`` and its stride ``ε s``."""
    stride = step_size.unsqueeze(-1) * scale
    middle = kick(momentum, stride, start.gradient)
    return torch.addcmul(start.position, stride, middle), middle, stride


def kick(momentum: Tensor, stride: Tensor, gradient: Tensor) -> Tensor:
    """Return ``p + ε/2 s ∇``."""
    return torch.addcmul(momentum, stride, gradient, value=0.5)


def kinetic(momentum: Tensor) -> Tensor:
    """Return ``|p|^2 / 2``."""
    return 0.5 * momentum.square().sum(-1)


def log_ratio(start: Point, momentum: Tensor, end: Point, end_momentum: Tensor) -> Tensor:
    """Return the log Metropolis ratio ``ℓ``; ``-inf`` where anything at the end is not finite."""
    value = end.log_density - start.log_density + kinetic(momentum) - kinetic(end_momentum)
    return torch.where(torch.isfinite(value), value, -torch.inf)


def ula_step(
    point: Point, target: Target, tuning: Tuning, noise: Noise, adjusted: bool = False
) -> tuple[Point, StepInfo]:
    """Make a step of the unadjusted Langevin algorithm.

    ``z' = z + η C ∇log π(z) + √(2η) C^{1/2} ξ`` with ``C = s²`` (Raj 2025, arXiv:2506.14167, Eq.
    36). It leaves ``π`` invariant up to a bias of order ``η``; only non-finite proposals are
    rejected.

    :param point: current state.
    :param target: the log density.
    :param tuning: ``η`` as ``step_size`` and ``s`` as ``scale``.
    :param noise: from :meth:`Noise.draw` with ``num_uniforms >= 0``.
    :param adjusted: ignored; there is no test to make.
    :return: the new state and what happened.
    """
    end, ratio = _propose(point, target, tuning, noise)
    return _finish(point, end, ratio, torch.isfinite(ratio), tuning, noise)


def mala_step(
    point: Point, target: Target, tuning: Tuning, noise: Noise, adjusted: bool = True
) -> tuple[Point, StepInfo]:
    """Make a step of the Metropolis-adjusted Langevin algorithm, which leaves ``π`` invariant.

    ULA's proposal, taken with probability ``min(1, e^ℓ)`` (Raj 2025, arXiv:2506.14167, Eq. 79-80).

    :param point: current state.
    :param target: the log density.
    :param tuning: ``η`` as ``step_size`` and ``s`` as ``scale``.
    :param noise: from :meth:`Noise.draw` with ``num_uniforms >= 1``.
    :param adjusted: False takes every proposal that doesn't diverge.
    :return: the new state and what happened.

    >>> import torch
    >>> def normal(position, rows=None):
    ...     return Point(position, -0.5 * position.square().sum(-1), -position)
    >>> point = normal(torch.zeros(4, 2))
    >>> point, info = mala_step(point, normal, Tuning(torch.tensor(0.5), torch.ones(2)),
    ...     Noise.draw(point, 1))
    >>> tuple(info.accepted.shape)
    (4,)
    """
    end, ratio = _propose(point, target, tuning, noise)
    accepted = ratio > (noise.uniforms[..., 0].log() if adjusted else -DIVERGENCE_THRESHOLD)
    return _finish(point, end, ratio, accepted, tuning, noise)


def _propose(point: Point, target: Target, tuning: Tuning, noise: Noise) -> tuple[Point, Tensor]:
    end, momentum = leapfrog(
        point, noise.momentum, (2 * tuning.step_size).sqrt(), tuning.scale, target
    )
    return end, log_ratio(point, noise.momentum, end, momentum)


def _finish(
    point: Point, end: Point, ratio: Tensor, accepted: Tensor, tuning: Tuning, noise: Noise
) -> tuple[Point, StepInfo]:
    once = torch.ones_like(accepted, dtype=torch.int64)
    info = StepInfo(
        acceptance_rate=ratio.exp().clamp(max=1),
        accepted=accepted,
        diverging=ratio < -DIVERGENCE_THRESHOLD,
        reversible=torch.ones_like(accepted),
        energy=kinetic(noise.momentum) - point.log_density,
        step_size=tuning.step_size.expand_as(ratio),
        evaluations=once,
        screenings=torch.zeros_like(once),
        row_evaluations=once,
        failed=~torch.isfinite(ratio),
        outside=end.log_density == -torch.inf,
    )
    return choose(accepted, end, point), info
