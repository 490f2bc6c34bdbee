"""Two searches whose starts are independent of an estimate, and what they reveal about it."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from pyro_tkam._progress import Progress
from pyro_tkam.infer.posterior.climbs import Climbs
from pyro_tkam.infer.posterior.coverage import (
    WeightedPositions,
    heavy_peaks,
    missed_verdict,
    rare_verdict,
    unlike_verdict,
)
from pyro_tkam.infer.posterior.optima import Optima
from pyro_tkam.infer.posterior.target import (
    PosteriorTarget,
    ReferenceDraws,
    weigh,
    weigh_beside,
)
from pyro_tkam.infer.results import Evidence, Finding, Verdict
from pyro_tkam.ops.estimators.mixture import Mixture

SEARCH_DRAWS = 2**16
SEARCH_SECONDS = 5.0
SEARCH_SHARE = 0.25
"""Most of the budget that the prior draws of a search take."""

RANDOM_STARTS = 64
BEST_STARTS = 64
CONTRADICTION = math.log(20.0)
"""Nats by which the largest weight of a prior draw, shared by all draws, may exceed an evidence: a
chance of one in twenty at most, by Markov's inequality."""


class Search:
    """Scored prior draws, and climbs from some of them.

    :param target: the posterior, where it can be in coordinates with a standard normal prior: there
        every bounded likelihood has a maximum.
    :param progress: shows what is going on.
    :ivar seconds_a_draw: seconds per prior draw, including its density.
    :ivar poor: an estimate from weights of poor quality, for use if there is no other.
    """

    def __init__(self, target: PosteriorTarget, progress: Progress) -> None:
        self.target = target
        self.progress = progress
        self.seconds_a_draw = 0.0
        self.poor: Evidence | None = None

    @cached_property
    def draws(self) -> ReferenceDraws:
        """Prior draws: they choose routes and contradict estimates, and are in none."""
        self.progress.route("prior draws")
        num = self.target.budget.affords(SEARCH_DRAWS, share=SEARCH_SHARE)
        begin = self.target.seconds
        draws = self.target.draw(num, SEARCH_SECONDS)
        self.seconds_a_draw = (self.target.seconds - begin) / len(draws.positions)
        if not draws.log_weights.amax() > -math.inf:
            raise ValueError("model must have a likelihood above zero, got zero at every draw")
        return draws

    @cached_property
    def climbs(self) -> Climbs:
        """Climbs from random prior draws and from the likeliest ones, and what follows them up."""
        self.progress.route("climbs")
        weights = self.draws.log_weights
        possible = (weights > -math.inf).nonzero().squeeze(-1)
        best = weights.topk(min(BEST_STARTS, len(possible))).indices
        climbs = Climbs(self.target, self.draws, self.seconds_a_draw)
        climbs.climb(torch.cat([possible[:RANDOM_STARTS], best]).unique())
        climbs.widen()
        climbs.divide()
        climbs.screen()
        return climbs

    @property
    def optima(self) -> Optima:
        """Where climbs ended so far."""
        return self.climbs.optima

    def surprises(self, proposal: Mixture, log_evidence: float) -> Optima:
        """
        Climb from the prior draws whose density is largest relative to a proposal, and relative to
        the same proposal with normal tails; return new optima.

        :param proposal: of one batch element, in the coordinates of the target.
        :param log_evidence: an estimate, by which the posterior is normalized.
        """
        positions = self.draws.positions.double().unsqueeze(1)
        climbs = self.climbs
        starts = []
        for each in (proposal, proposal._replace(df=torch.full_like(proposal.df, math.inf))):
            excess = self.draws.log_joint - log_evidence - each.log_prob(positions).squeeze(1)
            most = excess.topk(min(BEST_STARTS, len(excess))).indices
            starts.append(most[excess[most] > 0])
        return climbs.climb(torch.cat(starts).unique())

    def judge(self, evidence: Evidence, held: WeightedPositions) -> Evidence:
        """Check an estimate against both searches.

        :param evidence: the estimate.
        :param held: draws that it rests on, in the coordinates of the target.
        """
        peaks = heavy_peaks(self.target, self.optima, held, evidence)
        verdict = evidence.verdict + missed_verdict(peaks, evidence.value)
        verdict += rare_verdict(peaks, int(self.optima.hits.sum()))
        verdict += unlike_verdict(peaks, self.climbs.num_seen)
        return self.contradicted(replace(evidence, verdict=verdict + self._shortness))

    @property
    def is_short(self) -> bool:
        """Whether the budget allows too few prior draws for a result that is trusted."""
        return self.target.budget.total < SEARCH_DRAWS / SEARCH_SHARE

    def weigh(self, proposal: Mixture, num: int) -> tuple[Tensor, Tensor]:
        """
        Return draws of a proposal and their log weights; beside the search's own draws where it is
        short, as these do not judge a result then.
        """
        if self.is_short:
            return weigh_beside(self.target, proposal, num, self.draws)
        return weigh(self.target, proposal, num)

    @property
    def _shortness(self) -> Verdict:
        if not self.is_short:
            return Verdict()
        seen = f"the budget allowed {len(self.draws.positions)} of {SEARCH_DRAWS} prior draws"
        return Verdict((Finding("short search for modes", seen, "raise max_evaluations"),))

    def contradicted(self, evidence: Evidence) -> Evidence:
        """Check an estimate against the largest weight of the prior draws."""
        weights = self.draws.log_weights
        excess = weights.amax().item() - math.log(len(weights)) - evidence.value
        if excess <= CONTRADICTION:
            return evidence
        seen = f"one of {len(weights)} prior draws alone is worth {excess:.1f} nats more"
        finding = Finding("prior draws contradict", seen, "give a guide that covers it")
        return replace(evidence, verdict=evidence.verdict + Verdict((finding,)))
