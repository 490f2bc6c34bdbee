"""The cheapest route to an evidence that its own diagnosis trusts."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch

from pyro_tkam.infer.evidence import Evidence, Finding, Verdict
from pyro_tkam.infer.fitted import FittedProposal
from pyro_tkam.infer.importance import ImportanceSampling, WeightedDraws, evidence_of_weights
from pyro_tkam.infer.kernels import LangevinKernel
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
WARMUP_STEPS = 128
FIRST_DRAWS = 128
AIM = 0.5
"""Share of the target at which to stop, as standard errors are uncertain themselves."""

FITTED_DRAWS = 20_000
"""Proposal draws of the first estimate, and the most in one batch after it."""


class AutomaticEvidence:
    """Prior (or guide) importance sampling where it can be trusted; tempering, and what it finds, elsewhere.

    Prior draws are trusted where the data say little: k-hat below 0.5 and at least one effective draw in twenty. Else
    a short tempered run finds how many temperatures the model needs, and a longer one where the mass is. Then it is

    - importance sampling from a mixture fitted to its draws (:class:`FittedProposal`), if k-hat is below 0.5, a search
      from the prior finds no mode that the mixture lacks, and Bennett's ratio along the ladder agrees; or
    - a bridge at ``t = 1``, with more and more draws.

    It ends when the standard error (for local data, of the worst datum) is half of the target, or the budget is spent.

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
        more = self._more_batches(pilot.evidence)
        if not self._trusts(pilot) or self.evaluations + more * PILOT_PARTICLES > self.max_evaluations:
            return None
        weights = [pilot.log_weights] + [sampling.run(*self.args, **self.kwargs).log_weights for _ in range(more)]
        self.evaluations += more * PILOT_PARTICLES
        result = evidence_of_weights(torch.cat(weights))
        unconfirmed = () if self.guide is None else ("a guide may miss a mode without a trace in its weights",)
        return replace(result, verdict=result.verdict + Verdict(notes=unconfirmed)) if result.verdict.trusted else None

    def _trusts(self, draws: WeightedDraws) -> bool:
        efficiency = (draws.effective_sample_size / draws.num_particles).min().item()
        enough = PRIOR_EFFICIENCY if self.guide is None else 0.0
        return bool(draws.verdict.trusted and draws.khat.max() < KHAT_LIMIT and efficiency >= enough)

    def _more_batches(self, first: Evidence) -> int:
        """Return how many more batches of draws like a first one the target needs."""
        return max(0, math.ceil((_worst_error(first) / (AIM * self.target_se)) ** 2) - 1)

    def _by_tempering(self) -> Evidence:
        """Temper, with more and more draws, until an estimate from them is trusted and exact enough."""
        pilot = self._tempering(PILOT_TEMPERATURES, PILOT_STEPS, PILOT_STEPS).run(*self.args, **self.kwargs)
        self.evaluations += pilot.evaluations
        num_temperatures = min(max(pilot.suggested_num_temperatures, FEWEST_TEMPERATURES), MOST_TEMPERATURES)
        tempering = self._tempering(num_temperatures, FIRST_DRAWS, WARMUP_STEPS)
        while True:
            before = self.evaluations
            draws = tempering.run(*self.args, **self.kwargs)
            result = self._estimate(draws)
            if result.verdict.trusted and _worst_error(result) <= AIM * self.target_se:
                return result
            more = self._affordable(draws, tempering, self.evaluations - before)
            if more < FIRST_DRAWS // 4:
                return self._out_of_budget(result)
            state = tempering.state
            tempering = self._tempering(num_temperatures, tempering.num_samples + more, WARMUP_STEPS)
            tempering.resume(state)

    def _estimate(self, draws: PowerPosteriors) -> Evidence:
        """Weigh a fitted mixture's draws; where their weights have heavy tails or are too many, bridge instead."""
        fitted = FittedProposal(self.kernel, draws)
        weights = [fitted.weigh(FITTED_DRAWS)]
        left = self.max_evaluations - self.evaluations - draws.evaluations - fitted.evaluations
        more = min(self._more_batches(fitted.evidence(weights[0])), left // FITTED_DRAWS)
        weights += [fitted.weigh(FITTED_DRAWS) for _ in range(more)]
        result = fitted.evidence(torch.cat(weights))
        self.evaluations += fitted.evaluations
        heavy = result.verdict.measures["worst k-hat"] > KHAT_LIMIT
        if heavy or _worst_error(result) > AIM * self.target_se:
            bridged = bridge_evidence(draws)
            bridged = replace(bridged, verdict=bridged.verdict + fitted.search_verdict(counted=False))
            self.evaluations += bridged.evaluations - draws.evaluations
            result = min((bridged, False), (result, heavy), key=_preference)[0]
        return replace(result, evaluations=self.evaluations + draws.evaluations)

    def _tempering(self, num_temperatures: int, num_samples: int, warmup_steps: int) -> ParallelTempering:
        return ParallelTempering(
            self.kernel,
            num_temperatures=num_temperatures,
            num_samples=num_samples,
            warmup_steps=warmup_steps,
            num_chains=NUM_CHAINS,
            disable_progbar=True,
        )

    def _affordable(self, draws: PowerPosteriors, tempering: ParallelTempering, per_estimate: int) -> int:
        """Return how many more draws the budget allows, if another estimate takes what the last one took."""
        cost = draws.evaluations / (tempering.num_samples + tempering.warmup_steps)
        left = int((self.max_evaluations - self.evaluations - draws.evaluations - per_estimate) / cost)
        return min(left, tempering.num_samples)

    def _out_of_budget(self, result: Evidence) -> Evidence:
        error = _worst_error(result)
        if error <= self.target_se:
            return result
        seen = f"standard error {error:.3g} after {result.evaluations} evaluations, target {self.target_se:.3g}"
        finding = Finding("target not reached", seen, "raise max_evaluations or target_se")
        return replace(result, verdict=result.verdict + Verdict((finding,)))


def _preference(candidate: tuple[Evidence, bool]) -> tuple[bool, bool, float]:
    """Order estimates: trusted ones first, then those without heavy tails, then by their error."""
    evidence, heavy = candidate
    return not evidence.verdict.trusted, heavy, _worst_error(evidence)


def _worst_error(evidence: Evidence) -> float:
    """Return the standard error of the worst datum; the total's where nothing is per datum."""
    errors = evidence.per_datum_standard_error
    return evidence.standard_error if errors is None else errors.max().item()
