"""Maxima of a function from many starts at once: L-BFGS whose rows go their own way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Climb", "climb"]

MEMORY = 10
CONVERGED = 1e-3
"""Rise that the next step promises, in nats, below which a row has arrived."""

SUFFICIENT = 1e-4
"""Share of the rise promised by the slope that a step must bring (Armijo 1966)."""

SHORTER = 0.25
SHORTEST = 1e-8
ROUNDING = 4.0
"""Units in the last place by which a value may fall without being lower."""

Evaluate = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Climb:
    """Where climbs ended.

    :param position: ``(rows, dim)``.
    :param value: the function there, ``(rows,)``.
    :param converged: whether the function has no slope there, ``(rows,)``.
    :param evaluations: of function and gradient, of all rows.
    """

    position: Tensor
    value: Tensor
    converged: Tensor
    evaluations: int


@torch.no_grad()
def climb(evaluate: Evaluate, start: Tensor, scale: Tensor, most_steps: int = 150) -> Climb:
    """
    Maximize a function from many starts by L-BFGS (Nocedal 1980, 10.2307/2006193).

    Each step evaluates all rows that have not arrived in one batch; a row whose step brought too
    little shortens it at its next turn, while others go on.

    :param evaluate: from positions ``(rows, dim)`` to values ``(rows,)`` and gradients
        ``(rows, dim)``; NaN and ``-inf`` are no place to be.
    :param start: where to start, ``(rows, dim)``.
    :param scale: how far each coordinate may be from a maximum, ``(dim,)``.
    :param most_steps: evaluations of a row.

    >>> found = climb(lambda x: (-x.square().sum(-1), -2 * x), torch.ones(3, 2), torch.ones(2))
    >>> bool(found.converged.all()), found.position.abs().max().item() < 1e-3
    (True, True)
    """
    value, gradient = evaluate(start)
    rows = _Rows.begin(start, value, gradient, scale)
    evaluations = len(start)
    for _ in range(most_steps):
        active = rows.active.nonzero().squeeze(-1)
        if not len(active):
            break
        value, gradient = evaluate(rows.trial(active))
        evaluations += len(active)
        rows.learn(active, value, gradient)
    return Climb(rows.position, rows.value, rows.arrived & rows.value.isfinite(), evaluations)


@dataclass
class _Rows:
    """State of all rows; positions are in units of the scale inside."""

    position: Tensor
    value: Tensor
    slope: Tensor
    scale: Tensor
    steps: Tensor
    changes: Tensor
    known: Tensor
    direction: Tensor
    length: Tensor
    arrived: Tensor
    stuck: Tensor

    @staticmethod
    def begin(start: Tensor, value: Tensor, gradient: Tensor, scale: Tensor) -> _Rows:
        number, dim = start.shape
        slope = gradient.double() * scale
        usable = value.isfinite() & slope.isfinite().all(-1)
        slope = torch.where(usable.unsqueeze(-1), slope, 0.0)
        rows = _Rows(
            position=start.clone(),
            value=value.double(),
            slope=slope,
            scale=scale.double(),
            steps=slope.new_zeros(MEMORY, number, dim),
            changes=slope.new_zeros(MEMORY, number, dim),
            known=slope.new_zeros(MEMORY, number, dtype=torch.bool),
            direction=slope.clone(),
            length=torch.ones_like(slope[:, 0]),
            arrived=torch.zeros_like(usable),
            stuck=~usable,
        )
        rows.direct(usable.nonzero().squeeze(-1))
        return rows

    @property
    def active(self) -> Tensor:
        return ~(self.arrived | self.stuck)

    def trial(self, index: Tensor) -> Tensor:
        step = self.length[index].unsqueeze(-1) * self.direction[index] * self.scale
        return (self.position[index].double() + step).to(self.position.dtype)

    def learn(self, index: Tensor, value: Tensor, gradient: Tensor) -> None:
        """Take the steps that brought enough, and shorten the others."""
        position = self.trial(index)
        value = value.double()
        slope = gradient.double() * self.scale
        promised = self.length[index] * (self.slope[index] * self.direction[index]).sum(-1)
        epsilon = ROUNDING * torch.finfo(position.dtype).eps * self.value[index].abs()
        enough = value >= self.value[index] + SUFFICIENT * promised - epsilon
        enough = enough & value.isfinite() & slope.isfinite().all(-1)
        self.length[index] *= torch.where(enough, 1.0, SHORTER)
        self.stuck[index] |= self.length[index] < SHORTEST
        taken = index[enough]
        step = (position[enough].double() - self.position[taken].double()) / self.scale
        change = self.slope[taken] - slope[enough]
        self.steps[:, taken] = self.steps[:, taken].roll(1, 0)
        self.changes[:, taken] = self.changes[:, taken].roll(1, 0)
        self.known[:, taken] = self.known[:, taken].roll(1, 0)
        curved = (step * change).sum(-1) > 1e-10 * step.norm(dim=-1) * change.norm(dim=-1)
        self.steps[0, taken] = step
        self.changes[0, taken] = change
        self.known[0, taken] = curved
        self.position[taken] = position[enough]
        self.value[taken] = value[enough]
        self.slope[taken] = slope[enough]
        self.direct(taken)

    def direct(self, index: Tensor) -> None:
        """Find directions by the two loops of L-BFGS, and see who has arrived."""
        slope = self.slope[index]
        known = self.known[:, index]
        steps = self.steps[:, index]
        changes = self.changes[:, index]
        curvature = (steps * changes).sum(-1)
        inverse = torch.where(known, 1 / curvature, 0.0)
        direction = slope.clone()
        shares = []
        for step, change, weight in zip(steps, changes, inverse, strict=True):
            share = weight * (step * direction).sum(-1)
            direction = direction - share.unsqueeze(-1) * change
            shares.append(share)
        last = known.int().argmax(0)
        column = torch.arange(len(index), device=index.device)
        ratio = curvature[last, column] / changes[last, column].square().sum(-1)
        cautious = 1 / slope.norm(dim=-1).clamp_min(1.0)
        first = torch.where(known.any(0), ratio, cautious)
        direction = first.unsqueeze(-1) * direction
        for k in reversed(range(MEMORY)):
            share = inverse[k] * (changes[k] * direction).sum(-1)
            direction = direction + (shares[k] - share).unsqueeze(-1) * steps[k]
        rise = (slope * direction).sum(-1)
        uphill = rise > 0
        direction = torch.where(uphill.unsqueeze(-1), direction, cautious.unsqueeze(-1) * slope)
        self.direction[index] = direction
        self.length[index] = 1.0
        flat = (slope * direction).sum(-1) < CONVERGED
        self.arrived[index] = flat & (known.any(0) | (slope.norm(dim=-1) < CONVERGED))
