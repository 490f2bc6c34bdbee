"""Prior knowledge at the start of a run."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from pyro_tkam.__main__ import main
from pyro_tkam.nn import AutoregressivePrior
from pyro_tkam.train import ModelConfig, RunFolder, StartConfig, TrainConfig, load_model, train
from pyro_tkam.train.presets import make_model
from pyro_tkam.train.start import parse_density, start_prior

SMALL = TrainConfig(
    data="digits",
    held_out=20,
    model=ModelConfig(data_shape=[8, 8], latent_dim=2, grid_size=8, widths=[6], basis="bspline"),
    updates=2,
    batch_size=20,
    num_particles=10,
    device="cpu",
)
PRESETS = {
    "kart": SMALL.model,
    "mixture": replace(SMALL.model, preset="mixture", num_components=3),
}


@pytest.mark.parametrize(
    ("preset", "source"),
    [("kart", "samples"), ("kart", "density"), ("kart", "formula"), ("mixture", "formula")],
)
def test_a_prior_starts_as_what_is_known(preset, source, tmp_path):
    torch.manual_seed(0)
    np.save(tmp_path / "samples.npy", np.random.default_rng(0).normal(0.4, 0.1, 4000))
    value = {
        "samples": str(tmp_path / "samples.npy"),
        "density": "Normal(0.4, 0.1)",
        "formula": "exp(-(z - 0.4)**2 / 0.02)",
    }[source]
    config = replace(SMALL, model=PRESETS[preset], start=StartConfig(**{source: value}))
    model = make_model(config.model)
    start_prior(config, model)
    with torch.no_grad():
        prior = model.prior()
        z = torch.linspace(0.1, 0.7, 7).reshape(-1, *[1] * len(prior.batch_shape))
        expected = torch.distributions.Normal(0.4, 0.1).log_prob(z).expand(7, *prior.batch_shape)
        torch.testing.assert_close(prior.log_prob(z), expected, rtol=0, atol=0.35)
        torch.testing.assert_close(
            prior.mean, torch.full(prior.batch_shape, 0.4), rtol=0, atol=0.01
        )


def test_ordered_latents_start_from_samples(tmp_path, monkeypatch):
    draws = torch.randn(60, 2)
    torch.save(draws, tmp_path / "samples.pt")
    model = ModelConfig(preset="autoregressive", data_shape=[8, 8], latent_dim=2, widths=[6])
    config = replace(SMALL, model=model, objective="amortized")
    made = make_model(config.model)
    fitted = []
    monkeypatch.setattr(AutoregressivePrior, "fit", lambda _, samples: fitted.append(samples))
    start_prior(replace(config, start=StartConfig(samples=str(tmp_path / "samples.pt"))), made)
    assert torch.equal(fitted[0], draws)
    with pytest.raises(ValueError, match=r"start\.formula must be left out for the prior Autoreg"):
        start_prior(replace(config, start=StartConfig(formula="exp(z)")), made)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("learned")
    train(replace(SMALL, updates=4, learning_rate=0.05), folder, progress=False)
    return folder


def test_a_learned_prior_moves_to_another_generator(learned, tmp_path):
    run = tmp_path / "run"
    words = ["--start.run", str(learned), "--start.frozen", "true", "--updates", "3"]
    words += ["--model.widths", "[9, 5]", "--model.noise_scale", "0.3"]
    words += ["--model.latent_dim", "2", "--model.grid_size", "8", "--model.basis", "bspline"]
    words += ["--data", "digits", "--held_out", "20", "--batch_size", "20", "--device", "cpu"]
    assert main(["train", str(run), *words]) == 0
    before, after = (load_model(each).prior.state_dict() for each in (learned, run))
    assert all(torch.equal(after[name], each) for name, each in before.items())
    fresh = make_model(SMALL.model).prior.state_dict()
    assert not torch.equal(after["energies.coefficients"], fresh["energies.coefficients"])
    assert load_model(run).generator.outer.widths == [5, 9, 5, 64]


def test_a_moved_prior_learns_on_unless_it_is_frozen_and_needs_its_source_no_more(
    learned, tmp_path
):
    source = shutil.copytree(learned, tmp_path / "source")
    config = replace(SMALL, start=StartConfig(run=str(source)))
    train(config, tmp_path / "run", progress=False)
    before, after = (load_model(each).prior.state_dict() for each in (learned, tmp_path / "run"))
    assert not torch.equal(after["energies.coefficients"], before["energies.coefficients"])
    shutil.rmtree(source)
    train(config, tmp_path / "run", progress=False)  # only described again
    assert RunFolder(tmp_path / "run").read_metrics()["update"][-1] == 2


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"reference": "gaussian"}, r"model\.reference must be that of the prior in .*'uniform'"),
        ({"latent_dim": 3}, r"model\.latent_dim must be that of the prior in .*, 2, got 3"),
        (
            {"preset": "mixture"},
            "start.run must be a run with a MixturePrior, got one with a TiltedPrior",
        ),
    ],
)
def test_another_prior_is_refused(learned, model, message):
    config = replace(
        SMALL, model=replace(SMALL.model, **model), start=StartConfig(run=str(learned))
    )
    with pytest.raises(ValueError, match=message):
        start_prior(config, make_model(config.model))


@pytest.mark.parametrize(
    "text",
    ["__import__('os')", "Normal(0, 1)(2)", "Normal", "Distribution(1)", "kl_divergence(1, 2)"],
)
def test_a_density_is_a_name_and_numbers(text):
    with pytest.raises(ValueError, match=r"start\.density must be"):
        parse_density(text)


@pytest.mark.parametrize("text", ["Normal(0, -1)", "Normal(0, one)", "Normal(0, 1, 2, 3)"])
def test_numbers_that_a_density_refuses_are_named(text):
    with pytest.raises(ValueError, match=r"start\.density must be valid, got 'Normal"):
        parse_density(text)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"start": {"density": "Normal(0, 1)", "formula": "exp(z)"}},
            "start must have at most one of samples, density, formula and run, got density, "
            "formula",
        ),
        ({"start": {"frozen": True}}, r"start\.frozen must be false without a start"),
        (
            {"start": {"run": "a", "frozen": True}, "grid_updates": {"every": 5}},
            r"grid_updates must be null with start\.frozen",
        ),
        ({"penalty": {"energy_l1": -1.0}}, r"penalty\.energy_l1 must be at least 0, got -1\.0"),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_configured(wrong, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig.of(wrong)
