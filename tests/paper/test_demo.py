"""The demo, with few updates on small digits."""

import json
from dataclasses import replace

import pytest

from pyro_tkam.paper.demo import demo, table
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
def test_the_demo_compares_both_couplings(tmp_path):
    result = demo(SMALL, tmp_path, num_samples=50, progress=False)
    assert set(result.summaries) == {"shared", "independent"}
    assert result.shares["held-out digits"].confident > 0.4
    assert result.shares["held-out digits"].every_class
    text = table(result)
    for words in (
        "log evidence a digit",
        "effective draws",
        "seconds a step",
        "one class, p > .9",
        "reliable: ",
    ):
        assert words in text
    written = json.loads((tmp_path / "summary.json").read_text())
    assert written["classifier"]["shared"]["confident"] == result.shares["shared"].confident
    for name in ("demo.png", "curves.png", "shared/samples.png", "independent/prior.png"):
        assert (tmp_path / name).stat().st_size > 1000


def test_the_demo_needs_labels_and_held_out_digits(tmp_path):
    with pytest.raises(ValueError, match=r"held_out must be at least 1, as.*, got 0"):
        demo(replace(SMALL, held_out=0), tmp_path)
    with pytest.raises(ValueError, match=r"data must be one of \['digits',.*, got 'rows\.npy'"):
        demo(replace(SMALL, data="rows.npy"), tmp_path)
