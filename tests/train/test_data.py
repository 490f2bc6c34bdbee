"""What runs read, and whether their models can make it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pyro_tkam.__main__ import main
from pyro_tkam.train import ModelConfig, RunFolder, TrainConfig, load_model, train
from pyro_tkam.train.pictures import generate

SMALL = TrainConfig(
    held_out=20,
    model=ModelConfig(latent_dim=2, grid_size=4, widths=[6]),
    updates=3,
    batch_size=20,
    num_particles=10,
    device="cpu",
)


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.npy"
    np.save(path, np.random.default_rng(0).normal((300.0, -5.0), (50.0, 0.1), (120, 2)))
    return replace(SMALL, data=str(path))


def test_data_outside_of_a_sigmoid_are_refused_before_anything_is_written(rows, tmp_path, capsys):
    words = ["--data", rows.data, "--held_out", "20", "--batch_size", "20", "--updates", "2"]
    assert main(["train", str(tmp_path / "run"), *words]) == 1
    error = capsys.readouterr().err
    assert "model.output must be 'none' for data outside [0, 1], got 'sigmoid' for data from" in (
        error
    )
    assert "model.standardized" in error
    assert not (tmp_path / "run").exists()
    options = ["--model.output", "none", "--model.standardized", "true", "--model.latent_dim", "2"]
    assert main(["train", str(tmp_path / "run"), *words, *options]) == 0


def test_standardized_runs_answer_in_the_units_of_the_data(rows, tmp_path):
    model = replace(rows.model, output="none", standardized=True, noise_scale=0.5)
    config = replace(rows, model=model, objective="amortized")
    summary = train(config, tmp_path / "run", progress=False)
    data = torch.as_tensor(np.load(rows.data)).float()
    drawn = generate(load_model(tmp_path / "run"), 200)
    assert ((drawn.mean(0) - data.mean(0)).abs() < data.std(0)).all()
    # the evidence is a density in these units: about that of a Gaussian fitted to the data
    gaussian = torch.distributions.Normal(data.mean(0), data.std(0)).log_prob(data).sum(1).mean()
    assert summary["held_out"]["log_evidence"] == pytest.approx(float(gaussian), abs=3.0)


def test_every_option_of_networks_trains_and_comes_back(tmp_path):
    model = replace(
        SMALL.model,
        hidden_range="sigmoid",
        trainable_width=True,
        learned_noise=True,
        basis="chebyshev",
        degree=4,
    )
    train(replace(SMALL, data="digits", model=model), tmp_path / "kan", progress=False)
    trained = load_model(tmp_path / "kan")
    assert trained.prior.energies.coefficients.shape[-1] == 5
    assert float(trained.prior.energies.basis.width.detach()) != pytest.approx(1.01, abs=1e-6)
    assert float(trained.likelihood.noise_scale.detach()) != pytest.approx(0.6, abs=1e-6)
    model = replace(SMALL.model, preset="mixture", generator="convolutional", widths=None)
    config = replace(SMALL, data="digits", model=model, updates=2)
    train(config, tmp_path / "convolutional", progress=False)
    assert generate(load_model(tmp_path / "convolutional"), 2).shape == (2, 8, 8)
    assert TrainConfig.load(RunFolder(tmp_path / "kan").config).model.hidden_range == "sigmoid"


@pytest.mark.slow
def test_learned_noise_finds_that_of_the_data(tmp_path):
    path = tmp_path / "rows.npy"
    np.save(path, np.random.default_rng(0).normal(0.5, 0.05, (300, 8)))
    model = replace(SMALL.model, latent_dim=1, noise_scale=0.3, learned_noise=True, output="none")
    config = replace(SMALL, data=str(path), model=model, updates=150, learning_rate=0.03)
    train(config, tmp_path / "run", progress=False)
    found = float(load_model(tmp_path / "run").likelihood.noise_scale.detach())
    assert found == pytest.approx(0.05, rel=0.2)
