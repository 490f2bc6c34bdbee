"""One small valid call of everything public in paper.reproduce."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pyro
import torch

from pyro_tkam.models import TKAM
from pyro_tkam.paper.experiments import EXPERIMENTS, Images, Scale
from pyro_tkam.paper.reproduce import (
    draw,
    environment,
    measure,
    merge_results,
    reproduce,
    table,
)
from tests.valid_calls.call import Call
from tests.valid_calls.paper_experiments import SETTINGS

RECORDS = ()
FIGURES = (
    "log_evidence_per_dimension",
    "frechet",
    "frechet_of_data",
    "variance_ratio",
    "reconstruction_error",
    "closer_than_held_out",
)


def calls() -> dict[str, Call]:
    folder = Path(tempfile.mkdtemp())
    pyro.set_rng_seed(0)
    model = TKAM.kart((4, 4), 2, grid_size=3)
    given = {
        "model": model,
        "samples": torch.rand(24, 4, 4),
        "images": Images(torch.rand(20, 4, 4), torch.rand(10, 4, 4), None),
    }
    scale = Scale(**{**SETTINGS, "data": "mnist5k", "training": 40, "held_out": 20})
    row = replace(EXPERIMENTS["digits-uniform-rbf"], scales={"small": scale})
    results = {
        row.name: {"seconds_per_update": 1.0, "measured": dict.fromkeys(FIGURES, 1.0)},
    }
    return {
        "reproduce": Call(
            reproduce,
            {
                "experiment": row,
                "scale": "small",
                "folder": folder / "run",
                "data": None,
                "seed": 0,
                "progress": False,
                "model_options": {"degree": 2},
            },
            expensive=True,
        ),
        "environment": Call(environment, {}),
        "measure": Call(measure, {**given, "sizes": (5, 8, 11)}, expensive=True),
        "draw": Call(draw, {**given, "folder": folder}, expensive=True),
        "merge_results": Call(
            merge_results, {"path": folder / "all.json", "results": results}, also=("output",)
        ),
        "table": Call(table, {"results": results}),
    }
