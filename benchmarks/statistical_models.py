"""Small models of kinds that statisticians use, whose evidence is exact or a fine quadrature.

They were written after ``log_evidence`` was first done; later versions had them in view.
"""

import math
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from benchmarks.problems import Problem, on_grid

LINE = torch.linspace(-25, 25, 200_001, dtype=torch.float64)


def on_line(log_joint: Callable[[Tensor], Tensor]) -> float:
    """Integrate over the real line by the trapezium rule."""
    return (log_joint(LINE).logsumexp(0) + (LINE[1] - LINE[0]).log()).item()


def robust_mean() -> Problem:
    """Location and scale of 25 data with heavy tails; the integral by a fine grid."""
    generator = torch.Generator().manual_seed(101)
    data = 3 + 2 * torch.randn(25, generator=generator)
    data[:2] += 15

    def model() -> None:
        location = pyro.sample("location", dist.Normal(0.0, 10.0))
        scale = pyro.sample("scale", dist.HalfNormal(5.0))
        with pyro.plate("data", 25):
            pyro.sample("y", dist.StudentT(4.0, location, scale), obs=data)

    def log_joint(point: Tensor) -> Tensor:
        location, log_scale = point.unbind(-1)
        scale = log_scale.exp()
        likelihood = dist.StudentT(4.0, location[..., None], scale[..., None])
        prior = dist.Normal(0.0, 10.0).log_prob(location) + dist.HalfNormal(5.0).log_prob(scale)
        return likelihood.log_prob(data.double()).sum(-1) + prior + log_scale

    return Problem(model, on_grid(log_joint, (-20, 20), (-8, 5), num=1001))


def censored_survival() -> Problem:
    """Weibull times of 40 patients, some still alive at the end; the integral by a fine grid."""
    generator = torch.Generator().manual_seed(102)
    times = 8 * (-torch.rand(40, generator=generator).log()).pow(1 / 1.5)
    ended, observed = times.clamp(max=10.0), times < 10

    def log_likelihood(shape: Tensor, scale: Tensor, at: Tensor) -> Tensor:
        hazard = (at / scale).pow(shape)
        died = shape.log() - scale.log() + (shape - 1) * (at / scale).log()
        return torch.where(observed, died, 0.0) - hazard

    def model() -> None:
        shape = pyro.sample("shape", dist.LogNormal(0.0, 1.0))
        scale = pyro.sample("scale", dist.LogNormal(2.0, 1.5))
        with pyro.plate("patients", 40):
            pyro.factor("survival", log_likelihood(shape, scale, ended))

    def log_joint(point: Tensor) -> Tensor:
        log_shape, log_scale = point.unbind(-1)
        prior = dist.Normal(0.0, 1.0).log_prob(log_shape)
        prior = prior + dist.Normal(2.0, 1.5).log_prob(log_scale)
        shape, scale = (each.exp()[..., None] for each in (log_shape, log_scale))
        return log_likelihood(shape, scale, ended.double()).sum(-1) + prior

    return Problem(model, on_grid(log_joint, (-4, 4), (-5, 10), num=1001))


def dose_response() -> Problem:
    """Deaths among ten animals at eight doses, by a probit; the integral by a fine grid."""
    doses, total = torch.linspace(-1.5, 2.0, 8), torch.full((8,), 10.0)
    deaths = torch.tensor([0.0, 1.0, 1.0, 3.0, 6.0, 7.0, 10.0, 10.0])

    def model() -> None:
        intercept = pyro.sample("intercept", dist.Normal(0.0, 2.0))
        slope = pyro.sample("slope", dist.Normal(0.0, 2.0))
        with pyro.plate("doses", 8):
            p = torch.special.ndtr(intercept + slope * doses).clamp(1e-7, 1 - 1e-7)
            pyro.sample("deaths", dist.Binomial(total, p), obs=deaths)

    def log_joint(point: Tensor) -> Tensor:
        intercept, slope = (each[..., None] for each in point.unbind(-1))
        p = torch.special.ndtr(intercept + slope * doses.double()).clamp(1e-7, 1 - 1e-7)
        likelihood = dist.Binomial(total.double(), p).log_prob(deaths.double()).sum(-1)
        return likelihood + dist.Normal(0.0, 2.0).log_prob(point).sum(-1)

    return Problem(model, on_grid(log_joint, (-12, 12), (-12, 12), num=1001))


def random_intercepts() -> Problem:
    """
    Ten groups with an unknown mean and spread; means are integrated exactly, the spread on a line.
    """
    generator = torch.Generator().manual_seed(103)
    sizes = torch.tensor([3, 5, 8, 2, 10, 4, 6, 7, 3, 9])
    group = torch.arange(10).repeat_interleave(sizes)
    effects = 1.2 * torch.randn(10, generator=generator)
    data = 4 + effects[group] + 0.8 * torch.randn(len(group), generator=generator)

    def model() -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 5.0))
        spread = pyro.sample("spread", dist.HalfNormal(2.0))
        with pyro.plate("groups", 10):
            effect = pyro.sample("effect", dist.Normal(mean, spread))
        with pyro.plate("data", len(data)):
            pyro.sample("y", dist.Normal(effect[group], 0.8), obs=data)

    same = (group[:, None] == group).double()
    common = 0.64 * torch.eye(len(data)) + 25.0

    def log_joint(log_spread: Tensor) -> Tensor:
        spread = log_spread.exp()
        covariance = common + spread.square()[:, None, None] * same
        prior = dist.MultivariateNormal(torch.zeros(len(data)).double(), covariance)
        own = dist.HalfNormal(2.0).log_prob(spread) + log_spread
        return prior.log_prob(data.double()) + own

    line = torch.linspace(-8, 4, 2401, dtype=torch.float64)
    values = torch.cat([log_joint(part) for part in line.split(200)])
    return Problem(model, (values.logsumexp(0) + (line[1] - line[0]).log()).item())


def smooth_curve() -> Problem:
    """
    A Gaussian process at 15 places with an unknown amplitude; the process is integrated exactly.
    """
    generator = torch.Generator().manual_seed(104)
    places = torch.linspace(0, 5, 15)
    data = torch.sin(places) + 0.3 * torch.randn(15, generator=generator)
    kernel = torch.exp(-0.5 * (places[:, None] - places).double().square())
    root = torch.linalg.cholesky(kernel + 1e-6 * torch.eye(15)).float()
    kernel = root.double() @ root.double().T

    def model() -> None:
        amplitude = pyro.sample("amplitude", dist.LogNormal(0.0, 1.0))
        noise = pyro.sample("noise", dist.Normal(torch.zeros(15), 1.0).to_event(1))
        pyro.sample("y", dist.Normal(amplitude * (root @ noise), 0.3).to_event(1), obs=data)

    def log_joint(log_amplitude: Tensor) -> Tensor:
        covariance = (2 * log_amplitude).exp()[:, None, None] * kernel
        covariance = covariance + 0.09 * torch.eye(15)
        marginal = dist.MultivariateNormal(torch.zeros(15).double(), covariance)
        return marginal.log_prob(data.double()) + dist.Normal(0.0, 1.0).log_prob(log_amplitude)

    line = torch.linspace(-8, 6, 4001, dtype=torch.float64)
    return Problem(model, (log_joint(line).logsumexp(0) + (line[1] - line[0]).log()).item())


def autoregression() -> Problem:
    """A series of 60 with an unknown coefficient and noise; the integral by a fine grid."""
    generator = torch.Generator().manual_seed(105)
    series = [torch.zeros(())]
    for _ in range(60):
        series.append(0.7 * series[-1] + 0.5 * torch.randn((), generator=generator))
    data = torch.stack(series)

    def model() -> None:
        coefficient = pyro.sample("coefficient", dist.Uniform(-1.0, 1.0))
        noise = pyro.sample("noise", dist.Exponential(1.0))
        with pyro.plate("time", 60):
            pyro.sample("y", dist.Normal(coefficient * data[:-1], noise), obs=data[1:])

    def log_joint(point: Tensor) -> Tensor:
        logit, log_noise = point.unbind(-1)
        half = torch.sigmoid(logit)
        mean = (2 * half - 1)[..., None] * data[:-1].double()
        likelihood = dist.Normal(mean, log_noise.exp()[..., None]).log_prob(data[1:].double())
        prior = torch.nn.functional.logsigmoid(logit) + torch.nn.functional.logsigmoid(-logit)
        return likelihood.sum(-1) + prior - log_noise.exp() + log_noise

    return Problem(model, on_grid(log_joint, (-6, 20), (-4, 4), num=1001))


def conjugate_regression() -> Problem:
    """Six coefficients and an unknown variance that scales their prior: a multivariate t."""
    generator = torch.Generator().manual_seed(106)
    inputs = torch.randn(30, 6, generator=generator)
    targets = inputs @ torch.randn(6, generator=generator) + torch.randn(30, generator=generator)

    def model() -> None:
        variance = pyro.sample("variance", dist.InverseGamma(3.0, 2.0))
        prior = dist.Normal(torch.zeros(6), 2 * variance.sqrt()).to_event(1)
        weights = pyro.sample("weights", prior)
        with pyro.plate("data", 30):
            pyro.sample("y", dist.Normal(inputs @ weights, variance.sqrt()), obs=targets)

    x, y = inputs.double(), targets.double()
    covariance = torch.eye(30, dtype=torch.float64) + 4 * x @ x.T
    squares = (y @ torch.linalg.solve(covariance, y)).item()
    exact = 3 * math.log(2) - math.lgamma(3) + math.lgamma(18) - 18 * math.log(2 + squares / 2)
    exact -= 15 * math.log(2 * math.pi) + 0.5 * torch.logdet(covariance).item()
    return Problem(model, exact)


def two_means() -> Problem:
    """Two groups of unknown means and membership: two labelings; the integral by a fine grid."""
    generator = torch.Generator().manual_seed(107)
    data = torch.randn(30, generator=generator) + torch.tensor([0.0, 3.5]).repeat(15)

    def log_likelihood(first: Tensor, second: Tensor, data: Tensor) -> Tensor:
        parts = dist.Normal(first, 1.0).log_prob(data), dist.Normal(second, 1.0).log_prob(data)
        return torch.logaddexp(*parts) - math.log(2)

    def model() -> None:
        means = pyro.sample("means", dist.Normal(torch.zeros(2), 5.0).to_event(1))
        with pyro.plate("data", 30):
            pyro.factor("y", log_likelihood(means[..., :1], means[..., 1:], data))

    def log_joint(point: Tensor) -> Tensor:
        likelihood = log_likelihood(point[..., :1], point[..., 1:], data.double()).sum(-1)
        return likelihood + dist.Normal(0.0, 5.0).log_prob(point).sum(-1)

    return Problem(model, on_grid(log_joint, (-6, 9), (-6, 9), num=1001))


def many_zeros() -> Problem:
    """Zero-inflated counts of 50 traps; the integral by a fine grid."""
    generator = torch.Generator().manual_seed(108)
    counts = torch.poisson(torch.full((50,), 2.5), generator=generator)
    counts[torch.rand(50, generator=generator) < 0.4] = 0.0

    def model() -> None:
        empty = pyro.sample("empty", dist.Beta(1.0, 1.0))
        rate = pyro.sample("rate", dist.Gamma(1.0, 0.2))
        with pyro.plate("traps", 50):
            likelihood = dist.ZeroInflatedPoisson(rate, gate=empty)
            pyro.sample("count", likelihood, obs=counts)

    def log_joint(point: Tensor) -> Tensor:
        logit, log_rate = point.unbind(-1)
        log_empty = torch.nn.functional.logsigmoid(logit)[..., None]
        log_full = torch.nn.functional.logsigmoid(-logit)[..., None]
        rate = log_rate.exp()
        poisson = dist.Poisson(rate[..., None]).log_prob(counts.double()) + log_full
        likelihood = torch.where(counts == 0, torch.logaddexp(log_empty, poisson), poisson)
        prior = dist.Gamma(1.0, 0.2).log_prob(rate) + log_rate + (log_empty + log_full)[..., 0]
        return likelihood.sum(-1) + prior

    return Problem(model, on_grid(log_joint, (-25, 25), (-12, 6), num=1001))


def rates_of_groups() -> Problem:
    """
    Counts of eight groups whose rates have an unknown scale; rates are integrated exactly, the
    scale on a line.
    """
    counts = torch.tensor([3.0, 0.0, 7.0, 2.0, 11.0, 4.0, 1.0, 6.0])
    exposure = torch.tensor([1.0, 0.5, 2.0, 1.0, 2.5, 1.5, 1.0, 0.8])

    def model() -> None:
        scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        with pyro.plate("groups", 8):
            rate = pyro.sample("rate", dist.Gamma(2.0, 1 / scale))
            pyro.sample("count", dist.Poisson(rate * exposure), obs=counts)

    def log_joint(log_scale: Tensor) -> Tensor:
        odds = log_scale[:, None] + exposure.double().log()
        marginal = dist.NegativeBinomial(2.0, logits=odds).log_prob(counts.double()).sum(-1)
        return marginal + dist.Normal(0.0, 1.0).log_prob(log_scale)

    return Problem(model, on_line(log_joint))


STATISTICAL = (
    robust_mean,
    censored_survival,
    dose_response,
    random_intercepts,
    smooth_curve,
    autoregression,
    conjugate_regression,
    two_means,
    many_zeros,
    rates_of_groups,
)
