"""
Bridge sampling from fitted halves: right, with errors that are right, and cross-fitted. Batch
elements are independent repetitions. Thresholds are met with a probability above 0.9999.
"""

import math

import pytest
import torch

from pyro_tkam.ops.estimators import cross_bridge, fit_normal
from pyro_tkam.ops.estimators.mixture import fit_mixture

LOG_TWO_PI = math.log(2 * math.pi)


def autoregression(shape, correlation):
    draws = torch.randn(shape, dtype=torch.float64)
    for i in range(1, shape[1]):
        draws[:, i] = correlation * draws[:, i - 1] + (1 - correlation**2) ** 0.5 * draws[:, i]
    return draws


def normal(z):
    return -z.square().sum(-1) / 2


def logistic(z):
    return (-z - 2 * torch.nn.functional.softplus(-z)).sum(-1)


def as_logistic(z):
    probability = torch.special.ndtr(z)
    return probability.log() - (-probability).log1p()


def error_in_standard_errors(bridge, exact):
    scaled = (bridge.estimate.value - exact) / bridge.estimate.standard_error
    return scaled.square().mean().sqrt().item()


@pytest.mark.parametrize(
    ("shape", "correlation"),
    [
        ((4, 250, 100, 2), 0.0),
        ((4, 1000, 100, 2), 0.9),
        ((64, 25, 60, 8), 0.5),
        ((2, 400, 60, 5), 0.3),
    ],
)
@pytest.mark.parametrize("density", [normal, logistic])
def test_errors_have_the_size_that_is_told(shape, correlation, density):
    torch.manual_seed(0)
    draws = autoregression(shape, correlation)
    if density is logistic:
        draws = as_logistic(draws)
    exact = shape[-1] / 2 * LOG_TWO_PI if density is normal else 0.0
    bridge = cross_bridge(draws, density)
    # the mean of the two halves' errors is larger than that of their mean, by √2 at most
    assert 0.4 < error_in_standard_errors(bridge, exact) < 1.3
    assert (bridge.effective_terms > 25).all()


def test_a_single_chain_is_cut_in_time():
    torch.manual_seed(0)
    bridge = cross_bridge(autoregression((1, 1000, 100, 2), 0.5), normal)
    assert 0.4 < error_in_standard_errors(bridge, LOG_TWO_PI) < 1.3


def test_errors_count_autocorrelation():
    # Chains whose draws are shuffled look independent: their standard errors are too small.
    torch.manual_seed(0)
    draws = autoregression((4, 1000, 100, 2), 0.95)
    shuffled = draws[:, torch.randperm(1000)]
    assert error_in_standard_errors(cross_bridge(draws, normal), LOG_TWO_PI) < 1.3
    assert error_in_standard_errors(cross_bridge(shuffled, normal), LOG_TWO_PI) > 1.6


def test_a_fit_to_the_same_draws_would_be_biased():
    torch.manual_seed(0)
    covariance = 0.7 * torch.ones(20, 20).double() + 0.3 * torch.eye(20).double()
    factor = torch.linalg.cholesky(covariance)
    draws = autoregression((4, 50, 60, 20), 0.0) @ factor.T

    def density(z):
        return normal(z @ torch.linalg.inv(factor).T)

    def bias(bridge):
        error = bridge.estimate.value - 10 * LOG_TWO_PI - factor.diagonal().log().sum()
        return error.mean() / (error.std() / len(error) ** 0.5)

    assert bias(cross_bridge(draws, density)).abs() < 4
    assert bias(cross_bridge(draws, density, fit=lambda half: fit_normal(draws))).abs() > 8


def test_a_hundred_dimensions_of_all_scales():
    torch.manual_seed(0)
    dim = 100
    scale = torch.logspace(-3, 3, dim, dtype=torch.float64)
    factor = torch.eye(dim, dtype=torch.float64)
    factor[1, :2] = torch.tensor([0.9999, 0.0141])  # two that go together
    factor[2:, 0] = 0.7
    factor = scale[:, None] * factor
    draws = autoregression((64, 200, dim), 0.3) @ factor.T
    exact = dim / 2 * LOG_TWO_PI + factor.diagonal().log().sum()

    def density(z):
        white = torch.linalg.solve_triangular(factor, z.mT, upper=False).mT
        return normal(white)

    bridge = cross_bridge(draws, density)
    error = bridge.estimate.value - exact
    assert bridge.estimate.standard_error < 0.01
    assert error.abs() < 4 * bridge.estimate.standard_error


def test_shrinkage_helps_where_draws_are_few_and_vanishes_where_they_are_many():
    torch.manual_seed(0)

    def divergence(draws):
        fitted = fit_normal(draws)
        moved = fitted.scale_tril @ fitted.scale_tril.mT
        target = torch.eye(draws.shape[-1], dtype=torch.float64)
        p = torch.distributions.MultivariateNormal(torch.zeros(draws.shape[-1]).double(), target)
        return torch.distributions.kl_divergence(
            p, torch.distributions.MultivariateNormal(fitted.loc, moved)
        )

    few = divergence(autoregression((4, 20, 10, 30), 0.0))
    assert (few < 30**2 / (4 * 80) / 2).all()  # half of what the covariance of 80 draws costs
    together = autoregression((4, 2000, 1, 2), 0.0)
    together[..., 1] = 0.9999 * together[..., 0] + 0.0141 * together[..., 1]
    scale_tril = fit_normal(together).scale_tril[0]
    assert 0.0125 < scale_tril[1, 1] < 0.016


def test_other_proposals_and_importance_weights():
    # Two bumps far apart, a third of the draws in one: a normal overlaps them badly, a mixture
    # does not; and importance weights need no draws' shares.
    torch.manual_seed(0)
    side = torch.where(torch.rand(8, 500, 20, 1) < 1 / 3, -8.0, 8.0).double()
    draws = side + torch.randn_like(side)

    def two_bumps(z):
        return torch.logaddexp(normal(z + 8) - math.log(3), normal(z - 8) + math.log(2 / 3))

    def mixture(half):
        return fit_mixture(half.flatten(0, 1), torch.full((half.shape[2],), 2000.0).double())

    bridge = cross_bridge(draws, two_bumps, fit=mixture)
    assert error_in_standard_errors(bridge, LOG_TWO_PI / 2) < 1.5
    weighed = bridge.log_weights.logsumexp(-1) - math.log(bridge.log_weights.shape[-1])
    torch.testing.assert_close(weighed.mean().item(), LOG_TWO_PI / 2, atol=0.01, rtol=0)


def test_a_known_log_density_is_not_computed_again():
    torch.manual_seed(0)
    draws = autoregression((4, 100, 3), 0.0)
    seen = []

    def density(z):
        seen.append(len(z))
        return normal(z)

    torch.manual_seed(1)
    known = cross_bridge(draws, density, log_joint=normal(draws), num_proposals=500)
    assert seen == [500, 500]
    torch.manual_seed(1)
    other = cross_bridge(draws, normal, num_proposals=500)
    torch.testing.assert_close(known.estimate, other.estimate)


@pytest.mark.parametrize(
    ("draws", "error", "message"),
    [
        ([1.0], TypeError, "draws must be one tensor"),
        (torch.ones(4, 100, 2, dtype=torch.long), TypeError, "floating-point"),
        (torch.ones(4, 100), ValueError, "shape"),
        (torch.randn(8, 7, 2), ValueError, "8 draws per chain"),
        (torch.randn(4, 15, 2), ValueError, "16 draws per chain"),
        (torch.randn(2, 31, 2), ValueError, "32 draws per chain"),
        (torch.randn(1, 47, 2), ValueError, "48 draws per chain"),
        (torch.full((4, 100, 2), torch.nan), ValueError, "finite"),
        (torch.ones(4, 100, 2), ValueError, "vary in every coordinate"),
    ],
)
def test_what_is_no_chain_is_refused(draws, error, message):
    with pytest.raises(error, match=message):
        cross_bridge(draws, normal)


@pytest.mark.parametrize(
    ("density", "message"),
    [
        (lambda z: z, "shape"),
        (lambda z: torch.full(z.shape[:-1], torch.nan), "NaN"),
        (lambda z: torch.full(z.shape[:-1], -torch.inf), "finite at the draws"),
    ],
)
def test_densities_must_be_some(density, message):
    with pytest.raises(ValueError, match=message):
        cross_bridge(torch.randn(4, 100, 2), density)
