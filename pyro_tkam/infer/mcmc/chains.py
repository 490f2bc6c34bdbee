"""A batch of chains under way: the one loop body that all samplers share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from pyro_tkam.infer.mcmc.metric import DENSITY_FRAME, Evaluated, Frame, FramedTarget, Metric
from pyro_tkam.infer.model.coordinates import Chart, Layout
from pyro_tkam.ops.langevin import Point, StepInfo, Target, Tuning


class Adaptation(Protocol):
    """Changes the tuning of a kernel, and the frame in which it runs, while it warms up."""

    @property
    def frame(self) -> Frame:
        """Coordinates of the positions that it is given next."""

    def update(self, tuning: Tuning, position: Tensor, info: StepInfo) -> Tuning:
        """
        Return the tuning of the next step, given the last one's positions ``(chains, *rest, dim)``
        and outcome.
        """

    def state(self) -> dict[str, Any]:
        """Return numbers and tensors from which to go on."""

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""


class Mover(Protocol):
    """What moves chains: a kernel."""

    def unadjusted_steps(self, warmup_steps: int) -> int:
        """Return the number of first steps without the Metropolis test."""

    def step(
        self, point: Point, target: Target, tuning: Tuning, adjusted: bool
    ) -> tuple[Point, StepInfo]:
        """Make a step of all rows; without the Metropolis test if not ``adjusted``."""

    def tuning(self, point: Point, metric: Metric | None = None) -> Tuning:
        """Return the tuning to start with, for a known metric of the target."""

    def adaptation(
        self, warmup_steps: int, dim: int | None = None, metric: Metric | None = None
    ) -> Adaptation:
        """
        Return how the tuning changes during warm-up, and the frame if all chains share one
        ``dim``-d law, for a known metric of the target.
        """


class ChainDensity(Evaluated, Protocol):
    """What chains sample: a log density on positions that a layout reads."""

    @property
    def layout(self) -> Layout:
        """Where each site lies in a position."""


class Chains:
    """Chains of one kernel, with their tuning and its adaptation.

    :param kernel: what moves them.
    :param density: what they sample.
    :param point: their state in the frame of the adaptation, ``(chains, *local, dim)``.
    :param tuning: shared by the chains.
    :param adaptation: changes the tuning during warm-up.
    :param warmup_steps: length of the warm-up.
    :param index: number of steps made so far.
    """

    def __init__(
        self,
        kernel: Mover,
        density: ChainDensity,
        point: Point,
        tuning: Tuning,
        adaptation: Adaptation,
        warmup_steps: int,
        index: int = 0,
    ) -> None:
        self.kernel = kernel
        self.density = density
        self.point = point
        self.tuning = tuning
        self.adaptation = adaptation
        self.warmup_steps = warmup_steps
        self.index = index
        self.num_unadjusted = kernel.unadjusted_steps(warmup_steps)
        self.last_info: StepInfo | None = None
        self._target = FramedTarget(density, adaptation.frame)
        periods = density.layout.periods
        self._chart = None if periods is None else Chart(periods)

    @staticmethod
    def begin(
        kernel: Mover,
        density: ChainDensity,
        point: Point,
        warmup_steps: int,
        metric: Metric | None = None,
    ) -> Chains:
        """Start chains at positions ``(chains, *local, dim)``, with the density there.

        :param metric: of the target, where it is known.
        """
        dim = None if density.layout.local_shape else density.layout.dim
        adaptation = kernel.adaptation(warmup_steps, dim, metric)
        tuning = kernel.tuning(point, metric)
        frame = adaptation.frame
        if frame is not DENSITY_FRAME:
            inner = frame.inner(point.position)
            gradient = frame.pull(point.gradient)
            point = Point(inner, point.log_density, gradient, point.parts)
        return Chains(kernel, density, point, tuning, adaptation, warmup_steps)

    @property
    def position(self) -> Tensor:
        """Where the chains are, in the coordinates of the density, ``(chains, *local, dim)``."""
        return self._target.frame.outer(self.point.position)

    def step(self) -> StepInfo:
        """Move all chains by one step, and adapt tuning and frame while they warm up."""
        self.point, info = self.kernel.step(
            self.point, self._target, self.tuning, self.index >= self.num_unadjusted
        )
        self._turn()
        if self.index < self.warmup_steps:
            self.tuning = self.adaptation.update(self.tuning, self.point.position, info)
            if self.adaptation.frame is not self._target.frame:
                position = self.position
                self._target = FramedTarget(self.density, self.adaptation.frame)
                self.move_to(position)
        self.last_info = info
        self.index += 1
        return info

    def _turn(self) -> None:
        """Turn angles towards those of all chains, which changes nothing but their numbers."""
        if self._chart is None:
            return
        before = self.position
        frame = self._target.frame
        after = self._chart.turned(before)
        if after is not before:
            moved = (after != before).any(-1, keepdim=True)
            position = torch.where(moved, frame.inner(after), self.point.position)
            self.point = replace(self.point, position=position)

    def move_to(self, position: Tensor) -> None:
        """Set the state to positions ``(chains, *local, dim)``."""
        self.point = self._target(self._target.frame.inner(position))

    def keep(self, rows: Tensor) -> None:
        """Go on with some of the chains only."""
        self.point = self.point.take(rows)

    def state(self) -> dict[str, Any]:
        """Return numbers and tensors from which to go on."""
        return {
            "index": self.index,
            "point": [self.point.position, self.point.log_density, self.point.gradient],
            "parts": list(self.point.parts),
            "step_size": self.tuning.step_size,
            "scale": self.tuning.scale,
            "adaptation": self.adaptation.state(),
            "resultant": None if self._chart is None else self._chart.resultant,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.index = state["index"]
        self.tuning = Tuning(state["step_size"], state["scale"])
        self.adaptation.load(state["adaptation"])
        if self._chart is not None:
            self._chart.resultant = state["resultant"]
        self._target = FramedTarget(self.density, self.adaptation.frame)
        position, log_density, gradient = state["point"]
        self.point = Point(position, log_density, gradient, tuple(state["parts"]))
