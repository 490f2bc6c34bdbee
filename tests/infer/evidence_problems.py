"""Models whose evidence is known, and what is asked of an estimate of it."""

import math

import pyro
import pyro.distributions as dist
import torch

from pyro_tkam.infer import Evidence

TEMPERED = ("steppingstone", "thermodynamic", "bar", "bridge")


def regression(inputs, targets):
    """Written without a thought for batching."""
    weights = pyro.sample("weights", dist.Normal(torch.zeros(inputs.shape[1]), 1.0).to_event(1))
    with pyro.plate("data", len(targets)):
        pyro.sample("y", dist.Normal(inputs @ weights, 0.5), obs=targets)


def regression_problem(num: int, dim: int):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(num, dim, generator=generator)
    targets = inputs @ torch.randn(dim, generator=generator) + 0.5 * torch.randn(
        num, generator=generator
    )
    covariance = inputs.double() @ inputs.double().T + 0.25 * torch.eye(num, dtype=torch.float64)
    exact = torch.distributions.MultivariateNormal(torch.zeros(num).double(), covariance).log_prob(
        targets.double()
    )
    return (inputs, targets), exact.item()


def two_modes():
    z = pyro.sample("z", dist.Uniform(-10 * torch.ones(2), 10.0).to_event(1))
    modes = [
        dist.Normal(loc, scale).log_prob(z).sum(-1) for loc, scale in ((-5.0, 0.5), (5.0, 0.3))
    ]
    pyro.factor("likelihood", torch.logaddexp(*modes) - math.log(2))


def latent(data):
    """``z`` in R² for each datum, ``x|z ~ N(z, s²)``: ``x ~ N(0, 1 + s²)``."""
    with pyro.plate("data", len(data)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 0.3).to_event(1), obs=data)


LATENT_DATA = torch.tensor([[0.0, 0.0], [1.0, -0.5], [2.5, 0.3]])
LATENT_EXACT = dist.Normal(0.0, math.sqrt(1.09)).log_prob(LATENT_DATA).sum(-1)


def assert_close(evidence: Evidence, exact: float, margin: float = 0.002) -> None:
    error = abs(evidence.value - exact)
    assert error < 4.5 * evidence.standard_error + margin, f"exact {exact}\n{evidence}"
