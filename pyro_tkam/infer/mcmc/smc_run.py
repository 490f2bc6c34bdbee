"""One run of sequential Monte Carlo on a schedule that is known, here or on a worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyro
from pyro import poutine
from torch import Tensor

from pyro_tkam.infer.mcmc.path import Path
from pyro_tkam.infer.mcmc.tempered_ensemble import EnsembleMover, Rung, TemperedEnsemble
from pyro_tkam.infer.model.density import ModelDensity


def prepared(
    model: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    gradients: bool,
) -> tuple[ModelDensity, Path]:
    """Return a model's density, ready to be drawn from, and the path to it from the prior."""
    density = ModelDensity(model, args, kwargs)
    density.sample_reference(1)  # finds out how, so that later draws are alike
    return density, Path(density, gradients=gradients)


@dataclass(frozen=True)
class ScheduledRun:
    """Draws an ensemble at the prior and takes it to the posterior; called on a seed.

    :param model: a Pyro model.
    :param args: its arguments.
    :param kwargs: its keyword arguments.
    :param kernel: moves the ensemble.
    :param gradients: whether it takes them.
    :param rows: size of the ensemble.
    :param schedule: temperatures, metrics and step sizes.
    :param from_normal: whether the ensemble is drawn from ``N(0, 2²)``, as no prior draw serves.
    :param path: of the model, where the caller has it; each call makes its own if None.
    """

    model: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    kernel: EnsembleMover
    gradients: bool
    rows: int
    schedule: Sequence[Rung]
    from_normal: bool = False
    path: Path | None = None

    def __call__(self, seed: int) -> tuple[dict[str, Tensor], int]:
        """Return what is kept of the run, and how many gradients a row took."""
        with poutine.block(), pyro.validation_enabled(False):
            path = self.path or prepared(self.model, self.args, self.kwargs, self.gradients)[1]
            if self.from_normal and not path.density.starts_normal:
                path = path.from_normal()
            pyro.set_rng_seed(seed)
            run = TemperedEnsemble(self.kernel, path, self.rows, schedule=self.schedule)
            for _ in self.schedule:
                run.rung()
        state = run.state
        kept = {
            "position": state.position,
            "log_evidence": run.log_evidence,
            "ancestor": state.ancestors,
        }
        return kept, state.gradients
