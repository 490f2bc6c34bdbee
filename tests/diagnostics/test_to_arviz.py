"""Every result object becomes an ArviZ object with the right names, shapes and numbers, and survives netCDF."""

import math

import arviz
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_tkam.diagnostics import load, save, to_arviz
from pyro_tkam.infer import AutoMALA, ImportanceSampling, ParallelTempering, VectorizedMCMC

CHAINS, DRAWS, RUNGS = 2, 40, 3
LOCAL_DATA = torch.tensor([[0.0, 0.5], [1.0, -0.5], [2.0, 0.3], [0.1, 0.2]])


def shared(data):
    """Vector latents beside a plate, and a vector datum."""
    loc = pyro.sample("loc", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    pyro.sample("scale", dist.HalfNormal(1.0))
    with pyro.plate("rows", len(data)):
        pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=data)


def local(data):
    with pyro.plate("rows", len(data)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=data)


def tempering(model):
    run = ParallelTempering(
        AutoMALA(model),
        num_temperatures=RUNGS,
        num_samples=DRAWS,
        num_chains=CHAINS,
        keep_all=True,
        disable_progbar=True,
    )
    run.run(LOCAL_DATA)
    return run


def mcmc(model):
    run = VectorizedMCMC(AutoMALA(model), num_samples=DRAWS, num_chains=CHAINS, disable_progbar=True)
    run.run(LOCAL_DATA)
    return run


def weighted(model):
    return ImportanceSampling(model, num_particles=CHAINS * DRAWS).run(LOCAL_DATA)


RESULTS = {"tempering": tempering, "mcmc": mcmc, "weighted": weighted}
EXTRA = {"tempering": {"tempering", "prior"}, "mcmc": set(), "weighted": set()}


@pytest.fixture(scope="module")
def results():
    pyro.set_rng_seed(0)
    return {(name, model): make(model) for name, make in RESULTS.items() for model in (shared, local)}


@pytest.mark.parametrize("model", [shared, local])
@pytest.mark.parametrize("name", RESULTS)
def test_groups_dimensions_and_netcdf(results, name, model, tmp_path):
    result = results[name, model]
    evidence = result.log_evidence("bar") if name == "tempering" else None
    container = to_arviz(result, evidence=evidence)
    save(container, tmp_path / "run.nc")
    container = load(tmp_path / "run.nc")
    groups = {"posterior", "sample_stats", "log_likelihood", "observed_data"} | EXTRA[name]
    assert all(len(container[group]) > 0 for group in groups)
    sizes = (1, CHAINS * DRAWS) if name == "weighted" else (CHAINS, DRAWS)
    latent = container["posterior"]["loc" if model is shared else "z"]
    assert latent.shape == (*sizes, *((2,) if model is shared else (4, 2)))
    assert container["log_likelihood"]["x"].dims == ("chain", "draw", "rows")
    assert container["observed_data"]["x"].dims == ("rows", "x_dim_1")
    statistic = container["sample_stats"]["log_weight" if name == "weighted" else "lp"]
    assert statistic.dims == ("chain", "draw", *(("rows",) if model is local else ()))
    if name != "mcmc":
        assert math.isfinite(container.attrs["log_evidence"])
        assert "trusted" in container.attrs["log_evidence_verdict"]


@pytest.mark.parametrize("name", RESULTS)
def test_log_likelihood_is_that_of_each_datum(results, name):
    container = to_arviz(results[name, local])
    z = torch.tensor(container["posterior"]["z"].values)
    expected = dist.Normal(z, 1.0).to_event(1).log_prob(LOCAL_DATA)
    np.testing.assert_allclose(container["log_likelihood"]["x"].values, expected, rtol=1e-5)


@pytest.mark.parametrize("model", [shared, local])
def test_log_weights_belong_to_the_resampled_draws(results, model):
    """Of draws from the prior, a weight is the likelihood."""
    container = to_arviz(results["weighted", model])
    of_each = container["log_likelihood"]["x"].values
    weights = container["sample_stats"]["log_weight"].values
    np.testing.assert_allclose(weights, of_each if model is local else of_each.sum(-1), rtol=1e-4, atol=1e-4)


def test_tempering_group(results):
    run = results["tempering", shared]
    group = to_arviz(run)["tempering"]
    assert group["log_likelihood"].dims == ("temperature", "chain", "draw")
    np.testing.assert_allclose(group["temperature"].values, run.result.betas)
    np.testing.assert_allclose(group["log_likelihood"].values, run.result.log_likelihood)


def test_sample_stats_have_all_names(results):
    for name in ("mcmc", "tempering"):
        stats = set(to_arviz(results[name, shared])["sample_stats"].data_vars)
        assert stats >= {"lp", "acceptance_rate", "step_size", "diverging", "energy", "reversible"}


def test_loo_runs():
    pyro.set_rng_seed(0)
    run = VectorizedMCMC(AutoMALA(shared), num_samples=500, warmup_steps=200, num_chains=8, disable_progbar=True)
    run.run(LOCAL_DATA)
    loo = arviz.loo(to_arviz(run))
    assert math.isfinite(getattr(loo, "elpd_loo", getattr(loo, "elpd", math.nan)))


def test_models_that_break_under_vmap():
    def branching(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(abs(float(z)), 1.0), obs=x)

    draws = ImportanceSampling(branching, num_particles=30).run(torch.tensor(1.0))
    container = to_arviz(draws)
    expected = dist.Normal(torch.tensor(container["posterior"]["z"].values).abs(), 1.0)
    np.testing.assert_allclose(container["log_likelihood"]["x"].values, expected.log_prob(torch.tensor(1.0)), rtol=1e-5)


def test_potential_functions_have_a_posterior_only():
    kernel = AutoMALA(potential_fn=lambda params: 0.5 * params["z"].square().sum())
    run = VectorizedMCMC(
        kernel, num_samples=20, num_chains=2, initial_params={"z": torch.zeros(2, 3)}, disable_progbar=True
    )
    run.run()
    container = to_arviz(run)
    assert container["posterior"]["z"].shape == (2, 20, 3)


def test_other_objects_are_refused():
    with pytest.raises(TypeError, match="result must be"):
        to_arviz({"z": torch.zeros(3)})
