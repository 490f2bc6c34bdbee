"""What runs of many chains share: warm-up, progress, interruption and resumption."""

from __future__ import annotations

import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from typing import Any, ClassVar, Protocol

import pyro
import torch
from pyro import poutine
from pyro.infer.mcmc.logger import ProgressBar
from pyro.infer.mcmc.util import select_samples
from torch import Tensor

from pyro_tkam._checks import flag, whole_number
from pyro_tkam.infer.mcmc.checkpoint import checkpoint_file, load_checkpoint, save_checkpoint
from pyro_tkam.infer.mcmc.metric import Evaluated
from pyro_tkam.infer.model.attempt import telling_memory
from pyro_tkam.infer.model.coordinates import Layout
from pyro_tkam.infer.model.failures import ROW_ERRORS

STATE_ENTRIES = {
    "kernel",
    "sites",
    "log_density",
    "steps",
    "warmup_steps",
    "num_chains",
    "rng",
    "chains",
    "records",
}
"""What a state is made of."""

PROBED = 0.5
"""The largest of the coordinates at which log densities are compared, to tell models apart."""


class Sampled(Evaluated, Protocol):
    """A log density of which a state tells that it is the same."""

    @property
    def layout(self) -> Layout:
        """Where each site lies in a position."""

    def draw_start(self, num: int) -> Tensor:
        """Draw positions ``(num, *local, dim)`` at which chains might start."""


class BatchRun(ABC):
    """A run of ``warmup_steps + num_samples`` steps whose records fill one draw at a time.

    :param kernel: what moves the chains.
    :param num_samples: number of draws kept of each chain.
    :param warmup_steps: number of first steps, dropped; as many as draws if None.
    :param num_chains: number of chains.
    :param disable_progbar: show no progress.
    :param checkpoint: file to write the state to; the next run on the same arguments resumes from
        it, to the same bits. None writes no file.
    :param checkpoint_every: steps between two writes.
    :raises ValueError: if a number is out of range, or the file's folder is missing.
    """

    def __init__(
        self,
        kernel: Any,
        num_samples: int,
        warmup_steps: int | None,
        num_chains: int,
        disable_progbar: bool,
        checkpoint: str | PathLike[str] | None = None,
        checkpoint_every: int = 100,
    ) -> None:
        self.kernel = kernel
        warmup_steps = num_samples if warmup_steps is None else warmup_steps
        for name, value, least in (
            ("num_samples", num_samples, 1),
            ("warmup_steps", warmup_steps, 0),
            ("num_chains", num_chains, 1),
            ("checkpoint_every", checkpoint_every, 1),
        ):
            whole_number(name, value, least)
        self.num_samples = num_samples
        self.warmup_steps = warmup_steps
        self.num_chains = num_chains
        self.disable_progbar = flag("disable_progbar", disable_progbar)
        self.checkpoint = None if checkpoint is None else checkpoint_file(checkpoint)
        self.checkpoint_every = checkpoint_every
        self._unsaved = 0
        self._records: dict[str, Tensor] = {}
        self._done = 0
        self._rng: dict[str, Tensor] = {}
        self._identity: dict[str, Any] = {}
        self._resumed: dict[str, Any] | None = None

    #: what the chains' part of a state is made of
    entries: ClassVar[frozenset[str]]
    #: those of the entries that must be as in this run
    settings: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def _begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.device:
        """Set up the chains; return their device."""

    @abstractmethod
    def _step(self, index: int) -> dict[str, Tensor]:
        """Make one step and return what to keep of it."""

    @abstractmethod
    def _state(self) -> dict[str, Any]:
        """Return the chains' state."""

    @abstractmethod
    def _load(self, state: dict[str, Any]) -> None:
        """Restore the chains' state."""

    @abstractmethod
    def _finish(self) -> None:
        """Turn the records into results; called at the end and when interrupted."""

    def _prepare(self) -> bool:
        """Make a step of what comes before the warm-up; tell whether there was one left."""
        return False

    @abstractmethod
    def _sampled(self) -> Sampled:
        """Return what the chains sample."""

    def _after_step(self, index: int) -> None:
        """
        Do what follows a step; what it raises leaves a state that :meth:`resume` can go on from.
        """
        return

    def _must_stop(self) -> bool:
        """Tell whether no further step may be made."""
        return False

    def _status(self) -> dict[str, str]:
        """Return what the progress bar shows."""
        return {}

    @property
    def state(self) -> dict[str, Any]:
        """All that :meth:`resume` needs: numbers, strings and tensors, fit for ``torch.save``."""
        if not self._rng:
            raise RuntimeError("run() must be called first: there is no state yet")
        return {
            **self._identity,
            "steps": self._done,
            "warmup_steps": self.warmup_steps,
            "num_chains": self.num_chains,
            "rng": self._rng,
            "chains": self._state(),
            "records": {name: value[: self.num_draws] for name, value in self._records.items()},
        }

    @property
    def num_draws(self) -> int:
        """Number of draws made so far."""
        return max(0, self._done - self.warmup_steps)

    def resume(self, state: dict[str, Any]) -> None:
        """
        Make the next :meth:`run` go on from a state, to the same bits as if it had never stopped.

        :param state: of a run with the same model, data, kernel, chains and warm-up;
            ``num_samples`` may be larger.
        :raises ValueError: if it is no state, or that of another kernel, number of chains or of
            warm-up steps; :meth:`run` refuses that of another model or other data.
        """
        if not isinstance(state, Mapping) or not state.keys() >= STATE_ENTRIES:
            got = sorted(state) if isinstance(state, Mapping) else type(state).__name__
            raise ValueError(f"state must have the entries {sorted(STATE_ENTRIES)}, got {got}")
        if not isinstance(state["chains"], Mapping) or state["chains"].keys() != self.entries:
            raise ValueError(
                f"state must come from a {type(self).__name__}, which has the entries "
                f"{sorted(self.entries)}, got {sorted(state['chains'])}"
            )
        if state["kernel"] != type(self.kernel).__name__:
            raise ValueError(
                f"state must come from the kernel {type(self.kernel).__name__}, got one from "
                f"{state['kernel']}"
            )
        for name in ("warmup_steps", "num_chains", *self.settings):
            saved = state["chains"][name] if name in self.settings else state[name]
            if saved != getattr(self, name):
                raise ValueError(
                    f"state must have been saved with {name}={getattr(self, name)}, as this run "
                    f"has, got {saved}"
                )
        self._resumed = state

    def _identify(self) -> dict[str, Any]:
        """
        Return kernel, sites and log densities, at positions that are always the same, of what is
        sampled: a state is of no use where these differ.
        """
        density = self._sampled()
        with torch.random.fork_rng(devices=[]):
            like = density.draw_start(1)
        rows = torch.linspace(-PROBED, PROBED, self.num_chains).to(like)
        position = rows.reshape(-1, *(1,) * (like.ndim - 1)).expand(-1, *like.shape[1:])
        try:
            log_density = density.point(position.contiguous()).log_density
        except ROW_ERRORS:  # at these positions the model is not defined
            log_density = like.new_full((self.num_chains, *like.shape[1:-1]), torch.nan)
        return {
            "kernel": type(self.kernel).__name__,
            "sites": {name: list(site.shape) for name, site in density.layout.sites.items()},
            "log_density": log_density,
        }

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if torch.is_inference_mode_enabled():
            raise RuntimeError(
                "inference mode must be off, as samplers take gradients, got "
                "torch.inference_mode(); use torch.no_grad()"
            )
        with poutine.block(), pyro.validation_enabled(False):
            self._records = {}
            self._done = 0
            self._rng = {}
            self._unsaved = 0
            if self.checkpoint is not None and self._resumed is None and self.checkpoint.exists():
                self.resume(load_checkpoint(self.checkpoint))
            device = self._begin(args, kwargs)
            self._identity = self._identify()
            if self._resumed is not None:
                self._restore(self._resumed, device)
            try:
                self._loop(device)
            finally:
                self._finish()

    def _restore(self, state: dict[str, Any], device: torch.device) -> None:
        own = self._identity
        if state["sites"] != own["sites"]:
            raise ValueError(
                f"state must come from a model with the sites {own['sites']}, got {state['sites']}"
            )
        saved = state["log_density"].to(own["log_density"])
        if not torch.allclose(saved, own["log_density"], rtol=1e-4, atol=1e-3, equal_nan=True):
            raise ValueError(
                "state must come from the same model and data, got a log density of "
                f"{float(saved.sum()):.6g} where this run has "
                f"{float(own['log_density'].sum()):.6g}"
            )
        self._load(state["chains"])
        self._done = state["steps"]
        self._resumed = None
        for name, value in state["records"].items():
            self._records[name] = value.new_empty(self.num_samples, *value.shape[1:])
            self._records[name][: len(value)] = value[: self.num_samples]
        _set_rng(state["rng"], device)

    def _loop(self, device: torch.device) -> None:
        total = self.warmup_steps + self.num_samples
        bar = ProgressBar(self.warmup_steps, self.num_samples, disable=self.disable_progbar)
        self._rng = _get_rng(device)
        with bar, _deferred_interrupt() as interrupted:
            while self._prepare():
                self._rng = _get_rng(device)
                self._show_start(bar)
                self._save_now_and_then(last=False)
                if interrupted:
                    raise KeyboardInterrupt
            for index in range(self._done, total):
                if self._must_stop():
                    break
                self._keep(index - self.warmup_steps, self._step(index))
                self._done = index + 1
                self._rng = _get_rng(device)
                self._after_step(index)
                self._rng = _get_rng(device)  # it may have drawn
                self._show(bar, index)
                self._save_now_and_then(last=index == total - 1)
                if interrupted:
                    raise KeyboardInterrupt

    def _save_now_and_then(self, last: bool) -> None:
        if self.checkpoint is None:
            return
        self._unsaved += 1
        if last or self._unsaved >= self.checkpoint_every:
            save_checkpoint(self.checkpoint, self.state)
            self._unsaved = 0

    def _keep(self, draw: int, values: dict[str, Tensor]) -> None:
        if draw < 0:
            return
        if not self._records:
            with telling_memory("num_samples", self.num_samples):
                self._records = {
                    name: value.new_empty(self.num_samples, *value.shape)
                    for name, value in values.items()
                }
        for name, value in values.items():
            self._records[name][draw] = value

    def _show_start(self, bar: ProgressBar) -> None:
        if not bar.disable:
            bar.set_description("Start", refresh=False)
            bar.set_postfix(self._status())

    def _show(self, bar: ProgressBar, index: int) -> None:
        if not bar.disable:
            bar.set_description("Warmup" if index < self.warmup_steps else "Sample", refresh=False)
            if index % 20 == 0:
                bar.set_postfix(self._status(), refresh=False)
            bar.update()


def check_mass(prob: Any) -> float:
    """Return the mass of a credible interval, or refuse it."""
    if not isinstance(prob, int | float) or not 0 < prob < 1:
        raise ValueError(f"prob must be a number between 0 and 1, got {prob!r}")
    return prob


def select_draws(
    samples: dict[str, Tensor], num_samples: int | None, group_by_chain: bool
) -> dict[str, Tensor]:
    """
    Return draws by site as Pyro's samplers do.

    :param samples: ``(chain, draw, ...)`` by site.
    :param num_samples: if given, draw this many with replacement.
    :param group_by_chain: keep the chain dimension.
    :raises ValueError: if ``num_samples`` is not a whole number of at least 0.
    """
    if num_samples is not None:
        whole_number("num_samples", num_samples, 0)
    selected: dict[str, Tensor] = select_samples(
        samples, num_samples, flag("group_by_chain", group_by_chain)
    )
    return selected


@contextmanager
def _deferred_interrupt() -> Iterator[list[int]]:
    """
    Collect the first Ctrl-C in a list, so that a step is never cut in half; the second one acts at
    once.
    """
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    previous = signal.getsignal(signal.SIGINT)

    def handle(number: int, frame: Any) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(number)

    signal.signal(signal.SIGINT, handle)
    try:
        yield caught
    finally:
        signal.signal(signal.SIGINT, previous)


def _get_rng(device: torch.device) -> dict[str, Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def _set_rng(state: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
