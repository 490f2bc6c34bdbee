"""One small valid call of everything public in ops.resampling."""

from __future__ import annotations

import torch

from pyro_tkam.ops.resampling import RESAMPLERS, effective_sample_size
from tests.valid_calls.call import Call

#: A table.
RECORDS = ("RESAMPLERS",)


def calls() -> dict[str, Call]:
    log_weights = torch.tensor([[0.0, -1.0, -2.0, -torch.inf], [-1.0, 1.0, 0.5, 0.0]])
    return {
        "effective_sample_size": Call(effective_sample_size, {"log_weights": log_weights}),
        **{
            name: Call(
                resampler,
                {
                    "log_weights": log_weights,
                    "num": 3,
                    "generator": torch.Generator().manual_seed(0),
                },
            )
            for name, resampler in RESAMPLERS.items()
        },
    }
