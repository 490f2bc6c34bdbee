"""The files of a run folder."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyro_tkam._arviz import Container
    from pyro_tkam.infer.results import Evidence


def write_text(path: Path, text: str) -> None:
    """
    Replace a file so that a reader sees the old text or the new one, never a part.

    :param path: the file.
    :param text: its new content.
    """
    aside = path.with_name(path.name + ".part")
    aside.write_text(text)
    aside.replace(path)


@dataclass(frozen=True)
class RunFolder:
    """
    Where everything of a run lies.

    :param path: the folder.

    >>> RunFolder(Path("runs/first")).checkpoint.as_posix()
    'runs/first/checkpoints/last.ckpt'
    """

    path: Path

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
    def training(self) -> Path:
        """The metrics, and the evidence of held-out data, for ArviZ."""
        return self.path / "training.nc"

    def read_metrics(self) -> dict[str, list[float]]:
        """
        Read the metrics of every update.

        :return: a list for each column of the file, ``"update"`` among them.
        :raises FileNotFoundError: where there is no such file.
        :raises ValueError: for a row that is not numbers.
        """
        if not self.metrics.is_file():
            raise FileNotFoundError(f"{self.metrics} is missing")
        with self.metrics.open(newline="") as file:
            rows = list(csv.DictReader(file))
        try:
            return {name: [float(row[name]) for row in rows] for name in (rows[0] if rows else ())}
        except (TypeError, ValueError) as error:
            raise ValueError(f"{self.metrics} is damaged: {error}") from error

    def __to_arviz__(self, *, evidence: Evidence | None = None) -> Container:
        """
        Convert the folder of a finished run, as :func:`~pyro_tkam.diagnostics.to_arviz` asks it to.
        """
        from pyro_tkam.train.archive import training_to_arviz  # ArviZ takes seconds to import

        return training_to_arviz(self, evidence=evidence)
