"""
Checkpoint files that are always complete (written to a temporary file, then renamed) and identify
their writer.
"""

import pickle
from pathlib import Path
from typing import Any

import torch

import pyro_tkam
from pyro_tkam._files import archive_fault, replacing
from pyro_tkam.train.folder import REMEDY, RunFolder, checksum

FORMAT = 2
"""
Version of the layout of checkpoints and configurations; it increases with each change after which
older runs cannot be resumed.
"""


def stamp(objective: str) -> dict[str, Any]:
    """
    Return the stamp that identifies a checkpoint's writer.

    :param objective: name of the objective.
    """
    return {
        "pyro_tkam_format": FORMAT,
        "pyro_tkam_version": pyro_tkam.__version__,
        "pyro_tkam_objective": objective,
    }


def check_stamp(content: dict[str, Any], objective: str) -> None:
    """
    Refuse a checkpoint written by another version or objective, because resuming from it would
    change the numbers.

    :param content: the checkpoint.
    :param objective: name of the objective that would continue.
    :raises ValueError: names what differs, its value and the expected value.
    """
    for name, wanted in stamp(objective).items():
        if content.get(name) != wanted:
            raise ValueError(
                f"checkpoint must have {name} {wanted!r}, got {content.get(name)!r}; use a new "
                "folder, or resume with the version and objective that wrote it"
            )


def write_checkpoint(content: dict[str, Any], path: Path) -> None:
    """
    Write a checkpoint so that a reader sees the old file or the new one, never a partial file.

    :param content: tensors, numbers, strings, and lists and dictionaries of them.
    :param path: the file to replace.
    :raises OSError: if the disk is full or fails; names the file.
    """
    with replacing(path) as aside:
        with aside.open("wb") as file:
            torch.save(content, file)
        if fault := archive_fault(aside):
            raise OSError(
                f"{path} could not be written; its previous content is unchanged: {fault}"
            )


def read_checkpoint(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """
    Read a checkpoint with ``weights_only=True``, so a file from an untrusted source cannot run
    code.

    :param path: the file.
    :param map_location: device of its tensors, as in ``torch.load``.
    :raises FileNotFoundError: if there is no such file.
    :raises ValueError: for a file that is not a checkpoint, is incomplete, or was changed.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: the run has not reached its first checkpoint")
    fault = archive_fault(path)
    content = None
    if fault is None:
        try:
            content = torch.load(path, map_location=map_location, weights_only=True)
        except pickle.UnpicklingError:
            fault = "it holds objects that could run code"  # torch's message says how to run it
        except (RuntimeError, EOFError, ValueError, KeyError):
            fault = "it holds no tensors"
    if fault is not None:
        raise ValueError(f"{path} is not a readable checkpoint: {fault}; {REMEDY}")
    if not isinstance(content, dict) or "state_dict" not in content:
        raise ValueError(f"{path} is not a checkpoint of a training run: it has no state_dict")
    return content


def last_checkpoint(files: RunFolder) -> dict[str, Any] | None:
    """
    Read the last checkpoint of a run folder after checking that folder and checkpoint are complete.

    :param files: the run folder.
    :return: the checkpoint; None if the run has not started.
    :raises FileNotFoundError: if the metrics show that there was a checkpoint.
    :raises ValueError: for a checkpoint of another version, a damaged one, and metrics that differ
        from those at the time it was written.
    """
    if not files.checkpoint.exists():
        # A metrics file can exist before the first checkpoint, but then it has no rows.
        if files.metrics.is_file() and (rows := len(files.read_metrics()["update"])):
            raise FileNotFoundError(
                f"{files.checkpoint} is missing, though {files.metrics.name} has {rows} updates; "
                f"{REMEDY}"
            )
        return None
    content = read_last_checkpoint(files)
    _check_metrics(files, content)
    return content


def read_last_checkpoint(files: RunFolder) -> dict[str, Any]:
    """
    Read the last checkpoint of a run folder without checking the metrics.

    :param files: the run folder.
    :raises FileNotFoundError: if there is no checkpoint.
    :raises ValueError: for a checkpoint of another version or a damaged one.
    """
    content = read_checkpoint(files.checkpoint)
    number = content.get("pyro_tkam_format")
    if number != FORMAT:
        raise ValueError(
            f"{files.checkpoint} must have layout {FORMAT}, got layout {number} of pyro-tkam "
            f"{content.get('pyro_tkam_version')}; use that version, or train in a new folder"
        )
    return content


def _check_metrics(files: RunFolder, content: dict[str, Any]) -> None:
    """Refuse metrics that differ from those at the time of a checkpoint; later rows may follow."""
    written = content.get("metrics")
    if written is None:  # written by a Trainer without a metrics file
        return
    if not files.metrics.is_file():
        raise FileNotFoundError(f"{files.metrics} is missing; {REMEDY}")
    updates = written["updates"]
    lines = files.metrics.read_bytes().splitlines(keepends=True)
    if updates and len(lines) < updates + 1:
        raise ValueError(
            f"{files.metrics} lacks rows up to update {updates}, at which the checkpoint was "
            f"written; {REMEDY}"
        )
    if checksum(b"".join(lines[: updates + 1] if updates else [])) != written["checksum"]:
        raise ValueError(
            f"{files.metrics} is damaged: its rows up to update {updates} were changed; {REMEDY}"
        )
