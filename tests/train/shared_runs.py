"""
Short runs that several processes can share: each starts this script again, and writes what it
found.
"""

import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

import pyro
import torch
from lightning.pytorch.callbacks import Callback

from pyro_tkam.infer import ImportanceMLE, ImportanceWeightedELBO, LangevinMLE
from pyro_tkam.infer.mcmc.kernels import AutoMALA
from pyro_tkam.models import TKAM, AmortizedGuide
from pyro_tkam.train import ELBOTraining, GridUpdates, fit

SIZE, UPDATES, BATCH = 30, 7, 6
# a multiple of each process's rows, so that an update moves the generator equally far
PARTICLES = 2 * BATCH


class Gradients(Callback):
    """Keep the gradients of the first update, as the optimizer sees them."""

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if trainer.global_step == 0 and trainer.is_global_zero:
            gradients = {
                name: parameter.grad.clone() for name, parameter in pl_module.named_parameters()
            }
            torch.save(gradients, Path(trainer.default_root_dir) / "gradients.pt")


class Parameters(Callback):
    """Keep the parameters with which each process ends."""

    def on_train_end(self, trainer, pl_module):
        path = Path(trainer.default_root_dir) / f"parameters-{trainer.global_rank}.pt"
        torch.save(dict(pl_module.named_parameters()), path)


class CrashError(Exception):
    """Stands for whatever stops a run."""


class Crash(Callback):
    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 5:
            raise CrashError


def make(objective, guide=None, size=SIZE):
    """Make a model in double precision and its objective."""
    pyro.set_rng_seed(1)
    model = TKAM.kart(4, latent_dim=2, grid_size=5, widths=[6], noise_scale=0.3).double()
    return ELBOTraining(model, objective(), guide and guide(model).double(), size=size)


RUNS = {
    "importance": partial(make, partial(ImportanceMLE, PARTICLES, ess_threshold=0.0)),
    "unscaled": partial(make, partial(ImportanceMLE, PARTICLES, ess_threshold=0.0), size=None),
    "resampled": partial(make, partial(ImportanceMLE, PARTICLES, ess_threshold=1.0)),
    "automala": partial(make, partial(LangevinMLE, AutoMALA, num_steps=2)),
    "iwae": partial(make, partial(ImportanceWeightedELBO, 2), AmortizedGuide),
}


def run(name, folder, devices=1, shares_draws=None, crash=False):
    module = RUNS[name]()
    if shares_draws is not None:
        module.shares_draws = shares_draws
    fit(
        module,
        torch.rand(SIZE, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64),
        folder,
        updates=UPDATES,
        batch_size=BATCH,
        checkpoint_every=4,
        device="cpu",
        devices=devices,
        progress=False,
        callbacks=(Gradients(), Parameters(), GridUpdates(every=2), *([Crash()] if crash else [])),
    )


def main(folder):
    for name in RUNS:
        run(name, folder / name, devices=2)
    run("importance", folder / "apart", devices=2, shares_draws=False)
    for name in ("importance", "resampled", "automala"):
        with suppress(CrashError):
            run(name, folder / f"{name}-resumed", devices=2, crash=True)
        run(name, folder / f"{name}-resumed", devices=2)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
