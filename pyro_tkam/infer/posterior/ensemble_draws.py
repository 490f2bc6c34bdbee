"""Posterior draws of an ensemble that is tempered from the prior, for an evidence."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import torch
from pyro import poutine
from torch import Tensor

from pyro_tkam.infer.mcmc.chains import Chains
from pyro_tkam.infer.mcmc.ensemble_adaptation import WINDOWS
from pyro_tkam.infer.mcmc.ensemble_start import EnsembleStart
from pyro_tkam.infer.mcmc.judging import ChainRun, chain_verdict
from pyro_tkam.infer.mcmc.kernels.ensemble_hmc import EnsembleHMC
from pyro_tkam.infer.mcmc.tempered_ensemble import MOVES
from pyro_tkam.infer.model.density import ModelDensity
from pyro_tkam.infer.posterior.budget import Budget
from pyro_tkam.infer.results import Verdict
from pyro_tkam.ops.langevin import StepInfo

NUM_CHAINS = 64
WARMUP_STEPS = WINDOWS[-1]
FEWEST_DRAWS = 20
ABOUT_DRAWS = {"chains disagree", "frozen chains", "stray chains", "improper posterior"}
"""Findings on chains that bear on what is estimated from their draws; others are of efficiency."""

Told = Callable[[str], None]


class EnsembleDraws:
    """64 chains from a tempered start; their run can be continued.

    :param kernel: what moves them.
    :param density: of the model, on positions ``(rows, dim)``.
    :param budget: counts its evaluations.
    :param tell: called with the progress.
    :raises BudgetSpentError: here and while running, where nothing is left of it.
    """

    def __init__(
        self, kernel: EnsembleHMC, density: ModelDensity, budget: Budget, tell: Told
    ) -> None:
        self.density = density
        self.budget = budget
        self.tell = tell
        self._start = EnsembleStart(kernel, kernel, density, NUM_CHAINS, rows_go_on=True)
        self._most_of_a_step = NUM_CHAINS * (kernel.max_steps + 1)
        self._positions: list[Tensor] = []
        self._log_density: list[Tensor] = []
        self._infos: list[StepInfo] = []
        self._chains = self._warm_up()

    @property
    def evaluations_a_draw(self) -> float:
        """Evaluations for one draw of all chains."""
        return self._spent / max(1, self._steps)

    def run(self, num: int, keep: int) -> None:
        """Make some more draws of each chain; fewer where the budget ends.

        :param num: how many.
        :param keep: evaluations of the budget that are for something else.
        """
        with poutine.block(), pyro.validation_enabled(False):
            for index in range(num):
                if index >= FEWEST_DRAWS and self.budget.left < self._most_of_a_step + keep:
                    break
                info = self._step()
                self.tell(f"draw {index + 1} of {num}")
                self._positions.append(self._chains.position)
                self._log_density.append(self._chains.point.log_density)
                self._infos.append(info)

    def draws(self, begin: int = 0) -> tuple[Tensor, Tensor]:
        """
        Return the draws from one on, ``(chain, draw, dim)``, and their log density
        ``(chain, draw)``.
        """
        return (
            torch.stack(self._positions[begin:], 1),
            torch.stack(self._log_density[begin:], 1),
        )

    def __len__(self) -> int:
        return len(self._positions)

    def verdict(self, begin: int = 0) -> Verdict:
        """
        Return what is wrong with the draws from ``begin`` on, as far as it matters for an evidence.
        """
        stacked = {
            name: torch.stack([getattr(info, name) for info in self._infos[begin:]], 1)
            for name in ("acceptance_rate", "diverging", "failed", "outside")
        }
        run = ChainRun(
            draws=self.draws(begin)[0].flatten(2),
            names=self.density.layout.names,
            acceptance=stacked["acceptance_rate"],
            diverging=stacked["diverging"],
            failed=stacked["failed"] & ~stacked["outside"],
            groups=self._start.populations,
        )
        found = chain_verdict(run)
        bearing = tuple(each for each in found.findings if each.name in ABOUT_DRAWS)
        return Verdict(bearing, found.measures)

    def _warm_up(self) -> Chains:
        ensemble = self._start.ensemble
        with poutine.block(), pyro.validation_enabled(False):
            before = 0
            while not ensemble.done:
                self.budget.check(MOVES * self._most_of_a_step)
                ensemble.rung()
                self.budget.spend((ensemble.state.gradients - before) * ensemble.rows)
                before = ensemble.state.gradients
                self.tell(f"tempering, t = {ensemble.state.t.min():.1e}")
            self._chains = self._start.chains(WARMUP_STEPS)
            self._spent = 0
            self._steps = 0
            for index in range(WARMUP_STEPS):
                self._step()
                self.tell(f"warm-up, step {index + 1} of {WARMUP_STEPS}")
        return self._chains

    def _step(self) -> StepInfo:
        self.budget.check(self._most_of_a_step)
        info = self._chains.step()
        evaluations = int(info.total_evaluations)
        self.budget.spend(evaluations)
        self._spent = self._spent + evaluations
        self._steps = self._steps + 1
        return info
