"""The configuration and its file."""

import math

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
        ("just words", "must be a mapping, got str"),
        ("update: 3", "keys must be among data, held_out, .*, got update"),
        ("model: {latent: 3}", "keys must be among preset, data_shape, latent_dim, .*, got latent"),
        ("model: 3", "must be a mapping, got int"),
        ("updates: 0", "updates must be an integer of at least 1, got 0"),
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
    [
        {"batch_size": 0},
        {"num_particles": -1},
        {"learning_rate": 0.0},
        {"clip_norm": float("nan")},
        {"schedule": "falling"},
    ],
)
def test_values_out_of_range_are_named(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} must be .*, got {wrong[name]!r}"):
        TrainConfig(**wrong)


def test_types_are_those_of_the_fields():
    config = TrainConfig.of({"grid_updates": {"max_change": math.inf}})
    assert config.grid_updates.max_change == math.inf
    for content, message in (
        ({"learning_rate": "1e-3"}, "learning_rate must be a number, got '1e-3'"),
        ({"model": {"widths": 3}}, "widths must be a sequence of integers, got 3"),
        ({"tensorboard": "no"}, "tensorboard must be True or False, got 'no'"),
    ):
        with pytest.raises(TypeError, match=message):
            TrainConfig.of(content)
