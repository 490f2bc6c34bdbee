"""Penalties on functions, from a configuration."""

from dataclasses import replace

import pytest
import torch

from pyro_tkam.train import ModelConfig, PenaltyConfig, TrainConfig, load_model, train
from pyro_tkam.train.penalties import make_penalty
from pyro_tkam.train.presets import make_model

SMALL = ModelConfig(data_shape=[3], latent_dim=2, grid_size=6, widths=[6])
MODELS = {
    "kart": SMALL,
    "mixture": replace(SMALL, preset="mixture", num_components=2),
    "deep": replace(SMALL, preset="deep", latent_dim=4),
}


@pytest.mark.parametrize("preset", MODELS)
def test_a_penalty_is_the_weighted_sum_of_its_terms(preset):
    torch.manual_seed(0)
    model = make_model(MODELS[preset])
    energies = {
        "kart": lambda: model.prior.energies.regularization(l1=0.0, entropy=0.5, smoothness=2.0),
        "mixture": lambda: model.prior.components.energies.regularization(
            l1=0.0, entropy=0.5, smoothness=2.0
        ),
        "deep": lambda: model.prior.energy.regularization(
            torch.randn(100, 4), l1=0.0, entropy=0.5, smoothness=2.0
        ),
    }[preset]
    penalty = make_penalty(
        PenaltyConfig(energy_entropy=0.5, energy_smoothness=2.0, generator_l1=3.0), model
    )
    torch.manual_seed(1)
    found = penalty(model)
    torch.manual_seed(1)
    width = model.generator.outer.widths[0]
    expected = energies() + model.generator.outer.regularization(
        torch.randn(100, width), l1=3.0, entropy=0.0
    )
    torch.testing.assert_close(found, expected)
    assert make_penalty(PenaltyConfig(), model) is None


def test_weights_of_functions_that_are_not_there_are_refused():
    ordered = make_model(
        ModelConfig(preset="autoregressive", data_shape=[3], latent_dim=2, widths=[4])
    )
    with pytest.raises(ValueError, match=r"penalty\.energy_\* must be 0 for a prior without"):
        make_penalty(PenaltyConfig(energy_l1=1.0), ordered)
    images = make_model(
        ModelConfig(preset="mixture", data_shape=[8, 8], latent_dim=2, generator="convolutional")
    )
    with pytest.raises(ValueError, match=r"penalty\.generator_\* must be 0 for a generator that"):
        make_penalty(PenaltyConfig(generator_l1=1.0), images)


def test_smoothness_of_fourier_energies_makes_them_smooth_in_a_run(tmp_path):
    config = TrainConfig(
        data="digits",
        held_out=0,
        model=ModelConfig(latent_dim=2, grid_size=6, widths=[6], basis="fourier"),
        updates=12,
        batch_size=20,
        num_particles=10,
        learning_rate=0.05,
        device="cpu",
    )
    curvatures = []
    for weight in (0.0, 1.0):
        run = tmp_path / str(weight)
        penalty = PenaltyConfig(energy_smoothness=weight)
        train(replace(config, penalty=penalty), run, progress=False)
        energies = load_model(run).prior.energies
        curvatures.append(
            float(energies.regularization(l1=0.0, entropy=0.0, smoothness=1.0).detach())
        )
    assert curvatures[1] < 0.2 * curvatures[0]
