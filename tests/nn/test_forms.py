"""Forms: values and formulas agree, symmetries are found, and the library is open."""

from __future__ import annotations

import functools
import math
import pickle

import pytest
import scipy.special
import sympy
import torch

from pyro_tkam.nn.forms import LIBRARY, Form, as_form, as_library, bessel_j0, evaluate
from pyro_tkam.nn.symbolic import formula_function

POINTS = (-0.7, -0.2, 0.3, 0.8, 2.5)


@pytest.mark.parametrize("name", LIBRARY)
def test_values_and_formula_agree(name):
    form = LIBRARY[name]
    function = sympy.lambdify("u", form.expression("u"), "mpmath")
    values = form(torch.tensor(POINTS, dtype=torch.double))
    for u, value in zip(POINTS, values.tolist(), strict=True):
        if math.isfinite(value):
            assert value == pytest.approx(float(sympy.re(function(u))), rel=1e-13, abs=1e-14)


def test_the_symmetries_are_those_of_the_functions():
    def names(which):
        return {name for name, form in LIBRARY.items() if getattr(form, which)}

    powers = {"linear", "square", "cube", "quartic", "quintic"}
    powers |= {"inverse", "inverse_square", "inverse_cube", "sqrt", "inverse_sqrt", "log"}
    assert names("shift_is_redundant") == {"constant", "linear", "exp"}
    assert names("scale_is_redundant") == powers | {"constant", "abs", "sign"}
    asymmetric = {"sqrt", "inverse_sqrt", "exp", "log", "lgamma"}
    assert names("is_even_or_odd") == set(LIBRARY) - asymmetric
    assert {name: LIBRARY[name].period for name in names("period")} == {
        "sin": 2 * math.pi,
        "cos": 2 * math.pi,
        "tan": math.pi,
    }
    assert [
        LIBRARY[name].complexity for name in ("constant", "linear", "square", "exp", "sin")
    ] == [*(1, 2, 3, 3, 4)]


def test_the_bessel_function_is_exact_and_has_gradients():
    u = torch.linspace(-150, 150, 3001, dtype=torch.double)
    assert (bessel_j0(u) - torch.from_numpy(scipy.special.j0(u.numpy()))).abs().max() < 1e-12
    few = torch.tensor([-85.0, -3.0, 0.0, 7.0], dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(bessel_j0, few)
    assert torch.autograd.gradgradcheck(bessel_j0, few)


def test_the_library_takes_names_formulas_expressions_and_functions():
    x = sympy.Symbol("x")
    u = torch.linspace(0.1, 0.9, 5, dtype=torch.double)
    ways = as_library(["x^3", "atanh", torch.tan, sympy.sin(x) / x, "x*exp(-x)", _double])
    assert list(ways) == ["cube", "atanh", "tan", "sin(x)/x", "x*exp(-x)", "_double"]
    assert torch.allclose(ways["sin(x)/x"](u), u.sin() / u)
    assert torch.allclose(ways["x*exp(-x)"](u), u * (-u).exp())
    assert torch.equal(ways["_double"](u), 2 * u)
    assert ways["_double"].expression(x) == sympy.Function("_double")(x)
    named = as_library({"sinc": "sin(x)/x", "hyperbolic": torch.tanh, "mine": LIBRARY["sin"]})
    assert list(named) == ["sinc", "hyperbolic", "mine"]
    assert named["sinc"].expression(2 * x) == sympy.sin(2 * x) / (2 * x)
    with pytest.raises(ValueError, match=r"library must be one of 'constant', .*got 'sine'"):
        as_library(["sine"])
    with pytest.raises(ValueError, match=r"library must name at least one of .*got \[\]"):
        as_library([])
    with pytest.raises(ValueError, match=r"formula must have one variable, got x\*y with"):
        as_form("x*y")
    with pytest.raises(TypeError, match=r"library must hold names, .*got 3"):
        as_form(3)
    with pytest.raises(TypeError, match="library must be a sequence or a mapping"):
        as_library("sin")
    with pytest.raises(ValueError, match="names that a formula can call, such as 'f', got 'a b'"):
        as_library({"a b": torch.tanh})


def _double(u):
    return 2 * u


def test_forms_pickle():
    assert pickle.loads(pickle.dumps(LIBRARY["gaussian"])) is LIBRARY["gaussian"]
    for value in ("x*exp(-x)", _double):
        form = as_form(value)
        again = pickle.loads(pickle.dumps(form))
        assert again.name == form.name
        assert torch.equal(again(torch.ones(2)), form(torch.ones(2)))


def test_expressions_on_tensors():
    x, y = sympy.symbols("x y")
    values = {"x": torch.tensor([0.5, 2.0]), "y": torch.tensor([1.0, 3.0])}
    expression = sympy.sqrt(x) / y + 2**x * sympy.Abs(-y) - sympy.pi * sympy.besselj(0, x) + x**y
    expected = sympy.lambdify([x, y], expression, "scipy")(values["x"].numpy(), values["y"].numpy())
    assert torch.allclose(evaluate(expression, values), torch.from_numpy(expected).float())
    assert evaluate(sympy.sqrt(2), {}) == pytest.approx(math.sqrt(2))
    with pytest.raises(ValueError, match="variables must hold y, got x"):
        evaluate(x + y, {"x": values["x"]})
    with pytest.raises(ValueError, match="functions available in PyTorch, got gamma"):
        evaluate(sympy.gamma(x), values)
    with pytest.raises(ValueError, match="expression must be real"):
        evaluate(x + sympy.I, values)


def test_an_own_form_is_one_definition():
    wave = Form("wave", lambda f, u: f.exp(-u) * f.sin(u), cost=1)
    assert wave.complexity == 5
    assert float(wave(torch.tensor(1.0).double())) == pytest.approx(math.exp(-1) * math.sin(1))
    assert wave.expression("t") == sympy.exp(-sympy.Symbol("t")) * sympy.sin(sympy.Symbol("t"))


@pytest.mark.parametrize("assumption", [{}, {"real": True}, {"positive": True}])
def test_assumptions_about_a_symbol_change_no_formula(assumption):
    x = sympy.Symbol("x", **assumption)
    form = as_form(x * sympy.exp(-x))
    t = sympy.Symbol("t")
    assert form.expression(2 * t + 1) == (2 * t + 1) * sympy.exp(-2 * t - 1)
    both = x + sympy.Symbol("x") ** 2  # one variable to us, two to SymPy
    assert as_form(both).expression(t) == t + t**2
    assert torch.equal(formula_function(both)(torch.tensor(3.0)), torch.tensor(12.0))


@pytest.mark.parametrize(
    "functions",
    [
        [lambda u: u.sin(), lambda u: u.cos()],
        [functools.partial(torch.pow, exponent=n) for n in (6, 7)],
    ],
    ids=["lambdas", "partials"],
)
def test_functions_without_a_name_of_their_own_are_not_lost(functions):
    with pytest.raises(ValueError, match="library must have a different name for every form, as a"):
        as_library(functions)
    assert len(as_library({"f": functions[0], "g": functions[1]})) == 2
    assert len(as_library(["x**2", "square", functions[0], functions[0]])) == 2
