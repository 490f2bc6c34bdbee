"""Whole runs from a configuration."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from pyro_tkam.diagnostics import load, to_arviz
from pyro_tkam.train import (
    ModelConfig,
    RunFolder,
    TrainConfig,
    load_model,
    train,
    training_to_arviz,
)
from pyro_tkam.train.checkpoints import read_checkpoint
from pyro_tkam.train.pictures import generate

SMALL = TrainConfig(
    data="digits",
    held_out=100,
    model=ModelConfig(latent_dim=2, grid_size=5, widths=[8], noise_scale=0.3),
    updates=12,
    batch_size=50,
    num_particles=10,
    checkpoint_every=5,
    device="cpu",
)
RECORDED = replace(SMALL, model=replace(SMALL.model, data_shape=[8, 8]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "first"
    train(SMALL, path, progress=False)
    return path


def test_a_run_folder_is_complete(folder):
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "config.yaml",
        "metrics.csv",
        "checkpoints",
        "summary.json",
        "samples.png",
        "prior.png",
        "curves.png",
        "training.nc",
    }
    assert TrainConfig.load(RunFolder(folder).config) == RECORDED
    summary = json.loads(RunFolder(folder).summary.read_text())
    assert summary["updates"] == 12
    assert summary["seconds_per_update"] > 0
    assert summary["train_loss"] == RunFolder(folder).read_metrics()["loss"][-1]
    assert "reliable" in summary["held_out"]["verdict"]


def test_the_same_configuration_gives_the_same_run(folder, tmp_path):
    train(SMALL, tmp_path, progress=False)
    assert RunFolder(tmp_path).metrics.read_bytes() == RunFolder(folder).metrics.read_bytes()
    train(replace(SMALL, seed=1), tmp_path / "other", progress=False)
    assert (
        RunFolder(tmp_path / "other").metrics.read_bytes() != RunFolder(folder).metrics.read_bytes()
    )


def test_a_finished_run_is_only_described_again(folder):
    rows = RunFolder(folder).metrics.read_bytes()
    before = json.loads(RunFolder(folder).summary.read_text())
    again = train(SMALL, folder, progress=False)
    assert again == before
    assert RunFolder(folder).metrics.read_bytes() == rows


def test_the_model_comes_back(folder):
    one, other = load_model(folder), load_model(folder)
    torch.manual_seed(0)
    first = generate(one, 3)
    assert first.shape == (3, 8, 8)
    torch.manual_seed(0)
    assert torch.equal(generate(other, 3), first)


def test_rows_of_a_file_that_are_no_images(tmp_path):
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).random((60, 3)))
    config = replace(SMALL, data=str(tmp_path / "rows.npy"), held_out=0, batch_size=60, updates=2)
    summary = train(config, tmp_path / "run", progress=False)
    (tmp_path / "rows.npy").unlink()  # the run folder is enough from here on
    assert "held_out" not in summary
    assert not (tmp_path / "run" / "samples.png").exists()
    assert generate(load_model(tmp_path / "run"), 2).shape == (2, 3)


@pytest.mark.parametrize("preset", ["mixture", "deep"])
def test_other_presets_train_and_come_back(preset, tmp_path):
    config = replace(SMALL, model=replace(SMALL.model, preset=preset), updates=2)
    assert train(config, tmp_path / "run", progress=False)["held_out"]["num_draws"] > 0
    assert generate(load_model(tmp_path / "run"), 2).shape == (2, 8, 8)
    assert (tmp_path / "run" / "prior.png").exists()


def test_one_cycle_ends_at_a_step_size_of_nothing(folder, tmp_path):
    train(replace(SMALL, schedule="one-cycle"), tmp_path, progress=False)
    (state,) = read_checkpoint(RunFolder(tmp_path).checkpoint)["optimizer_states"]
    assert state["param_groups"][0]["max_lr"] == SMALL.learning_rate
    assert state["param_groups"][0]["lr"] < 1e-5 * SMALL.learning_rate
    (state,) = read_checkpoint(RunFolder(folder).checkpoint)["optimizer_states"]
    assert state["param_groups"][0]["lr"] == SMALL.learning_rate


def test_an_old_configuration_is_that_of_kart(tmp_path):
    (tmp_path / "config.yaml").write_text("model: {latent_dim: 3, coupling: independent}")
    assert TrainConfig.load(tmp_path / "config.yaml").model.preset == "kart"


def test_another_configuration_is_refused(folder):
    with pytest.raises(ValueError, match="this run has a different configuration"):
        train(replace(SMALL, updates=13), folder, progress=False)
    assert TrainConfig.load(RunFolder(folder).config) == RECORDED


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"data": "mnist6k"}, r"data must be one of \['darcy',.*, got 'mnist6k'"),
        ({"held_out": 1797}, "held_out must be from 0 to 1796 of 1797 rows, got 1797"),
        ({"batch_size": 1698}, "batch_size must be from 1 to 1697, the number of rows, got 1698"),
        (
            {"model": ModelConfig(data_shape=[28, 28])},
            r"model\.data_shape must be that of the data, \[8, 8\], got \[28, 28\]",
        ),
        (
            {"model": ModelConfig(preset="flow")},
            r"model\.preset must be one of \['autoregressive', 'deep', .*\], got 'flow'",
        ),
        (
            {"model": ModelConfig(preset="deep", reference="gaussian")},
            r"model\.reference must be left out.*, got 'gaussian'",
        ),
        (
            {"model": ModelConfig(coupling="both")},
            r"coupling must be one of \['independent', 'shared'\], got 'both'",
        ),
    ],
)
def test_wrong_options_are_named_and_can_be_corrected(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        train(replace(SMALL, **wrong), tmp_path / "run", progress=False)
    assert train(replace(SMALL, updates=1), tmp_path / "run", progress=False)["updates"] == 1


def test_damaged_run_folders_are_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="absent: there is no such run folder"):
        load_model(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match=r"config.yaml is missing"):
        load_model(tmp_path)
    RECORDED.save(tmp_path / "config.yaml")
    with pytest.raises(
        FileNotFoundError,
        match=r"last.ckpt is missing: the run has not reached its first checkpoint",
    ):
        load_model(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    RunFolder(tmp_path).checkpoint.write_bytes(RunFolder(folder).checkpoint.read_bytes())
    SMALL.save(tmp_path / "config.yaml")
    with pytest.raises(ValueError, match=r"config.yaml lacks model.data_shape"):
        load_model(tmp_path)
    replace(SMALL, model=replace(RECORDED.model, latent_dim=3)).save(tmp_path / "config.yaml")
    with pytest.raises(
        ValueError, match=r"last.ckpt does not fit the model that .*config.yaml describes"
    ):
        load_model(tmp_path)


def test_a_finished_run_is_there_for_arviz(folder):
    kept = load(folder / "training.nc")
    files = RunFolder(folder)
    assert kept["training"]["update"].values.tolist() == files.read_metrics()["update"]
    np.testing.assert_allclose(kept["training"]["loss"].values, files.read_metrics()["loss"])
    held_out = json.loads(files.summary.read_text())["held_out"]
    assert kept.attrs["log_evidence"] == pytest.approx(held_out["log_evidence"])
    assert to_arviz(files)["training"]["loss"].sizes == {"update": SMALL.updates}


def test_arviz_needs_a_finished_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="summary"):
        training_to_arviz(RunFolder(tmp_path))
