"""
Fifteen more models that scientists bring, most of them processes, whose evidence is exact or a fine
quadrature.

They were written after the estimators that they judge, without a look at them. They were chosen for
what is met in practice, before any estimator had been run on them.
"""

import math
from collections.abc import Callable

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from benchmarks.problems import Problem, on_grid


def legendre(low: float, high: float, num: int) -> tuple[Tensor, Tensor]:
    """Nodes of a Gauss-Legendre rule between two bounds, and the logarithms of its weights."""
    nodes, weights = (torch.from_numpy(each) for each in np.polynomial.legendre.leggauss(num))
    half = (high - low) / 2
    return low + half * (1 + nodes), (half * weights).log()


def log_normal_density(data: Tensor, covariances: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """Of centered ``data``, by the covariance at each point; a thousand points at a time."""
    centers = torch.zeros_like(data)
    return torch.cat(
        [
            dist.MultivariateNormal(centers, covariances(part)).log_prob(data)
            for part in at.split(1000)
        ]
    )


def log_half_normal(log_scale: Tensor, spread: float) -> Tensor:
    """Log density of the logarithm of a half-normal scale."""
    return dist.HalfNormal(spread).log_prob(log_scale.exp()) + log_scale


def log_beta(a: Tensor, b: Tensor) -> Tensor:
    """Of the beta function."""
    return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)


def log_choose(total: Tensor, part: Tensor) -> Tensor:
    """Of the binomial coefficient."""
    return torch.lgamma(total + 1) - torch.lgamma(part + 1) - torch.lgamma(total - part + 1)


def river_level() -> Problem:
    """
    Levels of a river in 30 years, a random walk with a site a year, and two unknown spreads; levels
    are integrated exactly, spreads on a grid.
    """
    generator = torch.Generator().manual_seed(301)
    walk = 0.4 * torch.randn(30, generator=generator).cumsum(0)
    data = 5 + walk + 0.7 * torch.randn(30, generator=generator)

    def model() -> None:
        step = pyro.sample("step", dist.HalfNormal(1.0))
        noise = pyro.sample("noise", dist.HalfNormal(1.0))
        level = pyro.sample("level_0", dist.Normal(5.0, 3.0))
        pyro.sample("y_0", dist.Normal(level, noise), obs=data[0])
        for year in range(1, 30):
            level = pyro.sample(f"level_{year}", dist.Normal(level, step))
            pyro.sample(f"y_{year}", dist.Normal(level, noise), obs=data[year])

    years = torch.arange(30, dtype=torch.float64)
    shared = torch.minimum(years[:, None], years)

    def covariances(log_scales: Tensor) -> Tensor:
        step, noise = (2 * log_scales).exp()[..., None, None].unbind(1)
        return 9 + step * shared + noise * torch.eye(30)

    def log_joint(log_scales: Tensor) -> Tensor:
        prior = log_half_normal(log_scales, 1.0).sum(-1)
        return log_normal_density(data.double() - 5, covariances, log_scales) + prior

    return Problem(model, on_grid(log_joint, (-16, 2), (-16, 2), num=145))


def smooth_trend() -> Problem:
    """
    A trend whose slope is a random walk of 48 shocks, with unknown start and two unknown spreads;
    all but the spreads is integrated exactly, these on a grid.
    """
    generator = torch.Generator().manual_seed(302)
    shocks = torch.randn(48, generator=generator)
    data = (0.3 + 0.1 * shocks.cumsum(0)).cumsum(0) + 0.8 * torch.randn(48, generator=generator)

    def model() -> None:
        spread = pyro.sample("spread", dist.HalfNormal(0.3))
        noise = pyro.sample("noise", dist.HalfNormal(1.0))
        level = pyro.sample("level", dist.Normal(0.0, 2.0))
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        shocks = pyro.sample("shocks", dist.Normal(torch.zeros(48), 1.0).to_event(1))
        trend = level + (slope + spread * shocks.cumsum(-1)).cumsum(-1)
        with pyro.plate("data", 48):
            pyro.sample("y", dist.Normal(trend, noise), obs=data)

    root = torch.eye(48, dtype=torch.float64).cumsum(0).cumsum(0)
    times = torch.arange(1, 49, dtype=torch.float64)

    def covariances(log_scales: Tensor) -> Tensor:
        spread, noise = (2 * log_scales).exp()[..., None, None].unbind(1)
        start = 4 + times[:, None] * times
        return start + spread * (root @ root.T) + noise * torch.eye(48)

    def log_joint(log_scales: Tensor) -> Tensor:
        spread, noise = log_scales.unbind(-1)
        prior = log_half_normal(spread, 0.3) + log_half_normal(noise, 1.0)
        return log_normal_density(data.double(), covariances, log_scales) + prior

    return Problem(model, on_grid(log_joint, (-9, 2), (-4, 2), num=121))


def sunspots() -> Problem:
    """
    A cycle by an autoregression of second order, its partial correlations uniform and one close to
    the bound; the variance is integrated exactly, they by a Gauss-Legendre rule.
    """
    generator = torch.Generator().manual_seed(303)
    series = [torch.ones(()), torch.ones(())]
    for _ in range(58):
        shock = torch.randn((), generator=generator)
        series.append(1.64 * series[-1] - 0.95 * series[-2] + shock)
    data = torch.stack(series)
    before = torch.stack([data[1:-1], data[:-2]])

    def coefficients(partial: Tensor) -> Tensor:
        first, second = partial.unbind(-1)
        return torch.stack([first * (1 - second), second], -1)

    def model() -> None:
        bounds = -torch.ones(2), torch.ones(2)
        partial = pyro.sample("partial", dist.Uniform(*bounds).to_event(1))
        variance = pyro.sample("variance", dist.InverseGamma(2.0, 1.0))
        mean = coefficients(partial) @ before
        with pyro.plate("data", 58):
            pyro.sample("y", dist.Normal(mean, variance.sqrt()), obs=data[2:])

    nodes, log_weights = legendre(-1, 1, 400)
    means = coefficients(torch.cartesian_prod(nodes, nodes)) @ before.double()
    squares = (data[2:].double() - means).square().sum(-1)
    constant = math.lgamma(31) - math.lgamma(2) - 29 * math.log(2 * math.pi) - math.log(4)
    values = -31 * (1 + squares / 2).log() + (log_weights[:, None] + log_weights).flatten()
    return Problem(model, values.logsumexp(0).item() + constant)


def sleep_stages() -> Problem:
    """
    A hidden Markov chain of two states in 14 steps, in two labelings; transitions and means are
    integrated exactly for each of its paths. As Pyro has it, a move comes before the first datum.
    """
    generator = torch.Generator().manual_seed(304)
    stages = torch.tensor([0] * 5 + [1] * 4 + [0] * 2 + [1] * 3)
    data = torch.tensor([-1.5, 1.5])[stages] + torch.randn(14, generator=generator)

    def model() -> None:
        stay = pyro.sample("stay", dist.Beta(8.0 * torch.ones(2), 2.0).to_event(1))
        means = pyro.sample("means", dist.Normal(torch.zeros(2), 3.0).to_event(1))
        moves = torch.stack([stay[0], 1 - stay[0], 1 - stay[1], stay[1]]).reshape(2, 2)
        chain = dist.DiscreteHMM(torch.zeros(2), moves.log(), dist.Normal(means, 1.0), duration=14)
        pyro.sample("y", chain, obs=data)

    paths = torch.cartesian_prod(*[torch.arange(2)] * 15)
    member = torch.nn.functional.one_hot(paths, 2).double()
    stays = (member[:, 1:] * member[:, :-1]).sum(1)
    leaves = member[:, :-1].sum(1) - stays
    prior = math.lgamma(8) + math.lgamma(2) - math.lgamma(10)
    moves = (log_beta(8 + stays, 2 + leaves) - prior).sum(-1) - math.log(2)
    member = member[:, 1:]
    sizes, sums = member.sum(1), (member * data.double()[:, None]).sum(1)
    own = 0.5 * (9 * sums.square() / (1 + 9 * sizes) - torch.log1p(9 * sizes)).sum(-1)
    constant = 7 * math.log(2 * math.pi) + 0.5 * data.double().square().sum()
    return Problem(model, ((moves + own).logsumexp(0) - constant).item())


def pulsation() -> Problem:
    """
    A star's pulsation seen in two seasons, its frequency unknown, with aliases; amplitudes are
    integrated exactly, the frequency by a Gauss-Legendre rule.
    """
    generator = torch.Generator().manual_seed(305)
    times = 6 * torch.rand(24, generator=generator) + torch.tensor([0.0, 40.0]).repeat(12)
    signal = 0.7 * torch.cos(2 * math.pi * 0.43 * times + 1)
    data = 1 + signal + 0.5 * torch.randn(24, generator=generator)

    def model() -> None:
        frequency = pyro.sample("frequency", dist.Uniform(0.1, 1.0))
        amplitudes = pyro.sample("amplitudes", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        offset = pyro.sample("offset", dist.Normal(0.0, 3.0))
        angles = 2 * math.pi * frequency * times
        mean = offset + amplitudes[0] * angles.cos() + amplitudes[1] * angles.sin()
        with pyro.plate("data", 24):
            pyro.sample("y", dist.Normal(mean, 0.5), obs=data)

    def covariances(frequency: Tensor) -> Tensor:
        angles = 2 * math.pi * frequency[:, None] * times.double()
        return 9 + 0.25 * torch.eye(24) + (angles[:, None] - angles[..., None]).cos()

    nodes, log_weights = legendre(0.1, 1.0, 1000)
    values = log_normal_density(data.double(), covariances, nodes) + log_weights
    return Problem(model, values.logsumexp(0).item() - math.log(0.9))


def orbit() -> Problem:
    """
    Radial velocities of a star with a planet of known period: a phase on the circle, about where
    angles wrap, a speed, a drift and a jitter; the last and the phase on a grid, the rest exactly.
    """
    generator = torch.Generator().manual_seed(306)
    angles = 2 * math.pi * torch.rand(12, generator=generator)
    data = 12 + 4 * torch.cos(angles + 3.0) + 2.5 * torch.randn(12, generator=generator)

    def model() -> None:
        phase = pyro.sample("phase", dist.VonMises(0.0, 0.5))
        speed = pyro.sample("speed", dist.HalfNormal(10.0))
        drift = pyro.sample("drift", dist.Normal(0.0, 20.0))
        jitter = pyro.sample("jitter", dist.HalfNormal(3.0))
        error = (1.5**2 + jitter.square()).sqrt()
        mean = drift + speed * torch.cos(angles + phase)
        with pyro.plate("data", 12):
            pyro.sample("velocity", dist.Normal(mean, error), obs=data)

    phase = torch.arange(720, dtype=torch.float64)[:, None, None] * math.pi / 360 - math.pi
    log_jitter = torch.linspace(-14, 4, 241, dtype=torch.float64)
    variance = (1.5**2 + (2 * log_jitter).exp())[:, None]
    shape = torch.cos(angles.double() + phase)
    wide = data.double()

    def product(left: Tensor, right: Tensor) -> Tensor:
        """By the inverse covariance of the data given the phase, the speed and the jitter."""
        pull = 400 / (variance[:, 0] + 400 * 12)
        together = (left * right).sum(-1) - pull * left.sum(-1) * right.sum(-1)
        return together / variance[:, 0]

    precision = product(shape, shape) + 0.01
    peak = product(shape, wide) / precision.sqrt()
    speed = math.log(2) + torch.special.log_ndtr(peak) + peak.square() / 2
    speed = speed - 0.5 * (100 * precision).log()
    log_det = 12 * variance[:, 0].log() + torch.log1p(400 * 12 / variance[:, 0])
    still = -0.5 * (product(wide, wide) + log_det) - 6 * math.log(2 * math.pi)
    prior = dist.VonMises(torch.zeros(()).double(), 0.5).log_prob(phase[..., 0])
    values = speed + still + prior + log_half_normal(log_jitter, 3.0)
    cell = (log_jitter[1] - log_jitter[0]) * math.pi / 360
    return Problem(model, (values.flatten().logsumexp(0) + cell.log()).item())


def enzyme() -> Problem:
    """
    Michaelis-Menten rates at concentrations below the constant, so that only the ratio to the
    greatest rate is well known: a ridge; the integral by a grid in three dimensions.
    """
    generator = torch.Generator().manual_seed(307)
    concentration = torch.linspace(0.25, 2.0, 8)
    data = 10 * concentration / (6 + concentration) + 0.1 * torch.randn(8, generator=generator)

    def model() -> None:
        greatest = pyro.sample("greatest", dist.LogNormal(1.5, 1.0))
        constant = pyro.sample("constant", dist.LogNormal(1.0, 1.0))
        noise = pyro.sample("noise", dist.HalfNormal(0.5))
        with pyro.plate("data", 8):
            mean = greatest * concentration / (constant + concentration)
            pyro.sample("rate", dist.Normal(mean, noise), obs=data)

    def log_evidence_at(log_noise: Tensor) -> Tensor:
        def log_joint(point: Tensor) -> Tensor:
            log_ratio, log_constant = point.unbind(-1)
            log_greatest = log_ratio + log_constant
            wide = concentration.double()
            mean = log_greatest.exp()[:, None] * wide / (log_constant.exp()[:, None] + wide)
            prior = dist.Normal(1.5, 1.0).log_prob(log_greatest)
            prior = prior + dist.Normal(1.0, 1.0).log_prob(log_constant)
            return dist.Normal(mean, log_noise.exp()).log_prob(data.double()).sum(-1) + prior

        return on_grid(log_joint, (-3, 4), (-6, 8), num=351) + log_half_normal(log_noise, 0.5)

    log_noise = torch.linspace(-5, 1.5, 53, dtype=torch.float64)
    values = torch.stack([log_evidence_at(each) for each in log_noise])
    return Problem(model, (values.logsumexp(0) + (log_noise[1] - log_noise[0]).log()).item())


def capture_recapture() -> Problem:
    """
    Animals caught on four nights of unknown success; how many there are is summed within the model,
    the rest is integrated exactly.
    """
    nights = torch.tensor([9.0, 7.0, 11.0, 8.0])
    seen, most = 25, 150
    animals = torch.arange(seen, most + 1).float()

    def model() -> None:
        success = pyro.sample("success", dist.Beta(torch.ones(4), 1.0).to_event(1))
        caught = nights * success.log()
        missed = (animals[:, None] - nights) * torch.log1p(-success)
        ways = log_choose(animals, torch.tensor(float(seen)))
        by_number = ways + (caught + missed).sum(-1)
        pyro.factor("histories", by_number.logsumexp(0) - math.log(most))

    wide = animals.double()
    ways = log_choose(wide, torch.tensor(float(seen)).double())
    by_number = log_beta(1 + nights.double(), 1 + wide[:, None] - nights).sum(-1) + ways
    return Problem(model, by_number.logsumexp(0).item() - math.log(most))


def prevalence() -> Problem:
    """
    Of 200 people 3 test positive by a test with errors, fewer than by its errors alone: all mass is
    at zero, where the Jeffreys prior has a pole; products are multiplied out.
    """
    positive, negative, sensitivity, specificity = 3, 197, 0.8, 0.97

    def model() -> None:
        ill = pyro.sample("prevalence", dist.Beta(0.5, 0.5))
        chance = ill * sensitivity + (1 - ill) * (1 - specificity)
        pyro.sample("positive", dist.Binomial(200, chance), obs=torch.tensor(float(positive)))

    def ill_among(number: int, chance: float, other: float) -> tuple[Tensor, Tensor]:
        count = torch.arange(number + 1, dtype=torch.float64)
        total = torch.tensor(float(number)).double()
        ways = log_choose(total, count)
        return count, ways + count * math.log(chance) + (total - count) * math.log(other)

    true, of_true = ill_among(positive, sensitivity, 1 - specificity)
    false, of_false = ill_among(negative, 1 - sensitivity, specificity)
    ill = true[:, None] + false
    each = of_true[:, None] + of_false + log_beta(ill + 0.5, 200.5 - ill) - math.log(math.pi)
    ways = log_choose(torch.tensor(200.0).double(), torch.tensor(float(positive)).double())
    return Problem(model, (each.flatten().logsumexp(0) + ways).item())


def friendships() -> Problem:
    """
    Friendships among nine people in two blocks, in two labelings; memberships are summed within the
    model, chances are integrated exactly.
    """
    generator = torch.Generator().manual_seed(310)
    block = torch.tensor([0] * 5 + [1] * 4)
    chances = torch.tensor([[0.8, 0.15], [0.15, 0.6]])[block[:, None], block]
    pairs = torch.triu(torch.ones(9, 9), 1)
    friends = torch.bernoulli(chances, generator=generator) * pairs
    member = torch.cartesian_prod(*[torch.arange(2)] * 9).float()

    def by_block(graph: Tensor) -> Tensor:
        """Count for each membership the pairs within the blocks, and between them."""
        second = torch.einsum("mi,ij,mj->m", member, graph, member)
        first = torch.einsum("mi,ij,mj->m", 1 - member, graph, 1 - member)
        return torch.stack([first, second, graph.sum() - first - second], -1)

    linked, unlinked = by_block(friends), by_block(pairs - friends)
    size = member.sum(-1)

    def model() -> None:
        share = pyro.sample("share", dist.Beta(2.0, 2.0))
        chance = pyro.sample("chance", dist.Beta(torch.ones(3), 1.0).to_event(1))
        links = (linked * chance.log() + unlinked * torch.log1p(-chance)).sum(-1)
        blocks = size * share.log() + (9 - size) * torch.log1p(-share)
        pyro.factor("friendships", (links + blocks).logsumexp(0))

    each = log_beta(1 + linked.double(), 1 + unlinked.double()).sum(-1)
    each = each + log_beta(2 + size.double(), 11 - size.double()) + math.log(6)
    return Problem(model, each.logsumexp(0).item())


def heights() -> Problem:
    """
    Heights at 36 places, a Gaussian process of unknown range and amplitude; they are integrated
    exactly, range and amplitude on a grid.
    """
    generator = torch.Generator().manual_seed(311)
    places = torch.cartesian_prod(torch.arange(6.0), torch.arange(6.0))
    distances = (places[:, None] - places).square().sum(-1).sqrt()
    root = torch.linalg.cholesky((-distances / 2).exp())
    field = 1.2 * root @ torch.randn(36, generator=generator)
    data = field + 0.5 * torch.randn(36, generator=generator)

    def model() -> None:
        extent = pyro.sample("extent", dist.LogNormal(0.5, 0.7))
        amplitude = pyro.sample("amplitude", dist.HalfNormal(2.0))
        root = torch.linalg.cholesky((-distances / extent).exp())
        process = dist.MultivariateNormal(torch.zeros(36), scale_tril=amplitude * root)
        field = pyro.sample("field", process)
        with pyro.plate("places", 36):
            pyro.sample("height", dist.Normal(field, 0.5), obs=data)

    def covariances(point: Tensor) -> Tensor:
        extent, amplitude = point.exp()[..., None, None].unbind(1)
        kernel = (-distances.double() / extent).exp()
        return amplitude.square() * kernel + 0.25 * torch.eye(36)

    def log_joint(point: Tensor) -> Tensor:
        prior = dist.Normal(0.5, 0.7).log_prob(point[:, 0]) + log_half_normal(point[:, 1], 2.0)
        return log_normal_density(data.double(), covariances, point) + prior

    return Problem(model, on_grid(log_joint, (-4, 5), (-6, 3), num=109))


def pollen() -> Problem:
    """
    Pollen of four plants at eight lakes, with shares of their own about known ones; shares are
    integrated exactly, their concentration on a line.
    """
    generator = torch.Generator().manual_seed(312)
    expected = torch.tensor([0.4, 0.3, 0.2, 0.1])
    gammas = -torch.rand(8, 4, 3, generator=generator).log()
    shares = (gammas * (torch.arange(3) < 5 * expected[:, None])).sum(-1)
    draws = torch.multinomial(shares, 20, replacement=True, generator=generator)
    counts = torch.nn.functional.one_hot(draws, 4).sum(1).float()

    def model() -> None:
        concentration = pyro.sample("concentration", dist.LogNormal(1.5, 0.7))
        with pyro.plate("lakes", 8):
            shares = pyro.sample("shares", dist.Dirichlet(concentration * expected))
            pyro.sample("counts", dist.Multinomial(20, shares), obs=counts)

    line = torch.linspace(-4, 8, 1201, dtype=torch.float64)
    total = line.exp()[:, None]
    own = total * expected.double()
    lakes = torch.lgamma(own[:, None] + counts) - torch.lgamma(own)[:, None]
    lakes = lakes.sum(-1) + torch.lgamma(total) - torch.lgamma(total + 20)
    constant = 8 * math.lgamma(21) - torch.lgamma(1 + counts.double()).sum()
    values = lakes.sum(-1) + dist.Normal(1.5, 0.7).log_prob(line) + (line[1] - line[0]).log()
    return Problem(model, (values.logsumexp(0) + constant).item())


def line_with_outliers() -> Problem:
    """
    A line through twelve data of which four lie on another; any of them may be an outlier: the
    integral is exact for each choice of them.
    """
    generator = torch.Generator().manual_seed(313)
    places = torch.linspace(-2, 2, 12)
    other = torch.arange(12) % 3 == 2
    data = torch.where(other, 4 - 2.0 * places, 1 + 2.0 * places)
    data = data + 0.4 * torch.randn(12, generator=generator)

    def model() -> None:
        intercept = pyro.sample("intercept", dist.Normal(0.0, 5.0))
        slope = pyro.sample("slope", dist.Normal(0.0, 3.0))
        fraction = pyro.sample("fraction", dist.Beta(1.0, 3.0))
        mean = (intercept + slope * places)[..., None]
        kinds = dist.Categorical(torch.stack([1 - fraction, fraction], -1))
        parts = dist.Normal(mean, torch.tensor([0.4, 5.0]))
        with pyro.plate("data", 12):
            pyro.sample("y", dist.MixtureSameFamily(kinds, parts), obs=data)

    outlying = torch.cartesian_prod(*[torch.arange(2)] * 12).double()
    wide = places.double()

    def covariances(chosen: Tensor) -> Tensor:
        noise = torch.diag_embed(0.16 + (25 - 0.16) * chosen)
        return 25 + 9 * wide[:, None] * wide + noise

    number = outlying.sum(-1)
    choice = log_beta(1 + number, 15 - number) + math.log(3)
    each = log_normal_density(data.double(), covariances, outlying) + choice
    return Problem(model, each.logsumexp(0).item())


def extreme_rain() -> Problem:
    """
    Greatest rain of each of 25 years, by the generalized extreme value distribution, whose support
    depends on its parameters; the integral by a grid in three dimensions.
    """
    generator = torch.Generator().manual_seed(314)
    exponential = -torch.rand(25, generator=generator).log()
    data = 30 + 8 * (exponential.pow(-0.15) - 1) / 0.15

    def log_density(location: Tensor, scale: Tensor, shape: Tensor, of: Tensor) -> Tensor:
        standard = (of - location) / scale
        shape = torch.where(shape.abs() < 1e-5, 1e-5, shape)
        inside = shape * standard > -1
        reduced = torch.log1p(torch.where(inside, shape * standard, 0.0)) / shape
        log_density = -scale.log() - (1 + shape) * reduced - (-reduced).exp()
        return torch.where(inside, log_density, -math.inf)

    def model() -> None:
        location = pyro.sample("location", dist.Normal(30.0, 15.0))
        scale = pyro.sample("scale", dist.HalfNormal(15.0))
        shape = pyro.sample("shape", dist.Normal(0.0, 0.25))
        pyro.factor("rain", log_density(location, scale, shape, data).sum(-1))

    def log_evidence_at(shape: Tensor) -> Tensor:
        def log_joint(point: Tensor) -> Tensor:
            location, log_scale = point[:, :1], point[:, 1:]
            likelihood = log_density(location, log_scale.exp(), shape, data.double()).sum(-1)
            prior = dist.Normal(30.0, 15.0).log_prob(location)
            return likelihood + (prior + log_half_normal(log_scale, 15.0))[:, 0]

        return on_grid(log_joint, (10, 55), (0, 5), num=181) + dist.Normal(0.0, 0.25).log_prob(
            shape
        )

    shapes = torch.linspace(-1, 1.5, 76, dtype=torch.float64)
    values = torch.stack([log_evidence_at(shape) for shape in shapes])
    return Problem(model, (values.logsumexp(0) + (shapes[1] - shapes[0]).log()).item())


def mining_disasters() -> Problem:
    """
    Days of disasters whose rate changes at an unknown time, where the likelihood jumps at each of
    them; rates are integrated exactly, the time by a Gauss-Legendre rule between neighbors.
    """
    generator = torch.Generator().manual_seed(315)
    early = 7 * torch.rand(20, generator=generator)
    times = torch.cat([early, 7 + 13 * torch.rand(12, generator=generator)]).sort().values

    def model() -> None:
        change = pyro.sample("change", dist.Uniform(0.0, 20.0))
        rates = pyro.sample("rates", dist.Gamma(2.0 * torch.ones(2), 1.0).to_event(1))
        rate = torch.where(times < change, rates[0], rates[1])
        expected = rates[0] * change + rates[1] * (20 - change)
        pyro.factor("disasters", rate.log().sum(-1) - expected)

    bounds = torch.cat([torch.zeros(1), times, torch.tensor([20.0])]).double()
    values = []
    for number in range(33):
        change, log_weights = legendre(bounds[number].item(), bounds[number + 1].item(), 12)
        before, after = 2.0 + number, 34.0 - number
        first = math.lgamma(before) - before * (1 + change).log()
        second = math.lgamma(after) - after * (21 - change).log()
        values.append(first + second + log_weights)
    return Problem(model, torch.cat(values).logsumexp(0).item() - math.log(20))


FRESH_PROCESSES = (
    river_level,
    smooth_trend,
    sunspots,
    sleep_stages,
    pulsation,
    orbit,
    enzyme,
    capture_recapture,
    prevalence,
    friendships,
    heights,
    pollen,
    line_with_outliers,
    extreme_rain,
    mining_disasters,
)
