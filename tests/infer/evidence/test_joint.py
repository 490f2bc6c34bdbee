"""The default evidence of joint models against closed forms.

Estimates are asked to be within 4.5 standard errors plus 0.002 nats, so a test of one estimate
fails falsely with probability below 1e-5; seeds are fixed all the same.
"""

import itertools
import math
import time
from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import config_enumerate
from torch import Tensor

from pyro_tkam._progress import Progress
from pyro_tkam.infer import EnsembleHMC, log_evidence
from pyro_tkam.infer.model.density import ModelDensity
from pyro_tkam.infer.posterior.budget import Budget
from pyro_tkam.infer.posterior.coverage import (
    Peaks,
    WeightedPositions,
    heavy_peaks,
    rare_verdict,
    unlike_verdict,
)
from pyro_tkam.infer.posterior.ensemble_draws import EnsembleDraws
from pyro_tkam.infer.posterior.lines import lines_through, rises_between
from pyro_tkam.infer.posterior.optima import MOST_STEPS, Optima, find_optima
from pyro_tkam.infer.posterior.search import Search
from pyro_tkam.infer.posterior.target import PosteriorTarget, weigh, weigh_beside
from pyro_tkam.infer.posterior.weights import evidence_of_weights
from pyro_tkam.infer.results import Evidence, Verdict
from pyro_tkam.ops.climb import Climb
from pyro_tkam.ops.estimators.mixture import Mixture
from tests.infer.evidence_problems import assert_close, regression, regression_problem, two_modes


def target_of(model, **options) -> PosteriorTarget:
    return PosteriorTarget(ModelDensity(model, (), batch_plates=(), **options), Budget())


@pytest.mark.parametrize(
    ("num", "dim"), [(20, 1), (60, 20), pytest.param(150, 100, marks=pytest.mark.slow)]
)
def test_conjugate_regressions(num: int, dim: int) -> None:
    data, exact = regression_problem(num, dim)
    pyro.set_rng_seed(0)
    evidence = log_evidence(regression, *data)
    assert_close(evidence, exact)
    assert evidence.verdict.trusted, str(evidence)
    assert evidence.standard_error < 0.03
    assert evidence.evaluations < 600_000


def needle() -> None:
    """A likelihood that is flat but for a needle with nine tenths of the mass."""
    z = pyro.sample("z", dist.Uniform(-torch.ones(3), 1.0).to_event(1))
    spike = math.log(0.9) + dist.Normal(0.3, 0.01).log_prob(z).sum(-1)
    pyro.factor("f", torch.logaddexp(torch.tensor(math.log(0.1 / 8)), spike))


def test_a_needle_in_a_slab_is_found() -> None:
    """2.3 nats that no prior draw knows of; a climb from one of 65,536 does."""
    pyro.set_rng_seed(0)
    evidence = log_evidence(needle)
    assert_close(evidence, -math.log(8))
    assert evidence.verdict.trusted, str(evidence)


def bumps(dim: int, ratio: float, places: Tensor | None = None):
    """Two bumps of equal mass, of widths 1:ratio, at places ``(2, dim)`` or at opposite ones."""
    if places is None:
        places = torch.tensor([[-0.7], [0.7]]).expand(2, dim)
    widths = (0.3, 0.3 / ratio)

    def model() -> None:
        z = pyro.sample("z", dist.Normal(torch.zeros(dim), 1.0).to_event(1))
        each = [
            dist.Normal(loc, width).log_prob(z).sum(-1)
            - dist.Normal(0.0, math.hypot(1, width)).log_prob(loc).sum()
            for loc, width in zip(places, widths, strict=True)
        ]
        pyro.factor("f", torch.logaddexp(*each))

    return model


@pytest.mark.parametrize(("dim", "ratio"), [(2, 1), (2, 10), (5, 3)])
def test_two_bumps_are_counted(dim: int, ratio: float) -> None:
    pyro.set_rng_seed(0)
    evidence = log_evidence(bumps(dim, ratio))
    assert_close(evidence, math.log(2))
    assert evidence.verdict.trusted, str(evidence)


def test_a_bump_that_no_prior_draw_leads_to_is_counted_but_not_trusted() -> None:
    """Ten times as narrow in ten dimensions: only a line through the other bump leads there."""
    pyro.set_rng_seed(0)
    evidence = log_evidence(bumps(10, 10))
    assert_close(evidence, math.log(2))
    assert "rare mode" in evidence.verdict.names, str(evidence)


def test_a_needle_that_no_draw_or_line_leads_to_is_counted() -> None:
    """In ten dimensions one of 1e8 prior draws lies in its basin; its own density leads there."""
    pyro.set_rng_seed(0)
    places = torch.randn(2, 10, generator=torch.Generator().manual_seed(0))
    evidence = log_evidence(bumps(10, 10, places))
    assert_close(evidence, math.log(2))
    assert "rare mode" in evidence.verdict.names, str(evidence)


def two_peaks(dim: int, hits: tuple[int, int], ratio: float, apart: float = 100.0) -> Peaks:
    location = torch.tensor([[0.0], [apart]]).double().expand(2, dim)
    widths = torch.tensor([1.0, 1 / ratio]).double()
    scale_tril = widths[:, None, None] * torch.eye(dim).double()
    zeros = torch.zeros(2).double()
    flat = torch.ones(2, dtype=torch.bool)
    optima = Optima(location, scale_tril, zeros, torch.tensor(hits), flat)
    return Peaks(optima, zeros, zeros.bool())


def test_the_end_of_a_climb_on_a_slope_is_no_mode_found_by_luck() -> None:
    peaks = two_peaks(2, (1, 100), 3.0)
    assert rare_verdict(peaks, 101).names == {"rare mode"}
    sloped = replace(peaks, optima=replace(peaks.optima, flat=torch.tensor([False, True])))
    assert not rare_verdict(sloped, 101).names
    assert not unlike_verdict(sloped, 10).names


@pytest.mark.parametrize(
    ("dim", "hits", "ratio", "apart", "rare", "unlike"),
    [
        (2, (90, 10), 1.0, 100.0, False, False),
        (2, (98, 2), 1.0, 100.0, True, False),
        (2, (98, 0), 1.0, 100.0, True, False),
        (2, (1, 1), 1.0, 1.0, False, False),  # few climbs ended, but all at one peak
        (2, (98, 2), 1.0, 1.0, False, False),  # one peak, on which climbs ended at two places
        (2, (90, 10), 3.0, 100.0, False, False),  # 100 climbs see all widths that matter
        (8, (90, 10), 3.0, 100.0, False, True),
        (8, (90, 10), 1.0, 100.0, False, False),
    ],
)
def test_modes_found_by_luck_and_of_unlike_widths(dim, hits, ratio, apart, rare, unlike) -> None:
    peaks = two_peaks(dim, hits, ratio, apart)
    assert rare_verdict(peaks, sum(hits)).trusted is not rare
    assert unlike_verdict(peaks, 100).trusted is not unlike


def test_climbs_to_one_place_are_counted_together() -> None:
    optima = two_peaks(2, (5, 3), 1.0).optima
    moved = replace(optima, location=optima.location + 0.1)
    both = optima.joined(moved.take(torch.tensor([0])))
    assert len(both) == 2
    assert sorted(both.hits.tolist()) == [3, 10]
    assert not len(optima.beyond(moved))
    assert not both.without_hits().hits.any()


def test_lines_pass_the_reflected_and_the_shifted_optimum() -> None:
    location, center = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.0, 0.0, 1.0])
    lines = lines_through(location, center, torch.ones(3), ["a", "a", "b"]).flatten(0, 1)
    for other in ([-1.0, 2.0, 1.5], [-1.0, 2.0, 0.5], [3.0, 0.0, 0.5], [1.0, 3.0, 0.5]):
        assert (lines - torch.tensor(other)).norm(dim=-1).amin() < 0.06
    peaks = rises_between(torch.tensor([[0.0, 2.0, 1.0, 3.0, 3.0]]))
    assert peaks.tolist() == [[False, True, False, True, False]]


Z = torch.tensor([-2.1, -1.8, 0.4, 3.0, 2.7])


def mixture() -> None:
    """Locations that an enumerated assignment indexes."""
    with pyro.plate("components", 2):
        location = pyro.sample("location", dist.Normal(0.0, 3.0))
    with pyro.plate("data", len(Z)):
        k = pyro.sample("k", dist.Categorical(torch.tensor([0.3, 0.7])))
        pyro.sample("x", dist.Normal(location[k], 0.5), obs=Z)


def test_an_enumerated_mixture_is_the_sum_over_assignments() -> None:
    terms = []
    for k in itertools.product(range(2), repeat=len(Z)):
        which = torch.tensor(k)
        covariance = 9.0 * (which[:, None] == which) + 0.25 * torch.eye(len(Z))
        normal = torch.distributions.MultivariateNormal(torch.zeros(len(Z)), covariance)
        terms.append(normal.log_prob(Z) + torch.tensor([0.3, 0.7]).log()[which].sum())
    pyro.set_rng_seed(0)
    evidence = log_evidence(mixture)
    assert_close(evidence, torch.stack(terms).logsumexp(0).item())
    assert evidence.verdict.trusted, str(evidence)


def test_how_fast_the_processor_is_changes_nothing(monkeypatch):
    clock, found = time.process_time, []
    for faster in (1, 1e3, 1e-3):
        monkeypatch.setattr(time, "process_time", lambda faster=faster: clock() / faster)
        pyro.set_rng_seed(0)
        evidence = log_evidence(two_modes)
        found.append((evidence.value, evidence.evaluations))
    assert found == [found[0]] * 3


def test_a_count_without_a_bound_is_weighed_from_its_prior() -> None:
    """A Poisson count with an exponential rate is geometric; the sum over counts is exact."""

    def model() -> None:
        rate = pyro.sample("rate", dist.Exponential(1.0))
        count = pyro.sample("count", dist.Poisson(rate))
        pyro.sample("x", dist.Normal(count, 0.7).expand([2]).to_event(1), obs=Z[-2:])

    counts = torch.arange(100.0)
    prior = -math.log(2) * (counts + 1)
    joint = prior + dist.Normal(counts[:, None], 0.7).log_prob(Z[-2:]).sum(-1)
    pyro.set_rng_seed(0)
    evidence = log_evidence(model)
    assert_close(evidence, joint.logsumexp(0).item())
    assert evidence.verdict.trusted
    assert evidence.standard_error <= 0.03


@pytest.mark.slow
def test_a_sparse_dirichlet_whose_draws_round_to_its_bounds() -> None:
    counts, share = torch.tensor([10.0, 0, 0, 3, 0]), torch.tensor(0.03)

    def model() -> None:
        shares = pyro.sample("shares", dist.Dirichlet(share.expand(5)))
        pyro.sample("counts", dist.Multinomial(13, shares), obs=counts)

    exact = (
        torch.lgamma(torch.tensor(14.0))
        - torch.lgamma(counts + 1).sum()
        + torch.lgamma(5 * share)
        - torch.lgamma(5 * share + 13)
        + (torch.lgamma(counts + share) - torch.lgamma(share)).sum()
    )
    pyro.set_rng_seed(0)
    assert_close(log_evidence(model), exact.item())


def test_a_factor_of_the_prior_is_normalized() -> None:
    """``N(0, 1)`` times ``exp(-z²/2)`` is ``N(0, 1/2)`` up to a constant, which must not count."""

    def model() -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        factor = dist.Unit(-0.5 * z * z)
        pyro.sample("factor", factor, obs=torch.empty(0), infer={"is_prior": True})
        pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(1.0))

    pyro.set_rng_seed(0)
    evidence = log_evidence(model)
    assert_close(evidence, dist.Normal(0.0, 1.5**0.5).log_prob(torch.tensor(1.0)).item())


@pytest.mark.filterwarnings("ignore:Singular sample detected")  # torch draws these again
def test_a_wishart_prior() -> None:
    y = torch.tensor([[0.3, -1.0], [1.2, 0.4], [-0.5, -0.2], [0.1, 0.9]])

    def model() -> None:
        precision = pyro.sample("precision", dist.Wishart(torch.tensor(12.0), torch.eye(2)))
        with pyro.plate("data", len(y)):
            normal = dist.MultivariateNormal(torch.zeros(2), precision_matrix=precision)
            pyro.sample("y", normal, obs=y)

    def log_constant(degrees: float, scale: Tensor) -> Tensor:
        return (
            degrees * math.log(2)
            + degrees / 2 * scale.logdet()
            + torch.mvlgamma(torch.tensor(degrees / 2), 2)
        )

    posterior = (torch.eye(2) + y.mT @ y).inverse()
    exact = log_constant(16.0, posterior) - log_constant(12.0, torch.eye(2))
    pyro.set_rng_seed(0)
    evidence = log_evidence(model)
    assert_close(evidence, exact.item() - len(y) * math.log(2 * math.pi))


def test_an_angle_that_the_data_say_nothing_of() -> None:
    def model() -> None:
        angle = pyro.sample("angle", dist.VonMises(0.3, 2.0))
        pyro.sample("x", dist.VonMises(angle, 1e-4), obs=torch.tensor(1.0))

    pyro.set_rng_seed(0)
    assert_close(log_evidence(model), -math.log(2 * math.pi))


def test_the_mass_of_a_normal_peak_is_exact() -> None:
    def model() -> None:
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 0.1).to_event(1), obs=torch.tensor([0.5, -1.0]))

    pyro.set_rng_seed(0)
    target = target_of(model)
    optima = find_optima(target, torch.randn(20, 2), torch.ones(2), MOST_STEPS)
    exact = dist.Normal(0.0, 1.01**0.5).log_prob(torch.tensor([0.5, -1.0])).sum()
    assert len(optima) == 1
    assert abs(optima.log_mass.item() - exact.item()) < 1e-2


def stopping_short(monkeypatch: pytest.MonkeyPatch, position: Tensor, value: float) -> None:
    """Have a climb say that it arrived at a position, whatever the slope there."""
    end = Climb(position, torch.tensor([value]), torch.ones(1, dtype=torch.bool), 0)
    monkeypatch.setattr("pyro_tkam.infer.posterior.optima.climb", lambda *_: end)


def test_a_climb_that_stops_short_of_a_peak_is_led_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def model() -> None:
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 0.1).to_event(1), obs=torch.tensor([0.5, -0.3]))

    target = target_of(model, standard_normal=True)
    start = torch.zeros(1, 2)  # 5 and 3 standard deviations away
    stopping_short(monkeypatch, start, target.log_joint(start).item())
    found = find_optima(target, start, torch.ones(2), MOST_STEPS)
    peak = found.take(found.flat)
    shrunk = torch.tensor([[0.5, -0.3]]).double() / 1.01
    torch.testing.assert_close(peak.location, shrunk, atol=1e-4, rtol=0)
    exact = dist.Normal(0.0, 1.01**0.5).log_prob(torch.tensor([0.5, -0.3])).sum().item()
    assert peak.log_mass.item() == pytest.approx(exact, abs=1e-3)
    assert peak.hits.tolist() == [1]
    assert found.hits.sum() == 1  # the end itself stays a place to draw from


def test_the_slope_of_a_funnel_is_no_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    def model() -> None:
        scale = pyro.sample("scale", dist.LogNormal(0.0, 3.0))
        pyro.sample("z", dist.Normal(torch.zeros(8), scale).to_event(1))

    target = target_of(model)  # unconstrained, where the density grows into the neck
    start = torch.tensor([[1.0] + [0.1] * 8])  # curved as a peak is, but not flat
    stopping_short(monkeypatch, start, target.log_joint(start).item())
    assert not find_optima(target, start, torch.ones(9), MOST_STEPS).flat.any()


def test_draws_that_lack_a_peak_are_told_and_those_that_have_it_are_not() -> None:
    pyro.set_rng_seed(0)
    target = target_of(bumps(2, 1))
    spread = 0.3 / math.hypot(1, 0.3)
    centers = torch.tensor([[-1.0], [1.0]]).expand(2, 2) * 0.7 / 1.09
    optima = find_optima(target, centers, torch.ones(2), MOST_STEPS)
    assert len(optima) == 2
    one = centers[0] + spread * torch.randn(500, 2)
    both = torch.cat([one, centers[1] + spread * torch.randn(500, 2)])
    for draws, number in ((one, 1), (both, 0)):
        held = WeightedPositions(draws.double(), torch.zeros(len(draws)).double())
        peaks = heavy_peaks(target, optima, held, told(math.log(2)))
        assert peaks.missed.sum() == number
        assert (peaks.log_mass.abs() < 0.1).all()  # each bump has mass 1


def told(value: float, standard_error: float = 0.01) -> Evidence:
    """Return an estimate."""
    return Evidence(value, standard_error, "bridge", Verdict())


def test_an_evidence_below_the_mass_of_one_peak_lacks_it_whatever_draws_lie_there() -> None:
    pyro.set_rng_seed(0)
    target = target_of(bumps(2, 1))
    spread = 0.3 / math.hypot(1, 0.3)
    centers = torch.tensor([[-1.0], [1.0]]).expand(2, 2) * 0.7 / 1.09
    optima = find_optima(target, centers, torch.ones(2), MOST_STEPS)
    both = torch.cat([center + spread * torch.randn(500, 2) for center in centers])
    held = WeightedPositions(both.double(), torch.zeros(len(both)).double())
    for value, error, missed in ((-0.5, 0.01, 2), (-0.5, 0.3, 0), (0.0, 0.01, 0)):
        assert heavy_peaks(target, optima, held, told(value, error)).missed.sum() == missed


def test_an_evidence_below_a_single_prior_draw_is_contradicted() -> None:
    def model() -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(0.0))

    pyro.set_rng_seed(0)
    with Progress(True) as progress:
        search = Search(target_of(model), progress)
        low, right = (
            search.contradicted(Evidence(value, 0.01, "some", Verdict()))
            for value in (-20.0, -1.27)
        )
    assert low.verdict.names == {"prior draws contradict"}
    assert right.verdict.trusted


def test_what_overflows_at_prior_draws_has_no_weight() -> None:
    x, y = torch.linspace(0, 10, 8), torch.tensor([1.0, 2, 2, 3, 4, 6, 8, 11])

    def model() -> None:
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        b = pyro.sample("b", dist.Normal(0.0, 30.0))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Poisson((a + b * x).exp()), obs=y)

    pyro.set_rng_seed(0)
    target = target_of(model)
    assert target.draw(1000).undefined > 100
    evidence = log_evidence(model)
    grid = torch.cartesian_prod(torch.linspace(-4, 4, 801), torch.linspace(-1, 1, 2001)).double()
    rate = (grid[:, :1] + grid[:, 1:] * x).exp()
    joint = dist.Poisson(rate).log_prob(y).sum(-1) + dist.Normal(0.0, 1.0).log_prob(grid[:, 0])
    joint = joint + dist.Normal(0.0, 30.0).log_prob(grid[:, 1])
    assert_close(evidence, joint.logsumexp(0).item() + math.log(0.01 * 0.001))


def test_prior_draws_have_what_a_proposal_lacks() -> None:
    def model() -> None:
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        bumps = torch.stack([dist.Normal(at, 0.3).log_prob(z).sum(-1) for at in (-1.0, 1.0)])
        pyro.factor("f", bumps.logsumexp(0))

    exact = math.log(2) + 2 * dist.Normal(0.0, math.sqrt(1.09)).log_prob(torch.tensor(1.0)).item()
    torch.manual_seed(0)
    target = target_of(model, standard_normal=True)
    at = torch.full((1, 1, 2), 1 / 1.09)
    one_bump = Mixture(torch.zeros(1, 1), at, 0.3 * torch.eye(2)[None, None], torch.tensor([5.0]))
    prior = target.draw(4000)
    alone = evidence_of_weights(weigh(target, one_bump, 4000)[1])
    beside = evidence_of_weights(weigh_beside(target, one_bump, 4000, prior)[1])
    assert alone.value == pytest.approx(exact - math.log(2), abs=4 * alone.standard_error)
    assert beside.value == pytest.approx(exact, abs=4 * beside.standard_error)
    assert beside.standard_error < 0.03


@pytest.mark.parametrize("seed", range(3))
def test_a_mixture_of_five_data_within_twenty_thousand_evaluations(seed: int) -> None:
    """Pyro's tutorial of Gaussian mixtures: the components may trade places."""

    @config_enumerate
    def model(data: Tensor) -> None:
        weights = pyro.sample("weights", dist.Dirichlet(torch.full((2,), 0.5)))
        scale = pyro.sample("scale", dist.LogNormal(0.0, 2.0))
        with pyro.plate("components", 2):
            loc = pyro.sample("loc", dist.Normal(0.0, 10.0))
        with pyro.plate("data", len(data)):
            k = pyro.sample("k", dist.Categorical(weights))
            pyro.sample("x", dist.Normal(loc[k], scale), obs=data)

    data = torch.tensor([0.0, 1.0, 10.0, 11.0, 12.0])
    pyro.set_rng_seed(seed)
    evidence = log_evidence(model, data, max_evaluations=20_000, target_se=0.3)
    exact = of_five_data(data)
    assert exact == pytest.approx(-17.1255, abs=1e-3)
    assert_close(evidence, exact)
    assert evidence.standard_error < 0.1
    assert not evidence.verdict.trusted  # as the search for modes was short


def of_five_data(data: Tensor) -> float:
    """Sum over all assignments, with quadrature over the logarithm of the scale."""
    data = data.double()
    log_scale = torch.linspace(-14, 14, 4001, dtype=torch.float64)
    variance = (2 * log_scale).exp()
    terms = []
    for labels in itertools.product((False, True), repeat=len(data)):
        second = torch.tensor(labels)
        counts = torch.stack([(~second).sum(), second.sum()])
        total = dist.DirichletMultinomial(
            torch.full((2,), 0.5, dtype=torch.float64), len(data)
        ).log_prob(counts.double())
        ways = math.lgamma(len(data) + 1) - sum(math.lgamma(n + 1) for n in counts.tolist())
        log_joint = total - ways + dist.Normal(0.0, 2.0).log_prob(log_scale)
        for chosen in (data[~second], data[second]):
            ratio = 1 + len(chosen) * 100 / variance
            square = chosen.square().sum() - 100 * chosen.sum() ** 2 / (variance * ratio)
            log_joint = log_joint - len(chosen) / 2 * (2 * math.pi * variance).log()
            log_joint = log_joint - (ratio.log() + square / variance) / 2
        terms.append(log_joint.logsumexp(0))
    step = log_scale[1] - log_scale[0]
    return (torch.stack(terms).logsumexp(0) + step.log()).item()


def test_weights_of_the_posterior_itself_are_the_evidence() -> None:
    def model() -> None:
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=torch.zeros(2))

    optima = Optima(
        torch.zeros(1, 2).double(),
        0.5**0.5 * torch.eye(2).double()[None],
        torch.zeros(1).double(),
        torch.ones(1).long(),
        torch.ones(1).bool(),
    )
    proposal = optima.mixture()._replace(df=torch.tensor([math.inf]).double())
    weights = weigh(target_of(model), proposal, 100)[1]
    torch.testing.assert_close(
        weights, torch.full((100,), -math.log(4 * math.pi)).double(), atol=1e-5, rtol=0
    )


def test_more_draws_where_the_target_asks_for_them() -> None:
    data, exact = regression_problem(40, 30)
    pyro.set_rng_seed(0)
    evidence = log_evidence(regression, *data, target_se=0.01, kernel=EnsembleHMC(regression))
    assert_close(evidence, exact)
    assert evidence.standard_error <= 0.01


def test_findings_advise_options_of_the_method() -> None:
    def funnel() -> None:
        scale = pyro.sample("scale", dist.LogNormal(0.0, 3.0))
        with pyro.plate("groups", 6):
            z = pyro.sample("z", dist.Normal(0.0, scale))
        pyro.sample("x", dist.Normal(z.sum(-1), 1e-3), obs=torch.tensor(0.0))

    pyro.set_rng_seed(0)
    evidence = log_evidence(funnel, max_evaluations=150_000, target_se=1e-4)
    assert not evidence.verdict.trusted
    for finding in evidence.verdict.findings:
        assert "max_evaluations" in finding.advice or "guide" in finding.advice, str(finding)


def three_widths(dim: int):
    """Modes of equal mass, of widths 1, 0.6 and 0.3, under a wide prior."""
    places = 1.5 * torch.randn(3, dim, generator=torch.Generator().manual_seed(4))
    widths = (1.0, 0.6, 0.3)
    modes = [dist.Normal(*each) for each in zip(places, widths, strict=True)]

    def model() -> None:
        z = pyro.sample("z", dist.Normal(torch.zeros(dim), 2.0).to_event(1))
        heights = [mode.log_prob(z).sum(-1) for mode in modes]
        pyro.factor("likelihood", torch.stack(heights, -1).logsumexp(-1))

    masses = [
        dist.Normal(0.0, math.hypot(2.0, width)).log_prob(place).sum()
        for place, width in zip(places, widths, strict=True)
    ]
    return model, torch.stack(masses).logsumexp(0).item()


def test_known_modes_explain_the_draws_that_are_in_no_other() -> None:
    """Without one of three modes, draws in its basin stick out, climb and find it."""
    model, _ = three_widths(8)
    target = target_of(model, standard_normal=True)
    pyro.set_rng_seed(0)
    with Progress(True) as progress:
        search = Search(target, progress)
        climbs = search.climbs
    assert len(climbs.optima) == 3
    assert climbs.num_seen >= 3 * 4**8
    assert (climbs.optima.hits >= 3).all()  # prior draws in the basin of each
    draws = search.draws
    torch.testing.assert_close(  # the modes are normal, so that their sum is the density
        climbs.optima.log_joint(draws.positions[:1000]).logsumexp(0),
        draws.log_joint[:1000],
        rtol=0,
        atol=1.0,
    )
    climbs.optima = climbs.optima.take(torch.tensor([0, 2]))
    climbs.screen()
    assert len(climbs.optima) == 3


def test_an_evidence_of_modes_of_three_widths_in_eight_dimensions() -> None:
    model, exact = three_widths(8)
    pyro.set_rng_seed(0)
    found = log_evidence(model)
    assert_close(found, exact)
    assert found.verdict.trusted, str(found)


def held_at_one_point(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Let the first quarter of the chains seem to stay where it is, the first times it is asked."""
    plain = EnsembleDraws.draws
    asked = iter(range(times))

    def draws(self: EnsembleDraws, begin: int) -> tuple[Tensor, Tensor]:
        position, log_density = plain(self, begin)
        if next(asked, None) is not None:
            position = position.clone()
            position[:16] = position[0, 0]
        return position, log_density

    monkeypatch.setattr(EnsembleDraws, "draws", draws)


@pytest.mark.parametrize("times", [1, 2, 10_000])
def test_chains_that_are_stuck_give_no_evidence_of_their_own(
    times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In their pilot, in one of two runs, or for good: then by optima, which is told."""
    held_at_one_point(monkeypatch, times)
    monkeypatch.setattr("pyro_tkam.infer.evidence.joint.laplace_evidence", lambda *_: None)
    data, exact = regression_problem(60, 30)
    pyro.set_rng_seed(0)
    evidence = log_evidence(regression, *data)
    assert_close(evidence, exact)
    assert evidence.method == ("Laplace importance" if times > 2 else "bridge")
    assert evidence.verdict.names == ({"stuck chains"} if times > 2 else set())


def test_a_guide_is_weighed_where_chains_are_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one dimension, too, where the mean of equal numbers is not one of them."""
    held_at_one_point(monkeypatch, 10_000)
    monkeypatch.setattr("pyro_tkam.infer.evidence.joint.laplace_evidence", lambda *_: None)

    def model() -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1e4))
        pyro.sample("y", dist.Normal(z, 0.001), obs=torch.tensor(1.1))

    def guide() -> None:
        pyro.sample("z", dist.Normal(1.1, 0.0015))

    exact = dist.Normal(0.0, 1e4).log_prob(torch.tensor(1.1)).item()
    pyro.set_rng_seed(0)
    evidence = log_evidence(model, guide=guide)
    assert "stuck chains" in evidence.verdict.names
    assert evidence.value == pytest.approx(exact, abs=0.1)
    assert evidence.method == "importance"
