"""The start of chains of any kernel: a tempered ensemble, all or some of whose rows go on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_tkam.infer.mcmc.chains import Chains, Mover
from pyro_tkam.infer.mcmc.path import Path, PathTarget
from pyro_tkam.infer.mcmc.tempered_ensemble import POPULATIONS, EnsembleMover, TemperedEnsemble
from pyro_tkam.infer.model.density import Density

FEWEST_ROWS = 64


class EnsembleStart:
    """A tempered ensemble of 64 rows or more, from which chains go on.

    :param kernel: of the chains.
    :param mover: of the ensemble.
    :param density: what they sample.
    :param num_chains: number of chains.
    :param rows_go_on: whether the kernel warms all rows up, and then as many as there are chains go
        on; else it takes over from so many before its own warm-up.
    """

    def __init__(
        self,
        kernel: Mover,
        mover: EnsembleMover,
        density: Density,
        num_chains: int,
        *,
        rows_go_on: bool,
    ) -> None:
        self.kernel = kernel
        self.density = density
        self.num_chains = num_chains
        rows = POPULATIONS * -(-max(FEWEST_ROWS, num_chains) // POPULATIONS)
        self.rows_go_on = rows_go_on
        self.ensemble = TemperedEnsemble(mover, Path(density), rows)
        self.chosen = torch.arange(rows)

    @property
    def target(self) -> PathTarget:
        """The posterior."""
        return self.ensemble.path.at(torch.ones(()))

    def chains(self, warmup_steps: int) -> Chains:
        """Return chains at the end of the path."""
        if self.rows_go_on:
            return self.ensemble.chains(self.kernel, warmup_steps)
        self._choose()
        state = self.ensemble.state
        point = self.density.point(state.position[self.chosen])
        return Chains.begin(self.kernel, self.density, point, warmup_steps, state.metric)

    def end_warmup(self, chains: Chains) -> None:
        """Let as many rows go on as there are chains."""
        if self.rows_go_on and self.num_chains < len(self.chosen):
            self._choose()
            chains.keep(self.chosen)

    @property
    def populations(self) -> Tensor:
        """Number of the population of each chain, ``(chains,)``."""
        return self.ensemble.populations[self.chosen]

    @property
    def ancestors(self) -> Tensor:
        """Number of the reference draw that each chain descends from, ``(chains, *local)``."""
        return self.ensemble.state.ancestors[self.chosen]

    def _choose(self) -> None:
        self.chosen = torch.randperm(self.ensemble.rows)[: self.num_chains].sort().values

    def save(self) -> dict[str, Any]:
        """Return numbers and tensors from which to go on."""
        return {"ensemble": self.ensemble.save(), "chosen": self.chosen}

    def load(self, saved: dict[str, Any]) -> None:
        """Go on from what :meth:`save` returned."""
        self.chosen = saved["chosen"]
        self.ensemble.load(saved["ensemble"])
