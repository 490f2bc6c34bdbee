"""Chains in coordinates with a standard normal prior."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_tkam.infer import MALA, EnsembleHMC, VectorizedMCMC
from tests.untrusted import untrusted

EFFECTS = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def eight_schools(effects: Tensor) -> None:
    """Centered: a funnel."""
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", 8):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("y", dist.Normal(theta, ERRORS), obs=effects)


def exact_mean_of_log_tau() -> float:
    """By quadrature over the logarithm; effects and location are integrated exactly."""
    log_tau = torch.linspace(-12, 6, 20_001, dtype=torch.float64)
    tau = log_tau.exp()
    variance = ERRORS.double().square() + tau[:, None].square()
    precision = 1 / 25 + (1 / variance).sum(-1)
    linear = (EFFECTS / variance).sum(-1)
    log_density = (
        dist.HalfCauchy(5.0).log_prob(tau)
        + log_tau
        - (variance.log() + EFFECTS.square() / variance).sum(-1) / 2
        + linear.square() / precision / 2
        - precision.log() / 2
    )
    return float((log_density.softmax(0) * log_tau).sum())


def run(num_samples: int, **options) -> VectorizedMCMC:
    pyro.set_rng_seed(0)
    mcmc = VectorizedMCMC(EnsembleHMC(eight_schools), num_samples, **options)
    mcmc.run(EFFECTS)
    return mcmc


def test_a_funnel_is_no_funnel_there() -> None:
    """The mean of log tau, whose tail in the neck chains miss, within 4.5 errors."""
    mcmc = run(500, standard_normal=True)
    assert mcmc.verdict.trusted
    worth = mcmc.verdict.measures["fewest effective draws"]
    assert worth > 2000
    log_tau = mcmc.get_samples()["tau"].log()
    error = log_tau.std().item() / math.sqrt(worth)
    assert log_tau.mean().item() == pytest.approx(exact_mean_of_log_tau(), abs=4.5 * error)
    assert "theta" not in mcmc.kernel.transforms
    with pytest.warns(UserWarning, match="not to be trusted"):
        centered = run(500)
    assert centered.verdict.measures["fewest effective draws"] < worth / 4


def test_a_run_is_resumed_in_its_own_coordinates_alone() -> None:
    with untrusted():
        whole = run(20, warmup_steps=10, num_chains=8, standard_normal=True)
        half = run(10, warmup_steps=10, num_chains=8, standard_normal=True)
    more = VectorizedMCMC(
        EnsembleHMC(eight_schools), 20, warmup_steps=10, num_chains=8, standard_normal=True
    )
    more.resume(half.state)
    with untrusted():
        more.run(EFFECTS)
    assert torch.equal(more.get_samples()["theta"], whole.get_samples()["theta"])
    other = VectorizedMCMC(EnsembleHMC(eight_schools), 20, warmup_steps=10, num_chains=8)
    with pytest.raises(ValueError, match="saved with standard_normal=False, as this run has"):
        other.resume(half.state)


def test_what_is_of_unconstrained_coordinates_is_refused() -> None:
    start = {"mu": torch.zeros(4), "tau": torch.zeros(4), "theta": torch.zeros(4, 8)}
    for name, given in (("initial_params", start), ("transforms", {})):
        with pytest.raises(ValueError, match=f"standard_normal must be False with {name}"):
            VectorizedMCMC(
                MALA(eight_schools), 10, num_chains=4, standard_normal=True, **{name: given}
            )
