"""One small valid call of everything public in symbolic."""

from __future__ import annotations

import torch

from pyro_tkam.nn import KAN
from pyro_tkam.symbolic import find_formula, form_probabilities
from tests.valid_calls.call import Call, calls_of

#: Made by the package, a table, and what the calls of nn have.
RECORDS = ("Form", "FormulaEdge", "LIBRARY")


def calls() -> dict[str, Call]:
    torch.manual_seed(0)
    x = torch.rand(8, 2, dtype=torch.double)
    net = KAN([2, 1]).double().fix({(0, 0, 0): "x", (0, 0, 1): "x"})
    z = torch.linspace(-1, 1, 8)
    return {
        "find_formula": Call(
            find_formula,
            {
                "net": net,
                "x": x,
                "y": x.sum(-1, keepdim=True),
                "library": ["x"],
                "tolerance": 1e-3,
                "names": ["a", "b"],
                "strict": False,
                "timeout": 10.0,
                "disable_progbar": True,
            },
            expensive=True,
        ),
        **calls_of(find_formula(net, x, library=["x"]), __call__={"x": x}),
        "form_probabilities": Call(
            form_probabilities,
            {
                "x": z,
                "curves": z + 0.01 * torch.randn(2, 8),
                "library": ["x"],
                "tolerance": 1e-3,
                "disable_progbar": True,
            },
        ),
    }
