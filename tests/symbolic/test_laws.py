"""Laws are found from data."""

from __future__ import annotations

import math

import pytest
import sympy
import torch

from benchmarks.symbolic import FOUND, TASKS, ours
from pyro_tkam.nn import KAN, fit, simplify
from pyro_tkam.symbolic import find_formula


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("task", ["hello", "relativistic"])
def test_the_first_example_and_the_addition_of_velocities_are_found(task, seed):
    """By the recipes of the benchmark, on fresh points and as the law itself."""
    found = ours(task, TASKS[task][task], seed)
    assert found["same"], found["formula"]
    assert found["relative_rmse"] < FOUND


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_product_of_three_is_found(seed):
    """From starts at sums of all inputs, fits stay off by 40% or more."""
    torch.manual_seed(seed)
    low, high = torch.tensor([[-1, 1], [-1, 1], [0, 2 * math.pi]], dtype=torch.double).mT
    x = low + (high - low) * torch.rand(500, 3, dtype=torch.double)
    y = x[:, 0] * x[:, 1] * torch.sin(x[:, 2])
    net = KAN([3, (1, 1), (0, 1), 1], grid_size=5).double().sparse_start(x)
    fit(net, x, y, optimizer="lm", steps=40)
    net = simplify(net, x, y)
    net.update_grid(x, grid_size=10)
    fit(net, x, y, optimizer="lm", steps=20)
    formula = find_formula(net, x, y, names=["r", "f", "t"])
    r, f, t = formula.symbols
    assert sympy.simplify(formula.expression - r * f * sympy.sin(t)) == 0
    assert formula.rmse < 1e-12
