"""
Runs under ArviZ 0.2x (with everything else) and under 1.x without torch (``make test-arviz1``).
"""

import subprocess
import sys

import arviz
import numpy as np
import pytest

from pyro_tkam import _arviz


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def autoregression(rng, correlation, shape):
    """Stationary standard normal AR(1) chains of shape (chain, draw, *event)."""
    noise = rng.standard_normal(shape)
    chains = noise.copy()
    for i in range(1, shape[1]):
        chains[:, i] = correlation * chains[:, i - 1] + np.sqrt(1 - correlation**2) * noise[:, i]
    return chains


def test_needs_no_torch():
    code = "import sys, pyro_tkam._arviz; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_ess_of_an_autoregression(rng):
    draws = autoregression(rng, 0.6, (8, 4000, 2, 3))
    for method in ("bulk", "mean"):
        size = _arviz.ess(draws, method=method)
        assert size.shape == (2, 3)
        np.testing.assert_allclose(size, 32_000 * 0.4 / 1.6, rtol=0.15)


def test_rhat_sees_chains_that_disagree(rng):
    draws = rng.standard_normal((4, 500, 2))
    draws[0, :, 1] += 3.0
    agree, disagree = _arviz.rhat(draws)
    assert agree < 1.02
    assert disagree > 1.2


def test_draws_need_chains():
    with pytest.raises(ValueError, match="draws must have shape"):
        _arviz.ess(np.zeros(10))


@pytest.mark.parametrize("tail_index", [0.3, 0.6, 0.9])
def test_psis_finds_the_tail_index_of_pareto_weights(rng, tail_index):
    # Each k̂ has a standard deviation near (1 + k) / sqrt(424) < 0.1; the mean of 16 stays within 4
    # of its own.
    log_weights = np.sort(tail_index * rng.standard_exponential((16, 20_000)) + 700.0)
    smoothed, khat = _arviz.psis(log_weights)
    assert abs(khat.mean() - tail_index) < 0.1
    np.testing.assert_allclose(np.exp(smoothed).sum(-1), 1.0)
    assert (np.diff(smoothed) >= -1e-12).all()  # one sign: what was more important stays so
    body = (smoothed - log_weights)[:, :19_000]
    np.testing.assert_allclose(body, body[:, :1].repeat(19_000, -1), atol=1e-9)


def test_psis_of_equal_or_impossible_draws(rng):
    equal, khat = _arviz.psis(np.full(100, -3.0))
    np.testing.assert_allclose(equal, -np.log(100))
    assert khat == -np.inf
    log_weights = rng.standard_normal(1000)
    log_weights[::2] = -np.inf
    smoothed, khat = _arviz.psis(log_weights)
    assert np.isfinite(khat)
    assert (smoothed[::2] == -np.inf).all()


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_psis_refuses_what_is_no_weight(wrong):
    with pytest.raises(ValueError, match="log_weights must be below"):
        _arviz.psis([wrong] + [0.0] * 50)
    with pytest.raises(ValueError, match="N >= 25"):
        _arviz.psis(np.zeros(24))


@pytest.fixture
def container(rng):
    return _arviz.from_groups(
        {
            "posterior": {
                "slope": rng.standard_normal((4, 50, 2)),
                "scale": rng.standard_exponential((4, 50)),
            },
            "sample_stats": {"diverging": rng.random((4, 50)) < 0.1},
            "log_likelihood": {"y": rng.standard_normal((4, 50, 7)) - 1.0},
            "observed_data": {"y": rng.standard_normal(7)},
            "tempering": {"log_likelihood": rng.standard_normal((3, 4, 50))},
        },
        dims={"slope": ["predictor"], "y": ["row"]},
        coords={"predictor": ["age", "height"], "temperature": [0.0, 0.5, 1.0]},
        attrs={"evidence": -3.5, "method": "bridge", "betas": [0.0, 0.5, 1.0]},
        sample_dims={"tempering": ("temperature", "chain", "draw")},
    )


def assert_complete(container):
    assert container["posterior"]["slope"].dims == ("chain", "draw", "predictor")
    assert list(container["posterior"]["slope"].coords["predictor"].values) == ["age", "height"]
    assert container["posterior"]["scale"].dims == ("chain", "draw")
    assert container["sample_stats"]["diverging"].dtype == bool
    assert container["observed_data"]["y"].dims == ("row",)
    assert container["tempering"]["log_likelihood"].dims == ("temperature", "chain", "draw")
    assert container["tempering"].coords["temperature"].values.tolist() == [0.0, 0.5, 1.0]
    assert container.attrs["evidence"] == -3.5
    assert container.attrs["method"] == "bridge"
    np.testing.assert_array_equal(container.attrs["betas"], [0.0, 0.5, 1.0])


def test_from_groups(container):
    assert_complete(container)


def test_unnamed_dimensions_get_names():
    made = _arviz.from_groups({"posterior": {"z": np.zeros((2, 3, 4, 5))}})
    assert made["posterior"]["z"].dims == ("chain", "draw", "z_dim_0", "z_dim_1")


def test_netcdf_round_trip(container, tmp_path):
    path = tmp_path / "result.nc"
    _arviz.save(container, path)
    again = _arviz.load(path)
    assert_complete(again)
    _arviz.save(again, path)  # loading left the file free to be replaced
    for group, names in {"posterior": ["slope", "scale"], "tempering": ["log_likelihood"]}.items():
        for name in names:
            np.testing.assert_array_equal(again[group][name].values, container[group][name].values)


# ArviZ says so of weights of data at random, as it may.
@pytest.mark.filterwarnings("ignore:Estimated shape parameter of Pareto:UserWarning")
def test_arviz_computes_loo_and_summaries(container):
    assert np.isfinite(getattr(arviz.loo(container), "elpd", None) or arviz.loo(container).elpd_loo)
    assert list(arviz.summary(container).index) == ["slope[age]", "slope[height]", "scale"]


def predictions(rng, loc_of_model):
    """
    Draws of a mean given 60 data from N(1, 1), and the log likelihoods of a model that adds a
    constant to it.
    """
    data = rng.standard_normal(60) + 1.0
    loc = rng.normal(data.mean(), 60**-0.5, (4, 500, 1))
    log_likelihood = -0.5 * (data - loc - loc_of_model) ** 2 - 0.5 * np.log(2 * np.pi)
    return _arviz.from_groups(
        {
            "posterior": {"loc": loc[..., 0]},
            "log_likelihood": {"y": log_likelihood},
            "observed_data": {"y": data},
        },
        dims={"y": ["row"]},
    )


def test_arviz_compares_models():
    """
    A mean that is off by 1 costs half a nat a datum: 30 in 60, with a standard deviation of 60 **
    0.5 over data.

    Both scores are exact to the error of 2,000 draws, 0.02. ArviZ 1.x rounds them in its table, by
    up to 0.5.
    """
    containers = {
        name: predictions(np.random.default_rng(0), shift)
        for name, shift in (("off", 1.0), ("right", 0.0))
    }
    loo = arviz.loo(containers["right"])
    exact = _leave_one_out(containers["right"]["observed_data"]["y"].values)
    assert abs(getattr(loo, "elpd_loo", getattr(loo, "elpd", np.nan)) - exact) < 0.25
    table = arviz.compare(containers)
    assert list(table.index) == ["right", "off"]
    score = table["elpd_loo" if "elpd_loo" in table else "elpd"]
    assert abs(score["right"] - exact) < 0.75
    assert 10 < score["right"] - score["off"] < 50
    assert table["weight"]["right"] > 0.9


def _leave_one_out(data):
    """The exact sum of log p(y_i | y_-i) under a flat prior of the mean."""
    others = (data.sum() - data) / (len(data) - 1)
    variance = 1 + 1 / (len(data) - 1)
    return float(
        (-0.5 * (data - others) ** 2 / variance - 0.5 * np.log(2 * np.pi * variance)).sum()
    )


def test_from_groups_refuses_mislabeled_input():
    with pytest.raises(ValueError, match=r"z must have the dimensions \('chain', 'draw', 'row'\)"):
        _arviz.from_groups({"posterior": {"z": np.zeros((2, 3))}}, dims={"z": ["row"]})
    with pytest.raises(TypeError, match=r"attrs\['healthy'\]"):
        _arviz.from_groups({}, attrs={"healthy": True})
