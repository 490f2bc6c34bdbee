"""Networks that are formulas compute them."""

from __future__ import annotations

import pytest
import sympy
import torch

from pyro_tkam.nn import KAN

FORMULAS = (
    "exp(sin(pi*x) + y**2)",
    "x*y",
    "x + x**2 - 3*y/7 + 1/2",
    "(x + y)/(1 + x*y)",
    "x*y*z*sin(x + 2*z)/(3 + y**2)",
    "sqrt((x - y)**2 + z**2) + x",
    "(2 + x)**(y + 1) + atanh(x*z/2)*log(3 + y)",
    "exp(-(x - y)**2/(2*(2 + z)**2))/sqrt(2*pi*(2 + z)**2)",
    "2*x",
)


@pytest.mark.parametrize("formula", FORMULAS)
def test_the_network_of_a_formula_computes_it(formula):
    torch.manual_seed(0)
    x = 2 * torch.rand(50, 3, dtype=torch.double) - 1
    net = KAN.from_formula(formula, ["x", "y", "z"])
    function = sympy.lambdify(sympy.symbols("x y z"), sympy.sympify(formula), "numpy")
    expected = torch.as_tensor(function(*x.T.numpy()))
    assert torch.allclose(net(x).squeeze(-1), expected, rtol=1e-12, atol=1e-12)


def test_several_outputs_and_a_state():
    x = torch.rand(20, 2, dtype=torch.double)
    a, b = sympy.symbols("a b")
    net = KAN.from_formula([a * b, "exp(a)"])
    assert torch.allclose(net(x), torch.stack((x.prod(-1), x[:, 0].exp()), -1))
    assert torch.equal(KAN.from_state_dict(net.state_dict()).double()(x), net(x))
    net(x).sum().backward()
    assert all(layer.fixed.affine.grad is not None for layer in net.layers)


def test_bad_input():
    with pytest.raises(ValueError, match=r"symbols must hold \['y'\], got \['x'\]"):
        KAN.from_formula(sympy.Symbol("y") + 1, ["x"])
    with pytest.raises(ValueError, match="symbols must be distinct names"):
        KAN.from_formula("x", ["x", "x"])
    with pytest.raises(ValueError, match="formula must have no comments"):
        KAN.from_formula("x  # y")


@pytest.mark.parametrize("assumption", [{"real": True}, {"positive": True}])
def test_assumptions_about_a_symbol_change_no_network(assumption):
    x, y = sympy.symbols("x y", **assumption)
    net = KAN.from_formula(sympy.sin(x) + x**2 * y, [x, y])
    point = torch.tensor([[0.5, 3.0]], dtype=torch.double)
    torch.testing.assert_close(net(point)[0, 0], point[0, 0].sin() + 0.75)


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        ({"bias": False}, "bias must be True"),
        ({"hidden_range": "sigmoid"}, "hidden_range must be 'none'"),
        ({"layer_norm": True}, "layer_norm must be False"),
        ({"output": "sigmoid"}, "output must be 'none'"),
    ],
)
def test_options_with_which_the_network_would_compute_something_else(options, needed):
    with pytest.raises(ValueError, match=f"{needed} in a network that computes a formula, got"):
        KAN.from_formula("log(x + y**2 + 1)", **options)
