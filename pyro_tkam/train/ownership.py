"""
A lock that lets only one process at a time write to a folder, and the message when that process is
stopped.
"""

import json
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import NoReturn

from pyro_tkam._files import ASIDE, write_text
from pyro_tkam._optional import needs

_LOGGER = logging.getLogger("pyro_tkam")
_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
_OWNED: list[Path] = []


class Terminated(SystemExit):
    """
    SIGTERM, which schedulers use to end a process: exit status 143, as in shells.

    :param when: how far the process got.
    """

    def __init__(self, when: str = "") -> None:
        super().__init__(143)
        self.when = when


def raise_terminated(number: int, frame: FrameType | None) -> NoReturn:
    """Handle SIGTERM if nothing has to be finished first."""
    raise Terminated


def is_first_process(processes: int) -> bool:
    """
    Tell whether this process is the first of those that share a run, even before they connect.

    :param processes: the number of processes.
    """
    return processes == 1 or all(int(os.environ.get(name) or 0) == 0 for name in _RANKS)


@contextmanager
def sole_owner(
    folder: Path,
    task: str,
    processes: int = 1,
    go_on: Callable[[], str] = lambda: "repeat the call to continue from there",
) -> Iterator[None]:
    """
    Keep other processes from writing to a folder inside the context.

    The operating system holds the lock and releases it when the process ends for any reason.
    Anything that a killed process left behind is reported and cleared away. If SIGTERM or Ctrl-C
    stops the body, one line says how to resume.

    :param folder: the folder; created if necessary, and removed if nothing was written to it.
    :param task: what is being done there, for the error message in other processes.
    :param processes: the number of processes that share the task; the first one owns the folder for
        all.
    :param go_on: a sentence that says how to resume.
    :raises BlockingIOError: at once, if another process or thread owns it.
    """
    with needs("train"):
        from filelock import FileLock, Timeout
    if not is_first_process(processes):
        yield
        return
    lock = FileLock(folder / ".lock", timeout=0, is_singleton=True)
    if lock.is_locked:
        yield
        return
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    owner = folder / ".owner"
    try:
        lock.acquire()
    except Timeout:
        raise BlockingIOError(
            f"{folder} is in use{_described(owner)}; wait until it is free, or use another folder"
        ) from None
    _OWNED.append(folder)
    try:
        _clear(folder, owner)
        write_text(owner, _own_description(task))
        yield
    except (KeyboardInterrupt, Terminated) as stop:
        _tell(stop, go_on())
        raise
    finally:
        _OWNED.remove(folder)
        for file in (owner, Path(lock.lock_file)):
            with suppress(OSError):
                file.unlink()
        lock.release()
        for each in made:
            with suppress(OSError):
                each.rmdir()


def _own_description(task: str) -> str:
    return json.dumps(
        {
            "task": task,
            "process": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now().isoformat(timespec="seconds"),
        }
    )


def _described(owner: Path) -> str:
    """Describe the owner of a folder, as far as it is known."""
    try:
        return " by `{task}`, process {process} on {host} since {since}".format(
            **json.loads(owner.read_text(encoding="utf-8"))
        )
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _clear(folder: Path, owner: Path) -> None:
    """Report an owner that was killed, and remove its unfinished files."""
    if owner.exists():
        _LOGGER.warning(
            "%s: its last use%s ended unexpectedly; continuing from its complete files",
            folder,
            _described(owner),
        )
    for file in (*folder.glob(ASIDE), *folder.glob(f"checkpoints/{ASIDE}")):
        file.unlink(missing_ok=True)


def _tell(stop: BaseException, go_on: str) -> None:
    """Say what was stopped and how to resume: once, for the outermost folder."""
    if len(_OWNED) > 1:
        return
    name = "SIGTERM" if isinstance(stop, Terminated) else "Ctrl-C"
    when = stop.when if isinstance(stop, Terminated) else "".join(map(str, stop.args))
    stop.add_note(go_on)
    sys.stdout.flush()
    _LOGGER.warning("stopped by %s%s: %s", name, when and f" {when}", go_on)
