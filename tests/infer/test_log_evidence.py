"""Log evidences against closed forms, and what has no evidence.

Estimates are asked to be within 4.5 standard errors plus a margin, so a test of one estimate fails falsely with
probability below 1e-5; seeds are fixed all the same.
"""

import dataclasses
import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoNormal, init_to_value

from pyro_tkam.infer import (
    AutoMALA,
    Evidence,
    ImportanceSampling,
    ParallelTempering,
    VectorizedMCMC,
    Verdict,
    log_evidence,
)
from pyro_tkam.infer.tempered_evidence import guide_verdict

TEMPERED = ("steppingstone", "thermodynamic", "bar", "bridge")


def regression(inputs, targets):
    """Written without a thought for batching."""
    weights = pyro.sample("weights", dist.Normal(torch.zeros(inputs.shape[1]), 1.0).to_event(1))
    with pyro.plate("data", len(targets)):
        pyro.sample("y", dist.Normal(inputs @ weights, 0.5), obs=targets)


def regression_problem(num: int, dim: int):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(num, dim, generator=generator)
    targets = inputs @ torch.randn(dim, generator=generator) + 0.5 * torch.randn(num, generator=generator)
    covariance = inputs.double() @ inputs.double().T + 0.25 * torch.eye(num, dtype=torch.float64)
    exact = torch.distributions.MultivariateNormal(torch.zeros(num).double(), covariance).log_prob(targets.double())
    return (inputs, targets), exact.item()


def two_modes():
    z = pyro.sample("z", dist.Uniform(-10 * torch.ones(2), 10.0).to_event(1))
    modes = [dist.Normal(loc, scale).log_prob(z).sum(-1) for loc, scale in ((-5.0, 0.5), (5.0, 0.3))]
    pyro.factor("likelihood", torch.logaddexp(*modes) - math.log(2))


def latent(data):
    """``z`` in R² for each datum, ``x|z ~ N(z, s²)``: ``x ~ N(0, 1 + s²)``."""
    with pyro.plate("data", len(data)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 0.3).to_event(1), obs=data)


LATENT_DATA = torch.tensor([[0.0, 0.0], [1.0, -0.5], [2.5, 0.3]])
LATENT_EXACT = dist.Normal(0.0, math.sqrt(1.09)).log_prob(LATENT_DATA).sum(-1)


def assert_close(evidence: Evidence, exact: float, margin: float = 0.002) -> None:
    error = abs(evidence.value - exact)
    assert error < 4.5 * evidence.standard_error + margin, f"exact {exact}\n{evidence}"


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
    assert evidence.method == "fitted importance"


def narrow_and_wide():
    """A mode of equal mass that is narrow, so that it has none while hot."""
    z = pyro.sample("z", dist.Normal(torch.zeros(8), 2.0).to_event(1))
    modes = [dist.Normal(loc, scale).log_prob(z).sum(-1) for loc, scale in ((-1.0, 1.0), (1.5, 0.4))]
    pyro.factor("likelihood", torch.logaddexp(*modes))


@pytest.mark.slow
def test_auto_on_a_mode_suppressed_while_hot():
    pyro.set_rng_seed(0)
    evidence = log_evidence(narrow_and_wide)
    masses = [8 * dist.Normal(0.0, math.hypot(2.0, s)).log_prob(torch.tensor(m)) for m, s in ((-1.0, 1.0), (1.5, 0.4))]
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
    z = pyro.sample("z", dist.Normal(torch.zeros(500), 1.0).to_event(1))
    pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=torch.ones(500))


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
@pytest.mark.parametrize(("model", "budget"), [(two_modes, 20_000), (two_modes, 50_000), (bananas, 100_000)])
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


def test_auto_refuses_a_budget_that_is_too_small_for_the_model():
    with pytest.raises(ValueError, match=r"max_evaluations must be at least .* 500 dimensions, got 20000"):
        log_evidence(far_in_many_dimensions, max_evaluations=20_000)


def test_a_tempered_run_stops_before_its_evaluations_are_exceeded():
    pyro.set_rng_seed(0)
    options = {"num_temperatures": 6, "num_samples": 500, "warmup_steps": 32, "num_chains": 4, "disable_progbar": True}
    draws = ParallelTempering(AutoMALA(two_modes), max_evaluations=8000, **options).run()
    assert 7000 < draws.evaluations <= 8000
    assert 16 < draws.log_likelihood.shape[2] < 500
    with pytest.raises(ValueError, match="max_evaluations must be enough for a warm-up of 32 steps, got 500"):
        ParallelTempering(AutoMALA(two_modes), max_evaluations=500, **options).run()


@pytest.mark.parametrize("method", TEMPERED)
def test_tempered_methods_per_datum(method):
    pyro.set_rng_seed(1)
    evidence = log_evidence(latent, LATENT_DATA, method=method, num_temperatures=8, num_samples=200)
    assert_close(evidence, LATENT_EXACT.sum().item(), margin=0.02)
    assert evidence.per_datum.shape == evidence.per_datum_standard_error.shape == (3,)
    margin = 0.02  # of the trapezium
    assert ((evidence.per_datum - LATENT_EXACT).abs() < 4.5 * evidence.per_datum_standard_error + margin).all()


@pytest.mark.parametrize("method", ["importance", "ais"])
def test_importance_methods_per_datum(method):
    pyro.set_rng_seed(0)
    options = {"importance": {"num_particles": 20_000}, "ais": {"num_particles": 200, "steps_between": 3}}[method]
    evidence = log_evidence(latent, LATENT_DATA, method=method, **options)
    assert_close(evidence, LATENT_EXACT.sum().item())
    assert ((evidence.per_datum - LATENT_EXACT).abs() < 4.5 * evidence.per_datum_standard_error).all()


def test_a_missed_mode_shows_between_bridge_and_ladder():
    """Keep the draws at t = 1 to one of two equal modes: the bridge loses log 2, and says so."""
    pyro.set_rng_seed(0)
    tempering = ParallelTempering(
        AutoMALA(two_modes), num_temperatures=8, num_samples=300, num_chains=8, disable_progbar=True
    )
    draws = tempering.run()
    draws.positions[-1] = draws.positions[-1].abs()
    evidence = draws.log_evidence("bridge")
    assert "missed mode" in evidence.verdict.names
    assert draws.log_evidence("auto").method == "bar"


def test_factors_count_as_data_and_model_kwargs_are_passed():
    def model(*, shift):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.factor("likelihood", -0.5 * (z - shift).square())

    pyro.set_rng_seed(0)
    evidence = log_evidence(model, method="importance", model_kwargs={"shift": 1.0}, num_particles=50_000)
    assert_close(evidence, -0.25 - 0.5 * math.log(2))


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
    half = log_evidence(two_modes, method="importance", guide=guide_to_one_mode, num_particles=20_000)
    assert half.verdict.trusted
    assert abs(half.value - (-2 * math.log(20) - math.log(2))) < 0.02
    evidence = log_evidence(two_modes, guide=guide_to_one_mode)
    assert_close(evidence, -2 * math.log(20))
    assert evidence.verdict.trusted, str(evidence)


@pytest.mark.slow
def test_a_guide_is_compared_with_the_tempered_run():
    pyro.set_rng_seed(0)
    draws = ParallelTempering(
        AutoMALA(two_modes), num_temperatures=8, num_samples=300, num_chains=8, disable_progbar=True
    ).run()
    bridged = draws.log_evidence("bridge")
    half = log_evidence(two_modes, method="importance", guide=guide_to_one_mode, num_particles=20_000)
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
    exact = log_evidence(bananas, method="importance", guide=guide_along_bananas, num_particles=200_000)
    evidence = log_evidence(bananas, guide=guide_along_bananas)
    assert evidence.method == "importance", str(evidence)
    assert "a mode of which the guide knows nothing" in str(evidence.verdict)
    assert_close(evidence, exact.value, margin=4.5 * exact.standard_error)


def test_autoguides_work():
    guide = AutoNormal(latent, init_loc_fn=init_to_value(values={"z": LATENT_DATA / 1.09}), init_scale=0.32)
    pyro.set_rng_seed(0)
    guide(LATENT_DATA)
    evidence = log_evidence(latent, LATENT_DATA, method="importance", guide=guide, num_particles=50_000)
    assert_close(evidence, LATENT_EXACT.sum().item())


def test_evidences_add_up_and_compare():
    first = Evidence(-3.0, 0.3, "bar", Verdict(), torch.tensor([-1.0, -2.0]), torch.tensor([0.1, 0.2]), 10)
    second = Evidence(-4.0, 0.4, "bar", Verdict(), torch.tensor([-4.0]), torch.tensor([0.4]), 5)
    total = first + second
    assert (total.value, total.standard_error, total.evaluations) == (-7.0, 0.5, 15)
    assert total.per_datum.tolist() == [-1.0, -2.0, -4.0]
    summed = sum([first, second, first])
    assert (summed.value, summed.per_datum.shape, summed.evaluations) == (-10.0, (5,), 25)
    with pytest.raises(TypeError):
        1 + first
    factor = first - second
    assert (factor.value, factor.standard_error) == (1.0, 0.5)
    assert "±" in str(total)


@pytest.mark.parametrize(
    ("first", "second", "joined"),
    [((2, 3), (4, 3), (6, 3)), ((2, 3), (2, 5), (16,)), ((2,), (2, 3), (8,))],
)
def test_data_of_several_plates_add_up(first, second, joined):
    parts = [torch.arange(float(math.prod(shape))).reshape(shape) for shape in (first, second)]
    total = sum(Evidence(part.sum().item(), 0.1, "bar", Verdict(), part, part + 1) for part in parts)
    assert total.per_datum.shape == total.per_datum_standard_error.shape == joined
    torch.testing.assert_close(total.per_datum.flatten(), torch.cat([part.flatten() for part in parts]))
    assert total.value == total.per_datum.sum()


def improper():
    z = pyro.sample("z", dist.ImproperUniform(dist.constraints.real, (), ()))
    pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(0.0))


def with_prior(prior, site_mask=True):
    def model():
        with poutine.mask(mask=site_mask):
            z = pyro.sample("z", prior)
        pyro.sample("x", dist.Normal(z.sum(), 1.0), obs=torch.tensor(0.0))

    return model


PAIR = dist.Normal(torch.zeros(2), 1.0)
SOME = torch.tensor([True, False])
IMPROPER = {
    "improper": improper,
    "improper pair": with_prior(dist.ImproperUniform(dist.constraints.real, (2,), ()).to_event(1)),
    "mask": with_prior(dist.Normal(0.0, 1.0).mask(False)),
    "tensor mask": with_prior(dist.Normal(0.0, 1.0).mask(torch.tensor(False))),
    "mask inside an event": with_prior(PAIR.mask(False).to_event(1)),
    "mask of some inside an event": with_prior(PAIR.mask(SOME).to_event(1)),
    "site mask": with_prior(dist.Normal(0.0, 1.0), False),
    "tensor site mask": with_prior(dist.Normal(0.0, 1.0), torch.tensor(False)),
    "site mask of some": with_prior(PAIR, SOME),
}


@pytest.mark.parametrize("model", IMPROPER.values(), ids=IMPROPER.keys())
def test_improper_priors_leave_the_evidence_undefined(model):
    def guide():
        pyro.sample("z", PAIR.to_event(1))

    runs = [partial(log_evidence, model, method=method) for method in ("auto", "importance", "ais", "bar")]
    for run in (*runs, ImportanceSampling(model).run, ImportanceSampling(model, guide).run):
        with pytest.raises(ValueError, match=r"'z'\] have improper priors, so its evidence is undefined"):
            run()
    with pytest.raises(ValueError, match=r"'z'.* improper prior"):
        ParallelTempering(AutoMALA(model), num_samples=5, disable_progbar=True).run()


def test_a_flat_prior_can_be_sampled_without_tempering():
    pyro.set_rng_seed(0)
    mcmc = VectorizedMCMC(AutoMALA(IMPROPER["tensor mask"]), num_samples=200, num_chains=4, disable_progbar=True)
    mcmc.run()
    assert abs(mcmc.get_samples()["z"].std() - 1) < 0.2  # of N(0, 1), by 500 effective draws: 6 standard errors


def test_masks_that_hide_nothing_are_proper():
    pyro.set_rng_seed(0)
    model = with_prior(dist.Normal(0.0, 1.0).mask(torch.tensor(True)), torch.tensor(True))
    assert_close(log_evidence(model), -0.5 * math.log(4 * math.pi))


def unobserved():
    pyro.sample("z", dist.Normal(0.0, 1.0))


def observing(value, mask=True):
    def model():
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(value)):
            pyro.sample("x", dist.Normal(z, 1.0).mask(torch.as_tensor(mask)), obs=value)

    return model


def half_line():
    """``x|z ~ N(z, 1)`` and ``z > 0`` observed: the likelihood is zero on half of the prior."""
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(z, 0.5), obs=torch.tensor(1.0))
    pyro.factor("positive", torch.where(z > 0, 0.0, -math.inf))


@pytest.mark.parametrize("method", ["steppingstone", "bar", "bridge"])
def test_a_constraint_is_no_missed_mode(method):
    pyro.set_rng_seed(0)
    evidence = log_evidence(half_line, method=method, num_temperatures=8, num_samples=300)
    above = dist.Normal(0.0, 1.0).cdf(torch.tensor(0.8 / math.sqrt(0.2)))  # of the posterior without the constraint
    assert_close(evidence, (dist.Normal(0.0, math.sqrt(1.25)).log_prob(torch.tensor(1.0)) + above.log()).item())
    assert evidence.verdict.trusted, str(evidence)


def impossible():
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.factor("likelihood", z * 0 - math.inf)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (unobserved, "no observed site"),
        (observing(torch.tensor([0.0, math.nan])), "'x' holds a NaN"),
        (observing(torch.zeros(0)), "empty or all masked"),
        (observing(torch.zeros(3), mask=[False] * 3), "empty or all masked"),
    ],
)
@pytest.mark.parametrize("method", ["auto", "importance", "ais", "bar"])
def test_models_without_an_evidence(model, message, method):
    with pytest.raises(ValueError, match=message):
        log_evidence(model, method=method)


@pytest.mark.parametrize("method", ["auto", "importance"])
def test_an_impossible_likelihood_of_draws(method):
    with pytest.raises(ValueError, match="its likelihood is zero at every draw"):
        log_evidence(impossible, method=method)


@pytest.mark.parametrize("method", ["ais", *TEMPERED])
def test_an_impossible_likelihood_of_chains(method):
    zero = r"at every one the likelihood is zero: site 'likelihood' is not finite but -inf in chain 0"
    with pytest.raises(ValueError, match=zero):
        log_evidence(impossible, method=method)


def test_missing_data_may_be_masked():
    data, mask = torch.tensor([0.3, math.nan]), torch.tensor([True, False])
    pyro.set_rng_seed(0)
    evidence = log_evidence(observing(data, mask), method="importance", num_particles=20_000)
    assert_close(evidence, dist.Normal(0.0, math.sqrt(2)).log_prob(data[0]).item())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "harmonic mean"}, "method must be one of"),
        ({"method": "bar", "num_temperatures": 1}, "num_temperatures must be at least 2"),
        ({"method": "bar", "schedule": torch.tensor([0.0, 0.5, 0.5, 1.0])}, "schedule must rise strictly"),
        ({"method": "bar", "num_chains": 0}, "num_chains"),
        ({"target_se": 0.0}, "target_se must be positive"),
        ({"max_evaluations": 10}, "max_evaluations must be at least"),
        ({"method": "ais", "num_particles": 2}, "num_particles must be at least"),
        ({"method": "importance", "resampler": "lottery"}, "resampler"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        log_evidence(latent, LATENT_DATA, **options)


def test_an_option_of_another_method_is_refused():
    with pytest.raises(TypeError, match="num_temperatures"):
        log_evidence(latent, LATENT_DATA, method="importance", num_temperatures=4)
