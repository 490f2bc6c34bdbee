"""Formulas given as text: what is read, and that nothing else is."""

import os

import pytest
import sympy
import torch

from pyro_tkam.models import TiltedPrior
from pyro_tkam.nn.forms import LIBRARY
from pyro_tkam.nn.parse import parse_expression
from pyro_tkam.nn.symbolic import formula_function

X, Y = sympy.symbols("x y")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2*x + y/3 - 1", 2 * X + Y / 3 - 1),
        ("x - y - 1 + 2", X - Y + 1),
        ("x / y / 2 * 3", 3 * X / (2 * Y)),
        ("-x**2", -(X**2)),
        ("2**-x", 2 ** (-X)),
        ("x^2^3", X**8),
        ("(x + 1)\n * .5e1", 5.0 * (X + 1)),
        ("pi*E*x", sympy.pi * sympy.E * X),
        ("ln(exp(x))*abs(-y)", sympy.log(sympy.exp(X)) * sympy.Abs(Y)),
        ("lgamma(x) + arctan(y) + erf(x)", sympy.loggamma(X) + sympy.atan(Y) + sympy.erf(X)),
    ],
)
def test_formulas_are_read(text, expected):
    assert parse_expression(text) == expected
    assert parse_expression(text, ["x", "y"]) == expected
    assert parse_expression(str(expected)) == expected


def test_symbols_come_before_constants():
    positive = sympy.Symbol("gamma", positive=True)
    expression = parse_expression("E*gamma", {"E": X, "gamma": positive})
    assert expression == X * positive


def test_forms_of_the_library_are_read():
    for name in LIBRARY.keys() - {"j0"}:  # has no name of its own in sympy
        expression = LIBRARY[name].expression("u")
        assert parse_expression(str(expression)) == expression


def test_a_thousand_terms():
    names = [f"x{i}" for i in range(1000)]
    assert parse_expression(" + ".join(names), names) == sympy.Add(*sympy.symbols(names))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("__import__('os').mkdir('made')", "made of the functions sin, .*, got .*__import__"),
        ("[x for x in (1,)][0]", "made of numbers, variables, .*, got "),
        ("x.__class__", "got 'x.__class__'"),
        ("(lambda: 1)()", r"functions sin, .*, got 'lambda: 1' in '\(lambda: 1\)\(\)'"),
        ("open(x)", r"functions sin, .*, got 'open' in 'open\(x\)'"),
        ("sin(*x)", "functions of one argument, got "),
        ("sin(x, y)", "functions of one argument, got "),
        ("sin + x", r"names of variables, pi, E and functions of these, got 'sin' in 'sin \+ x'"),
        ("'x'", "finite real numbers, got \"'x'\""),
        ("2j*x", "finite real numbers, got '2j'"),
        ("x + 1e999", "finite real numbers, got '1e999'"),
        ("True", "finite real numbers, got 'True'"),
        ("x % 2", r"made of \+ - \* / \*\*, got 'x % 2'"),
        ("~x", r"signs \+ and -, got '~x'"),
        ("x < 1", "got 'x < 1'"),
        ("2 x", "one expression, got '2 x': invalid syntax"),
        ("", "one expression, got ''"),
        ("x # 1", "no comments, got 'x # 1'"),
        ("1/(1 - 1)", "real and finite, got .*, which is zoo"),
        ("log(-1)", "real and finite, got .*, which is I"),
        ("(-8)**(1/3)", "real numbers, got"),
        ("9**9**9**9", r"exponents from -1000 to 1000, got '9\*\*9\*\*9'"),
        ("exp(1000000000*log(2) + x)", "exponents from -1000 to 1000, got"),
        ("(10**300*x)**100", "numbers that fit in float64, got"),
        ("-" * 100_000 + "x", "less deeply nested, got '---"),
        ("exp(" * 150 + "x" + ")" * 149, "one expression, got"),
    ],
)
def test_anything_else_is_refused(text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"formula must (be|have) .*{message}"):
        parse_expression(text)
    assert not os.listdir(tmp_path)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="made of x, y, pi, E and functions of these, got 'z' in"):
        parse_expression("x + z", ["x", "y"])
    with pytest.raises(TypeError, match="formula must be a string, got 3"):
        parse_expression(3)


def test_a_large_factorial_is_not_worked_out():
    assert parse_expression("lgamma(1000000000)").is_Float


def test_priors_read_formulas_alike(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prior = TiltedPrior((), "gaussian")
    with pytest.raises(ValueError, match="formula must be made of the functions"):
        prior.fit(formula="__import__('os').mkdir('made')")
    with pytest.raises(TypeError, match="formula must be a string or a sympy expression, got <"):
        prior.fit(formula=object())
    assert not os.listdir(tmp_path)


def test_functions_of_numbers():
    z = torch.tensor([0.5, 2.0])
    values = formula_function("sqrt(2)*z + exp(1)*sin(1) + pi - erf(1/2)*lgamma(5)")(z)
    expected = 2**0.5 * z + 2.2873552 + torch.pi - 0.5204999 * 3.1780538
    assert torch.allclose(values, expected)
