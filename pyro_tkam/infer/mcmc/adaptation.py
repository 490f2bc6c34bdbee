"""How step sizes and preconditioners adapt during warm-up.

Arrays have shape ``(chains, *rest)``, ``rest`` being what is tuned by itself (temperatures, local
data); chains share.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from pyro.ops.dual_averaging import DualAveraging
from pyro.ops.welford import WelfordCovariance
from torch import Tensor

from pyro_tkam.infer.mcmc.metric import DENSITY_FRAME, AffineFrame, Frame, Moments
from pyro_tkam.infer.mcmc.step_size import LEAST_RATE, joint_acceptance
from pyro_tkam.ops.langevin import StepInfo, Tuning

State = dict[str, Any]

PROX_RATIO = 10
"""Dual averaging is drawn toward so many times the first step (Hoffman & Gelman 2014)."""
FEWEST_STEPS = 20
INITIAL_STEPS = 75
FINAL_STEPS = 50
FIRST_WINDOW = 25
INITIAL_SHARE = 0.15
FINAL_SHARE = 0.1
"""Windows of warm-up, as Stan has them, and their shares of a short one."""
GAIN = 1.15
"""
Of the mean step: searches from slightly above it end where they start most often, which is
cheapest. On standard normal targets of 10, 20 and 50 dimensions, with gains from 1 to 1.3, squared
jumps per evaluation of either kind are within 3% of the best gain's, and per gradient within 7%.
"""


RATE_STEPS = 20
"""Steps over which a chain's acceptance rate is averaged before chains are compared."""


class NoAdaptation:
    """Keeps the tuning."""

    frame = DENSITY_FRAME

    def update(self, tuning: Tuning, position: Tensor, info: StepInfo) -> Tuning:
        """Return the same tuning."""
        return tuning

    def state(self) -> State:
        """Return nothing: there is no state."""
        return {}

    def load(self, state: State) -> None:
        """Do nothing."""


class DualAveragingAdaptation:
    """Pyro's dual averaging of the step size and Pyro's Welford variances, in Stan's windows.

    The rate that is steered is the chains' mean, times the ratio of the harmonic to the arithmetic
    mean of their recent averages: near 1 for chains alike, small where one of them stands still.

    :param warmup_steps: length of the warm-up.
    :param target: acceptance rate to reach.
    :param adapt_step_size: whether the step size adapts.
    :param adapt_scale: whether the preconditioner adapts.
    """

    frame = DENSITY_FRAME

    def __init__(
        self, warmup_steps: int, target: float, adapt_step_size: bool, adapt_scale: bool
    ) -> None:
        self.target = target
        self.warmup_steps = warmup_steps
        self.adapt_step_size = adapt_step_size
        self.window_ends = stan_windows(warmup_steps) if adapt_scale else []
        self._step = 0
        self._recent = torch.tensor(0.0)
        self._averaging = DualAveraging()
        self._welford = WelfordCovariance(diagonal=True)

    def update(self, tuning: Tuning, position: Tensor, info: StepInfo) -> Tuning:
        """Return the tuning of the next step."""
        if self._step == 0:
            self._restart(tuning.step_size)
        self._step += 1
        if self.adapt_step_size:
            self._averaging.step(self.target - self._rate(info.acceptance_rate))
            current, average = self._averaging.get_state()
            tuning = replace(
                tuning, step_size=(average if self._step == self.warmup_steps else current).exp()
            )
        if self.window_ends and self.window_ends[0] < self._step <= self.window_ends[-1]:
            self._welford.update(position)
        if self._step in self.window_ends[1:]:
            tuning = self._new_scale(tuning, position)
        return tuning

    def state(self) -> State:
        """Return numbers and tensors from which to go on."""
        return {
            "step": self._step,
            "recent": self._recent,
            "averaging": vars(self._averaging).copy(),
            "welford": vars(self._welford).copy(),
        }

    def load(self, state: State) -> None:
        """Go on from a state."""
        self._step = state["step"]
        self._recent = state["recent"]
        vars(self._averaging).update(state["averaging"])
        vars(self._welford).update(state["welford"])

    def _rate(self, rate: Tensor) -> Tensor:
        share = 1 / min(self._step, RATE_STEPS)
        self._recent = (1 - share) * self._recent + share * rate
        evenness = joint_acceptance(self._recent) / self._recent.mean(0).clamp_min(LEAST_RATE)
        return rate.mean(0) * evenness

    def _new_scale(self, tuning: Tuning, position: Tensor) -> Tuning:
        tuning = replace(tuning, scale=pooled_scale(self._welford))
        self._welford.reset()
        if self.adapt_step_size:
            # In the new units a good step is of order dim^(-1/3).
            tuning = replace(
                tuning, step_size=torch.full_like(tuning.step_size, position.shape[-1] ** (-1 / 3))
            )
            self._restart(tuning.step_size)
        return tuning

    def _restart(self, step_size: Tensor) -> None:
        self._averaging.prox_center = (PROX_RATIO * step_size).log()
        self._averaging.reset()


class RoundAdaptation:
    """
    Rounds of doubling length, between which step size and scales change (Biron-Lattes et al. 2024).

    The new initial step is a little more than the mean of the steps that the searches chose; the
    new scales are the standard deviations of the round's draws.

    :param warmup_steps: length of the warm-up.
    :param limits: smallest and largest step size.
    """

    frame: Frame = DENSITY_FRAME

    def __init__(self, warmup_steps: int, limits: tuple[float, float]) -> None:
        self.round_ends = doubling_rounds(warmup_steps)
        self.limits = limits
        self._step = 0
        self._welford = WelfordCovariance(diagonal=True)
        self._weight = 0
        self._total: Tensor | float = 0.0

    def update(self, tuning: Tuning, position: Tensor, info: StepInfo) -> Tuning:
        """Return the tuning of the next step: the same, unless a round ends."""
        self._step += 1
        self._weight += len(info.step_size)
        self._total = self._total + info.step_size.sum(0)
        self._observe(position)
        if self._step not in self.round_ends:
            return tuning
        tuning = self._rescaled(replace(tuning, step_size=self._mean_step(tuning)))
        return replace(tuning, step_size=tuning.step_size.clamp(*self.limits))

    def state(self) -> State:
        """Return numbers and tensors from which to go on."""
        return {
            "step": self._step,
            "weight": self._weight,
            "total": self._total,
            "welford": vars(self._welford).copy(),
        }

    def load(self, state: State) -> None:
        """Go on from a state."""
        self._step = state["step"]
        self._weight = state["weight"]
        self._total = state["total"]
        vars(self._welford).update(state["welford"])

    def _mean_step(self, tuning: Tuning) -> Tensor:
        mean = GAIN * torch.as_tensor(self._total) / self._weight
        self._weight = 0
        self._total = 0.0
        return mean.to(tuning.step_size.dtype)

    def _observe(self, position: Tensor) -> None:
        self._welford.update(position)

    def _rescaled(self, tuning: Tuning) -> Tuning:
        scale = pooled_scale(self._welford) if self._welford.n_samples > 3 else tuning.scale
        self._welford.reset()
        return replace(tuning, scale=scale)


class FrameAdaptation(RoundAdaptation):
    """
    Rounds between which the frame changes instead of the scales, for chains ``(chains, dim)`` of
    one law.

    In the new frame the round's draws are standardized, hence all scales are 1, and the step is as
    long as before.
    """

    def __init__(
        self,
        warmup_steps: int,
        limits: tuple[float, float],
        frame: Frame = DENSITY_FRAME,
    ) -> None:
        super().__init__(warmup_steps, limits)
        self._moments = Moments()
        self.frame = frame

    def state(self) -> State:
        """Return numbers and tensors from which to go on."""
        frame = {} if self.frame is DENSITY_FRAME else vars(self.frame)
        return super().state() | {"moments": vars(self._moments).copy(), "frame": frame}

    def load(self, state: State) -> None:
        """Go on from a state."""
        super().load(state)
        vars(self._moments).update(state["moments"])
        self.frame = AffineFrame(**state["frame"]) if state["frame"] else DENSITY_FRAME

    def _observe(self, position: Tensor) -> None:
        self._moments.add(position)

    def _rescaled(self, tuning: Tuning) -> Tuning:
        frame = (
            self.frame
            if isinstance(self.frame, AffineFrame)
            else AffineFrame.identity(tuning.scale)
        )
        self.frame, scale = self._moments.standardized(frame)
        self._moments = Moments()
        return replace(tuning, step_size=tuning.step_size / scale.log().mean().exp())


def pooled_scale(welford: WelfordCovariance) -> Tensor:
    """
    Return standard deviations ``(*rest, dim)`` of all chains together, of samples ``(chains, *rest,
    dim)``.
    """
    within = welford.get_covariance(regularize=True).mean(0)
    between = (welford._mean - welford._mean.mean(0)).square().mean(0)
    return (within + between).sqrt()


def doubling_rounds(warmup_steps: int) -> list[int]:
    """Return the numbers of steps after which a round ends; the last round is half of the warm-up.

    >>> doubling_rounds(100)
    [3, 6, 12, 25, 50, 100]
    """
    ends = []
    while warmup_steps >= 2:
        ends.append(warmup_steps)
        warmup_steps //= 2
    return ends[::-1]


def transient_steps(warmup_steps: int) -> int:
    """
    Return the length of the first three rounds, in which chains only have to find where the mass
    is.

    >>> transient_steps(100)
    12
    """
    return max(doubling_rounds(warmup_steps)[:3], default=0)


def stan_windows(warmup_steps: int) -> list[int]:
    """
    Return the numbers of steps after which a window ends: a first one without, then doubling ones
    with variances.

    >>> stan_windows(1000)
    [75, 100, 150, 250, 450, 950]
    """
    if warmup_steps < FEWEST_STEPS:
        return []
    start = INITIAL_STEPS
    end = warmup_steps - FINAL_STEPS
    size = FIRST_WINDOW
    if start + FINAL_STEPS + size > warmup_steps:
        start = int(INITIAL_SHARE * warmup_steps)
        end = warmup_steps - int(FINAL_SHARE * warmup_steps)
        size = end - start
    ends = [start]
    while ends[-1] < end:
        ends.append(ends[-1] + size if 3 * size <= end - ends[-1] else end)
        size *= 2
    return ends
