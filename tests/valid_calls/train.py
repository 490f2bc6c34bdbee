"""One small valid call of everything public in train."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyro
import torch

from pyro_tkam.infer import ImportanceMLE
from pyro_tkam.models import TKAM
from pyro_tkam.train import (
    ChainConfig,
    ELBOTraining,
    GridConfig,
    GridUpdates,
    ModelConfig,
    PairConfig,
    PenaltyConfig,
    RunFolder,
    StartConfig,
    TrainConfig,
    fit,
    held_out_evidence,
    load_guide,
    load_model,
    report,
    train,
    training_to_arviz,
)
from tests.valid_calls.call import Call, calls_of

#: Made by the package.
RECORDS = ("HeldOutEvidence",)
QUICK: dict[str, Any] = {
    "data": "digits",
    "held_out": 5,
    "updates": 1,
    "batch_size": 4,
    "num_particles": 4,
    "model": {"latent_dim": 2, "grid_size": 3, "widths": [3]},
    "device": "cpu",
}


def configurations(folder: Path) -> dict[str, Call]:
    config = TrainConfig.of(QUICK)
    config.save(folder / "config.yaml")
    plain = asdict(config)
    parts = {
        name: getattr(config, name) for name in ("model", "chains", "pair", "penalty", "start")
    }
    return {
        "ModelConfig": Call(ModelConfig, plain["model"]),
        "ChainConfig": Call(ChainConfig, plain["chains"]),
        "PairConfig": Call(PairConfig, plain["pair"]),
        "PenaltyConfig": Call(PenaltyConfig, plain["penalty"]),
        "StartConfig": Call(StartConfig, {**plain["start"], "density": "Normal(0.5, 0.2)"}),
        "GridConfig": Call(GridConfig, asdict(GridConfig())),
        "TrainConfig": Call(TrainConfig, {**plain, **parts}),
        **calls_of(
            config,
            of={"content": QUICK},
            load={"path": folder / "config.yaml"},
            save={"path": folder / "saved.yaml"},
            also=("configuration", "keys"),
        ),
    }


def runs(folder: Path) -> dict[str, Call]:
    config = TrainConfig.of(QUICK)
    done = folder / "run"
    train(config, done, progress=False)
    pairs = folder / "words.dict"
    pairs.write_text("cat K AE1 T\ndog D AO1 G\nhen H EH1 N\n", encoding="utf-8")
    guided = TrainConfig.of(
        QUICK
        | {"data": str(pairs), "held_out": 1, "batch_size": 1, "objective": "pair"}
        | {"model": {"preset": "seq2seq", "latent_dim": 2, "width": 8}}
    )
    train(guided, folder / "pairs", progress=False)
    rows = torch.rand(8, 4)
    module = trained()
    return {
        "train": Call(
            train, {"config": config, "folder": str(done), "progress": False}, expensive=True
        ),
        "RunFolder": Call(RunFolder, {"path": done}),
        "training_to_arviz": Call(training_to_arviz, {"result": RunFolder(done), "evidence": None}),
        "load_model": Call(load_model, {"folder": str(done)}),
        "load_guide": Call(
            load_guide,
            {"folder": str(folder / "pairs"), "model": load_model(folder / "pairs")},
        ),
        "report": Call(report, {"folder": str(done)}),
        "held_out_evidence": Call(
            lambda **given: held_out_evidence(given.pop("model"), given.pop("data"), **given),
            {
                "model": TKAM.kart(4, 2, grid_size=3),
                "data": rows,
                "guide": None,
                "num_draws": 15,
                "num_blocks": 2,
            },
            also=("x",),
            late=("data", "model", "guide"),
            expensive=True,
        ),
        "ELBOTraining": Call(
            ELBOTraining,
            {
                "model": TKAM.kart(4, 2, grid_size=3),
                "elbo": ImportanceMLE(4),
                "guide": None,
                "size": 8,
                "optimizer": torch.optim.SGD,
                "scheduler": None,
                "penalty": None,
            },
        ),
        "GridUpdates": Call(
            GridUpdates,
            {
                "every": 5,
                "decay": 0.9,
                "num_samples": 5,
                "uniform_share": 0.1,
                "max_change": 1.0,
                "grid_size": 4,
            },
        ),
        "fit": Call(
            fit,
            {
                "module": module,
                "data": rows,
                "folder": str(folder / "fit"),
                "updates": 1,
                "batch_size": 4,
                "seed": 0,
                "clip_norm": 1.0,
                "checkpoint_every": 1,
                "patience": 1,
                "tensorboard": False,
                "device": "cpu",
                "devices": 1,
                "num_nodes": 1,
                "precision": "32-true",
                "progress": False,
                "callbacks": (),
            },
            also=("x",),
            expensive=True,
            late=("data", "device"),
        ),
    }


def trained() -> ELBOTraining:
    pyro.set_rng_seed(0)
    return ELBOTraining(TKAM.kart(4, 2, grid_size=3), ImportanceMLE(4), size=8)


def calls() -> dict[str, Call]:
    folder = Path(tempfile.mkdtemp())
    with pyro.get_param_store().scope():
        return configurations(folder) | runs(folder)
