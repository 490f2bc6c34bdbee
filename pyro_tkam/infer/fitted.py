"""Importance sampling from a mixture that is fitted to tempered draws, and to modes that these have missed."""

from __future__ import annotations

from torch import Tensor

from pyro_tkam.infer.density import ModelDensity
from pyro_tkam.infer.evidence import Evidence, Finding, Verdict
from pyro_tkam.infer.kernels import LangevinKernel
from pyro_tkam.infer.scouts import Known, Scouts
from pyro_tkam.infer.tempered_evidence import TemperedDraws, agreement, along_ladder, log_joint, run_verdict
from pyro_tkam.infer.verdict import importance_verdict
from pyro_tkam.ops.estimators import Estimate, effective_sample_size, importance, pareto_smooth
from pyro_tkam.ops.estimators.mixture import fit_mixture
from pyro_tkam.ops.estimators.population import refine, with_component

NUM_REFINEMENTS = 4
REFINEMENT_DRAWS = 3000
MOST_SEARCHES = 3
TYPICAL_DRAWS, TYPICAL_SHARE = 1000, 0.05
"""Draws of the mixture, and the share of them that lies where its density is too small to be typical."""

FEW_CLIMBS = 3
"""Climbs to a mode below which finding it was luck."""

BEARING = {"too few rungs"}
"""Findings on a tempered run that count against an estimate which only takes its proposal from it."""

GAIN_SIGMAS, LEAST_GAIN = 4.0, 0.03
"""Standard errors and nats by which a search must change the evidence to call for another one."""


class MixtureProposal:
    """A mixture for each datum, fitted to draws of its posterior and refined by its own weighted draws.

    :param density: the posterior's.
    :param positions: draws, ``(chain, draw, *local, dim)``.
    :param log_density: log joint density at the draws, ``(chain, draw, *local)``, in nats.
    """

    def __init__(self, density: ModelDensity, positions: Tensor, log_density: Tensor) -> None:
        self.local, self.dim = density.layout.local_shape, density.layout.dim
        self._own_evaluations = 0
        self._log_joint = log_joint(density)
        points = positions.reshape(*positions.shape[:2], -1, self.dim)
        effective = effective_sample_size(log_density.reshape(points.shape[:-1]))
        self.mixture = fit_mixture(points.flatten(0, 1), effective)
        self._refine()

    @property
    def evaluations(self) -> int:
        """Evaluations so far."""
        return self._own_evaluations

    def weigh(self, num: int) -> Tensor:
        """Return log weights of new draws, ``(num, *local)``."""
        points = self.mixture.sample(num)
        return (self._density(points) - self.mixture.log_prob(points)).reshape(num, *self.local)

    def _refine(self) -> None:
        self.mixture = refine(self.mixture, self._density, REFINEMENT_DRAWS, NUM_REFINEMENTS)

    def _density(self, points: Tensor) -> Tensor:
        """Return the log joint density of points ``(num, data, dim)``, and count them."""
        self._own_evaluations += len(points)
        return self._log_joint(points.reshape(len(points), *self.local, self.dim)).reshape(points.shape[:-1])


class FittedProposal(MixtureProposal):
    """A mixture fitted to the draws of a tempered run at ``t = 1``, and to modes that these have missed.

    Its weighted draws know the modes' shares of the mass even where chains don't. Climbs from the prior look for
    places that it misses; components are added there until a new search finds nothing.

    :param kernel: what moves the scouts.
    :param draws: a tempered run.
    """

    def __init__(self, kernel: LangevinKernel, draws: TemperedDraws) -> None:
        self._scouts = Scouts(kernel, draws.density)
        self._run_verdict, self._along = run_verdict(draws), along_ladder(draws)
        super().__init__(draws.density, draws.positions[-1], draws.log_prior[-1] + draws.log_likelihood[-1])
        self.gain, self.luck = 0.0, 0
        self.complete = self._search()

    @property
    def evaluations(self) -> int:
        """Evaluations so far, those of the scouts included."""
        return self._own_evaluations + self._scouts.evaluations

    def evidence(self, log_weights: Tensor) -> Evidence:
        """Average weights ``(num, *local)`` of :meth:`weigh`."""
        by_datum = log_weights.movedim(0, -1)
        estimate, weights = importance(by_datum), by_datum.softmax(-1)
        verdict = importance_verdict(pareto_smooth(by_datum).khat, 1 / weights.square().sum(-1))
        # Weights are right about what the mixture covers, so only an evidence below the ladder's lacks something.
        verdict = verdict + agreement(estimate, self._along, one_sided=True)
        verdict = verdict + self.search_verdict(counted=True) + self._of_run()
        return Evidence.of(estimate, "fitted importance", verdict, evaluations=self.evaluations)

    def search_verdict(self, *, counted: bool) -> Verdict:
        """Tell whether modes were missed.

        :param counted: whether an estimate counts those that were found.
        """
        advice = "use a guide or another parametrisation, or more chains and temperatures"
        if not self.complete:
            return Verdict((Finding("missed mode", f"each of {MOST_SEARCHES} searches found more mass", advice),))
        if self.gain == 0:
            return Verdict()
        seen = f"climbs from the prior found modes that chains had missed, worth {self.gain:.2f} nats"
        if self.luck:
            seen += f", but only {self.luck} of {self._scouts.climbs} climbs ended there: others may be left"
        elif counted:
            return Verdict(notes=(f"{seen}; they are counted",))
        return Verdict((Finding("missed mode", seen, advice),))

    def _of_run(self) -> Verdict:
        """Return what of the tempered run's verdict bears on weights from a proposal; the rest are notes."""
        bearing = tuple(each for each in self._run_verdict.findings if each.name in BEARING)
        others = tuple(each for each in self._run_verdict.findings if each.name not in BEARING)
        return Verdict(bearing, notes=tuple(f"the tempered run alone: {each}" for each in others))

    def _search(self) -> bool:
        """Add what climbs find; tell whether the last search left the evidence as it was."""
        before = self._pilot()
        for _ in range(MOST_SEARCHES):
            known = self._known(before.value)
            scouts = self._scouts.search(known)
            if scouts is None or not self._add(scouts, known):
                return True
            self._refine()
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
        """Add a component for each chain that stays where the proposal is too thin; tell whether there was one."""
        added = False
        for chain in scouts:
            points = chain.reshape(len(chain), -1, self.dim)
            log_posterior = self._density(points).reshape(len(chain), *self.local)
            missed = known.misses(chain, log_posterior).float().mean(0) > 0.5
            if missed.any():
                self.mixture, added = with_component(self.mixture, points, missed.flatten()), True
        return added

    def _pilot(self) -> Estimate:
        return importance(self.weigh(REFINEMENT_DRAWS).movedim(0, -1))
