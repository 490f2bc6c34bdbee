"""
Callbacks for runs that can be killed at any moment and still give the same numbers, which Lightning
does not provide.
"""

import csv
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Any

import lightning.pytorch as lightning
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint, EarlyStopping, TQDMProgressBar
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from pyro_tkam._files import disk_errors_named, replacing
from pyro_tkam.train.checkpoints import read_checkpoint, write_checkpoint
from pyro_tkam.train.folder import digest
from pyro_tkam.train.ownership import Terminated, raise_terminated


class AtomicCheckpoints(TorchCheckpointIO):
    """
    Checkpoints that are written to a temporary file next to the target and then renamed, because
    Lightning's temporary file may be on another disk.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint; see :func:`~pyro_tkam.train.checkpoints.write_checkpoint`."""
        write_checkpoint(checkpoint, Path(path))

    def load_checkpoint(
        self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read a checkpoint; see :func:`~pyro_tkam.train.checkpoints.read_checkpoint`."""
        return read_checkpoint(Path(path), map_location)


class StoppedError(Exception):
    """Raised when a signal stops the run, after its last checkpoint is written."""


class StopSignals(Callback):
    """
    Record SIGTERM and Ctrl-C during training, so that the run stops between two updates.

    Lightning's handler of SIGTERM ends a run with status 0 and communicates with other processes in
    the middle of an update. Handlers that were set earlier are also called. A second signal takes
    effect at once.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._earlier: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def on_fit_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Remember the handlers before Lightning adds its own."""
        if threading.current_thread() is threading.main_thread():  # no handlers in others
            self._earlier = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}

    def on_train_start(self, *_: Any) -> None:
        """Replace Lightning's handlers; the earlier handlers are restored at the end."""
        for number in self._earlier:
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        earlier = self._earlier[number]
        if self.received is not None:
            (earlier if callable(earlier) else raise_terminated)(number, frame)
        elif callable(earlier) and earlier not in (raise_terminated, signal.default_int_handler):
            earlier(number, frame)
        self.received = number

    def agreed(self, trainer: lightning.Trainer) -> bool:
        """
        Return whether any process received a signal; all processes get the same answer.

        :param trainer: the trainer.
        """
        if trainer.received_sigterm:  # a signal before training began
            self.received = signal.SIGTERM
        any_received: bool = trainer.strategy.reduce_boolean_decision(
            self.received is not None, all=False
        )
        if any_received and self.received is None:
            self.received = signal.SIGTERM
        return any_received

    def error(self, when: str, local_rank: int) -> BaseException:
        """
        Return the exception to raise after everything is written.

        :param when: how far the run got.
        :param local_rank: rank of the process on this machine; the first process reports for all.
        """
        if local_rank:
            return SystemExit(0)
        return KeyboardInterrupt(when) if self.received == signal.SIGINT else Terminated(when)


class LastCheckpoint(Checkpoint):
    """
    Replace one checkpoint file before the first update, at regular intervals, and after the last
    update, even if a signal stops the run. Its state contains no path, so folders can be moved.

    :param path: the file.
    :param every: number of updates between checkpoints.
    :param signals: the callback that receives signals.
    :raises StoppedError: after the checkpoint, if there was a signal.
    """

    def __init__(self, path: Path, every: int, signals: StopSignals) -> None:
        self.path = path
        self.every = every
        self.signals = signals

    def on_train_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Save before the first update, so that metrics always have a checkpoint."""
        if trainer.global_step == 0:
            trainer.save_checkpoint(self.path)

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Save at regular intervals."""
        is_last = trainer.global_step == trainer.max_steps or trainer.should_stop
        stops = self.signals.agreed(trainer)
        if is_last or stops or trainer.global_step % self.every == 0:
            trainer.save_checkpoint(self.path)
        if stops:
            raise StoppedError


class RandomState(Callback):
    """
    Keep torch's generators in the checkpoint, and restore them just before the first batch.

    If several processes train together, all have the generator states of the first one between
    updates. During an update, they draw the same numbers if the objective shares its draws among
    all data; otherwise they use separate streams.
    """

    def __init__(self) -> None:
        self._saved: dict[str, Tensor] | None = None
        self._device = torch.device("cpu")

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Remember the device on which draws are made."""
        self._device = trainer.strategy.root_device

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the CPU and accelerator generators."""
        state = {"cpu": torch.get_rng_state()}
        if self._device.type != "cpu":
            state[self._device.type] = torch.get_device_module(self._device).get_rng_state()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state for the first batch, because setting up a run also draws numbers."""
        self._saved = state_dict

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Give all processes the same state at the start."""
        self._share(trainer)

    def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: Any, *_: Any) -> None:
        """
        Restore the generators once; then separate the streams of processes that should differ.
        """
        if self._saved is not None:
            self._put_back(self._saved)
            self._saved = None
        if trainer.global_rank > 0 and not pl_module.shares_draws:
            torch.manual_seed(int(torch.randint(2**63 - 1, (trainer.global_rank,))[-1]))

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Give all processes the same state again, mainly for grid updates."""
        self._share(trainer)

    def _share(self, trainer: lightning.Trainer) -> None:
        if trainer.world_size > 1:
            self._put_back(trainer.strategy.broadcast(self.state_dict()))

    def _put_back(self, state: dict[str, Tensor]) -> None:
        torch.set_rng_state(state["cpu"].cpu())
        if self._device.type in state and self._device.type != "cpu":
            torch.get_device_module(self._device).set_rng_state(state[self._device.type].cpu())


class MetricsFile(Callback):
    """
    Write the logged metrics of every update to a CSV file, one row per update, before a checkpoint
    can contain that update. A checkpoint contains the checksum of the rows.

    A run that resumes from a checkpoint first drops later rows. Times are not written, because they
    are not reproducible. With several processes, the first one writes.

    :param path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._written = digest()

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Drop the rows that come after the checkpoint."""
        if not trainer.is_global_zero:
            return
        update = trainer.global_step
        lines = self.path.read_bytes().splitlines(keepends=True) if update else []
        kept = b"".join(lines[: update + 1])
        self._written = digest(kept)
        with replacing(self.path) as aside:
            aside.write_bytes(kept)

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Append the row of this update."""
        if not trainer.is_global_zero:
            return
        row = {
            "update": trainer.global_step,
            **{k: v.item() for k, v in trainer.callback_metrics.items()},
        }
        text = io.StringIO()
        writer = csv.DictWriter(text, row, lineterminator="\n")
        if trainer.global_step == 1:
            writer.writeheader()
        writer.writerow(row)
        content = text.getvalue().encode()
        with disk_errors_named(self.path), self.path.open("ab") as file:
            file.write(content)
        self._written.update(content)

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        """Flush the rows to disk before the checkpoint, and put their checksum into it."""
        if not trainer.is_global_zero:
            return
        with disk_errors_named(self.path), self.path.open("rb+") as file:
            os.fsync(file.fileno())
        checkpoint["metrics"] = {
            "updates": trainer.global_step,
            "checksum": self._written.hexdigest(),
        }


BLOCK = 100
"""Number of updates per block, over which losses are averaged."""


class StopEarly(EarlyStopping):
    """
    Lightning's ``EarlyStopping`` on the mean loss of blocks of updates, because a run has no
    epochs.

    A stopped run stays stopped: if restarted, it ends at the same update. Several processes reach
    the same decision, because the logged loss is the mean over them.

    :param patience: number of blocks without a new best after which training stops.
    """

    def __init__(self, patience: int) -> None:
        super().__init__("loss", patience=patience, check_on_train_epoch_end=False)
        self._losses: list[float] = []

    @property
    def stopped(self) -> bool:
        """Whether the run was stopped early."""
        return self.stopping_reason != EarlyStoppingReason.NOT_STOPPED

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Stop a run that was already stopped."""
        trainer.should_stop = self.stopped

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Check at the end of a block."""
        self._losses.append(trainer.callback_metrics["loss"].item())
        if len(self._losses) == BLOCK:
            trainer.should_stop, _ = self._evaluate_stopping_criteria(
                torch.tensor(self._losses).mean()
            )
            self._losses.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return Lightning's state and the losses of the current block."""
        return {**super().state_dict(), "losses": list(self._losses)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume from a state."""
        super().load_state_dict(state_dict)
        self._losses = list(state_dict["losses"])


class StepTime(Callback):
    """Measure how long updates take, in seconds."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._start = 0.0

    def on_train_batch_start(self, *_: Any) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        """Stop the clock."""
        self.seconds.append(time.perf_counter() - self._start)

    @property
    def median(self) -> float | None:
        """Median seconds per update; None before the first update."""
        return median(self.seconds) if self.seconds else None


class ProgressBar(TQDMProgressBar):
    """
    A bar over all updates, with the logged metrics and the seconds of the last update.

    :param times: the callback that measures step times.
    """

    def __init__(self, times: StepTime) -> None:
        super().__init__(refresh_rate=20)
        self._times = times
        self._begun = False

    def init_train_tqdm(self) -> Tqdm:
        """Make the bar; it starts at the run's first update and has the run's total."""
        self._begun = True
        return Tqdm(
            desc=self.train_description,
            initial=self.trainer.global_step,
            total=self.trainer.max_steps,
            position=2 * self.process_position,
            disable=self.is_disabled,
            leave=True,
            dynamic_ncols=True,
            file=sys.stdout,
            smoothing=0,
            bar_format=self.BAR_FORMAT,
        )

    def on_train_epoch_start(self, *_: Any) -> None:
        """
        Do nothing: the bar is for the whole run, and a run that resumes within an epoch starts no
        epoch.
        """

    def on_exception(self, *_: Any) -> None:
        """End the line of the bar, so that the next message gets its own line."""
        if self._begun:
            self.train_progress_bar.close()

    def get_metrics(self, *args: Any) -> dict[str, Any]:
        """Return the metrics at the end of the bar."""
        last = {"seconds": f"{self._times.seconds[-1]:.3f}"} if self._times.seconds else {}
        return {**super().get_metrics(*args), **last}
