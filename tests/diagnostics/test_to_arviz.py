"""
Every result object becomes an ArviZ object with the right names, shapes and numbers, and survives
netCDF.
"""

import math

import arviz
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.contrib.autoname import scope
from pyro.infer import MCMC, NUTS

from pyro_tkam.diagnostics import load, save, to_arviz
from pyro_tkam.infer import (
    MALA,
    SMC,
    AutoMALA,
    Evidence,
    Finding,
    ImportanceSampling,
    ParallelTempering,
    VectorizedMCMC,
    Verdict,
)
from pyro_tkam.train import RunFolder
from tests.untrusted import untrusted

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
    with untrusted():
        run.run(LOCAL_DATA)
    return run


def mcmc(model):
    run = VectorizedMCMC(
        AutoMALA(model), num_samples=DRAWS, num_chains=CHAINS, disable_progbar=True
    )
    with untrusted():
        run.run(LOCAL_DATA)
    return run


def weighted(model):
    return ImportanceSampling(model, num_particles=CHAINS * DRAWS).run(LOCAL_DATA)


RESULTS = {"tempering": tempering, "mcmc": mcmc, "weighted": weighted}
EXTRA = {"tempering": {"tempering", "prior"}, "mcmc": set(), "weighted": set()}


@pytest.fixture(scope="module")
def results():
    pyro.set_rng_seed(0)
    return {
        (name, model): make(model) for name, make in RESULTS.items() for model in (shared, local)
    }


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
    np.testing.assert_allclose(
        weights, of_each if model is local else of_each.sum(-1), rtol=1e-4, atol=1e-4
    )


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


@pytest.mark.parametrize("name", RESULTS)
def test_coordinates_are_those_of_the_plates(results, name):
    container = to_arviz(results[name, local])
    for group in ("posterior", "log_likelihood", "observed_data", "sample_stats"):
        assert container[group].coords["rows"].values.tolist() == [0, 1, 2, 3]
    assert container["posterior"].coords["z_dim_1"].values.tolist() == [0, 1]


def test_coordinates_of_nested_plates():
    def model():
        with pyro.plate("columns", 3, dim=-1), pyro.plate("rows", 2, dim=-2):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=torch.zeros(2, 3))

    run = VectorizedMCMC(MALA(model), num_samples=20, num_chains=2, disable_progbar=True)
    with untrusted():
        run.run()
    container = to_arviz(run)
    assert container["sample_stats"]["lp"].dims == ("chain", "draw", "rows", "columns")
    for group in ("posterior", "log_likelihood", "observed_data", "sample_stats"):
        assert container[group].coords["rows"].values.tolist() == [0, 1]
        assert container[group].coords["columns"].values.tolist() == [0, 1, 2]
    assert container["observed_data"]["x"].dims == ("rows", "columns")


def test_loo_runs():
    pyro.set_rng_seed(0)
    run = VectorizedMCMC(
        AutoMALA(shared), num_samples=500, warmup_steps=200, num_chains=8, disable_progbar=True
    )
    run.run(LOCAL_DATA)
    loo = arviz.loo(to_arviz(run))
    assert math.isfinite(getattr(loo, "elpd_loo", getattr(loo, "elpd", math.nan)))


COMPARED_DATA = torch.randn(40, generator=torch.Generator().manual_seed(0)) + 2.0


def centered(x):
    loc = pyro.sample("loc", dist.Normal(0.0, 5.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(loc, 1.0), obs=x)


def at_zero(x):
    scale = pyro.sample("scale", dist.HalfNormal(2.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(0.0, scale), obs=x)


def exact_elpd_of_centered(x):
    """Sum of log p(x_i | x_-i): every other datum narrows the mean."""
    others = x.sum() - x
    precision = 1 / 25 + (len(x) - 1)
    return dist.Normal(others / precision, (1 + 1 / precision) ** 0.5).log_prob(x).sum().item()


@pytest.mark.parametrize("kind", ["tempering", "mcmc"])
def test_compare_ranks_models(kind):
    """
    Leave-one-out scores of both, the better first; the exact one lies within 0.3 nats (seed fixed,
    error 0.05).
    """
    pyro.set_rng_seed(0)
    containers = {}
    for model in (at_zero, centered):
        options = {"num_samples": 200, "num_chains": 32, "disable_progbar": True}
        if kind == "tempering":
            run = ParallelTempering(MALA(model), num_temperatures=4, **options)
        else:
            run = VectorizedMCMC(AutoMALA(model), **options)
        run.run(COMPARED_DATA)
        containers[model.__name__] = to_arviz(run)
    table = arviz.compare(containers)
    assert list(table.index) == ["centered", "at_zero"]
    score = table["elpd_loo" if "elpd_loo" in table else "elpd"]
    assert abs(score["centered"] - exact_elpd_of_centered(COMPARED_DATA)) < 0.3
    assert score["centered"] - score["at_zero"] > 20
    assert table["weight"]["centered"] > 0.9


def switched(x):
    """A mixture whose indicators are summed out, one for each datum."""
    low = pyro.sample("low", dist.Normal(-1.0, 1.0))
    with pyro.plate("rows", len(x)):
        k = pyro.sample("k", dist.Categorical(torch.tensor([0.2, 0.3, 0.5])))
        pyro.sample("x", dist.Normal(low + 2.0 * k, 0.7), obs=x)


def switched_locally(x):
    """The same with a continuous latent of each datum, and data in two plates."""
    with pyro.plate("columns", x.shape[1], dim=-1), pyro.plate("rows", len(x), dim=-2):
        low = pyro.sample("low", dist.Normal(-1.0, 1.0))
        k = pyro.sample("k", dist.Categorical(torch.tensor([0.2, 0.3, 0.5])))
        pyro.sample("x", dist.Normal(low + 2.0 * k, 0.7), obs=x)


def branching(x):
    """Can only be run draw by draw."""
    low = pyro.sample("low", dist.Normal(-1.0, 1.0))
    with pyro.plate("rows", len(x)):
        k = pyro.sample("k", dist.Categorical(torch.tensor([0.2, 0.3, 0.5])))
        pyro.sample("x", dist.Normal(float(low) + 2.0 * k, 0.7), obs=x)


@pytest.mark.parametrize(
    ("model", "data"),
    [(switched, LOCAL_DATA[:, 0]), (switched_locally, LOCAL_DATA), (branching, LOCAL_DATA[:, 0])],
    ids=["global", "local", "draw by draw"],
)
def test_summed_out_sites_leave_a_log_likelihood(model, data):
    kernel = AutoMALA(switched if model is branching else model)
    run = VectorizedMCMC(kernel, num_samples=30, num_chains=2, disable_progbar=True)
    with untrusted():
        run.run(data)
    run.kernel.model = model
    container = to_arviz(run)
    low = torch.tensor(container["posterior"]["low"].values)
    low = low if model is switched_locally else low.unsqueeze(-1)
    parts = [
        math.log(w) + dist.Normal(low + 2.0 * k, 0.7).log_prob(data)
        for k, w in enumerate((0.2, 0.3, 0.5))
    ]
    np.testing.assert_allclose(
        container["log_likelihood"]["x"].values, torch.stack(parts).logsumexp(0), rtol=1e-5
    )
    assert container["observed_data"]["x"].dims == (
        ("rows", "columns") if data.ndim == 2 else ("rows",)
    )


def test_one_series_below_a_summed_out_site_is_one_datum():
    """A change point: the series is a single site without a plate."""

    def model(x):
        low = pyro.sample("low", dist.Normal(-1.0, 1.0))
        k = pyro.sample("k", dist.Categorical(torch.tensor([0.2, 0.3, 0.5])))
        mean = torch.where(torch.arange(len(x)) < k.unsqueeze(-1), low, low + 2.0)
        pyro.sample("x", dist.Normal(mean, 0.7).to_event(1), obs=x)

    data = LOCAL_DATA[:, 0]
    run = VectorizedMCMC(AutoMALA(model), num_samples=30, num_chains=2, disable_progbar=True)
    with untrusted():
        run.run(data)
    container = to_arviz(run)
    low = torch.tensor(container["posterior"]["low"].values).unsqueeze(-1)
    parts = [
        math.log(w)
        + dist.Normal(low + 2.0 * (torch.arange(len(data)) >= k), 0.7).log_prob(data).sum(-1)
        for k, w in enumerate((0.2, 0.3, 0.5))
    ]
    np.testing.assert_allclose(
        container["log_likelihood"]["x"].values, torch.stack(parts).logsumexp(0), rtol=1e-5
    )


def test_loo_of_a_model_with_summed_out_sites():
    pyro.set_rng_seed(0)
    run = VectorizedMCMC(AutoMALA(switched), num_samples=200, num_chains=4, disable_progbar=True)
    with untrusted():
        run.run(COMPARED_DATA)
    loo = arviz.loo(to_arviz(run))
    assert math.isfinite(getattr(loo, "elpd_loo", getattr(loo, "elpd", math.nan)))


def test_data_that_share_a_summed_out_site_have_no_log_likelihood():
    def model(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        k = pyro.sample("k", dist.Bernoulli(0.3))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(z + k, 1.0), obs=x)

    run = VectorizedMCMC(MALA(model), num_samples=20, num_chains=2, disable_progbar=True)
    with untrusted():
        run.run(LOCAL_DATA[:, 0])
    with pytest.warns(
        UserWarning, match=r"log_likelihood is left out.*the data of 'x' share.*\['k'\]"
    ):
        container = to_arviz(run)
    assert "log_likelihood" not in container
    assert container["posterior"]["z"].shape == (2, 20)


def test_observed_sites_that_share_a_summed_out_site_have_no_log_likelihood():
    def model(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(x)):
            k = pyro.sample("k", dist.Bernoulli(0.3))
            pyro.sample("x", dist.Normal(z + k, 1.0), obs=x)
            pyro.sample("y", dist.Normal(z - k, 1.0), obs=x)

    run = VectorizedMCMC(MALA(model), num_samples=20, num_chains=2, disable_progbar=True)
    with untrusted():
        run.run(LOCAL_DATA[:, 0])
    with pytest.warns(UserWarning, match=r"\['x', 'y'\] share sites that are summed out, \['k'\]"):
        assert "log_likelihood" not in to_arviz(run)


def test_sites_that_were_not_saved_are_named():
    run = VectorizedMCMC(
        MALA(shared), num_samples=20, num_chains=2, save_params=["loc"], disable_progbar=True
    )
    with untrusted():
        run.run(LOCAL_DATA)
    with pytest.warns(UserWarning, match=r"the sites \['scale'\] have no draws"):
        assert "log_likelihood" not in to_arviz(run)


@pytest.mark.parametrize("kernel", [AutoMALA, NUTS])
def test_pyros_mcmc_converts(kernel, tmp_path):
    pyro.set_rng_seed(0)
    run = MCMC(kernel(local), num_samples=DRAWS, warmup_steps=DRAWS, disable_progbar=True)
    run.run(LOCAL_DATA)
    run._diagnostics[0]["divergences"] = [3, 7]
    save(to_arviz(run, evidence=Evidence(-3.0, 0.1, "bar", Verdict())), tmp_path / "run.nc")
    container = load(tmp_path / "run.nc")
    np.testing.assert_array_equal(
        container["posterior"]["z"], run.get_samples(group_by_chain=True)["z"]
    )
    expected = (
        dist.Normal(torch.tensor(container["posterior"]["z"].values), 1.0)
        .to_event(1)
        .log_prob(LOCAL_DATA)
    )
    np.testing.assert_allclose(container["log_likelihood"]["x"].values, expected, rtol=1e-5)
    assert container["log_likelihood"]["x"].dims == ("chain", "draw", "rows")
    assert container["sample_stats"]["diverging"].values.nonzero()[1].tolist() == [3, 7]
    assert container.attrs["log_evidence"] == -3.0


def test_an_evidence_converts(tmp_path):
    verdict = Verdict((Finding("missed mode", "two estimates differ", "use more chains"),))
    errors = torch.tensor([0.1, 0.2])
    for per_datum in (None, torch.tensor([-1.0, -2.0])):
        evidence = Evidence(
            -3.0, 0.3, "bar", verdict, per_datum, None if per_datum is None else errors
        )
        save(to_arviz(evidence), tmp_path / "evidence.nc")
        container = load(tmp_path / "evidence.nc")
        assert container.attrs["log_evidence"] == -3.0
        assert container.attrs["log_evidence_standard_error"] == 0.3
        assert container.attrs["log_evidence_method"] == "bar"
        assert "missed mode: two estimates differ" in container.attrs["log_evidence_verdict"]
    assert container["evidence"]["log_evidence"].dims == ("data",)
    assert container["evidence"]["log_evidence"].values.tolist() == [-1.0, -2.0]
    np.testing.assert_allclose(container["evidence"]["standard_error"], errors)
    with pytest.raises(
        ValueError, match="evidence must be None for a result that is itself an Evidence, got one"
    ):
        to_arviz(evidence, evidence=evidence)


@pytest.mark.parametrize("model", [shared, local])
def test_sequential_monte_carlo_converts_with_its_weights(model, tmp_path):
    pyro.set_rng_seed(0)
    run = SMC(model, 256, disable_progbar=True)
    run.run(LOCAL_DATA)
    save(to_arviz(run), tmp_path / "run.nc")
    container = load(tmp_path / "run.nc")
    latent = container["posterior"]["loc" if model is shared else "z"]
    assert latent.dims[:2] == ("chain", "draw")
    assert latent.shape[:2] == (4, 256)
    weight = container["sample_stats"]["log_weight"]
    assert weight.dims == ("chain", "draw", *(("rows",) if model is local else ()))
    np.testing.assert_allclose(np.exp(weight.values).sum((0, 1)), 1.0, rtol=1e-5)
    # the weights' ratio between runs is that of their evidences
    by_run = weight.values[:, 0] - weight.values[0, 0]
    each = run._finished("log_evidence")
    np.testing.assert_allclose(by_run, each - each[0], atol=1e-5)
    assert container["log_likelihood"]["x"].dims == ("chain", "draw", "rows")
    assert container.attrs["log_evidence"] == pytest.approx(run.log_evidence.value)
    assert container.attrs["log_evidence_method"] == "smc"


def test_sequential_monte_carlo_that_has_not_run_says_so():
    with pytest.raises(RuntimeError, match=r"run\(\) must be called"):
        to_arviz(SMC(shared, 64))


@pytest.mark.parametrize("runner", [VectorizedMCMC, MCMC, ParallelTempering])
def test_samplers_that_have_not_run_say_so(runner):
    with pytest.raises(RuntimeError, match=r"run\(\) must be called"):
        to_arviz(runner(MALA(shared), num_samples=20))


def test_a_run_folder_converts_itself(tmp_path):
    with pytest.raises(FileNotFoundError, match="summary"):
        to_arviz(RunFolder(tmp_path))


def test_models_that_break_under_vmap():
    def branching(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(abs(float(z)), 1.0), obs=x)

    draws = ImportanceSampling(branching, num_particles=30).run(torch.tensor(1.0))
    container = to_arviz(draws)
    expected = dist.Normal(torch.tensor(container["posterior"]["z"].values).abs(), 1.0)
    np.testing.assert_allclose(
        container["log_likelihood"]["x"].values, expected.log_prob(torch.tensor(1.0)), rtol=1e-5
    )


def test_potential_functions_have_a_posterior_only():
    kernel = AutoMALA(potential_fn=lambda params: 0.5 * params["z"].square().sum())
    run = VectorizedMCMC(
        kernel,
        num_samples=20,
        num_chains=2,
        initial_params={"z": torch.zeros(2, 3)},
        disable_progbar=True,
    )
    with untrusted():
        run.run()
    container = to_arviz(run)
    assert container["posterior"]["z"].shape == (2, 20, 3)


def test_other_objects_are_refused():
    accepted = (
        "VectorizedMCMC",
        "ParallelTempering",
        "MCMC",
        "SMC",
        "PowerPosteriors",
        "WeightedDraws",
        "Evidence",
        "RunFolder",
    )
    with pytest.raises(TypeError, match=r"result must be .*, got dict") as error:
        to_arviz({"z": torch.zeros(3)})
    assert all(name in str(error.value) for name in accepted)
    assert all(name in to_arviz.__doc__ for name in accepted)


def test_an_evidence_is_no_number():
    mcmc = VectorizedMCMC(
        MALA(lambda: pyro.sample("z", dist.Normal(0.0, 1.0))), 4, num_chains=2, disable_progbar=True
    )
    with untrusted():
        mcmc.run()
    with pytest.raises(
        TypeError, match="evidence must be an Evidence, as log_evidence returns, got float"
    ):
        to_arviz(mcmc, evidence=-3.0)


def plate_without_size():
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("rows"):
        pyro.sample("x", dist.Normal(loc, 1.0), obs=torch.arange(6.0))


def one_value_for_a_plate():
    with pyro.plate("rows", 6):
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Bernoulli(logits=loc), obs=torch.tensor(1.0))


def one_row_for_nested_plates():
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", 6, dim=-2), pyro.plate("columns", 2, dim=-1):
        pyro.sample("x", dist.Normal(loc, 1.0), obs=torch.arange(2.0))


def number_for_data():
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(loc, 1.0), obs=0.5)


@pytest.mark.parametrize(
    ("model", "sizes"),
    [
        (plate_without_size, {"rows": 6}),
        (one_value_for_a_plate, {"rows": 6}),
        (one_row_for_nested_plates, {"rows": 6, "columns": 2}),
        (number_for_data, {}),
    ],
)
def test_every_datum_has_a_value_and_a_log_likelihood(model, sizes, tmp_path):
    run = VectorizedMCMC(MALA(model), num_samples=8, num_chains=2, disable_progbar=True)
    with untrusted():
        run.run()
    save(to_arviz(run), tmp_path / "run.nc")
    container = load(tmp_path / "run.nc")
    assert dict(container["observed_data"]["x"].sizes) == sizes
    log_likelihood = container["log_likelihood"]["x"]
    assert dict(log_likelihood.sizes) == {"chain": 2, "draw": 8, **sizes}
    loc = torch.tensor(container["posterior"]["loc"].values)
    value = torch.tensor(container["observed_data"]["x"].values)
    if model is one_value_for_a_plate:
        expected = dist.Bernoulli(logits=loc).log_prob(value)
    else:
        expected = dist.Normal(loc.reshape(2, 8, *(1,) * value.ndim), 1.0).log_prob(value)
    np.testing.assert_allclose(log_likelihood.values, expected, rtol=1e-4, atol=1e-5)


def test_scoped_sites_survive_netcdf(tmp_path):
    def model():
        with scope(prefix="outer"):
            loc = pyro.sample("loc", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(loc[..., 0], 1.0), obs=torch.tensor(0.0))

    run = VectorizedMCMC(MALA(model), num_samples=8, num_chains=2, disable_progbar=True)
    with untrusted():
        run.run()
    save(to_arviz(run), tmp_path / "run.nc")
    posterior = load(tmp_path / "run.nc")["posterior"]
    assert posterior["outer.loc"].dims == ("chain", "draw", "outer.loc_dim_0")


@pytest.mark.parametrize("name", ["chain", "draw", "loc_dim_0"])
def test_sites_named_like_dimensions_are_refused_by_name(name):
    def model():
        pyro.sample("loc", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        scale = pyro.sample(name, dist.HalfNormal(1.0))
        pyro.sample("x", dist.Normal(0.0, scale), obs=torch.tensor(0.0))

    run = VectorizedMCMC(MALA(model), num_samples=8, num_chains=2, disable_progbar=True)
    with untrusted():
        run.run()
    with pytest.raises(ValueError, match=rf"names with dimensions, got \['{name}'\]"):
        to_arviz(run)


def test_plates_named_like_dimensions_are_refused_by_name():
    def model():
        with pyro.plate("draw", 2):
            loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(loc, 1.0), obs=torch.zeros(2))

    run = VectorizedMCMC(MALA(model), num_samples=8, num_chains=2, disable_progbar=True)
    with untrusted():
        run.run()
    with pytest.raises(ValueError, match="dimensions with distinct names"):
        to_arviz(run)
