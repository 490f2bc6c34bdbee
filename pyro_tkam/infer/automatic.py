"""The cheapest route to an evidence that its own diagnosis trusts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from pyro_tkam.infer.evidence import Evidence, Finding, Verdict
from pyro_tkam.infer.importance import ImportanceSampling, WeightedDraws, evidence_of_weights
from pyro_tkam.infer.kernels import LangevinKernel
from pyro_tkam.infer.scouts import NUM_SCOUTS, Scouts
from pyro_tkam.infer.tempered_evidence import bridge_evidence
from pyro_tkam.infer.tempering import ParallelTempering, PowerPosteriors

PILOT_PARTICLES = 2000
KHAT_LIMIT = 0.5
PRIOR_EFFICIENCY = 0.05
"""Share of effective prior draws from which the data say so little that no mode can hide."""

PILOT_TEMPERATURES = 10
PILOT_STEPS = 48
FEWEST_TEMPERATURES, MOST_TEMPERATURES = 6, 32
NUM_CHAINS = 8
WARMUP_STEPS = 192
FIRST_DRAWS = 256
AIM = 0.6
"""Share of the target at which to stop, as standard errors are uncertain themselves."""

MISSED_SIGMAS = 4.0

PROPOSALS = 20_000
"""Proposal draws of the bridge for each half of the posterior draws."""


class AutomaticEvidence:
    """Prior (or guide) importance sampling where it can be trusted; tempering and a bridge elsewhere.

    Prior draws are trusted where the data say little: k-hat below 0.5 and at least one effective draw in twenty. Else
    a short tempered run finds how many temperatures the model needs, and a longer one goes on until the standard
    error of the bridge at ``t = 1`` (for local data, of the worst datum) is small enough and the verdict is clean.

    :param kernel: what moves tempered chains.
    :param args: the model's arguments.
    :param kwargs: the model's keyword arguments.
    :param guide: a guide to draw importance samples from, instead of the prior.
    :param target_se: standard error to reach, in nats.
    :param max_evaluations: number of evaluations of likelihood or gradient at which to stop.
    :raises ValueError: if a number is out of range.
    """

    def __init__(
        self,
        kernel: LangevinKernel,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        guide: Any = None,
        target_se: float = 0.01,
        max_evaluations: int = 400_000,
    ) -> None:
        if not target_se > 0:
            raise ValueError(f"target_se must be positive, got {target_se}")
        if max_evaluations < 10 * PILOT_PARTICLES:
            raise ValueError(f"max_evaluations must be at least {10 * PILOT_PARTICLES}, got {max_evaluations}")
        self.kernel, self.args, self.kwargs, self.guide = kernel, args, kwargs, guide
        self.target_se, self.max_evaluations = target_se, max_evaluations
        self.evaluations = 0

    def run(self) -> Evidence:
        """Try the routes in turn."""
        return self._by_importance() or self._by_tempering()

    def _by_importance(self) -> Evidence | None:
        """Weigh draws, more of them if need be; None if a pilot says that it can't be trusted or takes too many."""
        sampling = ImportanceSampling(self.kernel.model, self.guide, PILOT_PARTICLES)
        pilot = sampling.run(*self.args, **self.kwargs)
        self.evaluations += PILOT_PARTICLES
        wanted = PILOT_PARTICLES * (_worst_error(pilot.evidence) / (AIM * self.target_se)) ** 2
        if not self._trusts(pilot) or self.evaluations + wanted > self.max_evaluations:
            return None
        log_weights = [pilot.log_weights]
        while PILOT_PARTICLES * len(log_weights) < wanted:
            log_weights.append(sampling.run(*self.args, **self.kwargs).log_weights)
        result = evidence_of_weights(torch.cat(log_weights))
        unconfirmed = () if self.guide is None else ("a guide may miss a mode without a trace in its weights",)
        return replace(result, verdict=result.verdict + Verdict(notes=unconfirmed)) if result.verdict.trusted else None

    def _trusts(self, draws: WeightedDraws) -> bool:
        efficiency = (draws.effective_sample_size / draws.num_particles).min().item()
        enough = PRIOR_EFFICIENCY if self.guide is None else 0.0
        return bool(draws.verdict.trusted and draws.khat.max() < KHAT_LIMIT and efficiency >= enough)

    def _by_tempering(self) -> Evidence:
        """Temper, with more and more draws, until the bridge is exact enough."""
        pilot = self._tempering(PILOT_TEMPERATURES, PILOT_STEPS, PILOT_STEPS).run(*self.args, **self.kwargs)
        self.evaluations += pilot.evaluations
        num_temperatures = min(max(pilot.suggested_num_temperatures, FEWEST_TEMPERATURES), MOST_TEMPERATURES)
        tempering = self._tempering(num_temperatures, FIRST_DRAWS, WARMUP_STEPS)
        while True:
            draws = tempering.run(*self.args, **self.kwargs)
            result = self._bridge(draws)
            if result.verdict.trusted and _worst_error(result) <= AIM * self.target_se:
                return result
            more = self._affordable(result, draws, tempering)
            if more < FIRST_DRAWS // 4:
                return self._out_of_budget(result)
            state = tempering.state
            tempering = self._tempering(num_temperatures, tempering.num_samples + more, WARMUP_STEPS)
            tempering.resume(state)

    def _bridge(self, draws: PowerPosteriors) -> Evidence:
        """Bridge at ``t = 1``; with the draws of modes that tempered chains have missed, if these change the result."""
        scouts = Scouts(self.kernel, draws.density)
        unseen = scouts.unseen(draws.positions[-1])
        result = bridge_evidence(draws, PROPOSALS)
        spent = self.evaluations + scouts.evaluations
        if len(unseen):
            joined = bridge_evidence(draws, PROPOSALS, unseen)
            spent += joined.evaluations - draws.evaluations
            difference = joined - result
            if abs(difference.value) > MISSED_SIGMAS * difference.standard_error:
                seen = f"{len(unseen)} of {NUM_SCOUTS} climbing chains found modes worth {difference.value:.2f} nats"
                finding = Finding("missed mode", seen, "they are counted, but use more chains and temperatures")
                result = replace(joined, verdict=joined.verdict + Verdict((finding,)), evaluations=result.evaluations)
        return replace(result, evaluations=spent + result.evaluations)

    def _tempering(self, num_temperatures: int, num_samples: int, warmup_steps: int) -> ParallelTempering:
        return ParallelTempering(
            self.kernel,
            num_temperatures=num_temperatures,
            num_samples=num_samples,
            warmup_steps=warmup_steps,
            num_chains=NUM_CHAINS,
            disable_progbar=True,
        )

    def _affordable(self, result: Evidence, draws: PowerPosteriors, tempering: ParallelTempering) -> int:
        """Return how many more draws the budget allows; the proposal's draws are made anew each time."""
        cost = draws.evaluations / (tempering.num_samples + tempering.warmup_steps)
        left = int((self.max_evaluations - result.evaluations) / (cost + NUM_CHAINS))
        return min(left, tempering.num_samples)

    def _out_of_budget(self, result: Evidence) -> Evidence:
        error = _worst_error(result)
        if error <= self.target_se:
            return result
        seen = f"standard error {error:.3g} after {result.evaluations} evaluations, target {self.target_se:.3g}"
        finding = Finding("target not reached", seen, "raise max_evaluations or target_se")
        return replace(result, verdict=result.verdict + Verdict((finding,)))


def _worst_error(evidence: Evidence) -> float:
    """Return the standard error of the worst datum; the total's where nothing is per datum."""
    errors = evidence.per_datum_standard_error
    return evidence.standard_error if errors is None else errors.max().item()
