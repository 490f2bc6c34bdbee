"""Problems on which nothing was tuned: random members of families whose evidence is known."""

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


def suppressed(dim: int, narrow: float, distance: float) -> Problem:
    """A wide mode and one of equal mass that is narrow, so that it has no mass while hot."""
    modes = dist.Normal(-distance, 1.0), dist.Normal(distance, narrow)

    def model() -> None:
        z = pyro.sample("z", dist.Normal(torch.zeros(dim), 2.0).to_event(1))
        pyro.factor("likelihood", torch.logaddexp(*[each.log_prob(z).sum(-1) for each in modes]))

    own = [
        dim * dist.Normal(0.0, math.hypot(2.0, each.scale)).log_prob(each.loc.double())
        for each in modes
    ]
    return Problem(model, torch.logaddexp(*own).item())


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

    covariance = (inputs @ inputs.T).double() + noise**2 * torch.eye(num, dtype=torch.float64)
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


def funnel(dim: int, seed: int) -> Problem:
    """
    Groups whose common log scale is unknown; the groups are integrated exactly, the scale on a
    line.
    """
    data = torch.randn(dim, generator=torch.Generator().manual_seed(seed))

    def model() -> None:
        log_scale = pyro.sample("log_scale", dist.Normal(0.0, 1.5))
        z = pyro.sample("z", dist.Normal(torch.zeros(dim), log_scale.exp()).to_event(1))
        pyro.sample("x", dist.Normal(z, 0.3).to_event(1), obs=data)

    def log_likelihood(log_scale: Tensor) -> Tensor:
        spread = ((2 * log_scale).exp() + 0.09).sqrt().unsqueeze(-1)
        return dist.Normal(0.0, spread).log_prob(data.double()).sum(-1)

    return Problem(model, _on_line(log_likelihood, 1.5))


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


def _on_line(log_likelihood: Callable[[Tensor], Tensor], prior_scale: float = 1.0) -> float:
    z = LINE / 4
    log_joint = log_likelihood(z) + dist.Normal(0.0, prior_scale).log_prob(z)
    return (log_joint.logsumexp(0) + (z[1] - z[0]).log()).item()


def _named(make: Callable[..., Problem], *args: float) -> tuple[str, Callable[[], Problem]]:
    return f"{make.__name__}{args}".replace(" ", ""), lambda: make(*args)


FRESH: dict[str, Callable[[], Problem]] = dict(
    [
        _named(gaussian_mixture, d, m, s, 10 * d + m)
        for d in (2, 5, 8, 12)
        for m in (1, 2, 4)
        for s in (2.0, 5.0)
    ]
    + [
        _named(suppressed, d, w, 1.5)
        for d, w in ((4, 0.3), (8, 0.3), (8, 0.2), (10, 0.4), (12, 0.3))
    ]
    + [_named(regression, n, d, s, d) for n, d, s in ((20, 3, 0.1), (60, 20, 0.5), (80, 30, 1.0))]
    + [_named(squares, d, 0.1, d) for d in (1, 3, 5, 7)]
    + [_named(funnel, d, d) for d in (3, 8, 20)]
    + [_named(logistic, n, n) for n in (10, 40)]
    + [_named(ring, r, w) for r, w in ((2.0, 0.1), (3.0, 0.03))]
)
