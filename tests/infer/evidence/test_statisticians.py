"""The default evidence of kinds of models that statisticians have, against closed forms and sums.

Nothing is tuned to these models; an estimate may be 4.5 standard errors and 0.002 nats off.
"""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import config_enumerate
from torch import Tensor

from benchmarks.large_problems import hierarchical, normal_log_prob
from pyro_tkam.infer import Evidence, log_evidence
from tests.infer.evidence_problems import assert_close


def estimated(model, exact: float, seed: int = 0, **options) -> Evidence:
    """Estimate, and hold the estimate against the exact evidence."""
    pyro.set_rng_seed(seed)
    evidence = log_evidence(model, **options)
    assert_close(evidence, exact)
    assert evidence.verdict.trusted, str(evidence)
    return evidence


def test_a_wide_cauchy_prior() -> None:
    """The posterior's tails are the prior's; the integral over ``tan`` of an angle is on a grid."""
    data = torch.tensor([2.1, 3.4, 2.7])

    def model() -> None:
        location = pyro.sample("location", dist.Cauchy(0.0, 50.0))
        pyro.sample("x", dist.Normal(location, 1.0).expand([3]).to_event(1), obs=data)

    locations = torch.linspace(-20, 25, 20_001, dtype=torch.float64)
    log_joint = dist.Cauchy(0.0, 50.0).log_prob(locations)
    log_joint = log_joint + dist.Normal(locations[:, None], 1.0).log_prob(data.double()).sum(-1)
    step = (locations[1] - locations[0]).log()
    estimated(model, (log_joint.logsumexp(0) + step).item())


@pytest.mark.slow
def test_intercepts_and_slopes_of_eighteen_subjects() -> None:
    """As in a study of sleep: 41 latents, whose spreads and noise are integrated on a grid."""
    generator = torch.Generator().manual_seed(11)
    subjects, days = 18, torch.arange(8.0)
    effects = torch.randn(subjects, 2, generator=generator) * torch.tensor([1.0, 0.3])
    data = 2 + effects[:, :1] + (0.5 + effects[:, 1:]) * days
    data = data + 0.6 * torch.randn(subjects, 8, generator=generator)

    def model() -> None:
        fixed = pyro.sample("fixed", dist.Normal(torch.zeros(2), 3.0).to_event(1))
        spread = pyro.sample("spread", dist.HalfNormal(torch.ones(2)).to_event(1))
        noise = pyro.sample("noise", dist.HalfNormal(1.0))
        with pyro.plate("subjects", subjects):
            effect = pyro.sample("effect", dist.Normal(fixed, spread).to_event(1))
            mean = effect[..., :1] + effect[..., 1:] * days
            pyro.sample("x", dist.Normal(mean, noise).to_event(1), obs=data)

    estimated(model, slopes_exact(data.double(), days.double()))


def slopes_exact(data: Tensor, days: Tensor) -> float:
    """Integrate fixed and random effects exactly, and log spreads and log noise on a grid."""
    design = torch.stack([torch.ones_like(days), days], -1)
    axes = [
        torch.linspace(*ends, 41, dtype=torch.float64) for ends in ((-4, 2), (-5, 2), (-1.5, 1))
    ]
    log_scales = torch.cartesian_prod(*axes)
    steps = sum((axis[1] - axis[0]).log() for axis in axes)
    spread, noise = log_scales[:, :2].exp(), log_scales[:, 2].exp()
    own = design * spread[:, None].square() @ design.T
    own = own + noise.square()[:, None, None] * torch.eye(len(days))
    root = torch.linalg.cholesky(own)
    whitened = torch.linalg.solve_triangular(
        root, design.expand(len(own), *design.shape), upper=False
    )
    scores = torch.linalg.solve_triangular(
        root, data.T.expand(len(own), *data.T.shape), upper=False
    )
    precision = torch.eye(2) / 9 + len(data) * whitened.mT @ whitened
    linear = (whitened.mT @ scores).sum(-1, keepdim=True)
    fitted = (linear.mT @ torch.linalg.solve(precision, linear)).flatten()
    log_likelihood = -0.5 * (
        scores.square().sum((1, 2)) - fitted + data.numel() * math.log(2 * math.pi)
    )
    halves = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    log_likelihood = log_likelihood - len(data) * halves
    log_likelihood = log_likelihood - 0.5 * torch.logdet(precision) - 0.5 * math.log(81)
    scales = torch.cat([spread, noise[:, None]], -1)
    prior = (dist.HalfNormal(1.0).log_prob(scales) + log_scales).sum(-1)
    return ((log_likelihood + prior).logsumexp(0) + steps).item()


def test_group_effects_beside_predictors_that_are_not_centered() -> None:
    """Predictors near 50 make slope and intercept nearly the same direction."""
    groups = 10
    generator = torch.Generator().manual_seed(groups)
    x = 50 + 3 * torch.randn(groups, 4, generator=generator)
    data = 0.1 * x + torch.randn(groups, 1, generator=generator)
    data = data + 0.5 * torch.randn(groups, 4, generator=generator)

    def model() -> None:
        intercept = pyro.sample("intercept", dist.Normal(0.0, 10.0))
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        with pyro.plate("groups", groups):
            effect = pyro.sample("effect", dist.Normal(0.0, 1.0))
            mean = intercept + effect.unsqueeze(-1) + slope * x
            pyro.sample("y", dist.Normal(mean, 0.5).to_event(1), obs=data)

    flat = x.double().flatten()
    group = torch.arange(groups).repeat_interleave(4)
    covariance = 100 + flat[:, None] * flat + (group[:, None] == group).double()
    covariance = covariance + 0.25 * torch.eye(len(flat))
    estimated(model, normal_log_prob(data.flatten(), covariance))


def test_poisson_counts_that_are_seen_by_halves() -> None:
    """Of a Poisson number of animals each is caught with the same chance: caught are Poisson."""
    caught, chance, rate = torch.tensor(7.0), 0.6, 9.0

    def model() -> None:
        number = pyro.sample("number", dist.Poisson(rate))
        thrown = dist.Binomial(number, chance, validate_args=False)
        likelihood = torch.where(number < caught, -torch.inf, thrown.log_prob(caught))
        pyro.factor("caught", likelihood)

    exact = dist.Poisson(rate * chance).log_prob(caught)
    estimated(model, exact.item())


def test_a_change_point_that_is_summed_out() -> None:
    """Rates before and after are integrated exactly for each place of the change."""
    counts = torch.tensor([4.0, 5, 3, 6, 4, 5, 1, 0, 2, 1, 0, 1])
    time = torch.arange(12)

    @config_enumerate
    def model() -> None:
        early = pyro.sample("early", dist.Gamma(2.0, 1.0))
        late = pyro.sample("late", dist.Gamma(2.0, 1.0))
        change = pyro.sample("change", dist.Categorical(torch.ones(12) / 12))
        rates = torch.where(time < change.unsqueeze(-1), early, late)
        pyro.sample("x", dist.Poisson(rates).to_event(1), obs=counts)

    def marginal(part: Tensor) -> Tensor:
        total, number = part.sum(), len(part)
        shape = torch.lgamma(2 + total) - (2 + total) * math.log(1 + number)
        return shape - torch.lgamma(part + 1).sum()

    each = [marginal(counts.double()[:k]) + marginal(counts.double()[k:]) for k in range(12)]
    estimated(model, (torch.stack(each).logsumexp(0) - math.log(12)).item())


@pytest.mark.slow
def test_rates_that_are_nearly_all_zero_or_one() -> None:
    """
    Draws of a sparse Beta round to its bounds, so that neither chains nor mixtures reach all mass.
    """
    a, heads = torch.tensor(0.03), torch.tensor([0.0, 10.0, 3.0, 10.0])

    def model() -> None:
        with pyro.plate("coins", 4):
            chance = pyro.sample("chance", dist.Beta(a, a))
            pyro.sample("heads", dist.Binomial(10, chance), obs=heads)

    def log_beta(first: Tensor, second: Tensor) -> Tensor:
        return torch.lgamma(first) + torch.lgamma(second) - torch.lgamma(first + second)

    coins, wide = heads.double(), a.double()
    exact = log_beta(wide + coins, wide + 10 - coins) - log_beta(wide, wide)
    exact = exact - log_beta(1 + coins, 11 - coins) - math.log(11)
    pyro.set_rng_seed(0)
    evidence = log_evidence(model, max_evaluations=60_000)
    assert_close(evidence, exact.sum().item())
    assert evidence.standard_error < 0.2
    assert evidence.verdict.names == {"target not reached"}


def test_groups_of_known_spread_are_integrated_right() -> None:
    """The exact values of the benchmarks themselves: one group has a closed form."""
    problem = hierarchical(1, 3, 1)
    assert math.isfinite(problem.exact)
    estimated(problem.model, problem.exact)


def neighbors(dim: int, data: Tensor) -> None:
    """Normal latents, of which sums of neighbors are seen with little noise."""
    z = pyro.sample("z", dist.Normal(torch.zeros(dim), 1.0).to_event(1))
    pyro.sample("x", dist.Normal(z + 0.9 * z.roll(1, -1), 0.3).to_event(1), obs=data)


@pytest.mark.slow
@pytest.mark.parametrize("dim", [30, 300])
def test_many_normal_latents_are_weighed_at_once(dim: int) -> None:
    generator = torch.Generator().manual_seed(dim)
    mixing = torch.eye(dim).double() + 0.9 * torch.eye(dim).double().roll(1, 0)
    data = 1.3 * torch.randn(dim, generator=generator)
    covariance = mixing @ mixing.T + 0.09 * torch.eye(dim).double()
    zero = torch.zeros(dim).double()
    exact = dist.MultivariateNormal(zero, covariance).log_prob(data.double()).item()
    pyro.set_rng_seed(0)
    evidence = log_evidence(neighbors, dim, data)
    assert abs(evidence.value - exact) < 5e-3, str(evidence)
    assert evidence.verdict.trusted, str(evidence)
    assert evidence.method == "Laplace importance"


@pytest.mark.slow
def test_many_latents_that_are_nearly_normal_are_not_weighed_by_normals() -> None:
    """Student's t with 10 degrees in 30 dimensions: normals at the mode miss the tails."""
    far = dist.Normal(torch.zeros(30), 100.0).to_event(1)

    def model() -> None:
        z = pyro.sample("z", far)
        pyro.factor("data", dist.StudentT(10.0).log_prob(z).sum())

    pyro.set_rng_seed(0)
    evidence = log_evidence(model)
    line = torch.linspace(-200, 200, 400_001, dtype=torch.float64)
    each = dist.StudentT(10.0).log_prob(line) + dist.Normal(0.0, 100.0).log_prob(line)
    exact = 30 * (each.logsumexp(0) + (line[1] - line[0]).log()).item()
    assert evidence.method != "Laplace importance"
    assert abs(evidence.value - exact) < 5 * evidence.standard_error + 0.02, str(evidence)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dim", "narrow", "share"), [(25, 0.03, 0.1), (25, 0.1, 0.5), (40, 0.1, 0.1)]
)
def test_a_narrow_bump_within_a_wide_one_is_weighed_or_not_trusted(
    dim: int, narrow: float, share: float
) -> None:
    """Every climb ends at the narrow one, whose normal fits and lacks the wide one."""

    def model() -> None:
        z = pyro.sample("z", dist.Normal(torch.zeros(dim), 1.0).to_event(1))
        bumps = [
            dist.Normal(0.0, width).log_prob(z).sum(-1) + math.log(part)
            for width, part in ((narrow, share), (0.3, 1 - share))
        ]
        pyro.factor("data", torch.logaddexp(*bumps))

    exact = torch.tensor(
        [
            math.log(part) + dim * dist.Normal(0.0, math.hypot(1, width)).log_prob(torch.zeros(()))
            for width, part in ((narrow, share), (0.3, 1 - share))
        ]
    ).logsumexp(0)
    pyro.set_rng_seed(0)
    evidence = log_evidence(model, max_evaluations=600_000)
    wrong = abs(evidence.value - exact) > max(0.02, 5 * evidence.standard_error)
    assert not (wrong and evidence.verdict.trusted), str(evidence)
