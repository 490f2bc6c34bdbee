"""
Training with Lightning: run folders, checkpoints, configuration. Imported lazily, because importing
Lightning takes seconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pyro_tkam._optional import needs
from pyro_tkam.train.config import (
    ChainConfig,
    GridConfig,
    ModelConfig,
    PairConfig,
    PenaltyConfig,
    StartConfig,
    TrainConfig,
)
from pyro_tkam.train.folder import RunFolder, training_to_arviz

if TYPE_CHECKING:
    from pyro_tkam.train.grid_updates import GridUpdates
    from pyro_tkam.train.held_out import HeldOutEvidence, held_out_evidence
    from pyro_tkam.train.module import ELBOTraining
    from pyro_tkam.train.page import report
    from pyro_tkam.train.run import load_guide, load_model, train
    from pyro_tkam.train.trainer import fit

_HOMES = {
    "ELBOTraining": "module",
    "GridUpdates": "grid_updates",
    "HeldOutEvidence": "held_out",
    "fit": "trainer",
    "held_out_evidence": "held_out",
    "load_guide": "run",
    "load_model": "run",
    "report": "page",
    "train": "run",
}

__all__ = [
    "ChainConfig",
    "ELBOTraining",
    "GridConfig",
    "GridUpdates",
    "HeldOutEvidence",
    "ModelConfig",
    "PairConfig",
    "PenaltyConfig",
    "RunFolder",
    "StartConfig",
    "TrainConfig",
    "fit",
    "held_out_evidence",
    "load_guide",
    "load_model",
    "report",
    "train",
    "training_to_arviz",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with needs("train"):
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
