"""Checkpoints of a run in a file that is always whole."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import torch


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a state aside and rename it, so that a run that is killed leaves the one before.

    :param path: of the file, which is replaced; its folder must exist.
    :param state: numbers, strings and tensors.
    """
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, delete=False) as aside:
        try:
            torch.save(state, aside)
            aside.flush()
            os.fsync(aside.fileno())
        except BaseException:
            os.unlink(aside.name)
            raise
    os.replace(aside.name, path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a state that :func:`save_checkpoint` wrote."""
    state: dict[str, Any] = torch.load(path, weights_only=True)
    return state
