"""Supports and shapes that depend on other sites, and data that masks hide."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC
from torch.distributions import biject_to

from pyro_tkam.infer import AutoMALA, ModelDensity, VectorizedMCMC

WAYS = ("loop", "vmap", "plate")


def nested_intervals() -> None:
    a = pyro.sample("a", dist.Uniform(0.0, 1.0))
    pyro.sample("b", dist.Uniform(0.0, a))
    pyro.sample("c", dist.AffineBeta(2.0, 2.0, torch.zeros(()), a))
    pyro.factor("x", -a)


@pytest.mark.parametrize("vectorization", WAYS)
def test_the_transform_is_that_of_the_run_in_which_it_is_used(vectorization: str) -> None:
    density = ModelDensity(nested_intervals, vectorization=vectorization)
    position = torch.linspace(-2, 2, 15).reshape(5, 3)
    values = density.constrain(position)
    a = values["a"]
    expected_prior = torch.zeros(5)
    for column, (name, fn) in enumerate(
        {
            "a": dist.Uniform(torch.zeros(5), torch.ones(5)),
            "b": dist.Uniform(torch.zeros(5), a),
            "c": dist.AffineBeta(2.0, 2.0, torch.zeros(5), a),
        }.items()
    ):
        transform = biject_to(fn.support)
        torch.testing.assert_close(values[name], transform(position[:, column]))
        expected_prior = expected_prior + fn.log_prob(values[name])
        expected_prior = expected_prior + transform.log_abs_det_jacobian(
            position[:, column], values[name]
        )
    split = density.split(position)
    torch.testing.assert_close(split.log_prior, expected_prior, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(split.log_likelihood, -a)
    assert density.moving_supports() == ["b", "c"]


@pytest.mark.parametrize("vectorization", WAYS)
@pytest.mark.parametrize("standard_normal", [False, True])
def test_prior_draws_lie_in_supports_that_move(vectorization: str, standard_normal: bool) -> None:
    pyro.set_rng_seed(0)
    density = ModelDensity(
        nested_intervals, vectorization=vectorization, standard_normal=standard_normal
    )
    values = density.constrain(density.sample_prior(50))
    assert (values["b"] <= values["a"]).all()
    assert (values["c"] <= values["a"]).all()
    assert values["a"].max() > 0.8


@pytest.mark.slow
def test_chains_sample_supports_that_move() -> None:
    """
    ``b ~ U(0, a)``, ``a ~ U(0, 1)``: ``E b = 1/4``, ``E b² = 1/9``. Four standard errors, so a
    false alarm in 8,000 for each of three.
    """

    def model() -> None:
        a = pyro.sample("a", dist.Uniform(0.0, 1.0))
        pyro.sample("b", dist.Uniform(0.0, a))

    pyro.set_rng_seed(0)
    mcmc = VectorizedMCMC(AutoMALA(model), 400, 200, num_chains=64, disable_progbar=True)
    mcmc.run()
    samples, diagnostics = mcmc.get_samples(), mcmc.diagnostics()
    assert (samples["b"] <= samples["a"]).all()
    effective = min(diagnostics[name]["n_eff"].item() for name in "ab")
    for value, mean in ((samples["a"], 1 / 2), (samples["b"], 1 / 4), (samples["b"] ** 2, 1 / 9)):
        assert abs(value.mean() - mean) < 4 * value.std() / effective**0.5


def test_pyros_mcmc_is_refused_where_it_would_map_back_wrongly() -> None:
    mcmc = MCMC(AutoMALA(nested_intervals), num_samples=2, warmup_steps=2, disable_progbar=True)
    with pytest.raises(ValueError, match=r"VectorizedMCMC.*'b', 'c'"):
        mcmc.run()


def test_a_shape_that_depends_on_values_is_refused_by_name() -> None:
    def model() -> None:
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        pyro.sample("b", dist.Normal(torch.zeros(2 if a > 0 else 3), 1.0).to_event(1))

    density = ModelDensity(model)
    position = torch.zeros(2, density.layout.dim)
    position[:, 0] = torch.tensor([-1.0, 1.0])  # one of which fits the first run
    with pytest.raises(ValueError, match="shape of its site 'b'"):
        density.point(position)


PADDED = torch.tensor([1.0, torch.nan, 2.0, -7.0])
SHOWN = torch.tensor([True, False, True, False])


def by_handler(x: torch.Tensor, shown: torch.Tensor) -> None:
    rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
    with pyro.plate("data", len(x)), pyro.poutine.mask(mask=shown):
        pyro.sample("x", dist.Gamma(rate, 1.0), obs=x)


def by_distribution(x: torch.Tensor, shown: torch.Tensor) -> None:
    rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
    pyro.sample("x", dist.Gamma(rate, torch.ones(len(x))).mask(shown), obs=x)


def inside_an_event(x: torch.Tensor, shown: torch.Tensor) -> None:
    rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
    pyro.sample("x", dist.Gamma(rate, torch.ones(len(x))).mask(shown).to_event(1), obs=x)


@pytest.mark.parametrize("model", [by_handler, by_distribution, inside_an_event])
@pytest.mark.parametrize("vectorization", ["loop", "vmap"])
def test_what_a_mask_hides_may_be_anything(model, vectorization: str) -> None:
    padded = ModelDensity(model, (PADDED, SHOWN), vectorization=vectorization)
    shown = PADDED[SHOWN]
    short = ModelDensity(model, (shown, torch.ones(2) > 0), vectorization=vectorization)
    position = torch.tensor([[0.3], [-0.5]])
    for wanted, got in zip(
        vars(short.split(position)).values(), vars(padded.split(position)).values(), strict=True
    ):
        torch.testing.assert_close(got, wanted)
