"""The evidence by whichever route is trusted first, against closed forms.

Estimates are asked to be within 4.5 standard errors plus a margin, so a test of one estimate fails
falsely with probability below 1e-5; seeds are fixed all the same.
"""

import dataclasses
import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_tkam.infer import AutoMALA, ParallelTempering, log_evidence
from pyro_tkam.infer.tempering.estimates import guide_verdict
from tests.infer.evidence_problems import (
    LATENT_DATA,
    LATENT_EXACT,
    assert_close,
    latent,
    regression,
    regression_problem,
    two_modes,
)
from tests.untrusted import untrusted


@pytest.mark.slow
def test_auto_on_regression():
    data, exact = regression_problem(50, 10)
    pyro.set_rng_seed(0)
    evidence = log_evidence(regression, *data)
    assert_close(evidence, exact)
    assert evidence.verdict.trusted, str(evidence)
    assert evidence.standard_error < 0.01
    assert evidence.evaluations <= 400_000


@pytest.mark.slow
def test_auto_on_two_separated_modes():
    pyro.set_rng_seed(0)
    evidence = log_evidence(two_modes)
    assert_close(evidence, -2 * math.log(20))
    assert evidence.verdict.trusted, str(evidence)


def narrow_and_wide():
    """A mode of equal mass that is narrow, so that it has none while hot."""
    z = pyro.sample("z", dist.Normal(torch.zeros(8), 2.0).to_event(1))
    modes = [
        dist.Normal(loc, scale).log_prob(z).sum(-1) for loc, scale in ((-1.0, 1.0), (1.5, 0.4))
    ]
    pyro.factor("likelihood", torch.logaddexp(*modes))


@pytest.mark.slow
def test_auto_on_a_mode_suppressed_while_hot():
    pyro.set_rng_seed(0)
    evidence = log_evidence(narrow_and_wide)
    masses = [
        8 * dist.Normal(0.0, math.hypot(2.0, s)).log_prob(torch.tensor(m))
        for m, s in ((-1.0, 1.0), (1.5, 0.4))
    ]
    assert_close(evidence, torch.logaddexp(*masses).item())
    assert evidence.verdict.trusted, str(evidence)
    assert evidence.standard_error < 0.01
    assert evidence.evaluations <= 400_000


def bananas():
    """Four curved ridges, too many bends for a mixture of Gaussians."""
    x = pyro.sample("x", dist.Normal(torch.zeros(4), 3.0).to_event(1))
    y = pyro.sample("y", dist.Normal(torch.zeros(4), 3.0).to_event(1))
    pyro.sample("datum", dist.Normal(x, 1.0).to_event(1), obs=0.5 * torch.ones(4))
    pyro.sample("ridge", dist.Normal(y - x.square(), 0.1).to_event(1), obs=torch.zeros(4))


def far_in_many_dimensions():
    z = pyro.sample("z", dist.Normal(torch.zeros(100), 1.0).to_event(1))
    pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=torch.ones(100))


def test_auto_trusts_the_prior_where_the_data_say_little():
    data, exact = regression_problem(2, 2)
    pyro.set_rng_seed(0)
    evidence = log_evidence(regression, *data, target_se=0.02)
    assert evidence.method == "importance"
    assert_close(evidence, exact)


def test_auto_says_when_the_budget_ends():
    data, _ = regression_problem(50, 10)
    pyro.set_rng_seed(0)
    evidence = log_evidence(regression, *data, target_se=1e-5, max_evaluations=20_000)
    assert "target not reached" in evidence.verdict.names


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "budget"), [(two_modes, 20_000), (two_modes, 50_000), (bananas, 1_000_000)]
)
def test_auto_stays_within_its_budget(model, budget):
    pyro.set_rng_seed(0)
    evidence = log_evidence(model, target_se=1e-5, max_evaluations=budget)
    assert evidence.evaluations <= budget
    assert f"of {budget} evaluations" in str(evidence.verdict)
    assert not evidence.verdict.trusted


@pytest.mark.slow
def test_auto_trusts_no_evidence_after_a_few_climbs():
    pyro.set_rng_seed(0)
    evidence = log_evidence(two_modes, max_evaluations=20_000)
    assert_close(evidence, -2 * math.log(20))
    assert evidence.verdict.names == {"short search for modes"}, str(evidence)


def test_auto_weighs_draws_of_a_normal_that_fits_within_a_small_budget():
    pyro.set_rng_seed(0)
    evidence = log_evidence(far_in_many_dimensions, max_evaluations=20_000)
    exact = 100 * dist.Normal(0.0, math.sqrt(2.0)).log_prob(torch.ones(())).item()
    assert_close(evidence, exact)
    assert evidence.verdict.names == {"short search for modes"}
    assert evidence.evaluations <= 20_000


@pytest.mark.parametrize("budget", [20_000, 60_000])
def test_what_judges_weights_of_the_prior_is_within_the_budget(budget: int):
    def funnel():
        scale = pyro.sample("scale", dist.LogNormal(0.0, 1.5))
        z = pyro.sample("z", dist.Normal(torch.zeros(60), scale).to_event(1))
        pyro.sample("y", dist.Normal(z, 1.0).to_event(1), obs=torch.linspace(-1, 1, 60))

    pyro.set_rng_seed(0)
    assert log_evidence(funnel, max_evaluations=budget).evaluations <= budget


def test_auto_weighs_draws_of_normals_where_the_budget_ends_before_any_route():
    def tailed():
        z = pyro.sample("z", dist.Normal(torch.zeros(60), 1.0).to_event(1))
        pyro.sample("x", dist.StudentT(8.0, z).to_event(1), obs=torch.full((60,), 2.0))

    line = torch.linspace(-12, 12, 20_001, dtype=torch.float64)
    each = dist.Normal(0.0, 1.0).log_prob(line) + dist.StudentT(8.0).log_prob(line - 2)
    exact = 60 * (each.logsumexp(0) + (line[1] - line[0]).log()).item()
    pyro.set_rng_seed(0)
    evidence = log_evidence(tailed, max_evaluations=20_000, target_se=0.3)
    assert_close(evidence, exact)
    assert evidence.standard_error < 0.1
    assert evidence.verdict.names == {"budget spent"}
    assert evidence.evaluations <= 20_000


def test_auto_refuses_a_budget_that_is_too_small_for_the_model_with_what_is_needed():
    """Thirty predictors that hardly differ: neither normals nor chains get anywhere so soon."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(50, 1, generator=generator)
    inputs = inputs + 0.01 * torch.randn(50, 30, generator=generator)

    def model():
        weights = pyro.sample("weights", dist.Normal(torch.zeros(30), 1.0).to_event(1))
        likelihood = dist.Normal(inputs @ weights, 0.1).to_event(1)
        pyro.sample("y", likelihood, obs=inputs.sum(1))

    pyro.set_rng_seed(0)
    with pytest.raises(
        ValueError, match=r"max_evaluations must be greater than \d{5} for this model, got 20000"
    ):
        log_evidence(model, max_evaluations=20_000)


@pytest.mark.slow
def test_auto_with_a_good_guide():
    def guide(data):
        with pyro.plate("data", len(data)):
            scale = 0.3 / math.sqrt(1.09)
            pyro.sample("z", dist.Normal(data / 1.09, 1.1 * scale).to_event(1))

    pyro.set_rng_seed(0)
    evidence = log_evidence(latent, LATENT_DATA, guide=guide)
    assert_close(evidence, LATENT_EXACT.sum().item())
    assert evidence.verdict.trusted, str(evidence)


def guide_to_one_mode():
    pyro.sample("z", dist.Normal(5 * torch.ones(2), 0.35).to_event(1))


@pytest.mark.slow
def test_auto_does_not_believe_a_guide_that_knows_one_of_two_modes():
    """Its weights look perfect, and give half of the evidence."""
    pyro.set_rng_seed(0)
    half = log_evidence(
        two_modes, method="importance", guide=guide_to_one_mode, num_particles=20_000
    )
    assert half.verdict.trusted
    assert abs(half.value - (-2 * math.log(20) - math.log(2))) < 0.02
    evidence = log_evidence(two_modes, guide=guide_to_one_mode)
    assert_close(evidence, -2 * math.log(20))
    assert evidence.verdict.trusted, str(evidence)


@pytest.mark.slow
def test_a_guide_is_compared_with_the_tempered_run():
    pyro.set_rng_seed(0)
    tempering = ParallelTempering(
        AutoMALA(two_modes), num_temperatures=8, num_samples=300, num_chains=8, disable_progbar=True
    )
    with untrusted():
        draws = tempering.run()
    bridged = draws.log_evidence("bridge")
    half = log_evidence(
        two_modes, method="importance", guide=guide_to_one_mode, num_particles=20_000
    )
    assert guide_verdict(half, bridged, draws).names == {"missed mode"}
    whole = dataclasses.replace(half, value=-2 * math.log(20))
    assert guide_verdict(whole, bridged, draws).trusted


def guide_along_bananas():
    """Exact in ``y`` given ``x``, and wide enough in ``x``."""
    x = pyro.sample("x", dist.Normal(0.3 * torch.ones(4), 1.2).to_event(1))
    pyro.sample("y", dist.Normal(x.square() * 9 / 9.01, 0.3 / math.sqrt(9.01)).to_event(1))


@pytest.mark.slow
def test_auto_takes_a_guide_where_a_mixture_does_not_fit():
    pyro.set_rng_seed(0)
    exact = log_evidence(
        bananas, method="importance", guide=guide_along_bananas, num_particles=200_000
    )
    evidence = log_evidence(bananas, guide=guide_along_bananas)
    assert evidence.method == "importance", str(evidence)
    assert "a mode that the guide does not cover" in str(evidence.verdict)
    assert_close(evidence, exact.value, margin=4.5 * exact.standard_error)


@pytest.mark.parametrize("budget", [40_000, 400_000])
def test_evidence_of_each_datum_advises_options_of_the_method(budget: int):
    """Tempered runs that it rests on are short; what they alone lack is not told of it."""

    def model(x: torch.Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.square(), 0.1).to_event(1), obs=x)

    pyro.set_rng_seed(0)
    x = torch.randn(20, 2).square()
    evidence = log_evidence(model, x, max_evaluations=budget, target_se=0.02)
    assert evidence.per_datum is not None
    assert evidence.method != "importance"  # of the prior
    for finding in evidence.verdict.findings:
        assert "max_evaluations" in finding.advice, str(finding)
    told = str(evidence)
    assert not any(of in told for of in ("run longer", "num_samples", "temperatures", "warm-up"))
