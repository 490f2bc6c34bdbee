"""Evidence from draws of the posterior: bridge, and importance from the same proposals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from pyro_tkam.infer.diagnosis import SQUARED_COORDINATES
from pyro_tkam.infer.evidence.cross_bridge import CrossFitted, cross_fitted_evidence
from pyro_tkam.infer.evidence.tilts import Tilts
from pyro_tkam.infer.mcmc.kernels.ensemble_hmc import EnsembleHMC
from pyro_tkam.infer.model.values import positions_of_values
from pyro_tkam.infer.posterior.coverage import WeightedPositions
from pyro_tkam.infer.posterior.ensemble_draws import EnsembleDraws
from pyro_tkam.infer.posterior.search import Search
from pyro_tkam.infer.posterior.target import PosteriorTarget
from pyro_tkam.infer.results import Evidence
from pyro_tkam.ops.estimators import CrossProposal, fit_normal
from pyro_tkam.ops.estimators.mixture import STUDENT_DF, Mixture

SPARE = 1.2
"""Draws over those that the pilot's effective ones ask for."""
LARGEST_TILTED = 12
"""Dimensions up to which autoregressive tilts are fitted: beyond, they take minutes."""

PILOT_DRAWS = 100
NUM_DRAWS = 200
MOST_DRAWS = 3200
PILOT_SHARE = 0.3
"""Most of what is left of a budget that the pilot takes."""

PILOT_PROPOSALS = 1000
NUM_PROPOSALS = 8192

Fit = Callable[[Tensor], CrossProposal]


class PosteriorBridge:
    """Chains from a tempered start, and estimates from more and more of their draws.

    The first draws choose how many are wanted, and are in no estimate.

    :param kernel: what moves the chains.
    :param target: the posterior in the coordinates of the chains.
    :param search: by which estimates are judged.
    """

    def __init__(self, kernel: EnsembleHMC, target: PosteriorTarget, search: Search) -> None:
        self.target = target
        self.search = search
        self.progress = search.progress
        self.progress.route("chains")
        self.chains = EnsembleDraws(kernel, target.density, target.budget, self.progress.tell)
        self.chains.run(PILOT_DRAWS, target.budget.affords(10**9, share=1 - PILOT_SHARE))
        self.begin = 0
        self.num_draws = NUM_DRAWS
        if not self._are_stuck():
            self.num_draws = self._wanted(self._fitted(PILOT_PROPOSALS, fit_normal))

    def estimate(self) -> Evidence | None:
        """
        Run on, and estimate by normal distributions from the draws since; None if chains are stuck.
        """
        self.progress.route("chains")
        self.begin = len(self.chains)
        self.chains.run(self.num_draws, 3 * NUM_PROPOSALS)
        if self._are_stuck():
            return None
        self.progress.route("bridge")
        return self._judged(self._fitted(NUM_PROPOSALS, fit_normal), "bridge")

    def learned(self) -> Evidence | None:
        """Estimate by autoregressive tilts from the last draws; None in many dimensions."""
        if self.target.dim > LARGEST_TILTED:
            return None
        self.progress.route("autoregressive proposal")
        return self._judged(self._fitted(NUM_PROPOSALS, Tilts), "learned bridge")

    def lengthen(self) -> bool:
        """Double the draws of the next estimate; tell whether the budget has them."""
        self.num_draws *= 2
        takes = self.num_draws * self.chains.evaluations_a_draw + 2 * NUM_PROPOSALS
        return self.num_draws <= MOST_DRAWS and takes <= self.target.budget.left

    def _are_stuck(self) -> bool:
        """Tell whether a coordinate is constant in one of four groups, each fitted by a normal."""
        groups = self.chains.draws(self.begin)[0].tensor_split(4)
        return any(bool((each == each[0, 0]).flatten(0, 1).all(0).any()) for each in groups)

    def _wanted(self, pilot: CrossFitted) -> int:
        """Return how many draws a normal distribution in so many dimensions takes."""
        effective = pilot.bridge.verdict.measures["effective draws of a half"]
        scarce = self.target.dim**2 / SQUARED_COORDINATES / effective * PILOT_DRAWS
        return int(min(max(NUM_DRAWS, SPARE * scarce), MOST_DRAWS))

    def _fitted(self, num: int, fit: Fit) -> CrossFitted:
        positions, log_density = self.chains.draws(self.begin)
        fitted = cross_fitted_evidence(
            self.target.density, positions, fit=fit, log_density=log_density, num_proposals=num
        )
        self.target.budget.spend(fitted.importance.evaluations)
        return fitted

    def _judged(self, fitted: CrossFitted, name: str) -> Evidence:
        verdict = fitted.bridge.verdict + self.chains.verdict(self.begin)
        fitted = replace(fitted, bridge=replace(fitted.bridge, verdict=verdict, method=name))
        evidence = fitted.preferred
        held = self._held()
        self.search.surprises(_wide(held), evidence.value)
        return self.search.judge(evidence, held)

    def _held(self) -> WeightedPositions:
        """Return the draws in the coordinates of the search."""
        positions = self.chains.draws(self.begin)[0].flatten(0, 1)
        if self.target is not self.search.target:
            values = self.target.density.constrain(positions)
            positions = positions_of_values(self.search.target.density.terms, values)
        positions = positions[positions.isfinite().all(-1)].double()
        return WeightedPositions(positions, positions.new_zeros(len(positions)))


def _wide(held: WeightedPositions) -> Mixture:
    """Return a Student-t with the moments of draws."""
    normal = fit_normal(held.positions[None, :, None])
    return Mixture(
        normal.loc.new_zeros(1, 1),
        normal.loc[:, None],
        normal.scale_tril[:, None],
        normal.loc.new_full((1,), STUDENT_DF),
    )
