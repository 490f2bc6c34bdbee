"""One small valid call of everything public in paper.convolutional."""

from __future__ import annotations

from pyro_tkam.paper.convolutional import conv_deep, conv_mixture
from tests.valid_calls.call import Call

RECORDS = ()


def calls() -> dict[str, Call]:
    options = {"data_shape": (3, 32, 32), "generator": "svhn", "degree": 2, "noise_scale": 0.3}
    return {
        "conv_mixture": Call(
            conv_mixture,
            {**options, "latent_dim": 2, "num_components": 2, "reference": "gaussian"},
        ),
        "conv_deep": Call(
            conv_deep,
            {
                **options,
                "latent_dim": 2,
                "energy_widths": (3,),
                "prior_steps": 2,
                "prior_step_size": 0.1,
            },
        ),
    }
