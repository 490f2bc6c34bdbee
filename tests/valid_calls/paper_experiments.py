"""One small valid call of everything public in paper.experiments."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pyro_tkam.paper.experiments import EXPERIMENTS, Experiment, Scale, chosen
from tests.valid_calls.call import Call, calls_of

#: Tables, and what the data are held in.
RECORDS = ("DATA", "EXPERIMENTS", "Images", "PRESETS")
SETTINGS: dict[str, Any] = {
    "data": "mnist",
    "training": 8,
    "held_out": 4,
    "updates": 1,
    "batch_size": 4,
    "learning_rate": 1e-3,
    "model": {"latent_dim": 2, "grid_size": 3, "widths": [3]},
    "objective": {"num_particles": 4},
    "grid_updates": {"every": 2},
    "sizes": (10, 12, 14),
}


def calls() -> dict[str, Call]:
    scale = Scale(**SETTINGS)
    row = replace(EXPERIMENTS["digits-uniform-rbf"], scales={"small": scale})
    digits = replace(scale, data="mnist5k")
    return {
        "Scale": Call(Scale, SETTINGS),
        **calls_of(digits, images={"folder": None}, expensive=("images",)),
        "Experiment": Call(
            Experiment,
            {
                "name": "new",
                "section": "4.1",
                "preset": "kart",
                "objective": "ImportanceMLE",
                "scales": {"small": scale},
            },
        ),
        **calls_of(
            row,
            scale={"name": "small"},
            model={"scale": scale, "data_shape": (4,)},
            elbo={"scale": scale},
            also=("scale",),
        ),
        "chosen": Call(chosen, {"pattern": "digits"}, also=("name",)),
    }
