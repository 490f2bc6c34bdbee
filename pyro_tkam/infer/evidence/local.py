"""The evidence of each datum of a model whose latents lie in the plates of the data."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch

from pyro_tkam.infer.evidence.cross_bridge import APART_SIGMAS
from pyro_tkam.infer.evidence.importance import ImportanceSampling, WeightedDraws
from pyro_tkam.infer.evidence.mixture_proposal import FEWEST_WEIGHTS, FittedProposal
from pyro_tkam.infer.evidence.proposals import Proposal
from pyro_tkam.infer.mcmc.kernels.base import LangevinKernel
from pyro_tkam.infer.model.density import ModelDensity
from pyro_tkam.infer.model.requirements import Checked
from pyro_tkam.infer.posterior.budget import ADVICE, Budget
from pyro_tkam.infer.posterior.weights import evidence_of_weights
from pyro_tkam.infer.results import Evidence, Finding, Verdict
from pyro_tkam.infer.tempering.estimates import bridge_evaluations, bridge_evidence, guide_verdict
from pyro_tkam.infer.tempering.parallel_tempering import ParallelTempering, PowerPosteriors

PILOT_PARTICLES = 2000
PILOT_PARTICLES_SHARE = 0.05
KHAT_LIMIT = 0.5
PRIOR_EFFICIENCY = 0.05
"""Share of effective prior draws from which the data say so little that no mode can hide."""

FEWEST_PRIOR_DRAWS = 5.0
"""Effective prior draws of a pilot with which many more are tried where nothing else is trusted."""

MOST_WEIGHTS = 1_000_000
"""Weights, of all draws and data, that are made in one batch."""

PILOT_TEMPERATURES = 10
PILOT_STEPS = 96
FEWEST_PILOT_STEPS = 16
PILOT_SHARE = 0.15
MOST_PILOT_SHARE = 0.3
"""Shares of the budget: what the pilot is planned to take, and at which it is stopped."""

STEP_EVALUATIONS = 6
"""A guess of what a step takes, before there is a pilot."""

FEWEST_TEMPERATURES = 6
MOST_TEMPERATURES = 32
NUM_CHAINS = 8
FEWEST_CHAINS = 4
CHAIN_BUDGET = 50_000
WARMUP_STEPS = 128
FEWEST_WARMUP_STEPS = 8
FIRST_DRAWS = 128
FEWEST_DRAWS = 8
AIM = 0.5
"""Share of the target at which to stop, as standard errors are uncertain themselves."""

FITTED_DRAWS = 20_000
FITTED_SHARE = 0.5
"""
Proposal draws of the first estimate, the most in one batch after it; share of what is left that the
first takes.
"""

ESTIMATE_EVALUATIONS = 150_000
ESTIMATE_SHARE = 0.4
"""
What fit, searches and weights take at full size, and the most of what is left that is kept for
them.
"""

OWN_FINDINGS = {"target not reached", "short search for modes"}
"""Findings whose advice is on options of the default method."""

MOST_REFITS = 3
"""Refinements of a fitted mixture whose weights have heavy tails."""


class LocalEvidence:
    """Prior importance sampling where it can be trusted; tempering, and what it finds, elsewhere.

    Prior draws are trusted where the data say little: k-hat below 0.5 and at least one effective
    draw in twenty. Else a short tempered run finds how many temperatures the model needs, and a
    longer one where the mass is. Then it is

    - importance sampling from a mixture fitted to its draws (:class:`FittedProposal`), if k-hat is
      below 0.5, a search from the prior finds no mode that the mixture lacks, and Bennett's ratio
      along the ladder agrees;
    - a bridge at ``t = 1``, with more and more draws, or importance sampling from a guide that
      agrees with both Bennett's ratio and the bridge: a guide may miss a mode without a trace in
      its own weights; or
    - many prior draws, where none of these is trusted and prior draws lack no mass beside them.

    It ends when the standard error (for local data, of the worst datum) is half of the target, or
    the budget is spent. The budget is never exceeded: where it is short, pilot, run, fit and
    searches are smaller.

    :param kernel: what moves tempered chains.
    :param checked: the model's arguments, checked.
    :param proposal: the model's prior, found to have local plates.
    :param guide: a guide to draw importance samples from, where a fitted mixture's weights can't be
        trusted.
    :param target_se: standard error to reach, in nats.
    :param max_evaluations: most evaluations of likelihood or gradient.
    :raises ValueError: if ``max_evaluations`` is too small for the model.
    """

    def __init__(
        self,
        kernel: LangevinKernel,
        checked: Checked,
        proposal: Proposal,
        *,
        guide: Any,
        target_se: float,
        max_evaluations: int,
    ) -> None:
        self.kernel = kernel
        self.checked = checked
        self.proposal = proposal
        self.guide = guide
        self.target_se = target_se
        self.budget = Budget(max_evaluations)
        self._prior_pilot: WeightedDraws | None = None
        self.num_chains = min(NUM_CHAINS, max(FEWEST_CHAINS, max_evaluations // CHAIN_BUDGET))

    def run(self) -> Evidence:
        """Try the routes in turn."""
        evidence = self._by_importance(None) or self._by_tempering()
        verdict = evidence.verdict.advising(ADVICE, beside=OWN_FINDINGS)
        return replace(evidence, evaluations=self.budget.spent, verdict=verdict)

    def _by_importance(self, guide: Any) -> Evidence | None:
        """
        Weigh draws, more of them if need be; None if a pilot says that it can't be trusted or takes
        too many.
        """
        num = self.budget.affords(PILOT_PARTICLES, share=PILOT_PARTICLES_SHARE)
        if num < FEWEST_WEIGHTS:
            return None
        sampling = ImportanceSampling(self.kernel.model, guide, num)
        proposal = self.proposal if guide is None else sampling.propose(self.checked, joint=False)
        pilot = self._weigh(num, sampling, proposal)
        more = self._more_batches(pilot.evidence)
        if guide is None:
            self._prior_pilot = pilot
        if (
            not _trusts(pilot, PRIOR_EFFICIENCY if guide is None else 0.0)
            or more * num > self.budget.left
        ):
            return None
        result = self._weigh_more(more, sampling, pilot)
        return result if result.verdict.trusted else None

    def _weigh(self, num: int, sampling: ImportanceSampling, proposal: Proposal) -> WeightedDraws:
        sampling.num_particles = num
        self.budget.spend(num)
        return sampling.weigh(proposal)

    def _weigh_more(
        self, more: int, sampling: ImportanceSampling, pilot: WeightedDraws
    ) -> Evidence:
        """Weigh so many more batches of draws like a first one, in groups that fit in memory."""
        weights = [pilot.log_weights]
        group = max(1, MOST_WEIGHTS // pilot.log_weights.numel())
        while more > 0:
            num = pilot.num_particles * min(group, more)
            weights.append(self._weigh(num, sampling, pilot.proposal).log_weights)
            more -= group
        return evidence_of_weights(torch.cat(weights))

    def _by_many_prior_draws(self, other: Evidence) -> Evidence | None:
        """
        Weigh as many prior draws as are left: right, if coarse, where coordinates round so that
        neither chains nor mixtures reach all mass, as those of a sparse Beta do.

        :param other: an estimate that is not trusted, as it may lack mass.
        :return: None where few prior draws have weight, or where these lack mass too.
        """
        pilot = self._prior_pilot
        if pilot is None or pilot.effective_sample_size.min() < FEWEST_PRIOR_DRAWS:
            return None
        left = int(self.budget.left / pilot.num_particles)
        more = min(self._more_batches(pilot.evidence), left)
        result = self._weigh_more(more, ImportanceSampling(self.kernel.model), pilot)
        lacks = other.value - result.value
        error = math.hypot(other.standard_error, result.standard_error)
        if not result.verdict.trusted or _is_heavy(result) or lacks > APART_SIGMAS * error:
            return None
        return self._out_of_budget(result)

    def _more_batches(self, first: Evidence) -> int:
        """Return how many more batches of draws like a first one the target needs."""
        return max(0, math.ceil((_worst_error(first) / (AIM * self.target_se)) ** 2) - 1)

    def _by_tempering(self) -> Evidence:
        """
        Temper, with more and more draws, until an estimate from them is trusted and exact enough.
        """
        tempering = self._first_run()
        draws = self._run(tempering, keep=self._kept_for_estimate())
        while True:
            before = self.budget.spent
            result = self._estimate(draws)
            if result.verdict.trusted and _worst_error(result) <= AIM * self.target_se:
                return result
            if not result.verdict.trusted and (other := self._by_many_prior_draws(result)):
                return other
            keep = min(self.budget.spent - before, self.budget.left / 2)
            num_draws = tempering.num_draws
            each = draws.evaluations / (tempering.warmup_steps + num_draws)
            more = min(num_draws, int((self.budget.left - keep) / each))
            if more < min(FIRST_DRAWS, num_draws) // 4:
                return self._out_of_budget(result)
            state = tempering.state
            tempering = self._tempering(len(draws.betas), num_draws + more, tempering.warmup_steps)
            tempering.resume(state)
            draws = self._run(tempering, keep=keep, before=draws.evaluations)

    def _first_run(self) -> ParallelTempering:
        """
        Plan a run, from a short one: at full size, or what the budget allows beside an estimate.
        """
        guess = STEP_EVALUATIONS * PILOT_TEMPERATURES * self.num_chains
        steps = max(
            FEWEST_PILOT_STEPS, self.budget.affords(PILOT_STEPS, each=guess, share=PILOT_SHARE)
        )
        short = self._tempering(PILOT_TEMPERATURES, steps - steps // 2, steps // 2)
        pilot = self._run(short, keep=(1 - MOST_PILOT_SHARE) * self.budget.left)
        number = min(max(pilot.suggested_num_temperatures, FEWEST_TEMPERATURES), MOST_TEMPERATURES)
        each = (
            number * pilot.evaluations / PILOT_TEMPERATURES / (short.warmup_steps + short.num_draws)
        )
        # that can be bridged
        fewest = FEWEST_DRAWS + math.ceil(4 * (pilot.density.layout.dim + 1) / self.num_chains)
        wanted = WARMUP_STEPS + max(FIRST_DRAWS, fewest)
        steps = min(wanted, int((self.budget.left - self._kept_for_estimate()) / each))
        warmup_steps = min(WARMUP_STEPS, steps // 2, steps - fewest)
        if warmup_steps < FEWEST_WARMUP_STEPS:
            takes = (FEWEST_WARMUP_STEPS + fewest) * each / (1 - ESTIMATE_SHARE) + self.budget.spent
            raise ValueError(
                f"max_evaluations must be at least {takes:.2g} for this model, which needs "
                f"{number} temperatures and "
                f"has {pilot.density.layout.dim} dimensions, got {self.budget.total}"
            )
        return self._tempering(number, steps - warmup_steps, warmup_steps)

    def _tempering(
        self, num_temperatures: int, num_samples: int, warmup_steps: int
    ) -> ParallelTempering:
        tempering = ParallelTempering(
            self.kernel,
            num_temperatures=num_temperatures,
            num_samples=num_samples,
            warmup_steps=warmup_steps,
            num_chains=self.num_chains,
            disable_progbar=True,
        )
        tempering.prepared = self._density
        return tempering

    @cached_property
    def _density(self) -> ModelDensity:
        """The model's density, prepared once for all runs."""
        density = self.kernel.density(
            self.checked.args,
            self.checked.kwargs,
            None,
            standard_normal=True,
            first=self.checked.first,
        )
        assert isinstance(density, ModelDensity)
        return density

    def _run(
        self, tempering: ParallelTempering, *, keep: float, before: int = 0
    ) -> PowerPosteriors:
        """Run, or go on after some evaluations, with all of the budget but what is to be kept."""
        tempering.max_evaluations = before + int(self.budget.left - keep)
        draws = tempering.run(*self.checked.args, **self.checked.kwargs)
        self.budget.spend(draws.evaluations - before)
        return draws

    def _kept_for_estimate(self) -> float:
        return min(ESTIMATE_EVALUATIONS, ESTIMATE_SHARE * self.budget.left)

    def _estimate(self, draws: PowerPosteriors) -> Evidence:
        """
        Weigh a fitted mixture's draws; where their weights have heavy tails or are too many, bridge
        instead.
        """
        self.budget.kept = bridge_evaluations(draws)
        fitted = FittedProposal(self.kernel, draws, self.budget)
        result = self._weighed(fitted)
        self.budget.kept = 0
        heavy = _is_heavy(result)
        if not heavy and _worst_error(result) <= AIM * self.target_se:
            return result
        bridged = bridge_evidence(draws)
        self.budget.spend(bridge_evaluations(draws))
        bridged = replace(bridged, verdict=bridged.verdict + fitted.search_verdict(counted=False))
        candidates = [(bridged, False), (result, heavy)]
        if self.guide is not None and (guided := self._by_importance(self.guide)) is not None:
            verdict = bridged.verdict + guided.verdict + guide_verdict(guided, bridged, draws)
            candidates.append((replace(guided, verdict=verdict), False))
        return min(candidates, key=_preference)[0]

    def _weighed(self, fitted: FittedProposal) -> Evidence:
        """
        Weigh a mixture's draws; refine it more where their tails are heavy, and draw more where
        they are not.
        """
        num = max(FEWEST_WEIGHTS, self.budget.affords(FITTED_DRAWS, share=FITTED_SHARE))
        weights = [fitted.weigh(num)]
        result = fitted.evidence(weights[0])
        for _ in range(MOST_REFITS):
            if not _is_heavy(result) or self.budget.left < 2 * num:
                break
            fitted.refine()
            weights = [fitted.weigh(num)]
            result = fitted.evidence(weights[0])
        if not _is_heavy(result):
            more = min(self._more_batches(result), int(self.budget.left / num))
            weights += [fitted.weigh(num) for _ in range(more)]
        return fitted.evidence(torch.cat(weights))

    def _out_of_budget(self, result: Evidence) -> Evidence:
        error = _worst_error(result)
        spent = f"after {self.budget.spent} of {self.budget.total} evaluations"
        if error <= self.target_se:
            return replace(
                result, verdict=result.verdict + Verdict(notes=(f"stopped by the budget {spent}",))
            )
        seen = f"standard error {error:.3g} {spent}, target {self.target_se:.3g}"
        finding = Finding("target not reached", seen, "raise max_evaluations or target_se")
        return replace(result, verdict=result.verdict + Verdict((finding,)))


def _trusts(draws: WeightedDraws, least_efficiency: float) -> bool:
    efficiency = (draws.effective_sample_size / draws.num_particles).min().item()
    return bool(
        draws.verdict.trusted and draws.khat.max() < KHAT_LIMIT and efficiency >= least_efficiency
    )


def _is_heavy(evidence: Evidence) -> bool:
    return evidence.verdict.measures["largest k-hat"] > KHAT_LIMIT


def _preference(candidate: tuple[Evidence, bool]) -> tuple[bool, bool, float]:
    """Order estimates: trusted ones first, then those without heavy tails, then by their error."""
    evidence, heavy = candidate
    return not evidence.verdict.trusted, heavy, _worst_error(evidence)


def _worst_error(evidence: Evidence) -> float:
    """Return the standard error of the worst datum; the total's where nothing is per datum."""
    errors = evidence.per_datum_standard_error
    return evidence.standard_error if errors is None else errors.max().item()
