"""
Run small commands again and again in forked processes that are stopped; run as a script by
``test_trainer.py``.

``killed_runs.py FOLDER SEED WORK UPDATES SIGNAL STOPS ...``, where the last four may be repeated:
``FOLDER/WORK/whole`` is done without a break, ``FOLDER/WORK/SIGNAL-0`` with ``STOPS`` signals at
random moments; where it is done before, ``SIGNAL-1`` takes the rest, and so on. ``WORK`` is one of
``WORKS`` below, ``SIGNAL`` is ``SIGKILL`` or ``SIGTERM``, whose exit status is checked; one of
them arrives while a checkpoint is being written. Prints the number of signals of each.
"""

import importlib
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyro
import torch

from pyro_tkam.__main__ import main as command_line
from pyro_tkam.datasets import digits
from pyro_tkam.infer import AutoMALA, ImportanceMLE, LangevinMLE
from pyro_tkam.models import TKAM
from pyro_tkam.paper.experiments import EXPERIMENTS, Scale
from pyro_tkam.train import ELBOTraining, checkpoints, fit

EVERY = 2  # updates from checkpoint to checkpoint; it divides no epoch
MODEL = {"latent_dim": 2, "grid_size": 5, "widths": [8], "noise_scale": 0.3}


def fitted(make_elbo: Callable[[], object]) -> Callable[[Path, int], None]:
    def work(folder: Path, updates: int) -> None:
        pyro.set_rng_seed(3)
        images = digits().images[:320]
        module = ELBOTraining(
            TKAM.kart((8, 8), coupling="shared", **MODEL), make_elbo(), size=len(images)
        )
        fit(
            module,
            images,
            folder,
            updates=updates,
            batch_size=64,
            checkpoint_every=EVERY,
            clip_norm=1.0,
            progress=False,
        )

    return work


def commanded(name: str) -> Callable[[Path, int], None]:
    """Return a command, which goes on as the one that it names when it has begun."""

    def work(folder: Path, updates: int) -> None:
        words = [name, str(folder)]
        if name == "train" and (folder / "config.yaml").exists():
            words = ["resume", str(folder)]
        else:
            options = {f"model.{key}": value for key, value in MODEL.items()} | {
                "data": "digits",
                "held_out": 50,
                "updates": updates,
                "batch_size": 160,  # 11 batches an epoch
                "num_particles": 10,
                "checkpoint_every": EVERY,
                "device": "cpu",
            }
            words += [f"--{key}={value}" for key, value in options.items()]
        if status := command_line(words):
            sys.exit(status)

    return work


REPRODUCED = Scale(
    data="darcy",
    training=60,
    held_out=20,
    updates=1,
    batch_size=10,
    model={**MODEL, "coupling": "shared"},
    objective={"num_particles": 5},
    sizes=(30, 40, 50),
)


def reproduced(folder: Path, updates: int) -> None:
    reproduce = importlib.import_module("pyro_tkam.paper.reproduce")
    reproduce.fit = partial(
        fit, checkpoint_every=EVERY
    )  # not 200, so that kills fall between several
    scales = {"small": replace(REPRODUCED, updates=updates)}
    row = replace(EXPERIMENTS["darcy-uniform-rbf"], scales=scales)
    reproduce.reproduce(row, "small", folder, data=folder.parent, progress=False)


WORKS: dict[str, Callable[[Path, int], None]] = {
    "importance": fitted(lambda: ImportanceMLE(10)),
    "automala": fitted(lambda: LangevinMLE(AutoMALA, num_steps=2, max_step_size=2.0)),
    "train": commanded("train"),
    "demo": commanded("demo"),
    "reproduce": reproduced,
}


def break_checkpoints(number: int) -> None:
    """
    Let a signal arrive in this process's third checkpoint, of which a killed one writes only a
    part.
    """
    save, calls = torch.save, iter((False, False, True))

    def save_or_die(content: object, file: object) -> None:
        if next(calls, True):
            if number == signal.SIGKILL:
                file.write(b"half of a checkpoint")
                file.flush()
            os.kill(os.getpid(), number)
        save(content, file)

    checkpoints.torch.save = save_or_die


def stopped(work: Callable[[], None], number: int, seconds: float | None = None) -> bool:
    """
    Run in a forked process, stop it after some seconds, and tell whether it was stopped before it
    was done.
    """
    if (process := os.fork()) == 0:
        status = 1
        try:
            work()
            status = 0
        except SystemExit as end:
            status = end.code
        finally:
            sys.stdout.flush()
            os._exit(status)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(process, number)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    # Before the command begins, or after it, SIGTERM ends the process at once.
    allowed = (0, 143, -number) if number == signal.SIGTERM else (0, -number)
    if code not in allowed:
        raise RuntimeError(f"the work failed with exit code {code}")
    return code != 0


def import_libraries() -> None:
    """Import what commands import as they run, so that no forked process has to."""
    for name in ("arviz", "h5netcdf", "jsonargparse", "matplotlib.pyplot", "scipy.optimize"):
        importlib.import_module(name)


def measured(folder: Path, name: str, updates: int, number: int) -> float:
    """Do the work without a break, and return how long it took."""
    if name == "reproduce":  # makes data once, which are no part of a run's duration
        REPRODUCED.images(folder)
    start = time.perf_counter()
    stopped(lambda: WORKS[name](folder / "whole", updates), number)
    return time.perf_counter() - start


def stop(
    folder: Path, seed: int, name: str, updates: int, signal_name: str, stops: int, duration: float
) -> int:
    """Do the work until so many signals have stopped it, and return their number."""
    work, number = WORKS[name], signal.Signals[signal_name]
    moments, done, runs = random.Random(seed), 0, 0
    while done < stops:
        breaking = done == stops // 2

        def next_try(breaking: bool = breaking, run: int = runs) -> None:
            if breaking:
                break_checkpoints(number)
            work(folder / f"{signal_name}-{run}", updates)

        seconds = None if breaking else moments.uniform(0, 0.8 * duration)
        if stopped(next_try, number, seconds):
            done += 1
        else:
            runs += 1
    stopped(lambda: work(folder / f"{signal_name}-{runs}", updates), number)
    return done


def main(folder: Path, seed: int, *words: str) -> None:
    torch.set_num_threads(1)
    import_libraries()
    durations: dict[tuple[str, str], float] = {}
    for name, updates, signal_name, stops in zip(*[iter(words)] * 4, strict=True):
        place = folder / name
        place.mkdir(exist_ok=True)
        whole = (name, updates)
        if whole not in durations:
            number = signal.Signals[signal_name]
            durations[whole] = measured(place, name, int(updates), number)
        print(stop(place, seed, name, int(updates), signal_name, int(stops), durations[whole]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
