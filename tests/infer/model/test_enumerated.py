"""Discrete sites that a density sums out, and continuous ones below them."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_tkam.infer.model.density import ModelDensity
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
