"""
Distributions as global latents, and energies with latent coefficients, against posteriors known by
quadrature.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC, NUTS, SVI, Trace_ELBO, autoguide
from pyro.nn import PyroModule, PyroSample

from pyro_tkam.distributions import ExponentiallyTilted, JointEnergy, ShortRunULA, TiltedMixture
from pyro_tkam.ops.quadrature import composite

OBSERVED = torch.tensor(0.8).double()


def hump(z: torch.Tensor) -> torch.Tensor:
    return torch.cos(2 * z) - 0.3 * z


def double(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


PRIORS = {
    "tilted": lambda: ExponentiallyTilted(hump, "gaussian", double(-4.0)[0], double(4.0)[0]),
    "mixture": lambda: TiltedMixture(
        double(0.5, -0.5),
        ExponentiallyTilted(
            lambda z: double(-2.0, 2.0) * z, "gaussian", double(-4.0)[0], double(4.0)[0]
        ),
    ),
    "joint": lambda: JointEnergy(
        lambda z: hump(z).sum(-1), dist.Normal(double(0.0), double(1.0)), sampler=ShortRunULA(3)
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PRIORS)
def test_nuts_recovers_a_posterior_known_by_quadrature(name):
    """
    Mean and standard deviation of 400 draws, to about five standard errors of 150 effective ones.
    """
    prior = PRIORS[name]()

    def model():
        z = pyro.sample("z", prior)
        pyro.sample(
            "x",
            dist.Normal(z, double(0.7)[0]).to_event(len(prior.event_shape)),
            obs=OBSERVED.expand(z.shape),
        )

    pyro.set_rng_seed(0)
    mcmc = MCMC(
        NUTS(model, max_tree_depth=5), num_samples=400, warmup_steps=150, disable_progbar=True
    )
    mcmc.run()
    draws = mcmc.get_samples()["z"].flatten()
    grid = torch.linspace(-4, 4, 4001).double()
    event = grid.reshape(-1, *[1] * len(prior.event_shape))
    weight = (prior.log_prob(event) - 0.5 * ((grid - OBSERVED) / 0.7) ** 2).softmax(0).detach()
    mean = (weight * grid).sum()
    spread = (weight * (grid - mean) ** 2).sum().sqrt()
    assert abs(draws.mean() - mean) < 5 * spread / 150**0.5
    assert abs(draws.std() / spread - 1) < 0.25


class Bank(PyroModule):
    """An energy of three coefficients with a Gaussian prior."""

    def __init__(self) -> None:
        super().__init__()
        self.coefficients = PyroSample(dist.Normal(torch.zeros(3).double(), 1.0).to_event(1))

    def forward(self, data: torch.Tensor) -> None:
        c = self.coefficients
        rule = composite(1, 10, base_cells=4)
        fn = ExponentiallyTilted(lambda z: energy(c, z), quadrature=rule)
        with pyro.plate("data", len(data)):
            pyro.sample("x", fn, obs=data)


def energy(c: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    s = 2 * z - 1
    return 2 * (c[0] * s + c[1] * (1.5 * s**2 - 0.5) + c[2] * (2.5 * s**3 - 1.5 * s))


def data() -> torch.Tensor:
    torch.manual_seed(0)
    with torch.no_grad():
        return ExponentiallyTilted(lambda z: energy(double(1.0, -0.8, 0.5), z)).sample((40,))


def exact_posterior() -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and covariance of the coefficients on a grid of 41³ points."""
    axis = torch.linspace(-3, 3, 41).double()
    c = torch.cartesian_prod(axis, axis, axis)
    z = (torch.arange(400).double() + 0.5) / 400
    basis = energy(torch.eye(3).double()[:, :, None], z[None, :])
    seen = energy(torch.eye(3).double()[:, :, None], data()[None, :]).sum(1)
    log_z = (c @ basis).logsumexp(1) - torch.tensor(400.0).log()
    weight = (c @ seen - len(data()) * log_z - 0.5 * c.square().sum(1)).softmax(0)
    mean = weight @ c
    return mean, (c - mean).mT @ (weight[:, None] * (c - mean))


@pytest.mark.slow
def test_nuts_on_the_coefficients_of_an_energy():
    """Means of 250 draws, to about five standard errors of 100 effective ones."""
    mean, covariance = exact_posterior()
    spread = covariance.diagonal().sqrt()
    pyro.set_rng_seed(0)
    mcmc = MCMC(
        NUTS(Bank(), max_tree_depth=4), num_samples=250, warmup_steps=100, disable_progbar=True
    )
    mcmc.run(data())
    draws = mcmc.get_samples()["coefficients"]
    assert ((draws.mean(0) - mean).abs() < 5 * spread / 10).all()
    assert ((draws.std(0) / spread - 1).abs() < 0.35).all()


@pytest.mark.slow
def test_svi_on_the_coefficients_of_an_energy():
    """
    A Gaussian guide without correlations has the means, and the spreads of the precision's
    diagonal.
    """
    mean, covariance = exact_posterior()
    spread = covariance.inverse().diagonal().rsqrt()
    pyro.set_rng_seed(0)
    pyro.clear_param_store()
    model = Bank()
    guide, seen = autoguide.AutoDiagonalNormal(model, init_scale=0.3), data()
    svi = SVI(
        model, guide, pyro.optim.ClippedAdam({"lr": 0.05, "lrd": 0.99}), Trace_ELBO(num_particles=4)
    )
    for _ in range(300):
        svi.step(seen)
    posterior = guide.get_posterior()
    assert ((posterior.mean - mean).abs() < spread).all()
    assert ((posterior.variance.sqrt() / spread - 1).abs() < 0.3).all()


def test_latent_coefficients_appear_once_in_the_trace():
    trace = pyro.poutine.trace(Bank()).get_trace(data())
    assert sorted(name for name, site in trace.nodes.items() if site["type"] == "sample") == [
        "coefficients",
        "data",
        "x",
    ]
    trace.compute_log_prob()
    assert trace.nodes["x"]["log_prob"].shape == (40,)
