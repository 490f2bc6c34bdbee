"""One small valid call of everything public in train.evidence."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pyro
import torch

from pyro_tkam.models import TKAM
from pyro_tkam.train import TrainConfig, train
from pyro_tkam.train.evidence import evidence_of_run, per_datum_evidence
from tests.valid_calls.call import Call
from tests.valid_calls.train import QUICK

RECORDS = ()


def calls() -> dict[str, Call]:
    folder = Path(tempfile.mkdtemp()) / "run"
    with pyro.get_param_store().scope():
        train(TrainConfig.of(QUICK), folder, progress=False)
        pyro.set_rng_seed(0)
        model = TKAM.kart(2, 2, grid_size=3, noise_scale=2.0)
    return {
        "per_datum_evidence": Call(
            per_datum_evidence,
            {"model": model, "data": torch.rand(2, 2), "checked": 0, "most_tempered": 0},
            also=("x",),
            late=("data", "model"),
        ),
        "evidence_of_run": Call(
            evidence_of_run,
            {"folder": str(folder), "num": 1, "checked": 0, "most_tempered": 0, "seed": 0},
        ),
    }
