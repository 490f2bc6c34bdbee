"""Checkpoints of a run in a file that is always whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from pyro_tkam._checks import file_path
from pyro_tkam._files import archive_fault, replacing


def checkpoint_file(checkpoint: Any) -> Path:
    """Return the file of a checkpoint.

    :param checkpoint: its path.
    :raises TypeError: for what is no path.
    :raises ValueError: if its folder is missing, or it is a folder.
    """
    file = file_path("checkpoint", checkpoint)
    if not file.parent.is_dir():
        raise ValueError(f"checkpoint must be in an existing folder, got {checkpoint}")
    if file.is_dir():
        raise ValueError(f"checkpoint must be a file, got the folder {checkpoint}")
    return file


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Replace a file by a state, so that a run that is killed leaves the one before.

    :param path: of the file.
    :param state: numbers, strings and tensors.
    :raises OSError: where the disk is full or fails; names the file.
    """
    with replacing(path) as aside:
        torch.save(state, aside)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a state that :func:`save_checkpoint` wrote.

    :raises ValueError: for a file that holds none.
    """
    if fault := archive_fault(path):
        raise ValueError(
            f"checkpoint must be a file that a run wrote, got {path}: {fault}; remove it to "
            "start over"
        )
    state: dict[str, Any] = torch.load(path, weights_only=True)
    return state
