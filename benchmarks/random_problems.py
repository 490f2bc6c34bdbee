"""Random members of families whose evidence is known."""

import math
from collections.abc import Callable
from functools import partial

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from benchmarks.problems import Problem, on_grid

LINE = torch.linspace(-40, 40, 400_001, dtype=torch.float64)


def gaussian_mixture(dim: int, modes: int, prior_scale: float, seed: int) -> Problem:
    """Modes of random place, width and mass under a wide Gaussian prior."""
    generator = torch.Generator().manual_seed(seed)
    locs = 0.7 * prior_scale * torch.randn(modes, dim, generator=generator)
    scales = (torch.rand(modes, generator=generator) * math.log(8) + math.log(0.15)).exp()
    log_masses = torch.rand(modes, generator=generator).log()

    def model() -> None:
        z = pyro.sample("z", dist.Normal(torch.zeros(dim), prior_scale).to_event(1))
        heights = [
            dist.Normal(*each).log_prob(z).sum(-1) for each in zip(locs, scales, strict=True)
        ]
        pyro.factor("likelihood", (log_masses + torch.stack(heights, -1)).logsumexp(-1))

    spread = (prior_scale**2 + scales.double().square()).sqrt()
    own = dist.Normal(0.0, spread.unsqueeze(-1)).log_prob(locs.double()).sum(-1)
    return Problem(model, (log_masses + own).logsumexp(0).item())


def regression(num: int, dim: int, noise: float, seed: int) -> Problem:
    """Conjugate linear regression with correlated inputs."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(num, dim, generator=generator) @ (torch.eye(dim) + 0.5)
    targets = inputs @ torch.randn(dim, generator=generator) + noise * torch.randn(
        num, generator=generator
    )

    def model() -> None:
        weights = pyro.sample("weights", dist.Normal(torch.zeros(dim), 1.0).to_event(1))
        pyro.sample("y", dist.Normal(inputs @ weights, noise).to_event(1), obs=targets)

    wide = inputs.double()
    covariance = wide @ wide.T + noise**2 * torch.eye(num, dtype=torch.float64)
    exact = torch.distributions.MultivariateNormal(torch.zeros(num).double(), covariance).log_prob(
        targets.double()
    )
    return Problem(model, exact.item())


def squares(dim: int, noise: float, seed: int) -> Problem:
    """Each coordinate is seen squared: ``2^dim`` modes; a product of integrals on a line."""
    data = 1 + torch.rand(dim, generator=torch.Generator().manual_seed(seed))

    def model() -> None:
        z = pyro.sample("z", dist.Normal(torch.zeros(dim), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z.square(), noise).to_event(1), obs=data)

    def log_likelihood(x: Tensor, z: Tensor) -> Tensor:
        return dist.Normal(z.square(), noise).log_prob(x)

    return Problem(model, sum(_on_line(partial(log_likelihood, x)) for x in data))


def logistic(num: int, seed: int) -> Problem:
    """Logistic regression with two coefficients; the integral by a fine grid."""
    generator = torch.Generator().manual_seed(seed)
    inputs = 2 * torch.randn(num, 2, generator=generator)
    labels = torch.bernoulli(torch.sigmoid(inputs.sum(-1)), generator=generator)

    def model() -> None:
        weights = pyro.sample("weights", dist.Normal(torch.zeros(2), 3.0).to_event(1))
        with pyro.plate("data", num):
            pyro.sample("y", dist.Bernoulli(logits=inputs @ weights), obs=labels)

    def log_joint(weights: Tensor) -> Tensor:
        logits = weights @ inputs.double().T
        likelihood = dist.Bernoulli(logits=logits).log_prob(labels.double()).sum(-1)
        return likelihood + dist.Normal(0.0, 3.0).log_prob(weights).sum(-1)

    return Problem(model, on_grid(log_joint, (-25, 25), (-25, 25), num=1001))


def ring(radius: float, width: float) -> Problem:
    """A ring of equal likelihood, which no Gaussian resembles; the integral by a fine grid."""

    def model() -> None:
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 2.0).to_event(1))
        pyro.sample("x", dist.Normal(z.square().sum(-1).sqrt(), width), obs=torch.tensor(radius))

    def log_joint(z: Tensor) -> Tensor:
        distance = z.square().sum(-1).sqrt()
        likelihood = dist.Normal(distance, width).log_prob(torch.tensor(radius))
        return likelihood + dist.Normal(0.0, 2.0).log_prob(z).sum(-1)

    return Problem(model, on_grid(log_joint, (-8, 8), (-8, 8)))


def _on_line(log_likelihood: Callable[[Tensor], Tensor]) -> float:
    z = LINE / 4
    log_joint = log_likelihood(z) + dist.Normal(0.0, 1.0).log_prob(z)
    return (log_joint.logsumexp(0) + (z[1] - z[0]).log()).item()
