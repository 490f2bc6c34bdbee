"""Which temperatures a run uses, and how they change during warm-up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from pyro_tkam._checks import whole_number
from pyro_tkam.ops import schedules
from pyro_tkam.ops._arguments import dense

START_EXPONENT = 4.0
"""
Power law from which an adaptive ladder starts: power posteriors change fastest near the prior.
"""


class Ladder(Protocol):
    """Inverse temperatures and their adaptation."""

    def start(self) -> Tensor:
        """Return the first inverse temperatures, rising from 0 to 1."""

    def update(self, betas: Tensor, rejections: Tensor) -> Tensor:
        """Return those of the next round, given the mean rejection of each pair in the last one."""


class FixedLadder:
    """Inverse temperatures that stay.

    :param betas: strictly rising from 0 to 1, ``(num,)``.
    :raises ValueError: if they aren't.
    """

    def __init__(self, betas: Tensor) -> None:
        if (
            betas.ndim != 1
            or len(betas) < 2
            or betas[0] != 0
            or betas[-1] != 1
            or not (betas.diff() > 0).all()
        ):
            raise ValueError(f"schedule must increase strictly from 0 to 1, got {betas.tolist()}")
        self.betas = betas

    def start(self) -> Tensor:
        """Return the inverse temperatures."""
        return self.betas

    def update(self, betas: Tensor, rejections: Tensor) -> Tensor:
        """Return the same inverse temperatures."""
        return betas


class AdaptiveLadder:
    """
    Inverse temperatures with equal rejection between neighbors (Syed et al. 2022,
    arXiv:1905.02939).

    :param num: number of temperatures, at least 2.
    """

    def __init__(self, num: int) -> None:
        self.num = num

    def start(self) -> Tensor:
        """Return a power law."""
        return schedules.power_law(self.num, START_EXPONENT, dtype=torch.float64)

    def update(self, betas: Tensor, rejections: Tensor) -> Tensor:
        """Return the ladder that would have rejected equally."""
        return schedules.adaptive(betas, rejections)


def make_ladder(schedule: str | Tensor, num_temperatures: int) -> Ladder:
    """
    Return the ladder with a name (``"adaptive"``, ``"power"``, ``"linear"``) or of given inverse
    temperatures.

    :raises ValueError: if the name is unknown or ``num_temperatures < 2``.
    """
    whole_number("num_temperatures", num_temperatures, 2)
    if isinstance(schedule, Tensor):
        dense("schedule", schedule)
        return FixedLadder(schedule)
    named: dict[str, Callable[[], Ladder]] = {
        "adaptive": lambda: AdaptiveLadder(num_temperatures),
        "power": lambda: FixedLadder(schedules.power_law(num_temperatures, START_EXPONENT)),
        "linear": lambda: FixedLadder(schedules.power_law(num_temperatures)),
    }
    if not isinstance(schedule, str) or schedule not in named:
        raise ValueError(f"schedule must be one of {sorted(named)} or a tensor, got {schedule!r}")
    return named[schedule]()
