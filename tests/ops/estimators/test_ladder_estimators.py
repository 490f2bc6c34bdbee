"""Estimators that take log likelihoods along a ladder of temperatures."""

import math
from functools import lru_cache, partial
from itertools import pairwise

import pytest
import torch
from torch.distributions import kl_divergence

from pyro_tkam.ops.estimators import (
    Estimate,
    annealed_log_weights,
    bar,
    importance,
    reverse_steppingstone,
    sandwich,
    steppingstone,
    thermodynamic,
)
from tests.laws.estimators import ConjugateRegression, errors_are_calibrated, value_is_right

MODEL = ConjugateRegression.example(num_data=2, dim=1)
BETAS = (torch.arange(7, dtype=torch.float64) / 6) ** 2
REPLICATIONS = 1000

corrected = partial(thermodynamic, variance_correction=True)


def annealed(log_lik, betas):
    return importance(annealed_log_weights(log_lik, betas))


ESTIMATORS = {
    "thermodynamic": corrected,
    "steppingstone": steppingstone,
    "reverse_steppingstone": reverse_steppingstone,
    "bar": bar,
}
estimators = pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS.keys())
every_estimator = pytest.mark.parametrize(
    "estimator", [*ESTIMATORS.values(), thermodynamic, sandwich, annealed_log_weights]
)
ways_to_draw = pytest.mark.parametrize(
    ("shape", "correlation", "in_step"),
    [((1, 200), 0.0, False), ((4, 50), 0.0, True), ((4, 200), 0.6, False)],
    ids=["independent", "rungs in step", "autocorrelated"],
)


@lru_cache
def replicated_log_lik(shape, correlation=0.0, in_step=False):
    torch.manual_seed(0)
    return MODEL.log_lik(MODEL.draws(BETAS, (*shape, REPLICATIONS), correlation, in_step))


@ways_to_draw
def test_values_and_errors_are_right(shape, correlation, in_step):
    log_lik = replicated_log_lik(shape, correlation, in_step)
    for estimator in ESTIMATORS.values():
        errors_are_calibrated(estimator(log_lik, BETAS), MODEL.log_evidence)
    value_is_right(bar(log_lik, BETAS), MODEL.log_evidence)
    if not in_step:  # errors shared by all rungs make the log of a product of means biased
        value_is_right(steppingstone(log_lik, BETAS), MODEL.log_evidence)


def test_annealed_importance_sampling():
    # Exact draws at each rung are transitions that forget everything.
    estimate = annealed(replicated_log_lik((1, 200)), BETAS)
    errors_are_calibrated(estimate, MODEL.log_evidence)
    value_is_right(estimate._replace(value=estimate.value.exp()), MODEL.log_evidence.exp())


def mean_of_logs(log_lik, betas):
    steps = betas.diff().reshape(-1, 1)
    return Estimate((steps * log_lik[:-1].mean((1, 2))).sum(0), torch.tensor(1.0))


def wrong_rung(log_lik, betas):
    return steppingstone(torch.cat([log_lik[1:], log_lik[-1:]]), betas)


def independent_errors(log_lik, betas):
    """
    A standard error that takes autocorrelated draws, and rungs that move together, for independent
    ones.
    """
    forward = steppingstone(log_lik, betas)
    weights = (betas.diff().reshape(-1, 1, 1, 1) * log_lik[:-1]).exp()
    variance = weights.var((1, 2)) / weights.mean((1, 2)).square() / math.prod(log_lik.shape[1:3])
    return forward._replace(standard_error=variance.sum(0).sqrt())


@pytest.mark.parametrize("wrong", [mean_of_logs, wrong_rung])
def test_laws_catch_wrong_estimators(wrong):
    with pytest.raises(AssertionError):
        value_is_right(wrong(replicated_log_lik((1, 200)), BETAS), MODEL.log_evidence)


@ways_to_draw
def test_laws_catch_naive_standard_errors(shape, correlation, in_step):
    naive = independent_errors(replicated_log_lik(shape, correlation, in_step), BETAS)
    if correlation == 0.0 and not in_step:
        errors_are_calibrated(naive, MODEL.log_evidence)
    else:
        with pytest.raises(AssertionError):
            errors_are_calibrated(naive, MODEL.log_evidence)


def test_thermodynamic_integration_misses_the_difference_of_divergences():
    exact_means = torch.stack([MODEL.mean_log_lik(beta) for beta in BETAS])
    trapezoid = thermodynamic(exact_means.reshape(-1, 1, 1).expand(-1, 1, 16), BETAS).value
    rungs = [MODEL.power_posterior(beta) for beta in BETAS]
    remainder = sum(
        kl_divergence(below, above) - kl_divergence(above, below)
        for below, above in pairwise(rungs)
    )
    assert abs(trapezoid - MODEL.log_evidence) > 1e-3
    torch.testing.assert_close(trapezoid + remainder / 2, MODEL.log_evidence, rtol=0, atol=1e-10)


@pytest.mark.parametrize("num_steps", [8, 16])
def test_variance_correction_removes_most_of_it(num_steps):
    betas = (torch.arange(num_steps + 1, dtype=torch.float64) / num_steps) ** 3
    mean = torch.stack([MODEL.mean_log_lik(beta) for beta in betas]).reshape(-1, 1, 1)
    sd = torch.stack([MODEL.variance_log_lik(beta) for beta in betas]).sqrt().reshape(-1, 1, 1)
    # Eight values of each sign have exactly this mean and variance.
    signs = torch.tensor([-1.0, 1.0], dtype=torch.float64).repeat(8).reshape(1, 1, 16) * math.sqrt(
        15 / 16
    )
    plain = thermodynamic(mean + sd * signs, betas).value - MODEL.log_evidence
    better = corrected(mean + sd * signs, betas).value - MODEL.log_evidence
    assert better.abs() < plain.abs() / 5


def test_steppingstones_enclose_the_log_evidence_in_expectation():
    # Few draws, so that the biases stand out: each is required to be more than 4 standard errors
    # from zero.
    torch.manual_seed(0)
    betas = BETAS[::3]
    log_lik = MODEL.log_lik(MODEL.draws(betas, (4, 4, 20_000)))
    lower, upper, gap = sandwich(log_lik, betas)
    for error in (MODEL.log_evidence - lower.value, upper.value - MODEL.log_evidence):
        assert error.mean() > 4 * error.std() / len(error) ** 0.5
    torch.testing.assert_close(lower, steppingstone(log_lik, betas))
    torch.testing.assert_close(upper, reverse_steppingstone(log_lik, betas))
    torch.testing.assert_close(gap.value, upper.value - lower.value)


def test_the_gap_of_a_sound_ladder_is_within_its_error():
    errors_are_calibrated(sandwich(replicated_log_lik((4, 200), 0.6), BETAS).gap, torch.tensor(0.0))


@every_estimator
def test_batches_and_their_own_ladders(estimator):
    torch.manual_seed(0)
    log_lik = torch.randn(3, 4, 20, 2, 5, dtype=torch.float64)
    betas = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    whole = estimator(log_lik, betas)
    torch.testing.assert_close(estimator(log_lik, betas[:, None, None].expand(3, 2, 5)), whole)
    part = estimator(log_lik[..., 1, 2], betas)
    pick = (
        (lambda x: x[1, 2])
        if estimator is annealed_log_weights
        else (lambda e: type(e)(*(x[1, 2] for x in e)))
    )
    if estimator is not sandwich:
        torch.testing.assert_close(part, pick(whole))


@every_estimator
def test_dtype_follows_the_input(estimator):
    result = estimator(torch.randn(3, 4, 20), torch.tensor([0.0, 0.3, 1.0]))
    while isinstance(result, tuple):
        result = result[0]
    assert result.dtype == torch.float32


def test_impossible_prior_draws_have_weight_zero():
    torch.manual_seed(0)
    log_lik = torch.randn(3, 4, 400, dtype=torch.float64)
    betas = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    impossible = log_lik.clone()
    impossible[0, :, :200] = -math.inf
    for estimator in (steppingstone, annealed):
        lost = estimator(log_lik, betas).value - estimator(impossible, betas).value
        assert abs(lost - math.log(2)) < 0.2
    assert bar(impossible, betas).value.isfinite()
    with pytest.raises(ValueError, match="-inf has no mean"):
        thermodynamic(impossible, betas)


def log_lik_of_half_a_line(betas, shape):
    """
    ``z ~ N(0, 1)``, ``L = -z`` for ``z > 0`` and ``-inf`` elsewhere: exact draws ``(temperature,
    *shape)``.

    With ``Φ`` the normal CDF, ``Z_t = ∫_{z > 0} N(z; 0, 1) exp(-t z) dz = exp(t²/2) Φ(-t)``, and
    power posteriors are the normal ``N(-t, 1)`` cut off below 0.
    """
    above = torch.special.ndtr(-betas[1:]).reshape(-1, 1, 1, 1)
    uniform = torch.rand(len(betas) - 1, *shape, dtype=torch.float64)
    cut = -torch.special.ndtri(above * uniform) - betas[1:].reshape(-1, 1, 1, 1)
    z = torch.cat([torch.randn(1, *shape, dtype=torch.float64), cut])
    return torch.where(z > 0, -z, -math.inf)


def test_reverse_steppingstones_count_the_part_of_the_prior_that_is_impossible():
    torch.manual_seed(0)
    betas = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
    log_lik = log_lik_of_half_a_line(betas, (4, 200, REPLICATIONS))
    exact = 0.5 + torch.special.log_ndtr(torch.tensor(-1.0, dtype=torch.float64))
    _, upper, gap = sandwich(log_lik, betas)
    torch.testing.assert_close(upper, reverse_steppingstone(log_lik, betas))
    for estimate, truth in ((upper, exact), (gap, torch.tensor(0.0))):
        errors_are_calibrated(estimate, truth)
        # bias of the logs; without the share it is log 2
        assert (estimate.value.mean() - truth).abs() < 0.005


@pytest.mark.parametrize(
    ("shape", "betas", "message"),
    [
        ((1, 4, 20), [0.0], "at least 2 temperatures"),
        ((3, 4, 20), [0.0, 1.0], "betas must have shape"),
        ((3, 4, 20), [0.0, 0.5, 0.5], "increase strictly from 0 to 1"),
        ((3, 4, 20), [0.0, 0.0, 1.0], "increase strictly from 0 to 1"),
        ((3, 4, 20), [0.1, 0.5, 1.0], "increase strictly from 0 to 1"),
        ((3, 4, 20), [0.0, 0.5, 0.9], "increase strictly from 0 to 1"),
        ((3, 4, 20), [1.0, 0.5, 0.0], "increase strictly from 0 to 1"),
        ((3, 4, 20), [0.0, math.nan, 1.0], "increase strictly from 0 to 1"),
        ((3, 20), [0.0, 0.5, 1.0], "log_lik must have a non-empty shape"),
        ((3, 4, 20, 0), [0.0, 0.5, 1.0], "log_lik must have a non-empty shape"),
    ],
)
@every_estimator
def test_what_is_no_ladder_is_refused(estimator, shape, betas, message):
    with pytest.raises(ValueError, match=message):
        estimator(torch.zeros(shape), torch.tensor(betas))


@pytest.mark.parametrize(
    ("rung", "value", "message"),
    [
        (0, math.nan, "at betas = 0 must be below"),
        (0, math.inf, "at betas = 0 must be below"),
        (1, math.nan, "finite wherever betas > 0"),
        (2, -math.inf, "finite wherever betas > 0"),
    ],
)
@every_estimator
def test_impossible_log_likelihoods_are_refused(estimator, rung, value, message):
    log_lik = torch.zeros(3, 4, 20)
    log_lik[rung, 1, 3] = value
    with pytest.raises(ValueError, match=message):
        estimator(log_lik, torch.tensor([0.0, 0.5, 1.0]))
    log_lik = torch.zeros(3, 4, 20, 2)
    log_lik[0, ..., 1] = -math.inf
    with pytest.raises(ValueError, match="not -inf everywhere"):
        estimator(log_lik, torch.tensor([0.0, 0.5, 1.0]))


@estimators
def test_too_few_draws_are_refused(estimator):
    with pytest.raises(
        ValueError, match=r"draws must hold at least 16 draws per chain.*, got 15 in one"
    ):
        estimator(torch.zeros(3, 1, 15), torch.tensor([0.0, 0.5, 1.0]))


@pytest.mark.parametrize("name", ["log_lik", "betas"])
@every_estimator
def test_lists_are_refused(estimator, name):
    arguments = {"log_lik": torch.zeros(3, 4, 20), "betas": torch.tensor([0.0, 0.5, 1.0])}
    ragged = [torch.zeros(4, 20), torch.zeros(4, 19), torch.zeros(4, 20)]
    with pytest.raises(
        TypeError, match=f"{name} must be one tensor of chains of equal length, got list"
    ):
        estimator(**(arguments | {name: ragged}))


@every_estimator
def test_mixed_dtypes_are_refused(estimator):
    with pytest.raises(TypeError, match="the same floating-point dtype"):
        estimator(torch.zeros(3, 4, 20), torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
