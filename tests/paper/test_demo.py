"""The demo, with few updates on small digits."""

import json
from dataclasses import replace

import pytest

from pyro_tkam.paper.demo import MODELS, demo, table
from pyro_tkam.train import ModelConfig, TrainConfig

SMALL = TrainConfig(
    data="digits",
    held_out=300,
    model=ModelConfig(latent_dim=2, grid_size=5, widths=[8], noise_scale=0.3),
    updates=20,
    batch_size=50,
    num_particles=10,
    device="cpu",
)


@pytest.mark.slow
def test_the_demo_compares_two_models(tmp_path):
    result = demo(SMALL, tmp_path, progress=False)
    assert set(result.summaries) == set(MODELS) == {"autoregressive", "strict KART"}
    assert result.shares["held-out digits"].confident > 0.4
    assert result.shares["held-out digits"].every_class
    assert all(result.distances["held-out digits"] < result.distances[name] for name in MODELS)
    text = table(result)
    for words in (
        "Fréchet distance",
        "seconds per update",
        "one class, p > .9",
        "strict KART",
    ):
        assert words in text
    written = json.loads((tmp_path / "summary.json").read_text())
    assert written["classifier"]["strict KART"]["confident"] == (
        result.shares["strict KART"].confident
    )
    assert written["frechet_distance"] == result.distances
    for name in ("demo.png", "curves.png", "strict-KART/samples.png", "autoregressive/prior.png"):
        assert (tmp_path / name).stat().st_size > 1000
    config = TrainConfig.load(tmp_path / "autoregressive" / "config.yaml")
    assert (config.model.latent_dim, config.schedule) == (5, "one-cycle")


def test_the_demo_needs_labels_and_held_out_digits(tmp_path):
    with pytest.raises(ValueError, match=r"held_out must be at least 2, as.*, got 1"):
        demo(replace(SMALL, held_out=1), tmp_path)
    with pytest.raises(ValueError, match=r"data must be one of \['digits',.*, got 'rows\.npy'"):
        demo(replace(SMALL, data="rows.npy"), tmp_path)
