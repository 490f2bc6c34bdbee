"""How the step size that an ensemble shares follows its acceptance rates."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_tkam.ops.langevin import StepInfo

LEAST_RATE = 0.01
"""Floor of a chain's acceptance rate in the harmonic mean: stuck chains shorten the step, but a
single one among many does not decide."""

FEWEST_FOR_HARMONIC = 8
"""Chains below which single proposals decide a harmonic mean, and the plain mean is taken."""

MOST_AT_WALLS = 0.9
"""Share of failing trajectories beyond which it is the step size that makes them fail."""

GAIN = 0.65
LARGEST_FALL = 0.3
"""In the logarithm of the step size, at one iteration. The largest rise is ``GAIN (1 - target)``,
.13 at a target of .8."""


def joint_acceptance(rate: Tensor, counted: Tensor | None = None) -> Tensor:
    """Average acceptance rates over chains by the harmonic mean of rates floored at .01.

    The harmonic mean (Hoffman, Radul and Sountsov 2021) follows the chains that accept least, so
    that none stays where it is; fewer than 8 chains take the plain mean.

    :param rate: ``(chains, *rest)``.
    :param counted: which chains count, shaped alike; all if None.
    :return: ``(*rest)``.

    >>> joint_acceptance(torch.tensor([0.0] + [1.0] * 9)).item() < 0.1
    True
    """
    weight = torch.ones_like(rate) if counted is None else counted.to(rate)
    weight = torch.where(weight.sum(0) > 0, weight, 1.0)
    total = weight.sum(0)
    if len(rate) < FEWEST_FOR_HARMONIC:
        return (weight * rate).sum(0) / total
    return total / (weight / rate.clamp_min(LEAST_RATE)).sum(0)


def step_size_rate(info: StepInfo, frozen: Tensor | None = None) -> Tensor:
    """Return the acceptance rate from which a step size follows, ``(*rest)``.

    A trajectory that meets a wall, where the density is not finite, says nothing of its step size
    and does not count, unless nearly all do.

    :param info: of a step, each ``(chains, *rest)``.
    :param frozen: chains that do not count.
    """
    walls = info.failed & (info.failed.double().mean(0) < MOST_AT_WALLS)
    counted = ~walls if frozen is None else ~walls & ~frozen
    return joint_acceptance(info.acceptance_rate, counted)


class StepSizeSearch:
    """Robbins-Monro on the log step size: ``log ε += GAIN n^{-1/2} (rate - target)``.

    :param target: acceptance rate to reach.
    """

    def __init__(self, target: float) -> None:
        self.target = target
        self.restart()

    def restart(self) -> None:
        """Take large steps again, and forget what was averaged."""
        self.count = 0
        self.averaged = 0
        self.total: Tensor | float = 0.0

    def update(
        self, step_size: Tensor, rate: Tensor, tried: Tensor, average: bool = False
    ) -> Tensor:
        """Return the next step size ``(*rest)``.

        :param step_size: the last one.
        :param rate: acceptance rate, joined over chains, ``(*rest)``.
        :param tried: step size that had this rate, ``(*rest)``; a shorter one than the last tells
            nothing of it.
        :param average: whether the result counts in :attr:`mean`.
        """
        self.count += 1
        change = GAIN * (rate - self.target) / self.count**0.5
        change = torch.where(tried < 0.99 * step_size, 0.0, change)
        logarithm = step_size.log() + change.clamp_min(-LARGEST_FALL)
        if average:
            self.total = self.total + logarithm
            self.averaged = self.averaged + 1
        return logarithm.exp()

    @property
    def mean(self) -> Tensor:
        """Geometric mean of the step sizes that count."""
        return (torch.as_tensor(self.total) / self.averaged).exp()

    def state(self) -> dict[str, Any]:
        """Return numbers and tensors from which to go on."""
        return {"count": self.count, "averaged": self.averaged, "total": self.total}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.count = state["count"]
        self.averaged = state["averaged"]
        self.total = state["total"]
