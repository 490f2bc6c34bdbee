"""
Checkpoint files that are always whole, written aside and then renamed, and say what wrote them.
"""

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

import pyro_tkam

FORMAT = 1
"""
Number of the layout of checkpoints; it grows with every change after which older ones cannot be
gone on from.
"""


def stamp(objective: str) -> dict[str, Any]:
    """
    Return what a checkpoint says of itself.

    :param objective: name of the objective.
    """
    return {
        "pyro_tkam_format": FORMAT,
        "pyro_tkam_version": pyro_tkam.__version__,
        "pyro_tkam_objective": objective,
    }


def check_stamp(content: dict[str, Any], objective: str) -> None:
    """
    Refuse a checkpoint that another version or objective wrote: going on from it would give other
    numbers.

    :param content: the checkpoint.
    :param objective: name of the objective that would go on.
    :raises ValueError: names what differs, what it is and what is taken.
    """
    for name, wanted in stamp(objective).items():
        if content.get(name) != wanted:
            raise ValueError(
                f"checkpoint must have {name} {wanted!r}, got {content.get(name)!r}; take a new "
                "folder, or go on with what wrote it"
            )


def write_checkpoint(content: dict[str, Any], path: Path) -> None:
    """
    Write a checkpoint so that a reader sees the old file or the new one, never a part.

    :param content: tensors, numbers, strings, and lists and dictionaries of them.
    :param path: the file to replace.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".part")
    with aside.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def read_checkpoint(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """
    Read a checkpoint with ``weights_only=True``: a file from a stranger cannot run code.

    :param path: the file.
    :param map_location: where its tensors go, as in ``torch.load``.
    :raises FileNotFoundError: where there is none.
    :raises ValueError: for a file that is not a checkpoint, or only a part of one.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: the run has not come to its first checkpoint")
    try:
        content = torch.load(path, map_location=map_location, weights_only=True)
    except (
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        pickle.UnpicklingError,
        zipfile.BadZipFile,
    ) as error:
        raise ValueError(f"{path} is not a readable checkpoint: {error}") from error
    if not isinstance(content, dict) or "state_dict" not in content:
        raise ValueError(f"{path} is not a checkpoint of a training run: it has no state_dict")
    return content
