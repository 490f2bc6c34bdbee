"""
Importance sampling from a mixture that is fitted to tempered draws, and to modes that these have
missed.
"""

from __future__ import annotations

from torch import Tensor

from pyro_tkam.infer.diagnosis import importance_verdict
from pyro_tkam.infer.evidence.mode_search import Known, Scouts
from pyro_tkam.infer.mcmc.kernels.base import LangevinKernel
from pyro_tkam.infer.model.density import ModelDensity
from pyro_tkam.infer.posterior.budget import Budget
from pyro_tkam.infer.results import Evidence, Finding, Verdict
from pyro_tkam.infer.tempering.estimates import (
    TemperedDraws,
    agreement,
    along_ladder,
    log_joint,
    run_verdict,
)
from pyro_tkam.ops.estimators import Estimate, effective_sample_size, importance, pareto_smooth
from pyro_tkam.ops.estimators.mixture import MIN_DRAWS_PER_COMPONENT, Mixture, fit_mixture
from pyro_tkam.ops.estimators.population import defended, refine, with_component

NUM_REFINEMENTS = 4
REFINEMENT_DRAWS = 3000
REFINEMENT_SHARE = 0.15
"""
Draws in a round, and the share of what is left of a budget that the rounds and a look at the result
may take.
"""

MOST_SEARCHES = 3
TYPICAL_DRAWS = 1000
TYPICAL_SHARE = 0.05
"""
Draws of the mixture, and the share of them that lies where its density is too small to be typical.
"""

PRIOR_SHARE = 0.05
"""Share of the draws that are as wide as the prior, so that no weight is large."""

FEWEST_WEIGHTS = 25
"""Draws from which a k-hat can be told."""

FEWEST_SCOUTED = 4
"""Draws of a chain that can tell where it stays."""

FEWEST_CLIMBS = 300
"""
Climbs below which a search says little: of 300, one in twenty misses a mode to which 1% of them
lead.
"""

FEW_CLIMBS = 3
"""Climbs to a mode below which finding it was luck."""

RULE_OF_THREE = 3.0
"""What has a chance of three in so many tries is missed by all of them one time in twenty."""

BEARING = {"too few rungs"}
"""
Findings on a tempered run that count against an estimate which only takes its proposal from it.
"""

GAIN_SIGMAS = 4.0
LEAST_GAIN = 0.03
"""Standard errors and nats by which a search must change the evidence to call for another one."""


class MixtureProposal:
    """
    A mixture for each datum, fitted to draws of its posterior and refined by its own weighted
    draws.

    :param density: the posterior's.
    :param positions: draws, ``(chain, draw, *local, dim)``.
    :param log_density: log joint density at the draws, ``(chain, draw, *local)``, in nats.
    :param budget: counts its evaluations, and limits its refinement; None sets no limit.
    """

    def __init__(
        self,
        density: ModelDensity,
        positions: Tensor,
        log_density: Tensor,
        budget: Budget | None = None,
    ) -> None:
        self.local = density.layout.local_shape
        self.dim = density.layout.dim
        self.budget = Budget() if budget is None else budget
        self._log_joint = log_joint(density)
        points = positions.reshape(*positions.shape[:2], -1, self.dim)
        effective = effective_sample_size(log_density.reshape(points.shape[:-1]))
        self.mixture = fit_mixture(points.flatten(0, 1), effective)
        self.refine()

    def weigh(self, num: int) -> Tensor:
        """Return log weights of new draws, ``(num, *local)``."""
        points = self.proposal.sample(num)
        return (self._density(points) - self.proposal.log_prob(points)).reshape(num, *self.local)

    @property
    def proposal(self) -> Mixture:
        """What is drawn from."""
        return self.mixture

    def refine(self) -> None:
        """
        Move the mixture by its own weighted draws; it stays as it is where the budget allows too
        few of them.
        """
        num = self._num_draws()
        if num >= max(FEWEST_WEIGHTS, MIN_DRAWS_PER_COMPONENT * (self.dim + 1)):
            self.mixture = refine(self.mixture, self._density, num, NUM_REFINEMENTS)

    def _num_draws(self) -> int:
        return self.budget.affords(
            REFINEMENT_DRAWS, each=NUM_REFINEMENTS + 1, share=REFINEMENT_SHARE
        )

    def _density(self, points: Tensor) -> Tensor:
        """Return the log joint density of points ``(num, data, dim)``, and count them."""
        self.budget.spend(len(points))
        return self._log_joint(points.reshape(len(points), *self.local, self.dim)).reshape(
            points.shape[:-1]
        )


class FittedProposal(MixtureProposal):
    """
    A mixture fitted to the draws of a tempered run at ``t = 1``, and to modes that these have
    missed.

    Its weighted draws know the modes' shares of the mass even where chains don't. Climbs from the
    prior look for places that it misses; components are added there until a new search finds
    nothing.

    :param kernel: what moves the scouts.
    :param draws: a tempered run.
    :param budget: counts its evaluations, and limits refinement and searches.
    """

    def __init__(self, kernel: LangevinKernel, draws: TemperedDraws, budget: Budget) -> None:
        self._scouts = Scouts(kernel, draws.density, budget)
        self._run_verdict = run_verdict(draws)
        self._along = along_ladder(draws)
        log_density = draws.log_prior[-1] + draws.log_likelihood[-1]
        super().__init__(draws.density, draws.positions[-1], log_density, budget)
        self._defense = PRIOR_SHARE if draws.density.prior_is_standard_normal else 0.0
        self.gain = 0.0
        self.luck = 0
        self.complete = self._search()

    @property
    def proposal(self) -> Mixture:
        """The mixture; where the prior is standard normal, with a component as wide."""
        return defended(self.mixture, self._defense) if self._defense else self.mixture

    def evidence(self, log_weights: Tensor) -> Evidence:
        """Average weights ``(num, *local)`` of :meth:`weigh`."""
        by_datum = log_weights.movedim(0, -1)
        estimate = importance(by_datum)
        weights = by_datum.softmax(-1)
        verdict = importance_verdict(pareto_smooth(by_datum).khat, 1 / weights.square().sum(-1))
        # Weights are right about what the mixture covers, so only an evidence below the ladder's
        # lacks something.
        verdict = verdict + agreement(estimate, self._along, one_sided=True)
        verdict = verdict + self.search_verdict(counted=True) + self._of_run()
        return Evidence.of(estimate, "fitted importance", verdict, evaluations=self.budget.spent)

    def search_verdict(self, *, counted: bool) -> Verdict:
        """Tell whether modes were missed.

        :param counted: whether an estimate counts those that were found.
        """
        advice = "use a guide or another parameterization, or more chains and temperatures"
        climbs = self._scouts.climbs
        if climbs < FEWEST_CLIMBS:
            seen = f"the budget allowed {climbs} climbs from the prior"
            return Verdict((Finding("short search for modes", seen, "raise max_evaluations"),))
        if not self.complete:
            return Verdict(
                (
                    Finding(
                        "missed mode",
                        "each search found more mass, and no further search was made",
                        advice,
                    ),
                )
            )
        share = RULE_OF_THREE / climbs
        reach = (
            f"{climbs} climbs from the prior searched for modes; a mode that attracts less than "
            f"{share:.1g} of the prior may be missing"
        )
        if self.gain == 0:
            return Verdict(notes=(reach,))
        seen = (
            f"climbs from the prior found modes that chains had missed, worth {self.gain:.2f} nats"
        )
        if self.luck:
            seen += f", but only {self.luck} of {climbs} climbs ended there: others may be missing"
        elif counted:
            return Verdict(notes=(f"{seen}; they are included", reach))
        return Verdict((Finding("missed mode", seen, advice),))

    def _of_run(self) -> Verdict:
        """Return what of the tempered run's verdict bears on weights from a proposal."""
        return Verdict(tuple(each for each in self._run_verdict.findings if each.name in BEARING))

    def _search(self) -> bool:
        """Add what climbs find; tell whether the last search left the evidence as it was."""
        before = self._pilot()
        for _ in range(MOST_SEARCHES):
            known = self._known(before.value)
            scouts = self._scouts.search(known)
            if scouts is None:
                return self._scouts.num_climbers > 0
            if scouts.shape[1] < FEWEST_SCOUTED:
                return False
            if not self._add(scouts, known):
                return True
            self.refine()
            after = self._pilot()
            gain = after.value - before.value
            error = (after.standard_error.square() + before.standard_error.square()).sqrt()
            if not ((gain.abs() > GAIN_SIGMAS * error) & (gain.abs() > LEAST_GAIN)).any():
                return True
            self.gain = max(self.gain, gain.max().item())
            if self._scouts.num_unseen < FEW_CLIMBS:
                self.luck = self._scouts.num_unseen
            before = after
        return False

    def _known(self, level: Tensor) -> Known:
        """Return the mixture times an evidence ``(*local)``."""

        def log_density(positions: Tensor) -> Tensor:
            points = positions.reshape(len(positions), -1, self.dim)
            return self.mixture.log_prob(points).reshape(len(points), *self.local) + level

        draws = self.mixture.sample(TYPICAL_DRAWS).reshape(TYPICAL_DRAWS, *self.local, self.dim)
        return Known(log_density, log_density(draws).quantile(TYPICAL_SHARE, 0))

    def _add(self, scouts: Tensor, known: Known) -> bool:
        """
        Add a component for each chain that stays where the proposal is too thin; tell whether there
        was one.
        """
        added = False
        for chain in scouts:
            points = chain.reshape(len(chain), -1, self.dim)
            log_posterior = self._density(points).reshape(len(chain), *self.local)
            missed = known.misses(chain, log_posterior).float().mean(0) > 0.5
            if missed.any():
                self.mixture = with_component(self.mixture, points, missed.flatten())
                added = True
        return added

    def _pilot(self) -> Estimate:
        return importance(self.weigh(max(FEWEST_WEIGHTS, self._num_draws())).movedim(0, -1))
