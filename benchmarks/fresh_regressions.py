"""
Fifteen regressions and hierarchies that statisticians bring, whose evidence is exact or a fine
quadrature.

They were written after the estimators that they judge, by someone who had not read them, and
chosen for what statisticians bring, not for what the estimators can do.
"""

import math
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from benchmarks.problems import Problem

Axis = tuple[float, float, int]
# The entries of symmetric matrices of two rows: both of the diagonal, then the one beside it.
Symmetric = tuple[Tensor, Tensor, Tensor]


def on_box(log_joint: Callable[..., Tensor], *axes: Axis, chunk: int = 20_000) -> float:
    """Integrate over a box, each axis from, to and at so many points, by the trapezium rule."""
    lines = [torch.linspace(*axis, dtype=torch.float64) for axis in axes]
    points = torch.stack(torch.meshgrid(*lines, indexing="ij"), -1).flatten(0, -2)
    values = torch.cat([log_joint(*part.unbind(-1)) for part in points.split(chunk)])
    steps = torch.stack([line[1] - line[0] for line in lines])
    return (values.logsumexp(0) + steps.log().sum()).item()


def normal(data: Tensor, covariance: Tensor) -> Tensor:
    """Return the log density of centered normal data for each of many covariances."""
    root = torch.linalg.cholesky(covariance)
    white = torch.linalg.solve_triangular(root, data[:, None], upper=False)[..., 0]
    log_det = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return -0.5 * white.square().sum(-1) - log_det - 0.5 * len(data) * math.log(2 * math.pi)


def outer(column: Tensor) -> Tensor:
    """Return the products of all pairs."""
    return column[:, None] * column


def normal_pairs(data: Tensor, covariance: Symmetric, of_mean: Symmetric) -> Tensor:
    """Return the log density of normal pairs whose mean is unknown and centered normal."""
    num, mean = len(data), data.mean(0)
    scatter = (data - mean).mT @ (data - mean)
    first, second, between = covariance
    det = first * second - between**2
    trace = second * scatter[0, 0] + first * scatter[1, 1] - 2 * between * scatter[0, 1]
    within = -0.5 * (num - 1) * (2 * math.log(2 * math.pi) + det.log()) - 0.5 * trace / det
    first, second, between = (a / num + b for a, b in zip(covariance, of_mean, strict=True))
    det = first * second - between**2
    trace = second * mean[0] ** 2 + first * mean[1] ** 2 - 2 * between * mean[0] * mean[1]
    return within - math.log(num) - math.log(2 * math.pi) - 0.5 * det.log() - 0.5 * trace / det


def log_prior(prior: dist.Distribution, log_value: Tensor) -> Tensor:
    """Return the log density of the log of a positive variable."""
    return prior.log_prob(log_value.exp()) + log_value


def reaction_times() -> Problem:
    """
    Milliseconds of 14 people for 8 words: crossed effects, centered; effects are integrated
    exactly, three spreads on a grid.
    """
    generator = torch.Generator().manual_seed(301)
    times = 620 + 60 * torch.randn(14, 1, generator=generator)
    times = times + 30 * torch.randn(8, generator=generator)
    times = times + 80 * torch.randn(14, 8, generator=generator)

    def model() -> None:
        mean = pyro.sample("mean", dist.Normal(500.0, 200.0))
        between = pyro.sample("between", dist.HalfNormal(100.0))
        of_words = pyro.sample("of_words", dist.HalfNormal(100.0))
        noise = pyro.sample("noise", dist.Exponential(0.01))
        people = pyro.plate("people", 14, dim=-2)
        words = pyro.plate("words", 8, dim=-1)
        with people:
            person = pyro.sample("person", dist.Normal(mean, between))
        with words:
            word = pyro.sample("word", dist.Normal(0.0, of_words))
        with people, words:
            pyro.sample("time", dist.Normal(person + word, noise), obs=times)

    data = times.double() - 500
    rows, columns, mean = data.mean(1), data.mean(0), data.mean()
    squares = [
        112 * mean**2,
        8 * (rows - mean).square().sum(),
        14 * (columns - mean).square().sum(),
    ]
    squares.append(data.square().sum() - sum(squares))

    def log_joint(between: Tensor, of_words: Tensor, noise: Tensor) -> Tensor:
        person, word, own = (2 * between).exp(), (2 * of_words).exp(), (2 * noise).exp()
        variances = (own + 8 * person + 14 * word + 112 * 200**2, own + 8 * person, own + 14 * word)
        total = log_prior(dist.HalfNormal(100.0), between) - 56 * math.log(2 * math.pi)
        total = total + log_prior(dist.HalfNormal(100.0), of_words)
        total = total + log_prior(dist.Exponential(0.01), noise)
        parts = zip((*variances, own), (1, 13, 7, 91), squares, strict=True)
        return total - 0.5 * sum(n * each.log() + square / each for each, n, square in parts)

    return Problem(model, on_box(log_joint, (-10, 7, 137), (-10, 7, 137), (3.7, 5.3, 41)))


def growth_curves() -> Problem:
    """
    Lengths of 20 children at five ages: intercepts and slopes whose correlation is unknown; curves
    are integrated exactly, two spreads and the correlation on a grid.
    """
    generator = torch.Generator().manual_seed(302)
    ages = torch.linspace(-1, 1, 5)
    both = torch.randn(20, 2, generator=generator)
    slopes = 2 + 0.6 * (0.6 * both[:, 0] + 0.8 * both[:, 1])
    lengths = 5 + both[:, :1] + slopes[:, None] * ages
    lengths = lengths + 0.5 * torch.randn(20, 5, generator=generator)

    def model() -> None:
        mean = pyro.sample("mean", dist.Normal(torch.zeros(2), 10.0).to_event(1))
        spreads = pyro.sample("spreads", dist.HalfNormal(torch.ones(2) * 2).to_event(1))
        root = pyro.sample("root", dist.LKJCholesky(2, 2.0))
        with pyro.plate("children", 20):
            curves = dist.MultivariateNormal(mean, scale_tril=spreads[..., None] * root)
            curve = pyro.sample("curve", curves)
            heights = curve[..., :1] + curve[..., 1:] * ages
            pyro.sample("length", dist.Normal(heights, 0.5).to_event(1), obs=lengths)

    inputs = torch.stack([torch.ones(5), ages], -1).double()
    moments = inputs.mT @ inputs
    fitted = torch.linalg.solve(moments, inputs.mT @ lengths.double().mT).mT
    left = (lengths.double() - fitted @ inputs.mT).square().sum()
    constant = 20 * (-1.5 * math.log(2 * math.pi * 0.25) - 0.5 * torch.logdet(moments)) - 2 * left
    errors = 0.25 * torch.linalg.inv(moments)

    def log_joint(first: Tensor, second: Tensor, atanh: Tensor) -> Tensor:
        covariance = atanh.tanh() * (first + second).exp() + errors[0, 1]
        spreads = (2 * first).exp() + errors[0, 0], (2 * second).exp() + errors[1, 1]
        wide = torch.tensor(100.0)
        pairs = normal_pairs(fitted, (*spreads, covariance), (wide, wide, torch.zeros(())))
        half = torch.sigmoid(2 * atanh)
        # The LKJ prior of a correlation is a Beta between minus one and one.
        of_correlation = dist.Beta(2.0, 2.0).log_prob(half) + (2 * half * (1 - half)).log()
        of_spreads = log_prior(dist.HalfNormal(2.0), torch.stack([first, second])).sum(0)
        return pairs + of_spreads + of_correlation + constant

    return Problem(model, on_box(log_joint, (-3, 3, 61), (-10, 3, 131), (-7, 7, 71)))


def vaccine_trials() -> Problem:
    """
    Log relative risks of 13 trials of a vaccine by latitude: a meta-regression; effects and
    coefficients are integrated exactly, the spread on a line.
    """
    risks = [-0.8893, -1.5854, -1.3481, -1.4416, -0.2175, -0.7861, -1.6209]
    effects = torch.tensor([*risks, 0.0120, -0.4694, -1.3713, -0.3394, 0.4459, -0.0173])
    variances = [0.3256, 0.1946, 0.4154, 0.0200, 0.0512, 0.0069, 0.2230]
    variances += [0.0040, 0.0564, 0.0730, 0.0124, 0.5325, 0.0714]
    errors = torch.tensor(variances).sqrt()
    latitudes = [44.0, 55.0, 42.0, 52.0, 13.0, 44.0, 19.0, 13.0, 27.0, 42.0, 18.0, 33.0, 33.0]
    latitude = torch.tensor(latitudes)

    def model() -> None:
        intercept = pyro.sample("intercept", dist.Normal(0.0, 10.0))
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        spread = pyro.sample("spread", dist.HalfCauchy(0.5))
        with pyro.plate("trials", 13):
            mean = intercept + slope * latitude
            effect = pyro.sample("effect", dist.Normal(mean, spread))
            pyro.sample("log_risk", dist.Normal(effect, errors), obs=effects)

    common = 100 + outer(latitude.double()) + errors.double().square().diag()

    def log_joint(log_spread: Tensor) -> Tensor:
        own = (2 * log_spread).exp()[:, None, None] * torch.eye(13)
        return normal(effects.double(), common + own) + log_prior(dist.HalfCauchy(0.5), log_spread)

    return Problem(model, on_box(log_joint, (-18, 12, 1501)))


def mixture_of_g() -> Problem:
    """
    Four correlated predictors under the prior of Zellner and Siow; coefficients are integrated
    exactly, ``g`` and the variance on a grid.
    """
    generator = torch.Generator().manual_seed(304)
    inputs = torch.randn(24, 1, generator=generator) + torch.randn(24, 4, generator=generator)
    inputs = inputs - inputs.mean(0)
    targets = 12 + inputs @ torch.tensor([1.5, 0.0, -1.0, 0.3])
    targets = targets + 1.5 * torch.randn(24, generator=generator)
    root = torch.linalg.cholesky(torch.linalg.inv(inputs.mT @ inputs))

    def model() -> None:
        g = pyro.sample("g", dist.InverseGamma(0.5, 12.0))
        variance = pyro.sample("variance", dist.InverseGamma(2.0, 2.0))
        intercept = pyro.sample("intercept", dist.Normal(0.0, 100.0))
        scale_tril = (g * variance).sqrt() * root
        prior = dist.MultivariateNormal(torch.zeros(4), scale_tril=scale_tril)
        weights = pyro.sample("weights", prior)
        with pyro.plate("data", 24):
            mean = intercept + inputs @ weights
            pyro.sample("y", dist.Normal(mean, variance.sqrt()), obs=targets)

    directions = inputs.double() @ root.double()
    shape = directions @ directions.mT

    def log_joint(log_g: Tensor, log_variance: Tensor) -> Tensor:
        covariance = torch.eye(24) + log_g.exp()[:, None, None] * shape
        covariance = log_variance.exp()[:, None, None] * covariance + 100.0**2
        prior = log_prior(dist.InverseGamma(0.5, 12.0), log_g)
        prior = prior + log_prior(dist.InverseGamma(2.0, 2.0), log_variance)
        return normal(targets.double(), covariance) + prior

    return Problem(model, on_box(log_joint, (-3, 22, 126), (-2, 5, 71), chunk=4000))


def uncertain_precisions() -> Problem:
    """
    A line through 20 data with outliers, each with an unknown precision; precisions are integrated
    exactly, the line and the scale on a grid.
    """
    generator = torch.Generator().manual_seed(305)
    inputs = torch.linspace(0, 3, 20)
    targets = 1 - 2 * inputs + 0.4 * torch.randn(20, generator=generator)
    targets[4] += 6.0
    targets[15] += 4.0

    def model() -> None:
        intercept = pyro.sample("intercept", dist.Normal(0.0, 100.0))
        slope = pyro.sample("slope", dist.Normal(0.0, 10.0))
        scale = pyro.sample("scale", dist.HalfNormal(5.0))
        with pyro.plate("data", 20):
            precision = pyro.sample("precision", dist.Gamma(1.5, 1.5))
            mean = intercept + slope * inputs
            pyro.sample("y", dist.Normal(mean, scale / precision.sqrt()), obs=targets)

    def log_joint(center: Tensor, slope: Tensor, log_scale: Tensor) -> Tensor:
        # Turning the line about the middle of the inputs leaves volumes alone.
        mean = center[:, None] + slope[:, None] * (inputs.double() - 1.5)
        scale = log_scale.exp()[:, None]
        likelihood = dist.StudentT(3.0, mean, scale).log_prob(targets.double()).sum(-1)
        prior = dist.Normal(0.0, 100.0).log_prob(center - 1.5 * slope)
        prior = prior + dist.Normal(0.0, 10.0).log_prob(slope)
        return likelihood + prior + log_prior(dist.HalfNormal(5.0), log_scale)

    return Problem(model, on_box(log_joint, (-4.5, 0.5, 81), (-5, 1, 81), (-3.5, 2, 61)))


def hours_of_work() -> Problem:
    """
    A Tobit regression: hours of work of 40 people, none below zero, under weak priors; the integral
    by a grid.
    """
    generator = torch.Generator().manual_seed(306)
    inputs = torch.randn(40, generator=generator)
    wish = 5 + 12 * inputs + 10 * torch.randn(40, generator=generator)
    hours, works = wish.clamp(min=0.0), wish > 0

    def model() -> None:
        intercept = pyro.sample("intercept", dist.Normal(0.0, 100.0))
        slope = pyro.sample("slope", dist.Normal(0.0, 100.0))
        noise = pyro.sample("noise", dist.HalfCauchy(25.0))
        mean = intercept + slope * inputs
        with pyro.plate("people", 40):
            pyro.sample("hours", dist.Normal(mean, noise).mask(works), obs=hours)
            idle = torch.special.log_ndtr(-mean / noise)
            pyro.factor("idle", torch.where(works, 0.0, idle))

    def log_joint(intercept: Tensor, slope: Tensor, log_noise: Tensor) -> Tensor:
        mean = intercept[:, None] + slope[:, None] * inputs.double()
        noise = log_noise.exp()[:, None]
        working = dist.Normal(mean, noise).log_prob(hours.double())
        likelihood = torch.where(works, working, torch.special.log_ndtr(-mean / noise)).sum(-1)
        prior = dist.Normal(0.0, 100.0).log_prob(torch.stack([intercept, slope])).sum(0)
        return likelihood + prior + log_prior(dist.HalfCauchy(25.0), log_noise)

    return Problem(model, on_box(log_joint, (-30, 30, 81), (-10, 50, 81), (1, 4, 41)))


def food_and_income() -> Problem:
    """
    Expenses of 25 households whose noise grows with income, in dollars; the line is integrated
    exactly, the noise on a grid.
    """
    generator = torch.Generator().manual_seed(307)
    income = 300 + 40_000 * torch.rand(25, generator=generator).square()
    log_income = (income / 10_000).log()
    noise = (6 + 0.8 * log_income).exp() * torch.randn(25, generator=generator)
    expenses = 80 + 0.4 * income + noise

    def model() -> None:
        intercept = pyro.sample("intercept", dist.Normal(0.0, 1000.0))
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        log_noise = pyro.sample("log_noise", dist.Normal(5.0, 3.0))
        power = pyro.sample("power", dist.Normal(0.0, 1.0))
        with pyro.plate("households", 25):
            scale = (log_noise + power * log_income).exp()
            pyro.sample("expenses", dist.Normal(intercept + slope * income, scale), obs=expenses)

    common = 1000.0**2 + outer(income.double())

    def log_joint(log_noise: Tensor, power: Tensor) -> Tensor:
        variance = (2 * (log_noise[:, None] + power[:, None] * log_income.double())).exp()
        prior = dist.Normal(5.0, 3.0).log_prob(log_noise) + dist.Normal(0.0, 1.0).log_prob(power)
        return normal(expenses.double(), common + torch.diag_embed(variance)) + prior

    return Problem(model, on_box(log_joint, (4, 9, 101), (-1, 3, 101), chunk=4000))


def reaction_rates() -> Problem:
    """
    Rates of an enzyme at six concentrations, which saturate; the integral by a grid. Scales of the
    parameters differ by thousands.
    """
    places = torch.tensor([0.02, 0.06, 0.11, 0.22, 0.56, 1.10]).repeat_interleave(2)
    measured = [76.0, 47.0, 97.0, 107.0, 123.0, 139.0, 159.0, 152.0, 191.0, 201.0, 207.0, 200.0]
    rates = torch.tensor(measured)

    def model() -> None:
        fastest = pyro.sample("fastest", dist.HalfNormal(500.0))
        half = pyro.sample("half", dist.Gamma(1.0, 2.0))
        noise = pyro.sample("noise", dist.HalfNormal(50.0))
        with pyro.plate("data", 12):
            mean = fastest * places / (half + places)
            pyro.sample("rate", dist.Normal(mean, noise), obs=rates)

    def log_joint(fastest: Tensor, half: Tensor, log_noise: Tensor) -> Tensor:
        share = places.double() / (half.exp()[:, None] + places.double())
        likelihood = dist.Normal(fastest.exp()[:, None] * share, log_noise.exp()[:, None])
        prior = log_prior(dist.HalfNormal(500.0), fastest) + log_prior(dist.Gamma(1.0, 2.0), half)
        prior = prior + log_prior(dist.HalfNormal(50.0), log_noise)
        return likelihood.log_prob(rates.double()).sum(-1) + prior

    return Problem(model, on_box(log_joint, (4.7, 6, 121), (-5, -0.5, 101), (1.3, 5, 61)))


def errors_in_both() -> Problem:
    """
    A line through 25 data whose inputs are seen with noise; inputs, their mean and the intercept
    are integrated exactly, the slope and two spreads on a grid.
    """
    generator = torch.Generator().manual_seed(309)
    truth = 2 + 1.2 * torch.randn(25, generator=generator)
    seen = truth + 0.7 * torch.randn(25, generator=generator)
    targets = 1 + 1.5 * truth + 0.8 * torch.randn(25, generator=generator)

    def model() -> None:
        intercept = pyro.sample("intercept", dist.Normal(0.0, 10.0))
        slope = pyro.sample("slope", dist.Normal(0.0, 2.0))
        noise = pyro.sample("noise", dist.HalfNormal(1.0))
        center = pyro.sample("center", dist.Normal(0.0, 10.0))
        spread = pyro.sample("spread", dist.HalfNormal(2.0))
        with pyro.plate("data", 25):
            place = pyro.sample("place", dist.Normal(center, spread))
            pyro.sample("x", dist.Normal(place, 0.7), obs=seen)
            pyro.sample("y", dist.Normal(intercept + slope * place, noise), obs=targets)

    data = torch.stack([seen, targets], -1).double()

    def log_joint(slope: Tensor, log_noise: Tensor, log_spread: Tensor) -> Tensor:
        variance = (2 * log_spread).exp()
        own = variance + 0.7**2, slope**2 * variance + (2 * log_noise).exp(), slope * variance
        center = torch.full_like(slope, 100.0), 100 * (1 + slope**2), 100 * slope
        prior = dist.Normal(0.0, 2.0).log_prob(slope) + log_prior(dist.HalfNormal(1.0), log_noise)
        return normal_pairs(data, own, center) + prior + log_prior(dist.HalfNormal(2.0), log_spread)

    return Problem(model, on_box(log_joint, (-2, 8, 101), (-12, 2, 141), (-2.5, 2, 46)))


def rasch() -> Problem:
    """
    Answers of 25 people to three questions, whose difficulties are unknown; abilities are
    integrated on a line, difficulties on a grid.
    """
    generator = torch.Generator().manual_seed(310)
    logits = torch.randn(25, 1, generator=generator) - torch.tensor([-1.5, 0.2, 1.5])
    answers = torch.bernoulli(torch.sigmoid(logits), generator=generator)

    def model() -> None:
        questions = pyro.plate("questions", 3, dim=-1)
        people = pyro.plate("people", 25, dim=-2)
        with questions:
            difficulty = pyro.sample("difficulty", dist.Normal(0.0, 3.0))
        with people:
            ability = pyro.sample("ability", dist.Normal(0.0, 1.0))
        with people, questions:
            pyro.sample("answer", dist.Bernoulli(logits=ability - difficulty), obs=answers)

    line = torch.linspace(-8, 8, 41, dtype=torch.float64)
    weights = dist.Normal(0.0, 1.0).log_prob(line) + (line[1] - line[0]).log()
    scores = torch.bincount(answers.sum(-1).long(), minlength=4).double()
    right = answers.double().sum(0)

    def log_joint(*difficulties: Tensor) -> Tensor:
        difficulty = torch.stack(difficulties, -1)
        wrong = torch.nn.functional.softplus(line[:, None] - difficulty[:, None]).sum(-1)
        by_score = torch.arange(4)[:, None] * line + weights
        own = (by_score - wrong[:, None]).logsumexp(-1) @ scores
        return own - difficulty @ right + dist.Normal(0.0, 3.0).log_prob(difficulty).sum(-1)

    return Problem(model, on_box(log_joint, (-6, 2, 33), (-4, 5, 37), (-2, 7, 37), chunk=5000))


def yields_of_crops() -> Problem:
    """
    Yields of four crops in three soils, 26 plots and an empty cell: an analysis of variance with
    interactions; effects are integrated exactly, two spreads on a grid.
    """
    generator = torch.Generator().manual_seed(311)
    sizes = torch.tensor([3, 1, 4, 2, 2, 3, 0, 1, 2, 4, 1, 3])
    cell = torch.arange(12).repeat_interleave(sizes)
    means = 40 + 4 * torch.randn(12, generator=generator)
    yields = means[cell] + 2 * torch.randn(26, generator=generator)

    def model() -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 100.0))
        spread = pyro.sample("spread", dist.HalfCauchy(2.0))
        noise = pyro.sample("noise", dist.Gamma(2.0, 0.5))
        soils = pyro.plate("soils", 3, dim=-2)
        crops = pyro.plate("crops", 4, dim=-1)
        with soils:
            soil = pyro.sample("soil", dist.Normal(0.0, 10.0))
        with crops:
            crop = pyro.sample("crop", dist.Normal(0.0, 10.0))
        with soils, crops:
            both = pyro.sample("both", dist.Normal(0.0, spread))
        cells = (mean + soil + crop + both).flatten()
        with pyro.plate("plots", 26):
            pyro.sample("yield", dist.Normal(cells[cell], noise), obs=yields)

    soil, crop = cell // 4, cell % 4
    same_soil, same_crop, same = ((of[:, None] == of).double() for of in (soil, crop, cell))
    common = 100.0**2 + 100 * (same_soil + same_crop)

    def log_joint(log_spread: Tensor, log_noise: Tensor) -> Tensor:
        spread, noise = ((2 * each).exp()[:, None, None] for each in (log_spread, log_noise))
        prior = log_prior(dist.HalfCauchy(2.0), log_spread)
        prior = prior + log_prior(dist.Gamma(2.0, 0.5), log_noise)
        return normal(yields.double(), common + spread * same + noise * torch.eye(26)) + prior

    return Problem(model, on_box(log_joint, (-14, 12, 131), (-1.5, 3, 61), chunk=4000))


def river() -> Problem:
    """
    Flow of the Nile in 50 years as a random walk seen with noise; steps are integrated exactly, two
    spreads on a grid.
    """
    flow = [1120, 1160, 963, 1210, 1160, 1160, 813, 1230, 1370, 1140, 995, 935, 1110, 994, 1020]
    flow += [960, 1180, 799, 958, 1140, 1100, 1210, 1150, 1250, 1260, 1220, 1030, 1100, 774, 840]
    flow += [874, 694, 940, 833, 701, 916, 692, 1020, 1050, 969, 831, 726, 456, 824, 702, 1120]
    data = torch.tensor([*flow, 1100, 832, 764, 821]).float()

    def model() -> None:
        start = pyro.sample("start", dist.Normal(1000.0, 300.0))
        spread = pyro.sample("spread", dist.HalfNormal(100.0))
        noise = pyro.sample("noise", dist.HalfNormal(200.0))
        steps = pyro.sample("steps", dist.Normal(torch.zeros(49), 1.0).to_event(1))
        level = start + spread * torch.cat([torch.zeros(1), steps.cumsum(-1)])
        with pyro.plate("years", 50):
            pyro.sample("flow", dist.Normal(level, noise), obs=data)

    years = torch.arange(50, dtype=torch.float64)
    walk = torch.minimum(years[:, None], years)

    def log_joint(log_spread: Tensor, log_noise: Tensor) -> Tensor:
        spread, noise = ((2 * each).exp()[:, None, None] for each in (log_spread, log_noise))
        covariance = 300.0**2 + spread * walk + noise * torch.eye(50)
        prior = log_prior(dist.HalfNormal(100.0), log_spread)
        prior = prior + log_prior(dist.HalfNormal(200.0), log_noise)
        return normal(data.double() - 1000, covariance) + prior

    return Problem(model, on_box(log_joint, (-14, 7, 106), (-2, 6.5, 86), chunk=2000))


def correlated_horseshoe() -> Problem:
    """
    Two correlated predictors under a horseshoe, one of them without effect; coefficients are
    integrated exactly, three scales on a grid.
    """
    generator = torch.Generator().manual_seed(313)
    first = torch.randn(18, generator=generator)
    inputs = torch.stack([first, 0.8 * first + 0.6 * torch.randn(18, generator=generator)], -1)
    targets = 3 + 1.4 * first + torch.randn(18, generator=generator)

    def model() -> None:
        intercept = pyro.sample("intercept", dist.Normal(0.0, 10.0))
        common = pyro.sample("common", dist.HalfCauchy(1.0))
        with pyro.plate("predictors", 2):
            scale = pyro.sample("scale", dist.HalfCauchy(1.0))
            noise = pyro.sample("noise", dist.Normal(0.0, 1.0))
        weights = common * scale * noise
        with pyro.plate("data", 18):
            pyro.sample("y", dist.Normal(intercept + inputs @ weights, 1.0), obs=targets)

    without = torch.eye(18, dtype=torch.float64) + 100
    solved = torch.linalg.solve(without, inputs.double())
    (a, c), (_, b) = (inputs.double().mT @ solved).tolist()
    p, q = (targets.double() @ solved).tolist()
    base = normal(targets.double(), without)

    def log_joint(common: Tensor, one: Tensor, two: Tensor) -> Tensor:
        v, w = (2 * (common + one)).exp(), (2 * (common + two)).exp()
        det = 1 + v * a + w * b + v * w * (a * b - c**2)
        gain = v * p**2 * (1 + w * b) + w * q**2 * (1 + v * a) - 2 * v * w * c * p * q
        priors = log_prior(dist.HalfCauchy(1.0), torch.stack([common, one, two])).sum(0)
        return base - 0.5 * det.log() + 0.5 * gain / det + priors

    return Problem(model, on_box(log_joint, *[(-16, 16, 107)] * 3))


def frailty() -> Problem:
    """
    Survival of 60 patients, some censored, in 12 clinics with frailties, which are integrated
    exactly; the rate, the effect and the shape on a grid.
    """
    generator = torch.Generator().manual_seed(314)
    treated = (torch.arange(60) % 2).float()
    clinic = torch.arange(60) // 5
    hazards = (0.7 * torch.randn(12, generator=generator)).exp()
    hazard = 0.4 * hazards[clinic] * (-0.8 * treated).exp()
    times = -torch.rand(60, generator=generator).log() / hazard
    died, times = times < 5, times.clamp(max=5.0)

    def model() -> None:
        rate = pyro.sample("rate", dist.Gamma(1.0, 1.0))
        effect = pyro.sample("effect", dist.Normal(0.0, 2.0))
        shape = pyro.sample("shape", dist.LogNormal(1.0, 1.0))
        with pyro.plate("clinics", 12):
            frail = pyro.sample("frailty", dist.Gamma(shape, shape))
        with pyro.plate("patients", 60):
            log_hazard = rate.log() + frail[clinic].log() + effect * treated
            pyro.factor("survival", torch.where(died, log_hazard, 0.0) - log_hazard.exp() * times)

    by_clinic = torch.nn.functional.one_hot(clinic, 12).double()
    deaths = died.double() @ by_clinic
    without, with_it = ((times * part).double() @ by_clinic for part in (1 - treated, treated))
    deaths_treated = (died * treated).sum()

    def log_joint(log_rate: Tensor, effect: Tensor, log_shape: Tensor) -> Tensor:
        shape = log_shape.exp()[:, None]
        exposure = log_rate.exp()[:, None] * (without + effect.exp()[:, None] * with_it)
        own = torch.lgamma(shape + deaths) - torch.lgamma(shape) + shape * shape.log()
        own = (own - (shape + deaths) * (shape + exposure).log()).sum(-1)
        prior = log_prior(dist.Gamma(1.0, 1.0), log_rate) + dist.Normal(0.0, 2.0).log_prob(effect)
        prior = prior + dist.Normal(1.0, 1.0).log_prob(log_shape)
        return own + deaths.sum() * log_rate + deaths_treated * effect + prior

    return Problem(model, on_box(log_joint, (-5, 2, 71), (-4, 2, 61), (-3.5, 7, 71)))


def seeds() -> Problem:
    """
    Seeds that germinate on 21 plates, by kind and extract, which interact, with effects of plates;
    those are integrated on a line, the four coefficients and the spread on a grid.
    """
    sprouted = [10, 23, 23, 26, 17, 5, 53, 55, 32, 46, 10, 8, 10, 8, 23, 0, 3, 22, 15, 32, 3]
    sown = [39, 62, 81, 51, 39, 6, 74, 72, 51, 79, 13, 16, 30, 28, 45, 4, 12, 41, 30, 51, 7]
    counts, totals = torch.tensor(sprouted).float(), torch.tensor(sown).float()
    cell = torch.arange(4).repeat_interleave(torch.tensor([5, 6, 5, 5]))
    extract, kind = (cell % 2).float(), (cell // 2).float()

    def model() -> None:
        weights = pyro.sample("weights", dist.Normal(torch.zeros(4), 2.0).to_event(1))
        spread = pyro.sample("spread", dist.HalfNormal(1.0))
        base, of_extract, of_kind, of_both = weights.unbind(-1)
        with pyro.plate("plates", 21):
            deviation = pyro.sample("deviation", dist.Normal(0.0, 1.0))
            logits = base + of_extract * extract + of_kind * kind + of_both * extract * kind
            likelihood = dist.Binomial(totals, logits=logits + spread * deviation)
            pyro.sample("count", likelihood, obs=counts)

    return Problem(model, seeds_evidence(counts.double(), totals.double(), cell))


def seeds_evidence(counts: Tensor, totals: Tensor, cell: Tensor) -> float:
    """Sum over logits of the four cells, of which the last depends on the others by its sum."""
    line = torch.linspace(-5, 5, 101, dtype=torch.float64)
    normals = torch.linspace(-7, 7, 141, dtype=torch.float64)
    weights = dist.Normal(0.0, 1.0).log_prob(normals) + math.log(0.1)
    prior = dist.Normal(0.0, 2.0).log_prob(line[:, None] - line) + math.log(0.1)
    index = torch.arange(101)
    # Logits of the last cell without interaction are on a line of three times the length.
    wide = torch.linspace(-15, 15, 301, dtype=torch.float64)
    interaction = dist.Normal(0.0, 2.0).log_prob(wide[:, None] - line) + math.log(0.1)

    def log_evidence_at(log_spread: Tensor) -> Tensor:
        logits = line[:, None] + log_spread.exp() * normals
        likelihood = counts[:, None, None] * logits
        likelihood = likelihood - totals[:, None, None] * torch.nn.functional.softplus(logits)
        plates = (likelihood + weights).logsumexp(-1)
        first, second, third, last = (plates[cell == each].sum(0) for each in range(4))
        last = (interaction + last).logsumexp(-1)
        first = first + dist.Normal(0.0, 2.0).log_prob(line) + math.log(0.1)
        pairs = [each + prior for each in (second, third)]
        total = first[:, None, None] + pairs[0][:, :, None] + pairs[1][:, None]
        place = index[:, None] + index - index[:, None, None] + 100
        return (total + last[place]).flatten().logsumexp(0)

    log_spreads = torch.linspace(-10, 1.5, 47, dtype=torch.float64)
    values = torch.stack([log_evidence_at(each) for each in log_spreads])
    choices = (
        torch.lgamma(1 + totals) - torch.lgamma(1 + counts) - torch.lgamma(1 + totals - counts)
    )
    values = values + log_prior(dist.HalfNormal(1.0), log_spreads)
    return (values.logsumexp(0) + math.log(0.25) + choices.sum()).item()


FRESH_REGRESSIONS = (
    reaction_times,
    growth_curves,
    vaccine_trials,
    mixture_of_g,
    uncertain_precisions,
    hours_of_work,
    food_and_income,
    reaction_rates,
    errors_in_both,
    rasch,
    yields_of_crops,
    river,
    correlated_horseshoe,
    frailty,
    seeds,
)
