"""Discrete sites that a density sums out, and continuous ones below them."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import config_enumerate
from pyro.infer.mcmc.util import initialize_model
from torch import Tensor

from pyro_tkam.infer import log_evidence
from pyro_tkam.infer.model.density import ModelDensity
from pyro_tkam.infer.model.enumeration import Elimination
from pyro_tkam.infer.model.requirements import check_model
from tests.infer.models import ROWS, local_mixture


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("size", [1, 4])
def test_enumerated_sites_are_summed_out_by_role(rows: int, size: int) -> None:
    data = ROWS[:size]
    density = ModelDensity(local_mixture, (data,))
    z = torch.randn(rows, size)
    split = density.split(z.unsqueeze(-1) if density.layout.local_shape else z)
    indicator = torch.tensor([0.0, 1.0]).reshape(2, 1, 1)
    log_k = dist.Bernoulli(0.3).log_prob(indicator)
    log_joint = (log_k + dist.Normal(z + 2 * indicator, 1.0).log_prob(data[:, 0])).logsumexp(0)
    assert split.log_prior.shape == (rows, *density.layout.local_shape)
    torch.testing.assert_close(
        split.log_prior, dist.Normal(0.0, 1.0).log_prob(z).reshape(split.log_prior.shape)
    )
    torch.testing.assert_close(split.log_likelihood, log_joint.reshape(split.log_prior.shape))


@pytest.mark.parametrize("rows", [1, 2])
def test_one_enumerated_site_of_a_single_chain(rows: int) -> None:
    def model() -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        k = pyro.sample("k", dist.Bernoulli(0.3))
        pyro.sample("x", dist.Normal(z + 2 * k, 1.0), obs=torch.tensor(0.4))

    z = torch.tensor([[0.5], [-1.0]])[:rows]
    k = torch.tensor([0.0, 1.0])
    expected = (
        dist.Bernoulli(0.3).log_prob(k) + dist.Normal(z + 2 * k, 1.0).log_prob(torch.tensor(0.4))
    ).logsumexp(-1)
    torch.testing.assert_close(ModelDensity(model).split(z).log_likelihood, expected)


def below_an_enumerated_site(x: Tensor) -> None:
    k = pyro.sample("k", dist.Bernoulli(0.3))
    y = pyro.sample("y", dist.Normal(6 * k - 3, 1.0))
    pyro.sample("x", dist.Normal(y, 0.5), obs=x)


def test_a_latent_below_an_enumerated_site_is_one_coordinate() -> None:
    density = ModelDensity(below_an_enumerated_site, (torch.tensor(1.0),))
    assert {name: site.shape for name, site in density.layout.sites.items()} == {"y": ()}
    y = torch.tensor([[0.5], [-1.0], [2.0]])
    log_k = dist.Bernoulli(0.3).log_prob(torch.tensor([0.0, 1.0]))
    log_prior = (log_k + dist.Normal(torch.tensor([-3.0, 3.0]), 1.0).log_prob(y)).logsumexp(-1)
    split = density.split(y)
    torch.testing.assert_close(split.log_prior, log_prior)
    torch.testing.assert_close(
        split.log_likelihood, dist.Normal(y[:, 0], 0.5).log_prob(torch.tensor(1.0))
    )
    assert density.draw_start(2).shape == (2, 1)
    torch.testing.assert_close(
        density.rebind((torch.tensor(2.0),), {}).split(y).log_prior, log_prior
    )


def test_a_latent_below_an_enumerated_site_in_a_plate_is_local() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            below_an_enumerated_site(x)

    density = ModelDensity(model, (torch.tensor([1.0, 0.0, 2.0]),))
    assert (density.layout.local_shape, density.layout.dim) == ((3,), 1)


def test_prior_draws_below_an_enumerated_site_draw_it_too() -> None:
    """The share of positive draws within 4.5 standard errors: false alarm below 2e-5."""
    density = ModelDensity(below_an_enumerated_site, (torch.tensor(1.0),))
    one_by_one = torch.stack([density.terms.draw_prior(each) for each in torch.randn(500, 1)])
    for draws in (density.sample_prior(5000), one_by_one):
        assert draws.shape[1:] == (1,)
        assert abs((draws > 0).double().mean().item() - 0.3005) < 4.5 * (0.21 / len(draws)) ** 0.5


def test_a_support_that_depends_on_an_enumerated_site_is_refused() -> None:
    def model() -> None:
        k = pyro.sample("k", dist.Bernoulli(0.3))
        y = pyro.sample("y", dist.Uniform(k, k + 1))
        pyro.sample("x", dist.Normal(y, 0.5), obs=torch.tensor(1.0))

    with pytest.raises(
        ValueError, match=r"model must have latent sites.*, got 'y' with values of shape \(\)"
    ):
        ModelDensity(model)


def mixture_of_a_tutorial(y: Tensor) -> None:
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(2)))
    scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
    with pyro.plate("components", 2):
        location = pyro.sample("location", dist.Normal(0.0, 3.0))
    with pyro.plate("data", len(y)):
        k = pyro.sample("k", dist.Categorical(weights))
        pyro.sample("y", dist.Normal(location[k], scale), obs=y)


def raters(y: Tensor) -> None:
    """Dawid and Skene's model."""
    share = pyro.sample("share", dist.Dirichlet(torch.ones(3)))
    with pyro.plate("rater", y.shape[1], dim=-1), pyro.plate("kinds", 3, dim=-2):
        rates = pyro.sample("rates", dist.Dirichlet(torch.ones(3)))
    with pyro.plate("items", len(y), dim=-2):
        kind = pyro.sample("kind", dist.Categorical(share))
        with pyro.plate("ratings", y.shape[1], dim=-1):
            pyro.sample("y", dist.Categorical(rates[kind, torch.arange(y.shape[1])]), obs=y)


def two_plates(y: Tensor) -> None:
    share = pyro.sample("share", dist.Beta(1.0, 1.0).expand([2]).to_event(1))
    with pyro.plate("levels", 2):
        level = pyro.sample("level", dist.Normal(0.0, 2.0))
    with pyro.plate("rows", len(y), dim=-2):
        row = pyro.sample("row", dist.Bernoulli(share[0])).long()
        with pyro.plate("columns", y.shape[1], dim=-1):
            cell = pyro.sample("cell", dist.Bernoulli(share[1]))
            pyro.sample("y", dist.Normal(level[row] + cell, 1.0), obs=y)


def second_order_markov(y: Tensor) -> None:
    with pyro.plate("states", 4):
        moves = pyro.sample("moves", dist.Dirichlet(torch.ones(2)))
    with pyro.plate("levels", 2):
        level = pyro.sample("level", dist.Normal(0.0, 2.0))
    before, state = torch.tensor(0), torch.tensor(0)
    for t in pyro.markov(range(len(y)), history=2):
        row = moves[2 * before + state]
        before, state = state, pyro.sample(f"state_{t}", dist.Categorical(row))
        pyro.sample(f"y_{t}", dist.Normal(level[state], 1.0), obs=y[t])


def change_point(y: Tensor) -> None:
    early, late = (pyro.sample(name, dist.Exponential(0.2)) for name in ("early", "late"))
    when = pyro.sample("when", dist.Categorical(torch.ones(len(y))))
    with pyro.plate("times", len(y)):
        rate = torch.where(torch.arange(len(y)) < when, early, late)
        pyro.sample("y", dist.Poisson(rate), obs=y)


Y = torch.tensor([0.0, 1.0, 5.0, 6.0, 4.0])


@pytest.mark.parametrize(
    ("model", "y"),
    [
        (mixture_of_a_tutorial, Y),
        (raters, torch.tensor([[0, 1], [2, 2], [1, 1]])),
        (two_plates, Y[:4].reshape(2, 2)),
        (second_order_markov, Y),
        (change_point, Y),
    ],
)
def test_enumerated_models_run_under_vmap_as_pyro_sums_them(
    model: Callable[[Tensor], None], y: Tensor
) -> None:
    density = ModelDensity(model, (y,), batch_plates=())
    assert density.vectorization == "vmap"
    _, potential, _, _ = initialize_model(config_enumerate(model), (y,), max_plate_nesting=2)
    positions = density.draw_start(3)
    point = density.point(positions)
    for row in range(3):
        given = {
            name: each.clone().requires_grad_()
            for name, each in density.layout.unflatten(positions[row]).items()
        }
        expected = -potential(given)
        gradients = torch.autograd.grad(expected, list(given.values()))
        torch.testing.assert_close(point.log_density[row], expected)
        torch.testing.assert_close(
            point.gradient[row], density.layout.flatten(dict(zip(given, gradients, strict=True)))
        )
    looped = ModelDensity(model, (y,), batch_plates=(), vectorization="loop", trace_graph=False)
    torch.testing.assert_close(point.log_density, looped.log_density(positions))


def test_elimination_sums_products_in_log_space() -> None:
    """Against the sum over all values; impossible states have no share in it, nor a derivative."""
    terms = [torch.randn(2, 3), torch.randn(3, 2, 2), torch.randn(2)]
    terms[0][:, 1] = -torch.inf
    terms[0][1] = -torch.inf
    names = ["ab", "bcp", "c"]
    given = [each.double().clone().requires_grad_() for each in terms]
    packed = [each.clone() for each in given]
    for each, its_names in zip(packed, names, strict=True):
        each._pyro_dims = its_names  # type: ignore[attr-defined]
    got = Elimination().sumproduct(packed, "bc")
    assert got._pyro_dims == "ap"
    expected = torch.einsum("ab,bcp,c->ap", *(each.exp() for each in given)).log()
    torch.testing.assert_close(got, expected)
    assert (got[1] == -torch.inf).all()
    (gradient,) = torch.autograd.grad(got[0].sum(), given[0])
    assert gradient.isfinite().all()
    assert (gradient[:, 1] == 0).all()
    given[1].data[0, 0, 0] = torch.nan
    packed = [each.clone() for each in given]
    for each, its_names in zip(packed, names, strict=True):
        each._pyro_dims = its_names  # type: ignore[attr-defined]
    assert Elimination().sumproduct(packed, "bc").isnan().any()


def test_masked_states_of_a_hidden_markov_model_leave_no_trace() -> None:
    """Sequences of unlike lengths, padded with NaN: the likelihood of each is a forward pass."""
    lengths = torch.tensor([4, 2])
    x = torch.tensor([[0.1, 1.9, 2.2, 0.3], [2.1, 0.2, torch.nan, torch.nan]])
    shares = torch.tensor([[0.8, 0.2], [0.3, 0.7]])
    places = torch.tensor([0.0, 2.0])

    def model() -> None:
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        state = torch.tensor(0)
        with pyro.plate("sequences", 2):
            for t in pyro.markov(range(4)):
                with poutine.mask(mask=t < lengths):
                    state = pyro.sample(f"state_{t}", dist.Categorical(shares[state]))
                    pyro.sample(f"x_{t}", dist.Normal(m + places[state], 0.7), obs=x[:, t])

    def forward(m: Tensor, series: Tensor) -> Tensor:
        alpha = torch.tensor([0.0, -torch.inf])
        for value in series:
            moved = (alpha[:, None] + shares.log()).logsumexp(0)
            alpha = moved + dist.Normal(m + places, 0.7).log_prob(value)
        return alpha.logsumexp(0)

    m = torch.tensor([[0.4], [-1.3]])
    expected = torch.stack([forward(each, x[0]) + forward(each, x[1, :2]) for each in m[:, 0]])
    check_model(model, (), {})
    split = ModelDensity(model, batch_plates=()).split(m)
    torch.testing.assert_close(split.log_likelihood, expected)
    torch.testing.assert_close(split.log_prior, dist.Normal(0.0, 1.0).log_prob(m[:, 0]))


LOCS = torch.tensor([-2.0, 0.0, 2.0])


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("plated", [True, False])
def test_data_without_a_plate_share_a_summed_out_value(size, plated):
    """As many data as classes once met the classes in one dimension; five standard errors."""

    def model(x):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        k = pyro.sample("k", dist.Categorical(torch.ones(3) / 3))
        with pyro.plate("data", size) if plated else nullcontext():
            pyro.sample("x", dist.Normal(LOCS[k] + mean, 1.0), obs=x)

    x = torch.linspace(-1.0, 1.5, size)
    covariance = torch.eye(size) + 1
    parts = [dist.MultivariateNormal(loc.expand(size), covariance).log_prob(x) for loc in LOCS]
    exact = torch.stack(parts).logsumexp(0) - math.log(3)
    pyro.set_rng_seed(0)
    found = log_evidence(model, x, method="bar", num_samples=100, num_temperatures=6)
    assert abs(found.value - exact) < 5 * found.standard_error


def test_latents_without_a_plate_beside_a_summed_out_value():
    def model(x):
        mean = pyro.sample("mean", dist.Normal(torch.zeros(2), 1.0))
        k = pyro.sample("k", dist.Bernoulli(0.25))
        pyro.sample("x", dist.Normal(mean + 3 * k, 1.0), obs=x)

    x = torch.tensor([0.5, 1.5])
    parts = torch.stack([dist.Normal(3.0 * k, 2**0.5).log_prob(x).sum() for k in range(2)])
    exact = (parts + torch.tensor([0.75, 0.25]).log()).logsumexp(0)
    pyro.set_rng_seed(0)
    found = log_evidence(model, x, method="bar", num_samples=100, num_temperatures=6)
    assert abs(found.value - exact) < 5 * found.standard_error


def test_independent_discrete_values_need_a_plate():
    def model(x):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        k = pyro.sample("k", dist.Categorical(torch.ones(4, 3) / 3))
        pyro.sample("x", dist.Normal(LOCS[k] + mean, 1.0), obs=x)

    with pytest.raises(
        ValueError, match=r"model must have a plate around .*'k' .*\(4,\) in plates"
    ):
        log_evidence(model, torch.zeros(4), method="bar")
