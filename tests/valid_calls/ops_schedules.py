"""One small valid call of everything public in ops.schedules."""

from __future__ import annotations

import torch

from pyro_tkam.ops.schedules import (
    adaptive,
    communication_barrier,
    cyclic_exponent,
    monotone_cubic,
    power_law,
    suggested_number,
)
from tests.valid_calls.call import Call

RECORDS = ()


def calls() -> dict[str, Call]:
    betas = torch.tensor([0.0, 0.2, 0.5, 1.0])
    rejections = torch.tensor([0.5, 0.2, 0.3])
    return {
        "adaptive": Call(adaptive, {"betas": betas, "rejections": rejections, "num": 5}),
        "communication_barrier": Call(communication_barrier, {"rejections": rejections}),
        "cyclic_exponent": Call(
            cyclic_exponent, {"step": 3, "total": 9, "start": 4.0, "end": 1.0, "cycles": 2.0}
        ),
        "monotone_cubic": Call(
            monotone_cubic, {"x": betas, "y": betas**2, "points": torch.linspace(0, 1, 6)}
        ),
        "power_law": Call(power_law, {"num": 4, "exponent": 2.0, "dtype": torch.float32}),
        "suggested_number": Call(suggested_number, {"barrier": 2.5}),
    }
