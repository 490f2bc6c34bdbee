"""A table of models: Bayes factors, probabilities with their errors, and what to beware of."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_tkam.infer import (
    DataSeen,
    Evidence,
    Finding,
    Verdict,
    bridge_evidence,
    compare,
    log_evidence,
)
from pyro_tkam.infer.evidence.prior_sensitivity import SENSITIVITY
from pyro_tkam.infer.model.requirements import check_model, data_seen


def evidence(value, error=0.05, **kwargs):
    return Evidence(value, error, "bridge", Verdict(**kwargs))


def test_factors_and_probabilities():
    models = {"b": evidence(-11.0, 0.04), "a": evidence(-10.0, 0.03), "c": evidence(-800.0)}
    table = compare(models)
    assert list(table.index) == ["a", "b", "c"]
    assert table["posterior_probability"].sum() == pytest.approx(1)
    assert table.loc["a", "posterior_probability"] == pytest.approx(1 / (1 + math.exp(-1)))
    assert table.loc["b", "log_bayes_factor"] == pytest.approx(-1)
    assert table.loc["b", "log_bayes_factor_error"] == pytest.approx(0.05)
    assert table.loc["b", "bayes_factor"] == pytest.approx(math.exp(-1))
    assert table.loc["a", "percentage_error"] == pytest.approx(3.0, abs=0.01)
    assert table["trusted"].all()
    weighed = compare(models, {"a": 0.1, "b": 0.9, "c": 0.0})
    odds = weighed.loc["b", "posterior_probability"] / weighed.loc["a", "posterior_probability"]
    assert odds == pytest.approx(9 * math.exp(-1))


def test_errors_of_probabilities_are_the_spread_over_runs():
    torch.manual_seed(0)
    values = torch.tensor([-10.0, -10.5, -12.0], dtype=torch.float64)
    errors = torch.tensor([0.05, 0.08, 0.1], dtype=torch.float64)
    names = ["a", "b", "c"]
    table = compare(
        {
            name: evidence(v.item(), e.item())
            for name, v, e in zip(names, values, errors, strict=True)
        }
    )
    runs = (values + errors * torch.randn(20_000, 3, dtype=torch.float64)).softmax(-1)
    told = torch.tensor(table.loc[names, "posterior_probability_error"].values)
    torch.testing.assert_close(told, runs.std(0), rtol=0.05, atol=0)


def test_doubtful_evidences_are_named():
    finding = Finding("too few draws", "seen", "advice")
    models = {"good": evidence(-10.0), "bad": evidence(-9.0, findings=(finding,))}
    with pytest.warns(UserWarning, match=r"evidences of \['bad'\] are not to be trusted"):
        table = compare(models)
    assert not table.loc["bad", "trusted"]


def located(width):
    def model(x):
        loc = pyro.sample("loc", dist.Normal(0.0, width))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(loc, 1.0), obs=x)

    return model


def posterior(width, x):
    precision = width**-2 + len(x)
    loc = x.sum() / precision
    return {"loc": loc + precision**-0.5 * torch.randn(4, 500)}


def test_vague_priors_are_named_and_measured():
    pyro.set_rng_seed(0)
    x = torch.tensor([0.3, -0.2, 0.5, 0.1])
    widths = {"narrow": 1.0, "vague": 1000.0}
    models = {
        name: bridge_evidence(located(width), x, draws=posterior(width, x))
        for name, width in widths.items()
    }
    with pytest.warns(UserWarning, match=r"wider than its posterior in 'vague' \(\d{4} times\)"):
        table = compare(models)
    assert "ten times as wide would lower the log evidence by 2.3 nats" in str(models["vague"])
    # exactly: E_posterior[log p] - E_prior[log p] = (1 - E_posterior[z² / s²]) / 2
    second = (x.sum() / 5) ** 2 + 1 / 5
    narrow = table.loc["narrow", "prior_sensitivity"]
    others = {name: Evidence(each.value, 0.1, "smc", Verdict()) for name, each in models.items()}
    assert "prior_sensitivity" not in compare(others)
    assert narrow == pytest.approx((1 - second.item()) / 2, abs=0.12)
    assert models["vague"].verdict.measures[SENSITIVITY] == pytest.approx(0.5, abs=0.12)


@pytest.mark.parametrize(
    ("evidences", "prior", "error", "message"),
    [
        ([evidence(0.0)], None, TypeError, "mapping"),
        ({"a": evidence(0.0)}, None, ValueError, "two models"),
        ({"a": evidence(0.0), "b": -1.0}, None, TypeError, "got float for 'b'"),
        ({"a": evidence(0.0), "b": evidence(0.0)}, {"a": 1.0}, ValueError, "names"),
        ({"a": evidence(0.0), "b": evidence(0.0)}, {"a": 1.0, "b": 1.0}, ValueError, "sum to 1"),
        (
            {"a": evidence(0.0), "b": evidence(0.0)},
            {"a": 2.0, "b": -1.0},
            ValueError,
            "nonnegative",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(evidences, prior, error, message):
    with pytest.raises(error, match=message):
        compare(evidences, prior)


def test_evidences_of_different_data_are_refused():
    models = {
        name: Evidence(-1.0, 0.1, "bridge", Verdict(), torch.zeros(num), torch.zeros(num))
        for name, num in (("a", 3), ("b", 4))
    }
    with pytest.raises(ValueError, match=r"for the same data.*'a': 3, 'b': 4"):
        compare(models)


def test_without_pandas_there_are_rows(monkeypatch):
    monkeypatch.setattr("pyro_tkam.infer.evidence.compare.find_spec", lambda name: None)
    rows = compare({"a": evidence(-10.0), "b": evidence(-11.0)})
    assert rows["b"]["log_bayes_factor"] == pytest.approx(-1)


def seen_partly(x, width=1.0, mask=None):
    mean = pyro.sample("mean", dist.Normal(0.0, width))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mean, 1.0).mask(mask is None or mask), obs=x)


X = torch.linspace(-1.0, 2.0, 20)
PADDED = torch.cat([X, torch.full((3,), torch.nan)])
SEEN = torch.arange(23) < 20


@pytest.mark.parametrize(
    ("other", "kwargs", "told"),
    [
        (X, {}, None),
        (X.flip(0), {}, None),
        (PADDED, {"mask": SEEN}, None),
        (X.double(), {}, None),
        (X[:10], {}, "'second model' has 10 numbers of mean -0.289474 and mean size 0.447368"),
        (1000 * X, {}, "'second model' has 20 numbers of mean 500 and mean size 868.421"),
        (X.flip(0) * torch.tensor([1.0, -1.0]).repeat(10), {}, "of mean 0.0789474"),
    ],
)
def test_evidences_of_different_data_are_told(other, kwargs, told, recwarn):
    pyro.set_rng_seed(0)
    first = log_evidence(seen_partly, X, method="importance", num_particles=200)
    options = {"model_kwargs": {"width": 2.0, **kwargs}}
    second = log_evidence(seen_partly, other, method="importance", num_particles=200, **options)
    findings = {each.name: each.seen for each in (first - second).verdict.findings}
    compare({"first model": first, "second model": second})
    warned = [str(each.message) for each in recwarn if "different data" in str(each.message)]
    if told is None:
        assert "different data" not in findings
        assert not warned
    else:
        assert told in findings["different data"]
        assert told in warned[0]


def test_the_data_of_a_sum_are_those_of_its_parts():
    pyro.set_rng_seed(0)
    parts = [
        log_evidence(seen_partly, x, method="importance", num_particles=200) for x in X.chunk(2)
    ]
    whole = bridge_evidence(seen_partly, X, draws={"mean": 0.5 + 0.2 * torch.randn(4, 100)})
    assert whole.data.agrees_with(sum(parts).data)
    assert (parts[0] + evidence(-1.0)).data is None


def observes_a_number(x):
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(mean, 1.0), obs=x)


def observes_residuals(x):
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(0.0, 1.0), obs=x - mean)


def masks_a_matrix(x, mask):
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", 3, dim=-2), pyro.plate("columns", 20, dim=-1):
        pyro.sample("x", dist.Normal(mean, 1.0).mask(mask), obs=x)


def masks_an_event(x):
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    fn = dist.Normal(mean, 1.0).expand([20]).mask(SEEN[-20:]).to_event(1)
    pyro.sample("x", fn, obs=x)


@pytest.mark.parametrize(
    ("model", "args", "seen"),
    [
        (observes_a_number, (0.5,), DataSeen(1, 0.5, 0.5)),
        (observes_residuals, (X,), None),
        (masks_a_matrix, (X, True), DataSeen(60, 30.0, 3 * X.abs().sum().item())),
        (masks_a_matrix, (X, torch.tensor(True)), DataSeen(60, 30.0, 3 * X.abs().sum().item())),
        (masks_an_event, (X,), None),
    ],
)
def test_what_is_noted_of_data(model, args, seen):
    found = data_seen(model, check_model(model, args, {}))
    assert found == seen if seen is None else found.agrees_with(seen)
    if model is observes_a_number:
        pyro.set_rng_seed(0)
        assert log_evidence(model, *args).value == pytest.approx(-1.328, abs=0.1)


def test_centered_data_of_either_precision_are_the_same():
    x = 1e5 * torch.randn(10_000, dtype=torch.float64)
    x -= x.mean()
    first, second = (
        data_seen(seen_partly, check_model(seen_partly, (each,), {})) for each in (x, x.float())
    )
    assert first.agrees_with(second)
