"""Train a Lightning module in a run folder, from its last checkpoint if there is one."""

import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import Dataset

from pyro_tkam._checks import (
    file_path,
    flag,
    instance,
    length,
    sequence,
    text,
    whole_number,
)
from pyro_tkam._optional import needs
from pyro_tkam.datasets import as_dataset
from pyro_tkam.train.batches import SeededBatches
from pyro_tkam.train.callbacks import (
    AtomicCheckpoints,
    LastCheckpoint,
    MetricsFile,
    ProgressBar,
    RandomState,
    StepTime,
    StopEarly,
    StoppedError,
    StopSignals,
)
from pyro_tkam.train.checkpoints import last_checkpoint
from pyro_tkam.train.config import check_hardware
from pyro_tkam.train.folder import RunFolder
from pyro_tkam.train.module import ELBOTraining
from pyro_tkam.train.ownership import sole_owner


def fit(
    module: ELBOTraining,
    data: Any,
    folder: Path | str,
    *,
    updates: int = 2000,
    batch_size: int = 100,
    seed: int = 0,
    clip_norm: float | None = None,
    checkpoint_every: int = 200,
    patience: int | None = None,
    tensorboard: bool = False,
    device: str = "auto",
    devices: int = 1,
    num_nodes: int = 1,
    precision: str = "32-true",
    progress: bool = True,
    callbacks: tuple[Callback, ...] = (),
) -> float | None:
    """
    Train, and write ``metrics.csv`` and ``checkpoints/last.ckpt`` into a folder.

    If the folder has a checkpoint, training continues from it. A run that was killed at any moment
    and resumed gives the same metrics as an uninterrupted run, to the last digit, on the same
    machine with the same number of threads. SIGTERM and Ctrl-C stop it after the current update,
    with a checkpoint; SIGTERM gives exit status 143.

    :param module: model, guide and objective, as they were at the start of the run.
    :param data: a tensor or array of shape ``(num, *event)``, floating point or 64-bit integers; a
        tuple or dictionary of them; or a map-style ``Dataset`` of tensors, tuples or dictionaries.
        A mini-batch has the same structure. It is the model's first argument; a tuple is its first
        arguments, so pass labels as ``(x, label)``.
    :param folder: the run folder; created if necessary.
    :param updates: total number of gradient steps.
    :param batch_size: rows per gradient step, of all processes together.
    :param seed: seed of the order of the data. For the draws, call ``pyro.set_rng_seed`` before you
        make the model.
    :param clip_norm: largest norm of a gradient; larger gradients are scaled down to it; None turns
        this off.
    :param checkpoint_every: number of updates between checkpoints.
    :param patience: stop after this many blocks of 100 updates without a new best mean loss; None
        never stops early.
    :param tensorboard: also write the metrics for TensorBoard, into ``tensorboard`` in the folder.
    :param device: name of a Lightning accelerator: ``"auto"``, ``"cpu"``, ``"gpu"``, ``"mps"``, …
    :param devices: number of processes per machine, one device each; Lightning's DDP shares the
        batches among them. It starts them by running the same script again, so all code around this
        call runs in each.
    :param num_nodes: number of machines; start the script on each.
    :param precision: ``"32-true"``, which keeps the model's dtype, or ``"bf16-mixed"``, which
        computes matrix products of networks in half precision; tables of the prior and log
        densities stay in single precision.
    :param progress: show a progress bar.
    :param callbacks: further Lightning callbacks.
    :return: median seconds per update; None if nothing was left to do.
    :raises ImportError: for ``tensorboard`` if it is not installed.
    :raises TypeError: for data of an unsupported type.
    :raises ValueError: for data that cannot be trained on, sizes below one, a batch that the
        processes cannot share, an unknown precision, and a folder with damaged files.
    :raises BlockingIOError: if another process trains in the folder.
    :raises OSError: if the disk is full; the last checkpoint is kept.
    """
    for name, value in (
        ("updates", updates),
        ("checkpoint_every", checkpoint_every),
        ("patience", patience),
    ):
        if value is not None:
            whole_number(name, value, 1)
    instance("module", module, ELBOTraining, "an ELBOTraining")
    seed = whole_number("seed", seed, 0)
    if clip_norm is not None:
        length("clip_norm", clip_norm)
    flag("tensorboard", tensorboard)
    flag("progress", progress)
    text("device", device)
    sequence("callbacks", callbacks, "Lightning callbacks")
    for each in callbacks:
        instance("every element of callbacks", each, Callback, "a Lightning Callback")
    folder = file_path("folder", folder)
    check_hardware(batch_size, devices, num_nodes, precision)
    dataset: Dataset[Any] = as_dataset(data)
    batches = SeededBatches(dataset, batch_size, updates, seed)
    files = RunFolder(folder)
    times = StepTime()
    signals = StopSignals()
    save = LastCheckpoint(files.checkpoint, checkpoint_every, signals)
    optional = [
        *([ProgressBar(times)] if progress else []),
        *([StopEarly(patience)] if patience else []),
    ]
    own = [signals, times, MetricsFile(files.metrics), RandomState()]
    module.initialize(batches.first())
    trainer = _trainer(
        device,
        devices=devices,
        num_nodes=num_nodes,
        precision=precision,
        max_steps=updates,
        gradient_clip_val=clip_norm,
        callbacks=[*own, *optional, *callbacks, save],
        enable_progress_bar=progress,
        default_root_dir=files.path,
        logger=_tensorboard(files.path) if tensorboard else False,
        log_every_n_steps=1,
    )
    with sole_owner(files.path, "fit", devices * num_nodes):
        resume = None if last_checkpoint(files) is None else str(files.checkpoint)
        _run(trainer, module, batches, resume)
        if signals.received is not None:
            when = f"after update {trainer.global_step} of {updates}"
            raise signals.error(when, trainer.local_rank)
    return times.median


def _run(trainer: lightning.Trainer, module: Any, batches: Any, resume: str | None) -> None:
    """Train until the end or a signal."""
    try:
        # Lightning 2.6 makes tree specs in a way that torch 2.13 tells everyone will go: nothing
        # that a user, or this package, could do about.
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", category=FutureWarning, module=r"lightning\.pytorch\.utilities\._pytree"
            )
            trainer.fit(module, batches, ckpt_path=resume, weights_only=True)
    except StoppedError:
        pass
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):  # Lightning hides it
            raise end.__context__ from None
        raise


def _tensorboard(folder: Path) -> TensorBoardLogger:
    with needs("tensorboard"):
        import_module("tensorboard")
    return TensorBoardLogger(folder, name="", version="tensorboard")


def _trainer(device: str, **options: Any) -> lightning.Trainer:
    """Make a trainer that writes no checkpoints of its own."""
    try:
        return lightning.Trainer(
            accelerator=device,
            plugins=[AtomicCheckpoints()],
            enable_model_summary=False,
            **options,
        )
    except (ValueError, MisconfigurationException) as error:
        raise ValueError(
            f"device must be available on this machine, got {device!r} with "
            f"devices={options['devices']}: {error}"
        ) from error
