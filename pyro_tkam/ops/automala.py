"""
Batched steps of autoMALA (Biron-Lattes et al. 2024, arXiv:2310.16782; Raj 2025, arXiv:2506.14167,
Eq. 82-85).

Each row and datum searches its own step size. The target is evaluated only at the rows that need
it, and without its gradient where the density alone shows that a longer step fails.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

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
    drift,
    kick,
    kinetic,
)

NUM_UNIFORMS = 5
"""
Uniforms of a step: Metropolis test, two acceptance bounds, kind of preconditioner, its mixing
weight.
"""


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

    @cached_property
    def energy(self) -> Tensor:
        """Energy at the start, ``(rows, *local)``."""
        return kinetic(self.momentum) - self.point.log_density

    def trial(
        self, step_size: Tensor, target: Target, needed: Tensor
    ) -> tuple[Point, Tensor, Tensor]:
        """
        Make one leapfrog step: its end, the momentum there and ``ℓ``, which is ``-inf`` where it
        isn't needed.
        """
        position, middle, stride = drift(self.point, self.momentum, step_size, self.dynamics.scale)
        rows = _few_rows(needed)
        end = (
            target(position) if rows is None else self.point.put(rows, target(position[rows], rows))
        )
        momentum = kick(middle, stride, end.gradient)
        return end, momentum, _finite(needed, self.energy - kinetic(momentum) + end.log_density)

    def bound(self, step_size: Tensor, target: Target, needed: Tensor) -> Tensor:
        """
        Bound ``ℓ`` from above by leaving out the energy of the last momentum; ``inf`` where it
        isn't needed.
        """
        position, _, _ = drift(self.point, self.momentum, step_size, self.dynamics.scale)
        rows = _few_rows(needed)
        if rows is None:
            value = target.log_density(position)
        else:
            value = self.energy.index_copy(0, rows, target.log_density(position[rows], rows))
        return torch.where(needed, _finite(needed, self.energy + value), torch.inf)


@dataclass(frozen=True)
class Cost(Batched):
    """Evaluations so far, each ``(rows, *local)``.

    :param evaluations: of density and gradient that a datum needed.
    :param screenings: of the density alone that a datum needed.
    :param of_row: of either kind that were made of the row with all its data.
    """

    evaluations: Tensor
    screenings: Tensor
    of_row: Tensor

    def plus(self, evaluated: Tensor, screened: Tensor) -> Cost:
        """Add one where a mask holds."""
        of_row = self.of_row + _is_evaluated(evaluated) + _is_evaluated(screened)
        return Cost(self.evaluations + evaluated, self.screenings + screened, of_row)


@dataclass(frozen=True)
class Found(Batched):
    """The leapfrog step at which a search stands.

    :param end: where it ends.
    :param momentum: whitened momentum there, ``(rows, *local, dim)``.
    :param log_ratio: ``ℓ(exponent)``, ``(rows, *local)``.
    :param exponent: ``j``, whole numbers in the dtype of the positions, ``(rows, *local)``.
    :param inside: False where the search left its limits.
    :param cost: evaluations so far.
    """

    end: Point
    momentum: Tensor
    log_ratio: Tensor
    exponent: Tensor
    inside: Tensor
    cost: Cost


@dataclass(frozen=True)
class Verdict(Batched):
    """How far the check of a proposal has come.

    :param exponent: the ``j`` that is tried next, ``(rows, *local)``.
    :param agrees: False once the reverse search is known to return another step.
    :param cost: evaluations so far.
    """

    exponent: Tensor
    agrees: Tensor
    cost: Cost


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

    With ``ℓ(j)`` the log Metropolis ratio of a leapfrog step of size ``η_init 2^j`` and sorted
    uniforms ``a < b``: ``j = 0`` if ``log a < ℓ(0) < log b``; else ``j`` falls until
    ``ℓ(j) > log a``, or rises until ``ℓ(j) < log b`` and steps back one. The same search from the
    proposal, momentum flipped, must return the same ``j``; then the Metropolis test (Raj 2025,
    arXiv:2506.14167, Eq. 82-85; Biron-Lattes et al. 2024). Nothing but the cost is changed by
    running the reverse search only where the Metropolis test accepts, and by leaving out the
    gradient of a trial that fails even with ``m' = 0``: of a rising search's last one, as a rule.

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
    reversible = torch.ones_like(finite)
    cost = found.cost
    if adjusted:
        passed = finite & (noise.uniforms[..., 0].log() < found.log_ratio)
        verdict = check_reverse(start, found, target, passed)
        reversible = verdict.agrees
        cost = verdict.cost
        accepted = passed & reversible
    info = StepInfo(
        acceptance_rate=found.log_ratio.exp().clamp(max=1) * (found.inside & reversible),
        accepted=accepted,
        diverging=found.log_ratio < -DIVERGENCE_THRESHOLD,
        reversible=reversible,
        energy=start.energy,
        step_size=start.dynamics.step_size * found.exponent.exp2(),
        evaluations=cost.evaluations,
        screenings=cost.screenings,
        row_evaluations=cost.of_row,
        failed=~torch.isfinite(found.log_ratio),
        outside=found.end.log_density == -torch.inf,
    )
    return choose(accepted, found.end, point), info


def draw_dynamics(
    point: Point, tuning: Tuning, noise: Noise, limits: tuple[float, float]
) -> Dynamics:
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
    """
    Draw the inverse of ``M^{1/2}``, which is ``1/s``, 1 or ``β + (1 - β)/s``, each with probability
    1/3.

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
    always = torch.ones_like(start.point.log_density, dtype=torch.bool)
    end, momentum, ratio = start.trial(dynamics.step_size, target, always)
    once = always.long()
    cost = Cost(once, torch.zeros_like(once), once)
    found = Found(end, momentum, ratio, torch.zeros_like(ratio), always, cost)
    rises = ratio >= dynamics.log_high
    falls = ratio <= dynamics.log_low
    scan = _Search(start, found, rises, rises | falls)
    while scan.active.any():
        scan = scan.advance(target)
    return scan.found


def check_reverse(start: Start, found: Found, target: Target, needed: Tensor) -> Verdict:
    """Tell whether the search from the proposal, momentum flipped, would return the same exponent.

    Only what that search would have to see is evaluated: it must go on at every exponent before
    ``j``, and end there; ``ℓ(j)`` from the proposal is ``-ℓ(j)``, as a leapfrog step is an
    involution.

    :param start: where the forward search started.
    :param found: where it ended.
    :param target: the log density.
    :param needed: where an answer is wanted, ``(rows, *local)``.
    :return: ``agrees`` is False only where the searches differ (and were compared); its cost is
        that of both searches.
    """
    dynamics = start.dynamics
    exponent = found.exponent
    back = -found.log_ratio
    falls = exponent < 0
    rises = (exponent > 0) | ((exponent == 0) & (back >= dynamics.log_high))
    agrees = torch.where(rises, back >= dynamics.log_high, back > dynamics.log_low)
    first = torch.where(exponent == 0, 1.0, torch.zeros_like(exponent))
    verdict = Verdict(first, agrees | ~needed, found.cost)
    reverse = Start(found.end, -found.momentum, dynamics)
    scan = _Check(reverse, verdict, exponent, rises, needed & agrees & (rises | falls))
    while scan.active.any():
        scan = scan.advance(target)
    return scan.verdict


@dataclass(frozen=True)
class _Search:
    start: Start
    found: Found
    rises: Tensor
    active: Tensor

    def advance(self, target: Target) -> _Search:
        """
        Try the next exponent: a falling search moves and may end there, a rising one ends without
        moving.
        """
        found = self.found
        dynamics = self.start.dynamics
        exponent = found.exponent + torch.where(self.rises, 1.0, -1.0)
        step_size = dynamics.step_size * exponent.exp2()
        outside = self.active & dynamics.forbids(step_size)
        active = self.active & ~outside
        needed, cost = _screened(self.start, step_size, target, active, self.rises, found.cost)
        found = replace(found, inside=found.inside & ~outside, cost=cost)
        if not needed.any():
            return replace(self, found=found, active=needed)
        end, momentum, ratio = self.start.trial(step_size, target, needed)
        enough = ratio >= dynamics.log_high
        trial = Found(end, momentum, ratio, exponent, found.inside, cost)
        found = choose(active & (enough | ~self.rises), trial, found)
        active = active & torch.where(self.rises, enough, ratio <= dynamics.log_low)
        return replace(self, found=found, active=active)


@dataclass(frozen=True)
class _Check:
    start: Start
    verdict: Verdict
    aim: Tensor
    rises: Tensor
    active: Tensor

    def advance(self, target: Target) -> _Check:
        """
        Try the next exponent: the search must go on before the one it aims at, and end behind it.
        """
        exponent = self.verdict.exponent
        dynamics = self.start.dynamics
        step_size = dynamics.step_size * exponent.exp2()
        needed, cost = _screened(
            self.start, step_size, target, self.active, self.rises, self.verdict.cost
        )
        ratio = torch.full_like(exponent, -torch.inf)
        if needed.any():
            _, _, ratio = self.start.trial(step_size, target, needed)
        goes_on = torch.where(self.rises, ratio >= dynamics.log_high, ratio <= dynamics.log_low)
        behind = exponent > self.aim
        passes = torch.where(self.rises & behind, ~goes_on, goes_on) & ~dynamics.forbids(step_size)
        following = exponent + torch.where(self.rises, 1.0, -1.0)
        at_aim = following == self.aim
        verdict = Verdict(
            exponent=torch.where(at_aim & self.rises, following + 1, following),
            agrees=self.verdict.agrees & (passes | ~self.active),
            cost=cost,
        )
        ended = torch.where(self.rises, behind, at_aim)
        return replace(self, verdict=verdict, active=self.active & passes & ~ended)


def _screened(
    start: Start, step_size: Tensor, target: Target, active: Tensor, rises: Tensor, cost: Cost
) -> tuple[Tensor, Cost]:
    """
    Tell where a trial must be made: not where ``ℓ`` is too low for a rising search whatever the
    gradient.
    """
    screened = active & rises
    needed = active
    if screened.any():
        needed = active & (start.bound(step_size, target, screened) >= start.dynamics.log_high)
    return needed, cost.plus(needed, screened)


def _finite(needed: Tensor, value: Tensor) -> Tensor:
    return torch.where(needed & torch.isfinite(value), value, -torch.inf)


def _few_rows(needed: Tensor) -> Tensor | None:
    """Return the rows at which anything is needed, if they are at most half of all."""
    rows = _any_datum(needed).reshape(-1).nonzero().squeeze(-1)
    return rows if _are_few(rows, needed) else None


def _is_evaluated(needed: Tensor) -> Tensor:
    """Tell of each row whether it is evaluated, ``(rows, 1, ...)``: all are if most are needed."""
    busy = _any_datum(needed)
    return busy if _are_few(busy.nonzero(), needed) else torch.ones_like(busy)


def _are_few(rows: Tensor, needed: Tensor) -> bool:
    return 2 * len(rows) <= len(needed)


def _any_datum(mask: Tensor) -> Tensor:
    """Tell of each row whether a mask holds at any of its data, ``(rows, 1, ...)``."""
    return mask if mask.ndim == 1 else mask.flatten(1).any(1).reshape(-1, *(1,) * (mask.ndim - 1))
