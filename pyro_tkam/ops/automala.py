"""Batched steps of autoMALA (Biron-Lattes et al. 2024, arXiv:2310.16782; Raj 2025, arXiv:2506.14167, Eq. 82-85).

Each row and datum searches its own step size; rows whose search has ended are not evaluated again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from pyro_tkam.ops.batched import Batched, choose
from pyro_tkam.ops.langevin import (
    DIVERGENCE_THRESHOLD,
    Noise,
    Point,
    StepInfo,
    Target,
    Tuning,
    kinetic,
    leapfrog,
    log_ratio,
)

NUM_UNIFORMS = 5
"""Uniforms of a step: Metropolis test, two acceptance bounds, kind of preconditioner, its mixing weight."""


@dataclass(frozen=True)
class Dynamics(Batched):
    """What the forward and the reverse search share, so that one can undo the other.

    :param step_size: initial leapfrog step ``η_init``, ``(rows, *local)``.
    :param scale: inverse of ``M^{1/2}``, ``(rows, *local, dim)``.
    :param log_low: ``log a``, ``(rows, *local)``.
    :param log_high: ``log b``, ``(rows, *local)``, ``a < b``.
    :param limits: smallest and largest step size that a search may try.
    """

    step_size: Tensor
    scale: Tensor
    log_low: Tensor
    log_high: Tensor
    limits: tuple[float, float]

    def forbids(self, step_size: Tensor) -> Tensor:
        """Tell where a step size lies outside the limits."""
        return (step_size < self.limits[0]) | (step_size > self.limits[1])


@dataclass(frozen=True)
class Start(Batched):
    """Where trials start: a point, a whitened momentum ``(rows, *local, dim)`` and the dynamics."""

    point: Point
    momentum: Tensor
    dynamics: Dynamics

    def trial(self, step_size: Tensor, target: Target, rows: Tensor | None) -> tuple[Point, Tensor, Tensor]:
        """Make one leapfrog step: its end, the momentum there and ``ℓ``."""
        end, momentum = leapfrog(self.point, self.momentum, step_size, self.dynamics.scale, target, rows)
        return end, momentum, log_ratio(self.point, self.momentum, end, momentum)


@dataclass(frozen=True)
class Found(Batched):
    """The leapfrog step at which a search stands.

    :param end: where it ends.
    :param momentum: whitened momentum there, ``(rows, *local, dim)``.
    :param log_ratio: ``ℓ(exponent)``, ``(rows, *local)``.
    :param exponent: ``j``, whole numbers in the dtype of the positions, ``(rows, *local)``.
    :param inside: False where the search left its limits.
    :param evaluations: gradient evaluations so far, ``(rows, *local)``.
    """

    end: Point
    momentum: Tensor
    log_ratio: Tensor
    exponent: Tensor
    inside: Tensor
    evaluations: Tensor


@dataclass(frozen=True)
class Verdict(Batched):
    """How far the check of a proposal has come.

    :param exponent: the ``j`` that is tried next, ``(rows, *local)``.
    :param agrees: False once the reverse search is known to return another step.
    :param evaluations: gradient evaluations so far, ``(rows, *local)``.
    """

    exponent: Tensor
    agrees: Tensor
    evaluations: Tensor


def automala_step(
    point: Point,
    target: Target,
    tuning: Tuning,
    noise: Noise,
    adjusted: bool = True,
    *,
    limits: tuple[float, float] = (1e-10, 1e10),
) -> tuple[Point, StepInfo]:
    """Make a step of autoMALA, which leaves ``π`` invariant whatever the tuning.

    With ``ℓ(j)`` the log Metropolis ratio of a leapfrog step of size ``η_init 2^j`` and sorted uniforms ``a < b``:
    ``j = 0`` if ``log a < ℓ(0) < log b``; else ``j`` falls until ``ℓ(j) > log a``, or rises until ``ℓ(j) < log b``
    and steps back one. The same search from the proposal, momentum flipped, must return the same ``j``; then the
    Metropolis test (Raj 2025, arXiv:2506.14167, Eq. 82-85; Biron-Lattes et al. 2024).
    The reverse search is run only where the Metropolis test accepts, which changes nothing but the cost.

    :param point: current state.
    :param target: the log density.
    :param tuning: ``η_init`` as ``step_size`` and standard deviations ``s`` as ``scale``.
    :param noise: from :meth:`Noise.draw` with ``num_uniforms = NUM_UNIFORMS``.
    :param adjusted: False takes every finite proposal, without the reverse search.
    :param limits: smallest and largest step size; a search that leaves them rejects.
    :return: the new state and what happened.
    """
    start = Start(point, noise.momentum, draw_dynamics(point, tuning, noise, limits))
    found = search(start, target)
    accepted = finite = found.inside & torch.isfinite(found.log_ratio)
    reversible, evaluations = torch.ones_like(finite), found.evaluations
    if adjusted:
        passed = finite & (noise.uniforms[..., 0].log() < found.log_ratio)
        verdict = check_reverse(start, found, target, passed)
        reversible, evaluations = verdict.agrees, evaluations + verdict.evaluations
        accepted = passed & reversible
    info = StepInfo(
        acceptance_rate=found.log_ratio.exp().clamp(max=1) * (found.inside & reversible),
        accepted=accepted,
        diverging=found.log_ratio < -DIVERGENCE_THRESHOLD,
        reversible=reversible,
        energy=kinetic(noise.momentum) - point.log_density,
        step_size=start.dynamics.step_size * found.exponent.exp2(),
        evaluations=evaluations,
    )
    return choose(accepted, found.end, point), info


def draw_dynamics(point: Point, tuning: Tuning, noise: Noise, limits: tuple[float, float]) -> Dynamics:
    """Read a step's bounds and preconditioner from its noise; they don't depend on the position."""
    log_bounds = noise.uniforms[..., 1:3].log()
    return Dynamics(
        step_size=tuning.step_size.expand_as(point.log_density),
        scale=mixed_scale(tuning.scale, noise.uniforms[..., 3:4], noise.uniforms[..., 4:5]),
        log_low=log_bounds.amin(-1),
        log_high=log_bounds.amax(-1),
        limits=limits,
    )


def mixed_scale(scale: Tensor, kind: Tensor, weight: Tensor) -> Tensor:
    """Draw the inverse of ``M^{1/2}``, which is ``1/s``, 1 or ``β + (1 - β)/s``, each with probability 1/3.

    :param scale: standard deviations ``s``, broadcastable to ``(rows, *local, dim)``.
    :param kind: uniforms that choose, ``(rows, *local, 1)``.
    :param weight: uniform ``β``, ``(rows, *local, 1)``.
    :return: ``(rows, *local, dim)``.
    """
    weight = torch.where(kind < 1 / 3, 0.0, torch.where(kind < 2 / 3, 1.0, weight))
    return scale / torch.lerp(torch.ones_like(scale), scale, weight)


def search(start: Start, target: Target) -> Found:
    """Find the step size of each row and datum.

    :param start: where the leapfrog steps start.
    :param target: the log density.
    :return: the leapfrog step at which each search ended.
    """
    dynamics = start.dynamics
    end, momentum, ratio = start.trial(dynamics.step_size, target, None)
    always = torch.ones_like(ratio, dtype=torch.bool)
    found = Found(end, momentum, ratio, torch.zeros_like(ratio), always, always.long())
    rises, falls = ratio >= dynamics.log_high, ratio <= dynamics.log_low
    return _drive(_Search(start, found, rises, rises | falls), target).result


def check_reverse(start: Start, found: Found, target: Target, needed: Tensor) -> Verdict:
    """Tell whether the search from the proposal, momentum flipped, would return the same exponent.

    Only what that search would have to see is evaluated: it must go on at every exponent before ``j``, and end there;
    ``ℓ(j)`` from the proposal is ``-ℓ(j)``, as a leapfrog step is an involution.

    :param start: where the forward search started.
    :param found: where it ended.
    :param target: the log density.
    :param needed: where an answer is wanted, ``(rows, *local)``.
    :return: ``agrees`` is False only where the searches differ (and were compared).
    """
    dynamics, exponent, back = start.dynamics, found.exponent, -found.log_ratio
    falls = exponent < 0
    rises = (exponent > 0) | ((exponent == 0) & (back >= dynamics.log_high))
    agrees = torch.where(rises, back >= dynamics.log_high, back > dynamics.log_low)
    first = torch.where(exponent == 0, 1.0, torch.zeros_like(exponent))
    verdict = Verdict(first, agrees | ~needed, torch.zeros_like(found.evaluations))
    reverse = Start(found.end, -found.momentum, dynamics)
    return _drive(_Check(reverse, verdict, exponent, rises, needed & agrees & (rises | falls)), target).result


@dataclass(frozen=True)
class _Search(Batched):
    start: Start
    result: Found
    rises: Tensor
    active: Tensor

    def advance(self, target: Target, rows: Tensor | None) -> _Search:
        """Try the next exponent: a falling search moves and may end there, a rising one ends without moving."""
        found, dynamics = self.result, self.start.dynamics
        exponent = found.exponent + torch.where(self.rises, 1.0, -1.0)
        step_size = dynamics.step_size * exponent.exp2()
        outside = self.active & dynamics.forbids(step_size)
        active = self.active & ~outside
        end, momentum, ratio = self.start.trial(step_size, target, rows)
        enough = ratio >= dynamics.log_high
        trial = Found(end, momentum, ratio, exponent, found.inside, found.evaluations)
        found = choose(active & (enough | ~self.rises), trial, found)
        found = replace(found, inside=found.inside & ~outside, evaluations=found.evaluations + active)
        active = active & torch.where(self.rises, enough, ratio <= dynamics.log_low)
        return _Search(self.start, found, self.rises, active)


@dataclass(frozen=True)
class _Check(Batched):
    start: Start
    result: Verdict
    aim: Tensor
    rises: Tensor
    active: Tensor

    def advance(self, target: Target, rows: Tensor | None) -> _Check:
        """Try the next exponent: the search must go on before the one it aims at, and end behind it."""
        exponent, dynamics = self.result.exponent, self.start.dynamics
        step_size = dynamics.step_size * exponent.exp2()
        _, _, ratio = self.start.trial(step_size, target, rows)
        goes_on = torch.where(self.rises, ratio >= dynamics.log_high, ratio <= dynamics.log_low)
        behind = exponent > self.aim
        passes = torch.where(self.rises & behind, ~goes_on, goes_on) & ~dynamics.forbids(step_size)
        following = exponent + torch.where(self.rises, 1.0, -1.0)
        at_aim = following == self.aim
        verdict = Verdict(
            exponent=torch.where(at_aim & self.rises, following + 1, following),
            agrees=self.result.agrees & (passes | ~self.active),
            evaluations=self.result.evaluations + self.active,
        )
        ended = torch.where(self.rises, behind, at_aim)
        return replace(self, result=verdict, active=self.active & passes & ~ended)


_FEWEST_ROWS = 96
"""Batches that are not worth making smaller: an evaluation of so few rows costs what one row costs."""

_AnyScan = TypeVar("_AnyScan", _Search, _Check)


def _drive(scan: _AnyScan, target: Target, rows: Tensor | None = None) -> _AnyScan:
    """Advance a scan until no row is active, on ever fewer rows."""
    while True:
        busy = scan.active.reshape(scan.active.shape[0], -1).any(-1)
        count = int(busy.sum())
        if count == 0:
            return scan
        if 2 * count <= busy.numel() and busy.numel() > _FEWEST_ROWS:
            keep = busy.nonzero().squeeze(-1)
            part = _drive(scan.take(keep), target, keep if rows is None else rows[keep])
            return replace(scan, result=scan.result.put(keep, part.result))
        scan = scan.advance(target, rows)
