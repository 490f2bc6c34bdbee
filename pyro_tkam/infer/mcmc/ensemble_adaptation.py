"""How an ensemble adapts at its target: windows with a metric each, then the step size alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pyro_tkam.infer.mcmc.metric import DENSITY_FRAME, Frame, Metric, estimated
from pyro_tkam.infer.mcmc.step_size import StepSizeSearch, step_size_rate
from pyro_tkam.ops.estimators import effective_sample_size
from pyro_tkam.ops.langevin import StepInfo, Tuning

WINDOWS = (20, 60, 120, 220)
"""Ends of the windows of a warm-up of 220 steps; others have the same proportions."""

FROZEN_RATE = 0.02
"""Mean acceptance of a chain over a whole window below which it does not count any more."""

GROWTH_ERRORS = 3.0
"""By which a spread must have grown; heavy tails make it fluctuate."""


def window_ends(warmup_steps: int) -> list[int]:
    """Return the numbers of steps after which a window ends.

    >>> window_ends(220), window_ends(11), window_ends(0)
    ([20, 60, 120, 220], [1, 3, 6, 11], [])
    """
    ends = {round(warmup_steps * end / WINDOWS[-1]) for end in WINDOWS}
    return sorted(end for end in ends if end > 0)


class EnsembleAdaptation:
    """Metric from all chains' draws at the end of each window but the last; step size throughout.

    The metric comes from the last two thirds of a window; the step size is frozen at its geometric
    mean over the last half of the last window.

    :param warmup_steps: length of the warm-up.
    :param target: acceptance rate to reach.
    :param dense: whether correlations are taken out, for chains ``(chains, dim)`` of one law.
    :param metric: to start with; the density's own coordinates if None.

    After a step that ends a window with a metric, ``window`` holds its draws
    ``(chains, draws, *rest, dim)``; after others it is None.
    """

    def __init__(
        self, warmup_steps: int, target: float, dense: bool, metric: Metric | None = None
    ) -> None:
        self.ends = window_ends(warmup_steps)
        self.dense = dense
        self.metric = metric
        self.search = StepSizeSearch(target)
        self.variances: list[Tensor] = []
        self.frozen: Tensor | None = None
        self.window: Tensor | None = None
        self._step = 0
        self._draws: list[Tensor] = []
        self._rates: Tensor | float = 0.0

    @property
    def frame(self) -> Frame:
        """Coordinates of the positions that it is given next."""
        return DENSITY_FRAME if self.metric is None else self.metric.frame

    @property
    def growth(self) -> Tensor | None:
        """
        Spread of each coordinate in the last window relative to that in the one before, flat; 1
        where it did not grow by three errors, as the scatter of chains has them.
        """
        if len(self.variances) < 2:
            return None
        before, last = (each.flatten(1) for each in self.variances[-2:])
        mean = before.mean(0)
        ratio = torch.where(mean > 0, last.mean(0) / mean, 1.0)
        error = (last - ratio * before).std(0) / (ratio * mean * len(before) ** 0.5)
        return torch.where(ratio.log() > GROWTH_ERRORS * error, ratio.sqrt(), 1.0)

    def update(self, tuning: Tuning, position: Tensor, info: StepInfo) -> Tuning:
        """Return the tuning of the next step."""
        self.window = None
        self._step += 1
        start = max((end for end in self.ends if end < self._step), default=0)
        end = min(end for end in self.ends if end >= self._step)
        last = end == self.ends[-1]
        if self._step > start + (end - start) / 3:
            self._draws.append(self.frame.outer(position))
        self._rates = self._rates + info.acceptance_rate
        rate = step_size_rate(info, self.frozen)
        averaged = last and self._step > (start + end) / 2
        step_size = self.search.update(
            tuning.step_size, rate, average=averaged, tried=info.step_size[0]
        )
        tuning = replace(tuning, step_size=step_size)
        if self._step < end:
            return tuning
        self.frozen = self._rates / (end - start) < FROZEN_RATE
        tuning = self._frozen_step(tuning) if last else self._new_metric(tuning)
        self._draws = []
        self._rates = 0.0
        return tuning

    def state(self) -> dict[str, Any]:
        """Return numbers and tensors from which to go on."""
        return {
            "step": self._step,
            "metric": None if self.metric is None else self.metric.state(),
            "search": self.search.state(),
            "frozen": self.frozen,
            "rates": self._rates,
            "draws": self._draws.copy(),
            "variances": self.variances.copy(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._step = state["step"]
        self._rates = state["rates"]
        self.frozen = state["frozen"]
        self.metric = None if state["metric"] is None else Metric.of_state(state["metric"])
        self._draws = state["draws"].copy()
        self.variances = state["variances"].copy()
        self.search.load(state["search"])

    def _frozen_step(self, tuning: Tuning) -> Tuning:
        self._note_variances(torch.stack(self._draws, 1))
        return replace(tuning, step_size=self.search.mean.to(tuning.step_size))

    def _new_metric(self, tuning: Tuning) -> Tuning:
        draws = torch.stack(self._draws, 1)
        self._note_variances(draws)
        former = self.metric or Metric.identity(tuning.scale)
        self.metric = estimated(draws.flatten(0, 1), effective_draws(draws), former, self.dense)
        self.search.restart()
        self.window = draws
        return replace(tuning, scale=self.metric.scale)

    def _note_variances(self, draws: Tensor) -> None:
        """Note each chain's mean square around the mean of all, ``(chains, *rest, dim)``."""
        wide = draws.double()
        self.variances.append((wide - wide.mean((0, 1))).square().mean(1))


class FixedMetric:
    """Keeps the tuning, in a frame.

    :param frame: of the positions.
    """

    def __init__(self, frame: Frame) -> None:
        self.frame = frame

    def update(self, tuning: Tuning, position: Tensor, info: StepInfo) -> Tuning:
        """Return the same tuning."""
        return tuning

    def state(self) -> dict[str, Any]:
        """Return nothing: there is no state."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Do nothing."""


def effective_draws(draws: Tensor) -> float:
    """Return what draws ``(chains, draws, *rest, dim)`` are worth: the median coordinate's."""
    chains, length = draws.shape[:2]
    if length < 4:
        return float(chains)
    worth = effective_sample_size(draws.double()).flatten()
    return max(2.0, worth[worth.isfinite()].clamp(max=chains * length).median().item())
