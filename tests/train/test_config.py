"""The configuration and its file."""

import pytest

from pyro_tkam.train import ModelConfig, TrainConfig


def test_a_configuration_comes_back_from_its_file(tmp_path):
    config = TrainConfig(
        updates=7, clip_norm=0.5, model=ModelConfig(widths=[3, 4], coupling="independent")
    )
    config.save(tmp_path / "config.yaml")
    assert TrainConfig.load(tmp_path / "config.yaml") == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("updates: [", "is not a YAML file"),
        ("just words", "got str, takes a mapping"),
        ("update: 3", "unknown key update; known are data, held_out"),
        ("model: {latent: 3}", "unknown key latent; known are preset, data_shape, latent_dim"),
        ("model: 3", "got int, takes a mapping"),
        ("updates: 0", "updates: got 0, takes a whole number of at least 1"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path, text, message):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"config\.yaml .*{message}"):
        TrainConfig.load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent.yaml is missing"):
        TrainConfig.load(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    "wrong",
    [{"batch_size": 0}, {"num_particles": -1}, {"learning_rate": 0.0}, {"clip_norm": float("nan")}],
)
def test_values_out_of_range_are_named(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name}: got"):
        TrainConfig(**wrong)
