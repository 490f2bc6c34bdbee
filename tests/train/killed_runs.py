"""
Train a small model again and again in forked processes that are killed; run as a script by
``test_trainer.py``.

``killed_runs.py FOLDER SEED OBJECTIVE UPDATES``: ``FOLDER/whole`` is trained without a break,
``FOLDER/killed-0`` with ten kills at random moments, one of them while a checkpoint is being
written; should it be done before, ``killed-1`` takes the rest, and so on. ``OBJECTIVE`` is one of
``OBJECTIVES`` below. Prints the number of kills.
"""

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyro
import torch
from pyro.infer import ELBO

from pyro_tkam.datasets import digits
from pyro_tkam.infer import AutoMALA, ImportanceMLE, LangevinMLE
from pyro_tkam.models import TKAM
from pyro_tkam.train import ELBOTraining, checkpoints, fit

NUM_KILLS = 10
OBJECTIVES: dict[str, Callable[[], ELBO]] = {
    "importance": lambda: ImportanceMLE(10),
    "automala": lambda: LangevinMLE(AutoMALA, num_steps=2, max_step_size=2.0),
}


def train(folder: Path, objective: str, updates: int) -> None:
    pyro.set_rng_seed(3)
    images = digits().images
    model = TKAM.kart(
        (8, 8), latent_dim=2, coupling="shared", grid_size=5, widths=[8], noise_scale=0.3
    )
    module = ELBOTraining(model, OBJECTIVES[objective](), size=len(images))
    fit(
        module,
        images,
        folder,
        updates=updates,
        batch_size=64,
        checkpoint_every=7,
        clip_norm=1.0,
        progress=False,
    )


def break_checkpoints(folder: Path, objective: str, updates: int) -> None:
    """Train until the second checkpoint, of which only a part is written."""
    save, calls = torch.save, iter((False, True))

    def save_or_die(content: object, file: object) -> None:
        if next(calls):
            file.write(b"half of a checkpoint")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        save(content, file)

    checkpoints.torch.save = save_or_die
    train(folder, objective, updates)


def killed(work: Callable[[Path], None], folder: Path, seconds: float | None = None) -> bool:
    """
    Run in a forked process, kill it after some seconds, and tell whether it was killed before it
    was done.
    """
    if (process := os.fork()) == 0:
        status = 1
        try:
            work(folder)
            status = 0
        finally:
            os._exit(status)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(process, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if code not in (0, -signal.SIGKILL):
        raise RuntimeError(f"training failed with exit code {code}")
    return code != 0


def main(folder: Path, seed: int, objective: str, updates: int) -> None:
    train_it, break_it = (
        partial(work, objective=objective, updates=updates) for work in (train, break_checkpoints)
    )
    torch.set_num_threads(1)
    start = time.perf_counter()
    killed(train_it, folder / "whole")
    training = time.perf_counter() - start
    start = time.perf_counter()
    killed(train_it, folder / "whole")  # nothing is left to do: this is the time to start
    starting = time.perf_counter() - start
    moments, kills, number = random.Random(seed), 0, 0
    while kills < NUM_KILLS:
        in_checkpoint = kills == NUM_KILLS // 2
        seconds = None if in_checkpoint else moments.uniform(0, starting + 0.2 * training)
        if killed(break_it if in_checkpoint else train_it, folder / f"killed-{number}", seconds):
            kills += 1
        else:
            number += 1
    killed(train_it, folder / f"killed-{number}")
    print(kills)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
