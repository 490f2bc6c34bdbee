"""Estimators: what scikit-learn asks of every one, and that they learn."""

import warnings

import numpy as np
import pandas
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator

from pyro_tkam.nn import parse_expression
from pyro_tkam.sklearn import KANClassifier, KANRegressor

QUICK = {"hidden": (2,), "grid_size": 2, "steps": 1, "grid_updates": 1, "random_state": 0}


@pytest.mark.slow
@pytest.mark.parametrize("make", [KANRegressor, KANClassifier])
def test_scikit_learn_takes_it(make):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # checks that are skipped
        check_estimator(make(**QUICK))


def test_a_regression_of_far_inputs_in_a_pipeline():
    generator = np.random.default_rng(0)
    x = np.stack((generator.uniform(-1, 1, 300), generator.uniform(1e3, 2e3, 300)), -1)
    y = 1e4 * (np.sin(3 * x[:, 0]) + (x[:, 1] / 500 - 3) ** 2)
    model = KANRegressor(hidden=(), grid_size=8, steps=5, random_state=0)
    state = torch.get_rng_state()
    assert cross_val_score(make_pipeline(FunctionTransformer(), model), x, y, cv=3).min() > 0.999
    assert torch.equal(torch.get_rng_state(), state)
    both = model.fit(x, np.stack((y, -y), -1)).predict(x)
    np.testing.assert_allclose(both[:, 1], -both[:, 0], rtol=0.05, atol=300)


def test_a_classification():
    x, y = load_iris(return_X_y=True)
    model = KANClassifier(hidden=(), steps=5, penalty=1e-3, random_state=0).fit(x, y)
    assert model.score(x, y) > 0.95
    np.testing.assert_allclose(model.predict_proba(x).sum(-1), 1.0)
    with pytest.raises(ValueError, match="y must have labels of at least two classes, got one"):
        model.fit(x, np.zeros(len(x)))


def test_a_formula_in_the_units_and_names_of_the_data():
    generator = np.random.default_rng(0)
    x = pandas.DataFrame(
        {"mass": generator.uniform(1, 5, 300), "speed": generator.uniform(10, 30, 300)}
    )
    y = 0.5 * x["mass"] + 3 * x["speed"] ** 2
    formula = KANRegressor(hidden=(), steps=5, random_state=0).fit(x, y).formula_
    assert str(formula) == "mass/2 + 3*speed**2"
    assert formula.rmse < 1e-9
    values = formula(torch.as_tensor(x.to_numpy(copy=True)))[:, 0]
    np.testing.assert_allclose(values, y, rtol=1e-10)


def test_columns_of_any_name_become_variables_that_differ():
    generator = np.random.default_rng(0)
    names = ["petal length (cm)", "lambda", "", "petal_length_cm", "2nd", "lambda?", "λ"]
    x = pandas.DataFrame(generator.uniform(1, 5, (200, len(names))), columns=names)
    y = x.to_numpy() @ np.arange(1.0, len(names) + 1)
    formula = KANRegressor(hidden=(), grid_size=2, steps=2, random_state=0).fit(x, y).formula_
    variables = [
        "petal_length_cm_1",
        "lambda_",
        "x_3",
        "petal_length_cm",
        "x_2nd",
        "lambda__6",
        "λ",
    ]
    assert list(map(str, formula.symbols)) == variables
    terms = [f"{i}*{name}" for i, name in enumerate(variables, 1)]
    law = parse_expression(" + ".join(terms), variables)
    assert parse_expression(str(formula), variables) == law


def test_a_curve_without_a_form_is_told_in_words_of_the_estimator():
    x = np.linspace(-1, 1, 300)[:, None]
    y = np.sign(np.sin(40 * x[:, 0])) * np.exp(x[:, 0])
    regressor = KANRegressor(hidden=(), grid_size=60, steps=5, random_state=0).fit(x, y)
    message = r"network_ must have a form .*, got none for \(\(0, 0, 0\),\); fit with fewer nodes"
    with (
        pytest.warns(UserWarning, match="no form explains 1 of 1 curves"),
        pytest.raises(ValueError, match=message),
    ):
        _ = regressor.formula_
