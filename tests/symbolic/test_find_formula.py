"""Formulas are read off networks: exact ones exactly, others with what is not known of them."""

from __future__ import annotations

import math
import re

import pytest
import sympy
import torch

from pyro_tkam import _progress
from pyro_tkam._progress import Progress
from pyro_tkam.nn import KAN, fit
from pyro_tkam.nn.forms import evaluate
from pyro_tkam.symbolic import find_formula
from pyro_tkam.symbolic.least_squares import Data, Fit, OutOfTimeError
from pyro_tkam.symbolic.misfit import has_pattern
from pyro_tkam.symbolic.search import Search

X, Y = sympy.symbols("x_1 x_2")


def inputs(seed, columns=2, count=300):
    torch.manual_seed(seed)
    return 2 * torch.rand(count, columns, dtype=torch.double) - 1


def network(widths, forms):
    """Return a network with forms on all edges, whose constants are not the canonical ones."""
    torch.manual_seed(0)
    return KAN(widths).double().fix(forms)


NESTED = {
    "sine and square in an exponential": (
        {
            (0, 0, 0): ("sin", (math.pi, 2 * math.pi, 0.5, 0.3)),
            (0, 0, 1): ("square", (-2.0, 0.0, 0.125, 0.0)),
            (1, 0, 0): ("exp", (2.0, 0.1, 1.0, 0.0)),
        },
        sympy.exp(sympy.Rational(7, 10)) * sympy.exp(sympy.sin(sympy.pi * X) + Y**2),
    ),
    "hyperbolic tangent of two": (
        {
            (0, 0, 0): ("atanh", (0.7, 0.0, 3.0, 1.0)),
            (0, 0, 1): ("atanh", (0.5, 0.0, -3.0, 0.0)),
            (1, 0, 0): ("tanh", (1 / 3, -1 / 3, 2.0, 5.0)),
        },
        5 + 2 * sympy.tanh(sympy.atanh(0.7 * X) - sympy.atanh(Y / 2)),
    ),
    "root of a sum of squares": (
        {
            (0, 0, 0): ("square", (1.0, 0.0, 2.0, 0.0)),
            (0, 0, 1): ("square", (1.0, 0.5, 2.0, 0.0)),
            (1, 0, 0): ("sqrt", (0.5, 1.0, 4.0, 0.0)),
        },
        4 * sympy.sqrt(X**2 + (Y + 0.5) ** 2 + 1),
    ),
}


@pytest.mark.parametrize("name", NESTED)
def test_forms_are_found_behind_redundant_constants(name):
    forms, truth = NESTED[name]
    x = inputs(1)
    net = network([2, 1, 1], forms)
    formula = find_formula(net, x)
    assert formula.rmse < 1e-12
    assert not formula.unexplained
    difference = sympy.lambdify((X, Y), formula.expression - truth, "numpy")
    assert abs(difference(*inputs(2).T.numpy())).max() < 1e-9
    # The formula, its module and the network with the same forms are one function.
    fixed = net.fix(
        {
            place: (edge.form, [edge.parameters[i] for i in (1, 2, 0, 3)])
            for place, edge in formula.edges.items()
        }
    )
    assert torch.allclose(formula(x), fixed(x), atol=1e-10)
    assert torch.allclose(formula.to_module()(x), fixed(x), atol=1e-10)
    expression = sympy.lambdify((X, Y), formula.expression, "numpy")(*x.T.numpy())
    assert torch.allclose(formula(x).squeeze(-1), torch.from_numpy(expression), atol=1e-10)


def test_a_trained_network_becomes_the_law():
    torch.manual_seed(0)
    x = inputs(3, count=400)
    y = torch.exp(torch.sin(math.pi * x[:, 0]) + x[:, 1] ** 2)
    net = KAN([2, 1, 1], grid_size=5).double()
    fit(net, x, y, steps=10)
    formula = find_formula(net, x, y, names=["a", "b"])
    a, b = formula.symbols
    assert sympy.simplify(formula.expression - sympy.exp(sympy.sin(sympy.pi * a) + b**2)) == 0
    assert formula.rmse < 1e-12
    assert not formula.constants
    assert "sin" in formula._repr_latex_()


def test_noise_has_standard_errors_that_are_right():
    """
    Of 12 sets of noise the errors of three constants average one standard error squared; the mean
    of 36 squares lies in (0.4, 2) but for one run in 1000.
    """
    x = inputs(4, count=200)
    truth = {"factor_0_0_0": 1.3, "scale_0_0_0": 2.2, "factor_0_0_1": 0.7}
    forms = {
        (0, 0, 0): ("sin", (2.2, 0.0, 1.3, 0.0)),
        (0, 0, 1): ("exp", (1.0, 0.0, 0.7, 0.0)),
    }
    net = network([2, 1], forms)
    library = ["sin", "exp"]
    squares = []
    for seed in range(12):
        torch.manual_seed(seed)
        y = (net(x) + 0.05 * torch.randn(len(x), 1)).detach()
        formula = find_formula(net, x, y, library=library)
        assert formula.rmse == pytest.approx(0.05, rel=0.25)
        for name, value in truth.items():
            if name in formula.constants:
                error = (formula.constants[name] - value) / formula.standard_errors[name]
                squares.append(error**2)
    assert len(squares) > 20  # others were rounded to a plain number within their errors
    assert 0.4 < sum(squares) / len(squares) < 2


def test_what_has_no_form_is_told():
    x = inputs(5)
    torch.manual_seed(0)
    net = KAN([2, 1], grid_size=20).double()
    y = torch.sin(9 * x[:, :1]) + x[:, 1:] ** 2
    fit(net, x, y, steps=10)
    with pytest.warns(UserWarning, match="no form explains 1 of 2 curves, phi_0_0_0 in the expr"):
        formula = find_formula(net, x, y, library=["square", "linear", "constant"])
    assert formula.unexplained == ((0, 0, 0),)
    assert formula.edges[0, 0, 0].name == "spline"
    assert formula.expression.has(sympy.Function("phi_0_0_0"))
    assert float((formula(x) - y).square().mean().sqrt()) == pytest.approx(formula.rmse)
    with pytest.raises(ValueError, match=r"a form for every edge with strict=True, got none for"):
        find_formula(net, x, y, library=["square", "linear"], strict=True)
    own = {"wave": lambda u: torch.sin(9 * u), "square": "x**2"}
    assert find_formula(net, x, y, library=own).rmse < 1e-8


def test_a_form_that_is_poor_is_named_with_a_warning():
    x = inputs(8)
    net = network([2, 1], {(0, 0, 0): ("sin", (6, 0, 1, 0)), (0, 0, 1): ("square", (1, 0, 0.1, 0))})
    y = x[:, :1] ** 3 + x[:, 1:]  # another law than the network's
    message = r"forms of edges .* less than 99% .* misses .*% of the .*: fit it longer or from an"
    with pytest.warns(UserWarning, match=message):
        find_formula(net, x, y, library=["sin", "square"])


def noisy_curve(count=200):
    """Return a network whose curve follows the noise of its targets."""
    x = inputs(0, 1, count)
    y = torch.sin(3 * x) + 0.5 * torch.randn(count, 1, dtype=torch.double)
    net = KAN([1, 1], grid_size=20).double()
    fit(net, x, y, steps=3)
    return net, x, y


def test_a_right_formula_of_noisy_data_is_silent():
    net, x, y = noisy_curve()
    formula = find_formula(net, x, y, library=["sin", "linear", "square"], tolerance=0.1)
    assert formula.edges[0, 0, 0].name == "sin"
    assert formula.edges[0, 0, 0].r2 < 0.99  # the rest of the curve is noise


def test_a_wrong_formula_of_noisy_data_is_not_for_want_of_training():
    net, x, y = noisy_curve()
    with pytest.warns(UserWarning, match="less than 99%") as told:
        formula = find_formula(net, x, y, library=["linear"], tolerance=0.9)
    assert formula.edges[0, 0, 0].name == "linear"
    assert "prune it or add forms" in str(told[0].message)
    assert "longer" not in str(told[0].message)


@pytest.mark.parametrize("columns", [1, 2, 3])
def test_residuals_that_are_noise_have_no_pattern(columns):
    """A smooth rest has one. Of 60 sets of noise at three standard errors, two have in 1 of 300."""
    x = inputs(0, columns)
    spread = x[:, :1].exp()
    noise = [spread * torch.randn(len(x), 2, dtype=torch.double) for _ in range(60)]
    assert sum(has_pattern(Data(x, each)) for each in noise) < 2
    assert has_pattern(Data(x, x.sum(-1, keepdim=True).sin() + 0.3 * noise[0]))
    assert not has_pattern(Data(x, torch.zeros(len(x), 1)))


def test_a_search_that_was_cut_says_so():
    net, x, _ = noisy_curve()
    with pytest.warns(UserWarning, match="search stopped after timeout=1e-09 seconds"):
        formula = find_formula(net, x, timeout=1e-9)
    assert formula.is_cut
    assert formula.unexplained == ((0, 0, 0),)
    torch.testing.assert_close(formula(x), net(x).detach())
    with pytest.raises(ValueError, match=r"timeout must be long enough .* strict=True, got 1e-09"):
        find_formula(net, x, timeout=1e-9, strict=True)
    with pytest.warns(UserWarning, match="no form explains"):
        assert not find_formula(net, x, library=["linear"], timeout=1e9).is_cut


def test_what_was_found_before_the_time_was_over_is_kept(monkeypatch):
    kept = []

    def trial(self, network, place, candidate):
        if kept:
            raise OutOfTimeError
        kept.append(candidate.form.name)
        return Fit(network.with_form(place, candidate, self.few.x[:, place[2]]), 1e-9)

    monkeypatch.setattr(Search, "_trial", trial)
    net, x, y = noisy_curve()
    poor, cut = (
        pytest.warns(UserWarning, match=part)
        for part in ("than 99%", "search stopped after timeout")
    )
    with poor, cut:
        formula = find_formula(net, x, y, library=["linear", "square"], timeout=1e9)
    assert formula.edges[0, 0, 0].name == kept[0]


@pytest.mark.filterwarnings("ignore:no form explains")
def test_a_bar_tells_how_far_a_search_is(monkeypatch, capsys):
    monkeypatch.setattr(_progress, "SILENT_SECONDS", 0.0)
    told = []
    monkeypatch.setattr(Progress, "tell", lambda self, what: told.append((self._route, what)))
    net, x, _ = noisy_curve()
    find_formula(net, x, library=["linear"], disable_progbar=True)
    assert not capsys.readouterr().err
    routes = list(dict.fromkeys(route for route, _ in told))
    expected = ["forms of each curve", "other forms", "simpler forms", "constants", "expression"]
    assert routes == expected
    assert ("forms of each curve", "edge 1 of 1") in told
    find_formula(net, x, library=["linear"], disable_progbar=False)
    assert capsys.readouterr().err


def test_values_are_finite_where_forms_have_edges():
    x = inputs(6)
    net = network(
        [2, 1], {(0, 0, 0): ("sqrt", (1.0, 1.0, 1.0, 0.0)), (0, 0, 1): ("abs", (1, 0, 1, 0))}
    )
    formula = find_formula(net, x)
    assert bool(formula(x).isfinite().all())
    assert formula.rmse < 1e-10


@pytest.mark.filterwarnings("ignore:the forms of edges")
@pytest.mark.parametrize("widths", [[1, 1], [1, 1, 1]])
def test_a_formula_has_a_value_at_every_sample(widths):
    """One sample of many, which the search need not look at, lies where a root has no value."""
    x = inputs(0, 1, 1501).abs()
    x[1] = -0.05
    y = x.clamp_min(0).sqrt()
    torch.manual_seed(0)
    net = KAN(widths, grid_size=10).double()
    fit(net, x, y, optimizer="lm", steps=20, disable_progbar=True)
    formula = find_formula(net, x, y, library=("sqrt", "square", "linear"), tolerance=1e-2)
    assert formula.rmse < 0.1
    assert formula.module(x).isfinite().all()


def test_a_curve_stays_where_no_form_has_values():
    x = inputs(0, 1)
    net = network([1, 1], {(0, 0, 0): ("square", (1.0, 0.0, 1.0, 0.0))})
    with pytest.warns(UserWarning, match="no form explains 1 of 1 curves"):
        formula = find_formula(net, x, library={"none": lambda s: s / 0 * 0})
    assert formula.unexplained == ((0, 0, 0),)


def test_bad_input():
    x = inputs(7)
    net = KAN([2, 1]).double()
    with pytest.raises(ValueError, match=r"x must have shape \(N, 2\).*got \(300, 1\)"):
        find_formula(net, x[:, :1])
    with pytest.raises(ValueError, match=r"y must have shape \(300, 1\), got \(299, 1\)"):
        find_formula(net, x, x[1:, :1])
    with pytest.raises(ValueError, match=r"y must be finite in torch\.float64, got 143"):
        find_formula(net, x, x[:, :1].log())
    with pytest.raises(ValueError, match="names must be 2 distinct names"):
        find_formula(net, x, names=["a", "a"])
    with pytest.raises(ValueError, match="net must be a network with layer_norm=False"):
        find_formula(KAN([2, 2, 1], layer_norm=True).double(), x)
    with pytest.raises(ValueError, match="tolerance must be a finite number greater than 0"):
        find_formula(net, x, tolerance=0.0)


@pytest.mark.parametrize("name", ["", "a b", "2a", "lambda", "pi", "exp", "loggamma", "\u00b5"])
def test_a_name_that_no_formula_can_be_evaluated_with_is_refused_before_any_work(name, monkeypatch):
    def work(*_):
        raise AssertionError("work was done")

    monkeypatch.setattr(Search, "run", work)
    message = f"names must be identifiers other than .* functions, got {name!r}"
    with pytest.raises(ValueError, match=message):
        find_formula(KAN([2, 1]).double(), inputs(7), names=["a", name])


NONE = ("constant", (0.0, 1.0, 0.0, 0.0))
UNEVEN = {
    "two factors in an exponential": (
        [2, 1, 1],
        {
            (0, 0, 0): ("sin", (3.0, 0.0, 2.0, 0.0)),
            (0, 0, 1): ("square", (1.0, 0.0, 3.0, 0.0)),
            (1, 0, 0): ("exp", (1.0, 0.0, 1.0, 0.0)),
        },
        sympy.exp(3 * Y**2 + 2 * sympy.sin(3 * X)),
    ),
    "a product": (
        [2, (0, 1), 1],
        {
            (0, 0, 0): ("linear", (1.0, 0.0, 4.0, 0.0)),
            (0, 1, 1): ("linear", (1.0, 0.0, 5.0, 0.0)),
            (0, 0, 1): NONE,
            (0, 1, 0): NONE,
            (1, 0, 0): ("linear", (1.0, 0.0, 0.35, 0.0)),
        },
        7 * X * Y,
    ),
}


@pytest.mark.parametrize("name", UNEVEN)
def test_the_expression_is_the_function(name):
    """Factors that are made one are moved elsewhere, never into one that is fixed already."""
    widths, forms, truth = UNEVEN[name]
    x = inputs(1)
    formula = find_formula(network(widths, forms), x)
    assert sympy.simplify(formula.expression - truth) == 0
    values = evaluate(formula.expression, dict(zip(("x_1", "x_2"), x.unbind(-1), strict=True)))
    torch.testing.assert_close(values, formula(x).squeeze(-1), rtol=1e-10, atol=1e-10)


def test_a_printed_formula_has_six_digits_and_standard_errors():
    x = inputs(3)
    forms = {(0, 0, 0): ("sin", (3.1, 0.2, 1.3, 0.0)), (0, 0, 1): ("square", (1.0, 0.0, 0.7, 0.0))}
    net = network([2, 1], forms)
    formula = find_formula(net, x, net(x).detach() + 0.05 * torch.randn(len(x), 1).double())
    expression, *constants = str(formula).splitlines()
    digits = (each.replace(".", "").lstrip("0") for each in re.findall(r"\d+\.\d+", expression))
    assert max(map(len, digits)) == 6
    assert len(constants) == len(formula.constants) > 0
    for line, (name, value) in zip(constants, formula.constants.items(), strict=True):
        shown, number, _, error = re.fullmatch(r"  (\S+) = (\S+) (±) (\S+)", line).groups()
        assert shown == name
        assert float(number) == pytest.approx(value, rel=1e-4)
        assert float(error) == pytest.approx(formula.standard_errors[name], rel=0.06)


@pytest.mark.filterwarnings("ignore:the forms of edges")
@pytest.mark.parametrize("scale", [0.6, 0.8034289479255676])
def test_a_sample_may_lie_at_the_end_of_the_domain_of_a_form(scale):
    """There the arcsine has no derivative, and a rounded scale would give it no value."""
    net = KAN([1, 1, 1]).double()
    net = net.fix({(0, 0, 0): ("asin", (scale, 1 - scale, 1, 0)), (1, 0, 0): ("exp", (1, 0, 1, 0))})
    formula = find_formula(net, torch.linspace(-1, 1, 200, dtype=torch.double).unsqueeze(-1))
    assert formula.rmse < 2e-6
    assert not any(math.isnan(error) for error in formula.standard_errors.values())
