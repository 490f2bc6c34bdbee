"""One small valid call of everything public in ops.quadrature."""

from __future__ import annotations

import torch

from pyro_tkam.ops.quadrature import (
    Quadrature,
    composite,
    default_rule,
    gauss_kronrod,
    gauss_legendre,
    trapezium,
)
from tests.valid_calls.call import Call, calls_of

RECORDS = ()


def calls() -> dict[str, Call]:
    low = torch.zeros(3)
    return {
        "Quadrature": Call(
            Quadrature,
            {
                "nodes": (0.2, 0.8),
                "splits": 2,
                "base_cells": 3,
                "use_knots": True,
                "tolerance": 1e-6,
                "max_cells": 64,
            },
        ),
        **calls_of(
            composite(2, 3),
            edges={"low": low, "high": low + 1, "breakpoints": torch.rand(4, 3).sort(0).values},
        ),
        "composite": Call(
            composite,
            {
                "splits": 2,
                "num_nodes": 3,
                "base_cells": 4,
                "tolerance": 1e-6,
                "max_cells": 64,
            },
        ),
        "default_rule": Call(default_rule, {"dtype": torch.float64, "nodes_per_cell": 4}),
        **{
            rule.__name__: Call(rule, {"num_nodes": 4})
            for rule in (gauss_kronrod, gauss_legendre, trapezium)
        },
    }
