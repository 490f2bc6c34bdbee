"""Posteriors against numerical integration, and simulation-based calibration."""

from __future__ import annotations

from contextlib import nullcontext

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide.initialization import init_to_sample
from scipy import stats
from torch import Tensor

from pyro_tkam.infer import MALA, AutoMALA, ParallelTempering, VectorizedMCMC
from tests.infer.models import EFFECTS, ERRORS, eight_schools_noncentered
from tests.untrusted import untrusted

pytestmark = pytest.mark.slow
every_kernel = pytest.mark.parametrize("kernel", [MALA, AutoMALA])


def moments(values: Tensor, log_weights: Tensor) -> tuple[float, float]:
    """Return mean and standard deviation of values on a grid."""
    weights = torch.softmax(log_weights.flatten(), 0)
    mean = (weights * values.flatten()).sum()
    return mean.item(), (weights * (values.flatten() - mean).square()).sum().sqrt().item()


def eight_schools_exactly() -> dict[str, tuple[float, float]]:
    """Integrate over (mu, log tau) with the effects integrated out: y_j ~ N(mu, tau^2 + s_j^2)."""
    mu, log_tau = torch.meshgrid(
        torch.linspace(-25, 30, 1200).double(), torch.linspace(-9, 7, 1200).double(), indexing="ij"
    )
    tau = log_tau.exp()
    spread = (tau.square().unsqueeze(-1) + ERRORS.double().square()).sqrt()
    log_joint = dist.Normal(mu.unsqueeze(-1), spread).log_prob(EFFECTS.double()).sum(-1)
    log_joint += dist.Normal(0.0, 5.0).log_prob(mu) + dist.HalfCauchy(5.0).log_prob(tau) + log_tau
    return {"mu": moments(mu, log_joint), "tau": moments(tau, log_joint)}


def check(samples: dict[str, Tensor], exact: dict[str, tuple[float, float]]) -> None:
    """
    About 2,000 effective draws give the mean to 0.022 sd and the sd to 3% (heavier tails: 6%); 5
    sigma.
    """
    for name, (mean, sd) in exact.items():
        assert samples[name].mean().item() == pytest.approx(mean, abs=0.12 * sd), name
        assert samples[name].std().item() == pytest.approx(sd, rel=0.25), name


@every_kernel
def test_eight_schools(kernel: type) -> None:
    pyro.set_rng_seed(0)
    mcmc = VectorizedMCMC(
        kernel(eight_schools_noncentered), 500, 400, num_chains=64, disable_progbar=True
    )
    # In the steep flank of the logarithm of a half-Cauchy variable.
    with untrusted("divergences") if kernel is MALA else nullcontext():
        mcmc.run()
    check(mcmc.get_samples(), eight_schools_exactly())


def test_eight_schools_tempered() -> None:
    pyro.set_rng_seed(1)
    tempering = ParallelTempering(
        MALA(eight_schools_noncentered),
        num_temperatures=5,
        num_samples=400,
        num_chains=32,
        disable_progbar=True,
    )
    with untrusted("divergences"):  # as above
        tempering.run()
    check(tempering.get_samples(), eight_schools_exactly())


@every_kernel
def test_logistic_regression(kernel: type) -> None:
    pyro.set_rng_seed(2)
    x = torch.randn(30, 2)
    y = torch.distributions.Bernoulli(logits=x @ torch.tensor([1.5, -1.0])).sample()

    def model() -> None:
        w = torch.stack(
            [pyro.sample(name, dist.Normal(0.0, 2.0)) for name in ("first", "second")], -1
        )
        with pyro.plate("data", 30):
            pyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)

    grid = torch.linspace(-8, 8, 400).double()
    first, second = torch.meshgrid(grid, grid, indexing="ij")
    logits = torch.stack([first, second], -1) @ x.T.double()
    log_joint = dist.Bernoulli(logits=logits).log_prob(y.double()).sum(-1)
    log_joint += dist.Normal(0.0, 2.0).log_prob(first) + dist.Normal(0.0, 2.0).log_prob(second)
    mcmc = VectorizedMCMC(kernel(model), 300, 300, num_chains=64, disable_progbar=True)
    mcmc.run()
    check(
        mcmc.get_samples(),
        {"first": moments(first, log_joint), "second": moments(second, log_joint)},
    )


@every_kernel
def test_ranks_of_true_values_are_uniform(kernel: type) -> None:
    """
    Simulation-based calibration of a hierarchical model; each of 500 data sets is a datum of one
    plate.

    Ranks among 63 independent chains, in 16 bins; chi-squared p > 1e-4, so a false alarm in 4e-4 of
    seeds.
    """
    pyro.set_rng_seed(3)

    def model(x: Tensor) -> None:
        with pyro.plate("data_sets", 500):
            scale = pyro.sample("scale", dist.LogNormal(0.0, 0.5))
            mean = pyro.sample("mean", dist.Normal(0.0, scale))
            pyro.sample("x", dist.Normal(mean, 0.7), obs=x[0])
            pyro.sample("x2", dist.Normal(mean, scale), obs=x[1])

    scale = (0.5 * torch.randn(500)).exp()
    mean = scale * torch.randn(500)
    x = torch.stack([mean + 0.7 * torch.randn(500), mean + scale * torch.randn(500)])
    mcmc = VectorizedMCMC(
        kernel(model, init_strategy=init_to_sample), 1, 150, num_chains=63, disable_progbar=True
    )
    with untrusted():
        mcmc.run(x)
    for name, truth in (("scale", scale), ("mean", mean)):
        ranks = (mcmc.get_samples()[name] < truth).sum(0)
        counts = torch.bincount(ranks // 4, minlength=16)
        assert stats.chisquare(counts.numpy()).pvalue > 1e-4, (name, counts)
