"""Problems of many latents, or many data of few groups, whose evidence is known."""

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from benchmarks.problems import Problem
from benchmarks.random_problems import regression


def normal_log_prob(data: Tensor, covariance: Tensor) -> float:
    """Return the log density of centered normal data, in double precision."""
    zero = torch.zeros(len(data), dtype=torch.float64)
    return dist.MultivariateNormal(zero, covariance).log_prob(data.double()).item()


def gauss(dim: int, seed: int) -> Problem:
    """Standard normal latents, each mixed with its neighbor and seen with noise."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.eye(dim) + 0.5 * torch.eye(dim).roll(1, 0)
    data = mixing @ torch.randn(dim, generator=generator)
    data = data + 0.3 * torch.randn(dim, generator=generator)

    def model() -> None:
        z = pyro.sample("z", dist.Normal(torch.zeros(dim), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(mixing @ z, 0.3).to_event(1), obs=data)

    covariance = mixing.double() @ mixing.T.double() + 0.09 * torch.eye(dim)
    return Problem(model, normal_log_prob(data, covariance))


def gp_latent(num: int, seed: int) -> Problem:
    """A Gaussian process at places on a line, each seen once with noise."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.linspace(0, 10, num)
    kernel = torch.exp(-(places[:, None] - places).abs())
    data = torch.linalg.cholesky(kernel) @ torch.randn(num, generator=generator)
    data = data + 0.4 * torch.randn(num, generator=generator)

    def model() -> None:
        curve = pyro.sample("curve", dist.MultivariateNormal(torch.zeros(num), kernel))
        pyro.sample("x", dist.Normal(curve, 0.4).to_event(1), obs=data)

    return Problem(model, normal_log_prob(data, kernel.double() + 0.16 * torch.eye(num)))


def hierarchical(groups: int, each: int, seed: int) -> Problem:
    """
    Groups with an unknown mean and spread; means are integrated exactly, the spread on a line.
    """
    generator = torch.Generator().manual_seed(seed)
    effects = 1 + 0.7 * torch.randn(groups, generator=generator)
    data = effects[:, None] + torch.randn(groups, each, generator=generator)

    def model() -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 3.0))
        spread = pyro.sample("spread", dist.HalfNormal(1.0))
        with pyro.plate("groups", groups):
            effect = pyro.sample("effect", dist.Normal(mean, spread))
            likelihood = dist.Normal(effect.unsqueeze(-1), 1.0).expand([groups, each])
            pyro.sample("x", likelihood.to_event(1), obs=data)

    line = torch.linspace(-7, 3, 1001, dtype=torch.float64)
    spread = line.exp()
    averages = data.double().mean(1)
    own = spread.square() + 1 / each
    covariance = 9.0 + own[:, None, None] * torch.eye(groups)
    of_averages = dist.MultivariateNormal(torch.zeros(groups).double(), covariance)
    log_joint = of_averages.log_prob(averages) + dist.HalfNormal(1.0).log_prob(spread) + line
    within = dist.Normal(averages[:, None], 1.0).log_prob(data.double()).sum()
    within = within - dist.Normal(0.0, each**-0.5).log_prob(torch.zeros(groups)).double().sum()
    exact = log_joint.logsumexp(0) + (line[1] - line[0]).log() + within
    return Problem(model, exact.item())


LARGE: dict[str, Callable[[], Problem]] = {
    "gp_latent_30": lambda: gp_latent(30, 3),
    "hier_strong_many_obs": lambda: hierarchical(10, 200, 5),
    "hierarchical_65": lambda: hierarchical(63, 5, 4),
    "regression_100": lambda: regression(150, 100, 0.5, 2),
    "gauss_100": lambda: gauss(100, 1),
    "gauss_300": lambda: gauss(300, 6),
}
