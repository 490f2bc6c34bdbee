"""Log evidences by each method, against closed forms.

Estimates are asked to be within 4.5 standard errors plus a margin, so a test of one estimate fails
falsely with probability below 1e-5; seeds are fixed all the same.
"""

import math
from contextlib import nullcontext

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal, init_to_value

from pyro_tkam.infer import AutoMALA, Evidence, ParallelTempering, Verdict, log_evidence
from pyro_tkam.infer.results import Finding
from pyro_tkam.ops.estimators import thermodynamic
from tests.infer.evidence_problems import (
    LATENT_DATA,
    LATENT_EXACT,
    TEMPERED,
    assert_close,
    latent,
    two_modes,
)
from tests.untrusted import untrusted


def test_a_tempered_run_stops_before_its_evaluations_are_exceeded():
    pyro.set_rng_seed(0)
    options = {
        "num_temperatures": 6,
        "num_samples": 500,
        "warmup_steps": 32,
        "num_chains": 4,
        "disable_progbar": True,
    }
    with untrusted():
        draws = ParallelTempering(AutoMALA(two_modes), max_evaluations=8000, **options).run()
    assert 7000 < draws.evaluations <= 8000
    assert 16 < draws.log_likelihood.shape[2] < 500
    with pytest.raises(
        ValueError, match="max_evaluations must be enough for a warm-up of 32 steps, got 500"
    ):
        ParallelTempering(AutoMALA(two_modes), max_evaluations=500, **options).run()


def tempered(model, *args, seed, num_samples):
    """Draws as :func:`log_evidence` makes them, for estimates by several methods."""
    pyro.set_rng_seed(seed)
    options = {"num_temperatures": 8, "num_chains": 8, "disable_progbar": True}
    return ParallelTempering(AutoMALA(model), num_samples=num_samples, **options).run(*args)


@pytest.fixture(scope="module")
def draws_per_datum():
    return tempered(latent, LATENT_DATA, seed=1, num_samples=200)


@pytest.fixture(scope="module")
def draws_of_half_a_line():
    return tempered(half_line, seed=0, num_samples=300)


@pytest.mark.parametrize("method", TEMPERED)
def test_tempered_methods_per_datum(method, draws_per_datum):
    evidence = draws_per_datum.log_evidence(method)
    assert_close(evidence, LATENT_EXACT.sum().item(), margin=0.02)
    assert evidence.per_datum.shape == evidence.per_datum_standard_error.shape == (3,)
    margin = 0.02  # of the trapezium
    assert (
        (evidence.per_datum - LATENT_EXACT).abs() < 4.5 * evidence.per_datum_standard_error + margin
    ).all()


@pytest.mark.parametrize("method", ["importance", "ais"])
def test_importance_methods_per_datum(method):
    pyro.set_rng_seed(0)
    options = {
        "importance": {"num_particles": 20_000},
        "ais": {"num_particles": 200, "steps_between": 3},
    }[method]
    evidence = log_evidence(latent, LATENT_DATA, method=method, **options)
    assert_close(evidence, LATENT_EXACT.sum().item())
    assert (
        (evidence.per_datum - LATENT_EXACT).abs() < 4.5 * evidence.per_datum_standard_error
    ).all()


def test_a_missed_mode_shows_between_bridge_and_ladder():
    """Keep the draws at t = 1 to one of two equal modes: the bridge loses log 2, and says so."""
    pyro.set_rng_seed(0)
    tempering = ParallelTempering(
        AutoMALA(two_modes), num_temperatures=8, num_samples=300, num_chains=8, disable_progbar=True
    )
    with untrusted():
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
    evidence = log_evidence(
        model, method="importance", model_kwargs={"shift": 1.0}, num_particles=50_000
    )
    assert_close(evidence, -0.25 - 0.5 * math.log(2))


def test_autoguides_work():
    guide = AutoNormal(
        latent, init_loc_fn=init_to_value(values={"z": LATENT_DATA / 1.09}), init_scale=0.32
    )
    pyro.set_rng_seed(0)
    guide(LATENT_DATA)
    evidence = log_evidence(
        latent, LATENT_DATA, method="importance", guide=guide, num_particles=50_000
    )
    assert_close(evidence, LATENT_EXACT.sum().item())


def test_evidences_add_up_and_compare():
    first = Evidence(
        -3.0, 0.3, "bar", Verdict(), torch.tensor([-1.0, -2.0]), torch.tensor([0.1, 0.2]), 10
    )
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
    total = sum(
        Evidence(part.sum().item(), 0.1, "bar", Verdict(), part, part + 1) for part in parts
    )
    assert total.per_datum.shape == total.per_datum_standard_error.shape == joined
    torch.testing.assert_close(
        total.per_datum.flatten(), torch.cat([part.flatten() for part in parts])
    )
    assert total.value == total.per_datum.sum()


def half_line():
    """``x|z ~ N(z, 1)`` and ``z > 0`` observed: the likelihood is zero on half of the prior."""
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(z, 0.5), obs=torch.tensor(1.0))
    pyro.factor("positive", torch.where(z > 0, 0.0, -math.inf))


@pytest.mark.parametrize("method", ["steppingstone", "bar", "bridge"])
def test_a_constraint_is_no_missed_mode(method, draws_of_half_a_line):
    evidence = draws_of_half_a_line.log_evidence(method)
    # of the posterior without the constraint
    above = dist.Normal(0.0, 1.0).cdf(torch.tensor(0.8 / math.sqrt(0.2)))
    assert_close(
        evidence,
        (dist.Normal(0.0, math.sqrt(1.25)).log_prob(torch.tensor(1.0)) + above.log()).item(),
    )
    assert evidence.verdict.trusted, str(evidence)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "harmonic mean"}, "method must be one of"),
        (
            {"method": "bar", "num_temperatures": 1},
            "num_temperatures must be an integer of at least 2",
        ),
        (
            {"method": "bar", "schedule": torch.tensor([0.0, 0.5, 0.5, 1.0])},
            "schedule must increase strictly",
        ),
        ({"method": "bar", "num_chains": 0}, "num_chains"),
        ({"target_se": 0.0}, "target_se must be a positive number"),
        ({"max_evaluations": 10}, "max_evaluations must be an integer of at least"),
        ({"method": "ais", "num_particles": 2}, "num_particles must be an integer of at least"),
        ({"method": "importance", "resampler": "lottery"}, "resampler"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        log_evidence(latent, LATENT_DATA, **options)


def test_an_option_of_another_method_is_refused():
    with pytest.raises(TypeError, match="num_temperatures"):
        log_evidence(latent, LATENT_DATA, method="importance", num_temperatures=4)


def two_slopes() -> None:
    z = pyro.sample(
        "z", dist.Normal(torch.tensor([0.3, 0.0]), torch.tensor([1.5, 1.5])).to_event(1)
    )
    pyro.sample("square", dist.Normal(z[..., 0].square(), 0.2), obs=torch.tensor(4.0))
    pyro.sample("second", dist.Normal(z[..., 1], 0.2), obs=torch.tensor(1.0))


def test_the_error_of_the_trapezium_counts_what_the_rule_misses():
    """
    On few temperatures the rule is off by more than its draws scatter; the estimator alone does not
    see it.
    """
    z = torch.linspace(-15, 15, 200_001, dtype=torch.float64)
    log_joint = dist.Normal(0.3, 1.5).log_prob(z) + dist.Normal(z.square(), 0.2).log_prob(
        torch.tensor(4.0)
    )
    exact = (log_joint.logsumexp(0) + (z[1] - z[0]).log()).item()
    exact += dist.Normal(0.0, math.hypot(1.5, 0.2)).log_prob(torch.tensor(1.0)).item()
    pyro.set_rng_seed(0)
    options = {"num_temperatures": 8, "num_samples": 500, "num_chains": 4, "disable_progbar": True}
    with untrusted():
        draws = ParallelTempering(AutoMALA(two_slopes), **options).run()
    evidence = draws.log_evidence("thermodynamic")
    alone = thermodynamic(draws.log_likelihood, draws.betas, variance_correction=True)
    assert abs(alone.value.item() - exact) > 2 * alone.standard_error.item()
    assert abs(evidence.value - exact) < 2 * evidence.standard_error
    assert evidence.value == pytest.approx(alone.value.item())
    assert "bar against it" in evidence.verdict.measures


def test_data_that_spread_over_their_distribution_are_refused():
    def line(y):
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 5):
            pyro.sample("y", dist.Normal(slope * torch.arange(5.0), 1.0), obs=y)

    message = r"model must have data with the batch.*, got \(5, 1\) at site 'y'"
    for method in ("auto", "bridge", "importance"):
        with pytest.raises(ValueError, match=message):
            log_evidence(line, torch.zeros(5, 1), method=method)


@pytest.mark.parametrize(
    ("likelihood", "plates", "shape"),
    [
        (lambda mean: dist.Bernoulli(logits=mean), nullcontext, r"\(5, 1\)"),
        (
            lambda mean: dist.Categorical(logits=torch.stack([mean, -mean], -1)),
            nullcontext,
            r"\(5, 1\)",
        ),
        (lambda mean: dist.Normal(mean, 1.0), lambda: pyro.plate("data", 5), r"\(5, 5\)"),
        (lambda mean: dist.Bernoulli(logits=mean), lambda: pyro.plate("data", 5), r"\(5, 5\)"),
    ],
)
def test_data_that_spread_by_a_column_of_means_are_refused(likelihood, plates, shape):
    def column(y):
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        with plates():
            pyro.sample("y", likelihood(slope * torch.arange(5.0).unsqueeze(-1)), obs=y)

    message = (
        rf"model must have data with the batch shape of their distribution, {shape}, got \(5,\) at "
        r"site 'y': .*broadcast to \(5, 5\) data"
    )
    for method in ("bridge", "importance"):
        with pytest.raises(ValueError, match=message):
            log_evidence(column, torch.ones(5), method=method)


def test_data_may_repeat_along_a_plate():
    def repeated(y):
        with pyro.plate("rows", 3, dim=-2), pyro.plate("columns", 2, dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            k = pyro.sample("k", dist.Bernoulli(0.5))
            pyro.sample("y", dist.Normal(z + k, 1.0), obs=y)

    pyro.set_rng_seed(0)
    y = torch.tensor([0.3, 1.2])
    evidence = log_evidence(repeated, y, method="importance", num_particles=2000)
    normal = dist.Normal(torch.tensor([[0.0], [1.0]]), math.sqrt(2.0))
    exact = 3 * (normal.log_prob(y).logsumexp(0) - math.log(2)).sum().item()
    assert abs(evidence.value - exact) < 4.5 * evidence.standard_error


@pytest.mark.parametrize(
    ("method", "takes"),
    [
        ("auto", "guide"),
        ("importance", "num_particles"),
        ("ais", "steps_between"),
        ("bar", "num_samples"),
    ],
)
def test_an_option_of_another_method_is_refused_with_those_there_are(method, takes):
    with pytest.raises(
        TypeError,
        match=rf"options must be among .*'{takes}'.* for method '{method}', got \['nonsense'\]",
    ):
        log_evidence(latent, LATENT_DATA, method=method, nonsense=3)


def test_an_argument_of_the_model_by_keyword_is_told_where_it_belongs():
    with pytest.raises(TypeError, match=r"got \['x'\]; keyword arguments .* in model_kwargs"):
        log_evidence(latent, x=LATENT_DATA)


def test_a_bayes_factor_says_whose_verdict_is_whose():
    wrong = Verdict((Finding("few draws", "12 draws", "draw more"),), {"k-hat": 0.9}, ("a note",))
    factor = Evidence(-3.0, 0.1, "bar", Verdict(measures={"k-hat": 0.1})) - Evidence(
        -5.0, 0.1, "bar", wrong
    )
    assert factor.verdict.names == {"few draws"}
    assert dict(factor.verdict.measures) == {"first model: k-hat": 0.1, "second model: k-hat": 0.9}
    assert "few draws: second model: 12 draws; draw more" in str(factor)
    assert "second model: a note" in str(factor)
