"""Train a small model again and again in forked processes that are killed; run as a script by ``test_trainer.py``.

``killed_runs.py FOLDER SEED``: ``FOLDER/whole`` is trained without a break, ``FOLDER/killed`` with ten kills at random
moments, one of them while a checkpoint is being written. Prints, as JSON, the signal that ended each process.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyro
import torch

from pyro_tkam.datasets import digits
from pyro_tkam.infer import ImportanceMLE
from pyro_tkam.models import TKAM
from pyro_tkam.train import ELBOTraining, checkpoints, fit

NUM_KILLS = 10


def train(folder: Path) -> None:
    pyro.set_rng_seed(3)
    images = digits().images
    model = TKAM.kart((8, 8), latent_dim=2, coupling="shared", grid_size=5, widths=[8], noise_scale=0.3)
    module = ELBOTraining(model, ImportanceMLE(10), size=len(images))
    fit(module, images, folder, updates=300, batch_size=64, checkpoint_every=7, clip_norm=1.0, progress=False)


def break_checkpoints(folder: Path) -> None:
    """Train until the second checkpoint, of which only a part is written."""
    save, calls = torch.save, iter((False, True))

    def save_or_die(content: object, file: object) -> None:
        if next(calls):
            file.write(b"half of a checkpoint")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        save(content, file)

    checkpoints.torch.save = save_or_die
    train(folder)


def child(work: Callable[[Path], None], folder: Path, seconds: float | None) -> int:
    """Run in a forked process, kill it after some seconds, and return the signal that ended it, 0 for none."""
    if (process := os.fork()) == 0:
        try:
            work(folder)
        finally:
            os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(process, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def main(folder: Path, seed: int) -> None:
    torch.set_num_threads(1)
    start = time.perf_counter()
    signals = [child(train, folder / "whole", None)]
    training = time.perf_counter() - start
    start = time.perf_counter()
    child(train, folder / "whole", None)  # nothing is left to do: this is the time to start
    starting = time.perf_counter() - start
    moments = random.Random(seed)
    for kill in range(NUM_KILLS):
        work = break_checkpoints if kill == NUM_KILLS // 2 else train
        allowed = None if work is break_checkpoints else moments.uniform(0, starting + 0.15 * training)
        signals.append(child(work, folder / "killed", allowed))
    signals.append(child(train, folder / "killed", None))
    print(json.dumps(signals))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
