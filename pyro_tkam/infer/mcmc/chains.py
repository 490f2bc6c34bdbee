"""A batch of chains under way: the one loop body that all samplers share."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from pyro_tkam.infer.mcmc.adaptation import Adaptation
from pyro_tkam.infer.mcmc.metric import FramedTarget
from pyro_tkam.infer.model.density import Density
from pyro_tkam.ops.langevin import Point, StepInfo, Target, Tuning


class Mover(Protocol):
    """What moves chains: a kernel."""

    def unadjusted_steps(self, warmup_steps: int) -> int:
        """Return the number of first steps without the Metropolis test."""

    def step(
        self, point: Point, target: Target, tuning: Tuning, adjusted: bool
    ) -> tuple[Point, StepInfo]:
        """Make a step of all rows; without the Metropolis test if not ``adjusted``."""

    def tuning(self, point: Point) -> Tuning:
        """Return the tuning to start with."""

    def adaptation(self, warmup_steps: int, dim: int | None = None) -> Adaptation:
        """
        Return how the tuning changes during warm-up, and the frame if all chains share one
        ``dim``-d law.
        """


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
        density: Density,
        point: Point,
        tuning: Tuning,
        adaptation: Adaptation,
        warmup_steps: int,
        index: int = 0,
    ) -> None:
        self.kernel, self.density, self.point, self.tuning = kernel, density, point, tuning
        self.adaptation, self.warmup_steps, self.index = adaptation, warmup_steps, index
        self.num_unadjusted = kernel.unadjusted_steps(warmup_steps)
        self.last_info: StepInfo | None = None
        self._target = FramedTarget(density, adaptation.frame)

    @staticmethod
    def begin(kernel: Mover, density: Density, point: Point, warmup_steps: int) -> Chains:
        """Start chains at positions ``(chains, *local, dim)``, with the density there."""
        dim = None if density.layout.local_shape else density.layout.dim
        return Chains(
            kernel,
            density,
            point,
            kernel.tuning(point),
            kernel.adaptation(warmup_steps, dim),
            warmup_steps,
        )

    @property
    def position(self) -> Tensor:
        """Where the chains are, in the coordinates of the density, ``(chains, *local, dim)``."""
        return self._target.frame.outer(self.point.position)

    def step(self) -> StepInfo:
        """Move all chains by one step, and adapt tuning and frame while they warm up."""
        self.point, info = self.kernel.step(
            self.point, self._target, self.tuning, self.index >= self.num_unadjusted
        )
        if self.index < self.warmup_steps:
            self.tuning = self.adaptation.update(self.tuning, self.point.position, info)
            if self.adaptation.frame is not self._target.frame:
                position = self.position
                self._target = FramedTarget(self.density, self.adaptation.frame)
                self.move_to(position)
        self.last_info = info
        self.index += 1
        return info

    def move_to(self, position: Tensor) -> None:
        """Set the state to positions ``(chains, *local, dim)``."""
        self.point = self._target(self._target.frame.inner(position))

    def state(self) -> dict[str, Any]:
        """Return numbers and tensors from which to go on."""
        return {
            "index": self.index,
            "point": [self.point.position, self.point.log_density, self.point.gradient],
            "step_size": self.tuning.step_size,
            "scale": self.tuning.scale,
            "adaptation": self.adaptation.state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.index = state["index"]
        self.tuning = Tuning(state["step_size"], state["scale"])
        self.adaptation.load(state["adaptation"])
        self._target = FramedTarget(self.density, self.adaptation.frame)
        self.point = Point(*state["point"])
