"""The files of a run folder."""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyro_tkam._checks import file_path, instance
from pyro_tkam._files import write_text

if TYPE_CHECKING:
    from pyro_tkam._arviz import Container
    from pyro_tkam.infer.results import Evidence

#: what to do if a file is damaged
REMEDY = "restore a copy of it, or train in a new folder"
#: makes a hash object, which can be updated with more content
digest = partial(hashlib.blake2b, digest_size=8)
_CHECKSUM = "checksum"


def checksum(content: bytes) -> str:
    """
    Return a checksum of some content.

    :param content: any bytes.
    """
    return digest(content).hexdigest()


def write_results(path: Path, results: Mapping[str, Any]) -> dict[str, Any]:
    """
    Write numbers as JSON, with their checksum.

    :param path: the file to replace.
    :param results: numbers, strings, None, and lists and dictionaries of them.
    :return: the content of the file.
    """
    content = {**results, _CHECKSUM: _checksum_of(results)}
    write_text(path, json.dumps(content, indent=2) + "\n")
    return content


def read_results(path: Path, remedy: str) -> dict[str, Any]:
    """
    Read a file written by :func:`write_results`.

    :param path: the file.
    :param remedy: what to do if it is damaged.
    :return: the numbers; nothing if there is no file.
    :raises ValueError: for a file that was changed.
    """
    if not path.is_file():
        return {}
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}; {remedy}") from error
    if not isinstance(results, dict) or _CHECKSUM not in results:
        raise ValueError(f"{path} is damaged: it has no checksum; {remedy}")
    if results.pop(_CHECKSUM) != _checksum_of(results):
        raise ValueError(f"{path} is damaged: its checksum differs; {remedy}")
    return results


def _checksum_of(results: Mapping[str, Any]) -> str:
    as_read = json.loads(json.dumps(results))  # as JSON, in which keys are strings
    return checksum(json.dumps(as_read, sort_keys=True).encode())


@dataclass(frozen=True)
class RunFolder:
    """
    The locations of all files of a run.

    :param path: the folder.

    >>> RunFolder(Path("runs/first")).checkpoint.as_posix()
    'runs/first/checkpoints/last.ckpt'
    """

    path: Path

    def __post_init__(self) -> None:
        file_path("path", self.path)

    @property
    def config(self) -> Path:
        """The configuration."""
        return self.path / "config.yaml"

    @property
    def checkpoint(self) -> Path:
        """The last checkpoint."""
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def metrics(self) -> Path:
        """The metrics of every update."""
        return self.path / "metrics.csv"

    @property
    def summary(self) -> Path:
        """The numbers of the finished run."""
        return self.path / "summary.json"

    @property
    def responses(self) -> Path:
        """Targets that a model of pairs generates for some held-out sources."""
        return self.path / "responses.txt"

    @property
    def texts(self) -> Path:
        """Texts drawn from a model of texts."""
        return self.path / "samples.txt"

    @property
    def training(self) -> Path:
        """The metrics and the evidence of held-out data, for ArviZ."""
        return self.path / "training.nc"

    def read_metrics(self) -> dict[str, list[float]]:
        """
        Read the metrics of every update; a row that is still being written is left out.

        :return: a list for each column of the file, including ``"update"``.
        :raises FileNotFoundError: if there is no such file.
        :raises ValueError: for anything but a table of numbers with one row per update.
        """
        if not self.metrics.is_file():
            raise FileNotFoundError(f"{self.metrics} is missing")
        content = self.metrics.read_bytes()
        try:
            lines = content[: content.rfind(b"\n") + 1].decode().splitlines()
            names, *rows = list(csv.reader(lines)) or [["update"]]
            columns = [[float(row[index]) for row in rows] for index in range(len(names))]
        except (csv.Error, ValueError, IndexError) as error:
            raise ValueError(f"{self.metrics} is damaged: {error}; {REMEDY}") from error
        if names[0] != "update" or columns[0] != list(range(1, len(rows) + 1)):
            raise ValueError(f"{self.metrics} is damaged: it lacks updates; {REMEDY}")
        return dict(zip(names, columns, strict=True))

    def read_summary(self) -> dict[str, Any]:
        """
        Read the numbers of the finished run; return nothing if it has not finished.

        :raises ValueError: for a file that was changed.
        """
        return read_results(self.summary, "delete it, and `resume` will write it again")

    def __to_arviz__(self, *, evidence: Evidence | None = None) -> Container:
        """
        Convert the folder of a finished run; called by :func:`~pyro_tkam.diagnostics.to_arviz`.
        """
        return training_to_arviz(self, evidence=evidence)


def existing_folder(folder: Path | str) -> RunFolder:
    """
    Return the files of a run folder.

    :param folder: the folder.
    :raises TypeError: for anything but a path.
    :raises FileNotFoundError: for a missing folder.
    """
    files = RunFolder(file_path("folder", folder))
    if not files.path.is_dir():
        raise FileNotFoundError(
            f"folder must be an existing folder, got {files.path}: there is no such run folder"
        )
    return files


def training_to_arviz(result: RunFolder, *, evidence: Evidence | None = None) -> Container:
    """
    Convert a run folder to a container with one group, ``training``: every metric along the
    dimension ``update``.

    :param result: the folder of a finished run.
    :param evidence: not accepted. The run's own evidence of held-out data, in nats per datum, is in
        the attributes, if data were held out.
    :raises FileNotFoundError: if metrics or summary are missing.
    :raises ValueError: if ``evidence`` is given, and for damaged metrics or summary.
    """
    instance("result", result, RunFolder, "a RunFolder")
    import numpy as np

    from pyro_tkam._arviz import from_groups  # importing ArviZ takes seconds

    if evidence is not None:
        raise ValueError("evidence must be None for a run folder, which has its own, got one")
    if not result.summary.is_file():
        raise FileNotFoundError(f"{result.summary} is missing")
    summary = result.read_summary()
    columns = {name: np.asarray(values) for name, values in result.read_metrics().items()}
    updates = columns.pop("update").astype(int)
    if len(updates) != summary["updates"]:
        raise ValueError(
            f"{result.metrics} is damaged: it has {len(updates)} of {summary['updates']} updates; "
            f"{REMEDY}"
        )
    held_out = summary.get("held_out")
    return from_groups(
        {"training": columns},
        sample_dims={"training": ("update",)},
        coords={"update": updates},
        attrs={} if held_out is None else _evidence_attributes(held_out),
    )


def _evidence_attributes(held_out: Mapping[str, Any]) -> dict[str, Any]:
    error = held_out["standard_error"]
    return {
        "log_evidence": held_out["log_evidence"],
        "log_evidence_standard_error": math.nan if error is None else error,
        "log_evidence_verdict": held_out["verdict"],
    }
