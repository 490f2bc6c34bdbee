"""The evidence of a model whose data share their latents, posterior first."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any

from pyro_tkam._progress import Progress
from pyro_tkam.infer.evidence.cross_bridge import APART_SIGMAS
from pyro_tkam.infer.evidence.importance import ImportanceSampling
from pyro_tkam.infer.evidence.laplace import (
    FINAL_SHARE,
    MOST_WEIGHTS,
    PILOT_WEIGHTS,
    draws_needed,
    laplace_evidence,
    rough_evidence,
)
from pyro_tkam.infer.evidence.posterior_bridge import PosteriorBridge
from pyro_tkam.infer.mcmc.kernels.base import LangevinKernel
from pyro_tkam.infer.mcmc.kernels.ensemble_hmc import EnsembleHMC
from pyro_tkam.infer.model.density import ModelDensity
from pyro_tkam.infer.model.layouts import one_turn
from pyro_tkam.infer.model.requirements import Checked
from pyro_tkam.infer.posterior.budget import ADVICE, Budget, BudgetSpentError
from pyro_tkam.infer.posterior.coverage import WeightedPositions
from pyro_tkam.infer.posterior.search import Search
from pyro_tkam.infer.posterior.target import PosteriorTarget
from pyro_tkam.infer.posterior.weights import effective_draws, evidence_of_weights
from pyro_tkam.infer.results import Evidence, Finding, Verdict

AIM = 0.5
"""Share of the target at which draws are aimed, as standard errors are uncertain themselves."""


FINE_AIM = 0.1
CHEAP_SECONDS = 4.0
"""The same where the most draws that are ever weighed take so little time."""

NEAR = 6
"""Times the most draws, which the aim may take for them to come near enough."""

OF_SEARCH = {"rare mode", "modes of different widths"}
"""Findings on the posterior, which another route cannot cure."""

OWN_FINDINGS = {
    "target not reached",
    "missed mode",
    "prior draws contradict",
    "short search for modes",
    *OF_SEARCH,
}
"""Findings whose advice is on options of the default method."""

LAST_RESORT = 20.0
"""Effective prior draws of a search with which new ones are better than nothing."""

STUCK = Finding(
    "stuck chains",
    "in one of four groups of chains no chain moved, so there is no estimate from chains",
    "give a guide, or reparameterize sites whose scale is a latent site",
)
LAST_SHARE = 0.5
FEWEST_LAST = 100
"""Most of what is left of a budget that these take, and how few are none."""


class JointEvidence:
    """Prior importance, Laplace importance, or draws of the posterior: what is trusted first.

    Chains move in unconstrained coordinates, and where that is not good in those with a standard
    normal prior; then more and more draws are taken where they are worth more.

    :param kernel: moves chains, if it is an :class:`EnsembleHMC`; another is made if not.
    :param checked: the model's arguments, checked.
    :param guide: to draw importance samples from, where no other estimate is good; or None.
    :param target_se: standard error to reach, in nats.
    :param budget: counts evaluations, and limits them.
    :param progress: is told what is going on.
    """

    def __init__(
        self,
        kernel: LangevinKernel,
        checked: Checked,
        guide: Any,
        target_se: float,
        budget: Budget,
        progress: Progress,
    ) -> None:
        self.kernel = kernel
        self.checked = checked
        self.guide = guide
        self.mover = kernel if isinstance(kernel, EnsembleHMC) else EnsembleHMC(kernel.model)
        self.target_se = target_se
        self.budget = budget
        self.progress = progress

    def run(self) -> Evidence:
        """Try the routes in turn."""
        tried: list[Evidence] = []
        spent = None
        try:
            for evidence in self._routes():
                tried.append(evidence)
                self.progress.found(min(tried, key=_preference).standard_error)
                if _is_sound(evidence) and evidence.standard_error <= self.target_se:
                    break
        except BudgetSpentError as error:
            spent = error
        why = STUCK if spent is None else _too_small(self.budget)
        if not tried and (last := self._last_resort(why)) is not None:
            tried.append(last)
        if not tried:
            if (rough := rough_evidence(self.search)) is None:
                raise spent or ValueError(
                    "model must have a posterior that chains can explore, got chains that never "
                    f"moved; {STUCK.advice}"
                )
            tried.append(replace(rough, verdict=rough.verdict + Verdict((why,))))
        best = min(tried, key=_preference)
        if best.standard_error > self.target_se:
            seen = (
                f"standard error {best.standard_error:.3g} after {self.budget.spent} of "
                f"{self.budget.total} evaluations, target {self.target_se:.3g}"
            )
            finding = Finding("target not reached", seen, "raise max_evaluations or target_se")
            best = replace(best, verdict=best.verdict + Verdict((finding,)))
        verdict = best.verdict.advising(ADVICE, beside=OWN_FINDINGS)
        return replace(best, evaluations=self.budget.spent, verdict=verdict)

    def _routes(self) -> Iterator[Evidence]:
        weights = self.search.draws.log_weights
        cheap = self.search.seconds_a_draw * MOST_WEIGHTS < CHEAP_SECONDS
        error = (FINE_AIM if cheap else AIM) * self.target_se
        size = draws_needed(weights, error)
        fewest = draws_needed(weights, AIM * self.target_se)
        most = min(MOST_WEIGHTS, self.budget.left)
        if size is not None and size <= NEAR * most:
            yield self._by_prior(self._beside_search(min(size, most)))
        if (evidence := laplace_evidence(self.search, error)) is not None:
            yield evidence
        elif fewest is not None and size is not None and fewest <= most < size / NEAR:
            yield self._by_prior(self._beside_search(most))
        stuck = True
        for evidence in self._by_chains():
            stuck = False
            yield evidence
            if self.guide is not None and (guided := self._by_guide(evidence)) is not None:
                yield guided
        if stuck and self.guide is not None and (guided := self._by_guide(None)) is not None:
            yield guided

    def _beside_search(self, num: float) -> int:
        """Return how many of some draws leave what the climbs that judge them take."""
        return self.budget.affords(int(num), share=FINAL_SHARE)

    def _by_prior(self, num: int) -> Evidence:
        self.progress.route("prior importance")
        draws = self.search.target.draw(num)
        evidence = evidence_of_weights(draws.log_weights)
        return self.search.judge(evidence, WeightedPositions(draws.positions, draws.log_weights))

    def _last_resort(self, why: Finding) -> Evidence | None:
        """
        Weigh many prior draws: right, if coarse, where coordinates round as those of a sparse
        Dirichlet do. Where hardly any has weight, return what poor weights gave, if any did.

        :param why: nothing better than poor weights is there.
        """
        num = self.budget.affords(MOST_WEIGHTS, share=LAST_SHARE)
        vain = effective_draws(self.search.draws.log_weights) < LAST_RESORT
        if not vain and num >= FEWEST_LAST:
            return self._by_prior(num)
        if (poor := self.search.poor) is None or not math.isfinite(poor.value):
            return None
        return replace(poor, verdict=poor.verdict + Verdict((why,)))

    def _by_guide(self, other: Evidence | None) -> Evidence | None:
        """
        Weigh draws of the guide; None if their weights are poor, or another estimate differs.

        :param other: from chains; None if they are stuck, which is then a finding.
        """
        self.progress.route("draws of the guide")
        sampling = ImportanceSampling(self.kernel.model, self.guide, PILOT_WEIGHTS)
        proposal = sampling.propose(self.checked, joint=True)
        size = draws_needed(sampling.weigh(proposal).log_weights, AIM * self.target_se)
        self.budget.spend(PILOT_WEIGHTS)
        if size is None:
            return None
        size = self.budget.affords(min(size, MOST_WEIGHTS))
        sampling.num_particles = size
        self.budget.spend(size)
        evidence = sampling.weigh(proposal).evidence
        if other is None:
            return replace(evidence, verdict=evidence.verdict + Verdict((STUCK,)))
        error = math.hypot(evidence.standard_error, other.standard_error)
        if abs(evidence.value - other.value) > APART_SIGMAS * error:
            return None
        reach = (
            "a mode that the guide does not cover may be missing, worth less than "
            f"{APART_SIGMAS * error:.2g} nats"
        )
        verdict = evidence.verdict + Verdict(notes=(reach,))
        return self.search.contradicted(replace(evidence, verdict=verdict))

    def _by_chains(self) -> Iterator[Evidence]:
        bridges = []
        for standard_normal in (False, True):
            if standard_normal and self._free is self.search.target:
                break
            target = self.search.target if standard_normal else self._free
            bridge = PosteriorBridge(self.mover, target, self.search)
            if (evidence := bridge.estimate()) is not None:
                bridges.append((evidence, bridge))
                yield evidence
        sound = any(_is_sound(evidence) for evidence, _ in bridges)
        why = _too_small(self.budget) if bridges else STUCK
        if not sound and (last := self._last_resort(why)) is not None:
            yield last
        if not bridges:
            return
        best = min(bridges, key=lambda each: _preference(each[0]))[1]
        while True:
            if (learned := best.learned()) is not None:
                yield learned
            if not best.lengthen() or (evidence := best.estimate()) is None:
                return
            yield evidence

    @cached_property
    def search(self) -> Search:
        """The two searches, where they can be in coordinates with a standard normal prior."""
        target = PosteriorTarget(self._density(standard_normal=True), self.budget)
        return Search(target, self.progress)

    @cached_property
    def _free(self) -> PosteriorTarget:
        """The posterior in unconstrained coordinates."""
        if not self.search.target.density.has_normal_coordinates:
            return self.search.target
        return PosteriorTarget(self._density(standard_normal=False), self.budget)

    def _density(self, *, standard_normal: bool) -> ModelDensity:
        turns = one_turn(self.checked.first.plain.nodes)
        density = self.kernel.density(
            self.checked.args,
            self.checked.kwargs,
            None,
            standard_normal=standard_normal,
            **({"transforms": turns} if turns else {}),
            batch_plates=(),
            first=self.checked.first,
        )
        assert isinstance(density, ModelDensity)
        return density


def _too_small(budget: Budget) -> Finding:
    """Say that an estimate is what little a budget allowed."""
    seen = f"no method finished within {budget.total} evaluations, so there are few weights"
    return Finding("budget spent", seen, "raise max_evaluations")


def _preference(evidence: Evidence) -> tuple[bool, float]:
    return not _is_sound(evidence), evidence.standard_error


def _is_sound(evidence: Evidence) -> bool:
    return evidence.verdict.names <= OF_SEARCH
