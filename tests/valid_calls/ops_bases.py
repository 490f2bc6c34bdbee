"""One small valid call of everything public in ops.bases."""

from __future__ import annotations

from typing import Any

import torch

from pyro_tkam.ops.bases import BASES, BasisFunctions, BSplines, IrregularBSplines
from tests.valid_calls.call import Call, calls_of

#: A table, and bases of classes.
RECORDS = ("BASES", "BasisFunctions", "Picklable", "Polynomials", "ShiftedKernel")


def uses(basis: BasisFunctions) -> dict[str, Call]:
    """Return calls of what a basis does."""
    z = torch.rand(5, 2)
    coefficients = torch.randn(2, basis.num_functions)
    return calls_of(
        basis,
        __call__={"z": z},
        weighted_sum={"z": z, "coefficients": coefficients},
        edge_sum={"s": z, "coefficients": coefficients.expand(3, -1, -1)},
        on_grid={"grid": basis.grid},
        cast={"dtype": torch.float64},
    )


def calls() -> dict[str, Call]:
    torch.manual_seed(0)
    found: dict[str, Call] = {}
    for kind in BASES.values():
        uniform: dict[str, Any] = {"low": 0.0, "high": 1.0, "grid_size": 4, "degree": 2}
        basis = kind.uniform(**uniform, width=kind.default_width)
        parts = {"grid": basis.grid, "width": basis.width, "degree": 2}
        found |= uses(basis) | {
            kind.__name__: Call(kind, parts),
            f"{kind.__name__}.uniform": Call(
                kind.uniform, {**uniform, "width": kind.default_width}
            ),
        }
    grid = torch.tensor([0.0, 0.2, 0.7, 1.0])
    irregular = {"grid": grid, "width": None, "degree": 2, "linear": True}
    found |= uses(IrregularBSplines(**irregular))
    found |= {kind.__name__: Call(kind, irregular) for kind in (BSplines, IrregularBSplines)}
    return found
