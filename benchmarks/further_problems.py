"""
Ten more models that statisticians bring, whose evidence is exact or a fine quadrature.

They were written after the estimators that they judge, by someone who had not read them; later
versions had them in view.
"""

import math

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from benchmarks.problems import Problem, on_grid
from benchmarks.statistical_models import on_line


def two_laboratories() -> Problem:
    """One constant, by two laboratories that disagree: two modes; the integral on a line."""
    generator = torch.Generator().manual_seed(201)
    data = torch.tensor([2.0, 8.0]).repeat(5) + 0.7 * torch.randn(10, generator=generator)

    def model() -> None:
        constant = pyro.sample("constant", dist.Cauchy(0.0, 5.0))
        with pyro.plate("data", 10):
            pyro.sample("y", dist.StudentT(2.0, constant, 0.7), obs=data)

    def log_joint(constant: Tensor) -> Tensor:
        likelihood = dist.StudentT(2.0, constant[:, None], 0.7).log_prob(data.double()).sum(-1)
        return likelihood + dist.Cauchy(0.0, 5.0).log_prob(constant)

    return Problem(model, on_line(log_joint))


def change_of_rate() -> Problem:
    """Accidents of 30 years whose rate changes once; rates and years are integrated exactly."""
    generator = torch.Generator().manual_seed(202)
    counts = torch.poisson(torch.tensor([3.0] * 11 + [1.2] * 19), generator=generator)
    before = torch.arange(30) < torch.arange(30)[:, None]

    def model() -> None:
        rates = pyro.sample("rates", dist.Exponential(0.5 * torch.ones(2)).to_event(1))
        early, late = (dist.Poisson(rate).log_prob(counts) for rate in rates)
        by_year = torch.where(before, early, late).sum(-1)
        pyro.factor("accidents", by_year.logsumexp(0) - math.log(30))

    def marginal(of: Tensor) -> Tensor:
        total, years = (of * counts.double()).sum(-1), of.sum(-1)
        return math.log(0.5) + torch.lgamma(1 + total) - (1 + total) * (0.5 + years).log()

    by_year = marginal(before.double()) + marginal((~before).double())
    constant = torch.lgamma(1 + counts.double()).sum() + math.log(30)
    return Problem(model, (by_year.logsumexp(0) - constant).item())


def three_clusters() -> Problem:
    """
    Unknown weights and means of three clusters: six labelings; a sum over all memberships of ten
    data.
    """
    generator = torch.Generator().manual_seed(203)
    places = torch.tensor([-4.0, 0.0, 5.0]).repeat_interleave(torch.tensor([3, 3, 4]))
    data = places + torch.randn(10, generator=generator)

    def model() -> None:
        weights = pyro.sample("weights", dist.Dirichlet(2 * torch.ones(3)))
        means = pyro.sample("means", dist.Normal(torch.zeros(3), 5.0).to_event(1))
        clusters = dist.MixtureSameFamily(dist.Categorical(weights), dist.Normal(means, 1.0))
        with pyro.plate("data", 10):
            pyro.sample("y", clusters, obs=data)

    memberships = torch.cartesian_prod(*[torch.arange(3)] * 10)
    member = torch.nn.functional.one_hot(memberships, 3).double()
    sizes, sums = member.sum(1), (member * data.double()[:, None]).sum(1)
    own = 0.5 * (25 * sums.square() / (1 + 25 * sizes) - torch.log1p(25 * sizes))
    weights = torch.lgamma(2 + sizes).sum(-1) + math.lgamma(6) - math.lgamma(16)
    constant = 5 * math.log(2 * math.pi) + 0.5 * data.double().square().sum()
    return Problem(model, ((own.sum(-1) + weights).logsumexp(0) - constant).item())


def blood_types() -> Problem:
    """Frequencies of three alleles from blood types of 60 people; products are multiplied out."""
    a, b, ab, o = 21, 8, 2, 29
    counts = torch.tensor([a, b, ab, o]).float()

    def model() -> None:
        p, q, r = pyro.sample("alleles", dist.Dirichlet(torch.ones(3))).unbind(-1)
        types = torch.stack([p * (p + 2 * r), q * (q + 2 * r), 2 * p * q, r * r], -1)
        pyro.sample("types", dist.Multinomial(60, types), obs=counts)

    def log_choices(total: int, parts: Tensor) -> Tensor:
        return math.lgamma(total + 1) - torch.lgamma(parts + 1) - torch.lgamma(total - parts + 1)

    # Of each type, ``i`` or ``j`` people have two equal alleles.
    i = torch.arange(a + 1, dtype=torch.float64)[:, None]
    j = torch.arange(b + 1, dtype=torch.float64)
    mixed = a - i + b - j
    alleles = (a + i + ab, b + j + ab, mixed + 2 * o)
    each = log_choices(a, i) + log_choices(b, j) + (mixed + ab) * math.log(2)
    each = each + sum(torch.lgamma(1 + number) for number in alleles)
    constant = math.lgamma(61) - sum(math.lgamma(1 + number) for number in (a, b, ab, o))
    constant += math.lgamma(3) - math.lgamma(123)
    return Problem(model, each.flatten().logsumexp(0).item() + constant)


def wind_directions() -> Problem:
    """
    Twenty directions about the place where angles wrap around; the mean direction is integrated
    exactly, the concentration on a line.
    """
    generator = torch.Generator().manual_seed(205)
    angles = 3.1 + 0.6 * torch.randn(20, generator=generator)
    data = torch.atan2(angles.sin(), angles.cos())

    def model() -> None:
        direction = pyro.sample("direction", dist.Uniform(-math.pi, math.pi))
        concentration = pyro.sample("concentration", dist.Gamma(2.0, 0.5))
        with pyro.plate("data", 20):
            pyro.sample("angle", dist.VonMises(direction, concentration), obs=data)

    length = torch.hypot(data.double().sin().sum(), data.double().cos().sum())

    def log_bessel(x: Tensor) -> Tensor:
        return torch.special.i0e(x).log() + x

    def log_joint(log_concentration: Tensor) -> Tensor:
        concentration = log_concentration.exp()
        each = math.log(2 * math.pi) + log_bessel(concentration)
        prior = dist.Gamma(2.0, 0.5).log_prob(concentration) + log_concentration
        return log_bessel(length * concentration) - 20 * each + prior

    return Problem(model, on_line(log_joint))


def ratings() -> Problem:
    """
    Ratings from 0 to 4 of two treatments, by ordered thresholds, which are integrated in turn on a
    line, and an effect, on another.
    """
    generator = torch.Generator().manual_seed(206)
    treated = torch.arange(50) % 2
    latent = torch.logit(torch.rand(50, generator=generator)) + 1.0 * treated
    data = (latent[:, None] > torch.tensor([-1.5, -0.3, 0.8, 2.0])).sum(-1)
    first = torch.tensor([-2.0, 0.0, 0.0, 0.0])

    def model() -> None:
        effect = pyro.sample("effect", dist.Normal(0.0, 1.5))
        gaps = dist.Normal(first, 1.0).to_event(1)
        ordered = dist.TransformedDistribution(gaps, [dist.transforms.OrderedTransform()])
        thresholds = pyro.sample("thresholds", ordered)
        with pyro.plate("data", 50):
            pyro.sample("rating", dist.OrderedLogistic(effect * treated, thresholds), obs=data)

    line = torch.linspace(-9, 11, 501, dtype=torch.float64)
    step = line[1] - line[0]
    gap = (line - line[:, None]).clamp(min=1e-9)
    log_gap = torch.where(gap > 1e-9, dist.LogNormal(0.0, 1.0).log_prob(gap), -math.inf)
    numbers = torch.nn.functional.one_hot(data, 5).double()
    numbers = torch.stack([numbers[treated == each].sum(0) for each in (0, 1)])

    def log_evidence_at(effect: Tensor) -> Tensor:
        below = torch.sigmoid(line - effect * torch.arange(2)[:, None])
        inside = (below[:, None] - below[..., None]).clamp(min=1e-300).log()
        so_far = dist.Normal(-2.0, 1.0).log_prob(line) + numbers[:, 0] @ below.log()
        for k in (1, 2, 3):
            move = log_gap + torch.einsum("g,gij->ij", numbers[:, k], inside)
            so_far = (so_far[:, None] + move).logsumexp(0) + step.log()
        above = torch.nn.functional.logsigmoid(effect * torch.arange(2)[:, None] - line)
        return (so_far + numbers[:, 4] @ above).logsumexp(0) + step.log()

    effects = torch.linspace(-4, 6, 81, dtype=torch.float64)
    values = torch.stack([log_evidence_at(effect) for effect in effects])
    values = values + dist.Normal(0.0, 1.5).log_prob(effects)
    return Problem(model, (values.logsumexp(0) + (effects[1] - effects[0]).log()).item())


def volatility() -> Problem:
    """
    Ten returns whose log variance is an autoregression with an unknown spread; log variances are
    integrated in turn on a line.
    """
    generator = torch.Generator().manual_seed(207)
    lags = torch.arange(10)[:, None] - torch.arange(10)
    root = torch.where(lags >= 0, 0.9 ** lags.clamp(min=0), 0.0)
    root[:, 0] /= math.sqrt(1 - 0.9**2)
    data = (0.4 * root @ torch.randn(10, generator=generator)).exp().sqrt()
    data = data * torch.randn(10, generator=generator)

    def model() -> None:
        spread = pyro.sample("spread", dist.LogNormal(-1.0, 0.6))
        process = dist.MultivariateNormal(torch.zeros(10), scale_tril=spread * root)
        log_variance = pyro.sample("log_variance", process)
        pyro.sample("return", dist.Normal(0.0, (log_variance / 2).exp()).to_event(1), obs=data)

    line = torch.linspace(-10, 10, 801, dtype=torch.float64)
    step = line[1] - line[0]
    likelihood = dist.Normal(0.0, (line / 2).exp()).log_prob(data.double()[:, None]).exp()

    def log_evidence_at(spread: Tensor) -> Tensor:
        move = dist.Normal(0.9 * line, spread).log_prob(line[:, None]).exp() * step
        so_far = dist.Normal(0.0, spread / math.sqrt(1 - 0.9**2)).log_prob(line).exp()
        for density in likelihood[:-1]:
            so_far = move @ (so_far * density)
        return (so_far * likelihood[-1]).sum().log() + step.log()

    log_spreads = torch.linspace(-4, 2, 61, dtype=torch.float64)
    values = torch.stack([log_evidence_at(log_spread.exp()) for log_spread in log_spreads])
    values = values + dist.Normal(-1.0, 0.6).log_prob(log_spreads)
    return Problem(model, (values.logsumexp(0) + (log_spreads[1] - log_spreads[0]).log()).item())


def answers_to_questions() -> Problem:
    """
    Answers of ten people to six questions of known difficulty; abilities and their common
    discrimination are integrated on lines.
    """
    generator = torch.Generator().manual_seed(208)
    difficulty = torch.linspace(-1.5, 1.5, 6)
    abilities = torch.randn(10, 1, generator=generator)
    answers = torch.bernoulli(torch.sigmoid(2 * (abilities - difficulty)), generator=generator)

    def model() -> None:
        discrimination = pyro.sample("discrimination", dist.LogNormal(0.0, 0.5))
        with pyro.plate("people", 10, dim=-2):
            ability = pyro.sample("ability", dist.Normal(0.0, 1.0))
            with pyro.plate("questions", 6, dim=-1):
                logits = discrimination * (ability - difficulty)
                pyro.sample("answer", dist.Bernoulli(logits=logits), obs=answers)

    line = torch.linspace(-9, 9, 361, dtype=torch.float64)
    log_discrimination = torch.linspace(-4, 4, 161, dtype=torch.float64)
    logits = log_discrimination.exp()[:, None, None] * (line[:, None] - difficulty)
    likelihood = torch.einsum("dli,pi->dpl", logits, answers.double())
    likelihood = likelihood - torch.nn.functional.softplus(logits).sum(-1)[:, None]
    own = likelihood + dist.Normal(0.0, 1.0).log_prob(line) + (line[1] - line[0]).log()
    values = own.logsumexp(-1).sum(-1) + dist.Normal(0.0, 0.5).log_prob(log_discrimination)
    step = log_discrimination[1] - log_discrimination[0]
    return Problem(model, (values.logsumexp(0) + step.log()).item())


def overdispersed_counts() -> Problem:
    """Negative binomial regression of 24 counts with known exposures; the integral by a grid."""
    generator = torch.Generator().manual_seed(209)
    exposure = 0.5 + 3 * torch.rand(24, generator=generator)
    dose = torch.linspace(-1, 1, 24)
    frailty = -torch.rand(24, 2, generator=generator).log().mean(-1)
    counts = torch.poisson(exposure * frailty * (0.8 + 0.7 * dose).exp(), generator=generator)

    def log_odds(intercept: Tensor, slope: Tensor, log_size: Tensor, of: Tensor) -> Tensor:
        return intercept + slope * of + exposure.to(of).log() - log_size

    def model() -> None:
        intercept = pyro.sample("intercept", dist.Normal(0.0, 2.0))
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        size = pyro.sample("size", dist.Gamma(2.0, 0.5))
        logits = log_odds(intercept, slope, size.log(), dose)
        with pyro.plate("data", 24):
            pyro.sample("count", dist.NegativeBinomial(size, logits=logits), obs=counts)

    def log_evidence_at(log_size: Tensor) -> Tensor:
        def log_joint(point: Tensor) -> Tensor:
            logits = log_odds(point[:, :1], point[:, 1:], log_size, dose.double())
            likelihood = dist.NegativeBinomial(log_size.exp(), logits=logits)
            prior = dist.Normal(0.0, torch.tensor([2.0, 1.0])).log_prob(point).sum(-1)
            return likelihood.log_prob(counts.double()).sum(-1) + prior

        inner = on_grid(log_joint, (-4, 6), (-5, 6), num=111)
        return inner + dist.Gamma(2.0, 0.5).log_prob(log_size.exp()) + log_size

    log_sizes = torch.linspace(-7, 5, 91, dtype=torch.float64)
    values = torch.stack([log_evidence_at(log_size) for log_size in log_sizes])
    return Problem(model, (values.logsumexp(0) + (log_sizes[1] - log_sizes[0]).log()).item())


def sparse_means() -> Problem:
    """
    Five means under a horseshoe, one of them large; means are integrated exactly, their scales on
    lines.
    """
    data = torch.tensor([0.3, -0.6, 4.5, 0.1, -1.1])

    def model() -> None:
        common = pyro.sample("common", dist.HalfCauchy(1.0))
        with pyro.plate("means", 5):
            scale = pyro.sample("scale", dist.HalfCauchy(1.0))
            mean = pyro.sample("mean", dist.Normal(0.0, common * scale))
            pyro.sample("y", dist.Normal(mean, 1.0), obs=data)

    line = torch.linspace(-24, 24, 481, dtype=torch.float64)
    prior = dist.HalfCauchy(1.0).log_prob(line.exp()) + line + (line[1] - line[0]).log()
    spread = (1 + (2 * (line[:, None] + line)).exp()).sqrt()
    own = dist.Normal(0.0, spread).log_prob(data.double()[:, None, None]) + prior
    return Problem(model, (own.logsumexp(-1).sum(0) + prior).logsumexp(0).item())


FURTHER_PROBLEMS = (
    two_laboratories,
    change_of_rate,
    three_clusters,
    blood_types,
    wind_directions,
    ratings,
    volatility,
    answers_to_questions,
    overdispersed_counts,
    sparse_means,
)
