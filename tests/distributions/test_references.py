"""
Any univariate distribution as the reference: the estimated error bounds the true one, or is large.
"""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import scipy.stats as stats
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.distributions import Distribution

from pyro_tkam.distributions import ExponentiallyTilted, TiltedMixture
from pyro_tkam.distributions.references import copied


def tensor(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def kinked() -> dist.MixtureSameFamily:
    """Two kinks that nothing announces."""
    weights, locations, scales = torch.tensor(
        [[0.4, 0.6], [-0.3, 1.1], [0.4, 0.2]], dtype=torch.float64
    )
    return dist.MixtureSameFamily(dist.Categorical(weights), dist.Laplace(locations, scales))


#: weight, location and scale of Laplace densities; the kink at 2.03 lies between the outer nodes of
#: two cells
HIDDEN = [(0.2, -1.37, 0.3), (0.5, 0.11, 0.05), (0.3, 2.03, 1.2)]


def hidden_kinks() -> dist.MixtureSameFamily:
    weights, locations, scales = torch.tensor(HIDDEN, dtype=torch.float64).unbind(1)
    return dist.MixtureSameFamily(dist.Categorical(weights), dist.Laplace(locations, scales))


def affine() -> dist.TransformedDistribution:
    return dist.TransformedDistribution(
        dist.Normal(tensor(0.0), tensor(1.0)), [dist.transforms.AffineTransform(1.0, 2.0)]
    )


#: reference, interval, and the truncated law's CDF by scipy (of a constant energy)
CASES = {
    "laplace": (dist.Laplace(tensor(0.3), tensor(0.7)), -3.0, 4.0, stats.laplace(0.3, 0.7).cdf),
    "asymmetric laplace": (
        dist.AsymmetricLaplace(tensor(0.3), tensor(0.7), tensor(1.0)),
        -3.0,
        4.0,
        stats.laplace(0.3, 0.7).cdf,
    ),
    "two laplaces": (
        kinked(),
        -3.0,
        4.0,
        lambda z: 0.4 * stats.laplace(-0.3, 0.4).cdf(z) + 0.6 * stats.laplace(1.1, 0.2).cdf(z),
    ),
    "arcsine": (dist.Beta(tensor(0.5), tensor(0.5)), None, None, stats.beta(0.5, 0.5).cdf),
    "beta": (dist.Beta(tensor(0.7), tensor(2.0)), 0.0, 1.0, stats.beta(0.7, 2).cdf),
    "gamma": (dist.Gamma(tensor(0.4), tensor(1.0)), None, 10.0, stats.gamma(0.4).cdf),
    "steep gamma": (dist.Gamma(tensor(0.02), tensor(1.0)), None, 10.0, stats.gamma(0.02).cdf),
    "chi2": (dist.Chi2(tensor(1.0)), None, 10.0, stats.chi2(1).cdf),
    "half normal": (dist.HalfNormal(tensor(1.0)), None, 5.0, stats.halfnorm().cdf),
    "exponential": (dist.Exponential(tensor(2.0)), None, 5.0, stats.expon(scale=0.5).cdf),
    "half cauchy": (dist.HalfCauchy(tensor(1.0)), None, 50.0, stats.halfcauchy().cdf),
    "student": (dist.StudentT(tensor(3.0)), -20.0, 20.0, stats.t(3).cdf),
    "cauchy": (dist.Cauchy(tensor(0.2), tensor(0.01)), -5.0, 5.0, stats.cauchy(0.2, 0.01).cdf),
    "narrow normal": (
        dist.Normal(tensor(0.123), tensor(0.005)),
        -4.0,
        4.0,
        stats.norm(0.123, 0.005).cdf,
    ),
    "gumbel": (dist.Gumbel(tensor(0.0), tensor(1.0)), -3.0, 8.0, stats.gumbel_r().cdf),
    "lognormal": (dist.LogNormal(tensor(0.0), tensor(1.0)), None, 4.0, stats.lognorm(1).cdf),
    "narrow uniform": (
        dist.Uniform(tensor(0.2), tensor(0.5)),
        0.0,
        1.0,
        stats.uniform(0.2, 0.3).cdf,
    ),
    "affine": (affine(), -4.0, 6.0, stats.norm(1, 2).cdf),
    "beta with two poles": (
        dist.Beta(tensor(0.3), tensor(0.7)),
        None,
        None,
        stats.beta(0.3, 0.7).cdf,
    ),
    "beta with a steep pole": (
        dist.Beta(tensor(0.05), tensor(2.0)),
        None,
        None,
        stats.beta(0.05, 2).cdf,
    ),
    "beta with a pole at 1": (
        dist.Beta(tensor(2.0), tensor(0.1)),
        None,
        None,
        stats.beta(2, 0.1).cdf,
    ),
    "small gamma": (
        dist.Gamma(tensor(0.1), tensor(1e6)),
        None,
        10.0,
        stats.gamma(0.1, scale=1e-6).cdf,
    ),
    "gamma cut beside its pole": (
        dist.Gamma(tensor(0.5), tensor(1.0)),
        1e-12,
        10.0,
        stats.gamma(0.5).cdf,
    ),
    "inverse gamma": (
        dist.InverseGamma(tensor(0.5), tensor(1.0)),
        None,
        50.0,
        stats.invgamma(0.5).cdf,
    ),
    "hidden kinks": (
        hidden_kinks(),
        -5.0,
        5.0,
        lambda z: sum(w * stats.laplace(m, s).cdf(z) for w, m, s in HIDDEN),
    ),
}
#: a mass that matters lies nearer to an end of the interval than the next float, in at least one
#: precision
CROWDED = {
    "arcsine",
    "steep gamma",
    "beta with two poles",
    "beta with a steep pole",
    "beta with a pole at 1",
    "small gamma",
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", CASES)
def test_the_estimate_bounds_the_error_or_says_that_it_is_large(name, dtype):
    reference, low, high, law = CASES[name]
    prior = ExponentiallyTilted(
        torch.zeros_like, to(reference, dtype), low, high, validate_args=False
    )
    u = torch.linspace(0.001, 0.999, 201, dtype=dtype)
    z = prior.icdf(u)
    assert z.dtype == dtype
    lowest, highest = law(float(prior.low)), law(float(prior.high))
    truth = (torch.from_numpy(law(z.double().numpy())) - lowest) / (highest - lowest)
    error, estimate = float((truth - u.double()).abs().max()), float(prior.quadrature_error)
    resolution = float((prior.log_prob(z).exp() * z.abs() * torch.finfo(dtype).eps).max())
    assert error <= estimate + 2 * resolution
    if name not in CROWDED:
        assert estimate <= {torch.float64: 1e-9, torch.float32: 1e-5}[dtype]


@pytest.mark.parametrize("name", sorted(set(CASES) - {"steep gamma", "beta with a pole at 1"}))
def test_poles_and_kinks_meet_the_accuracy_without_a_warning(name):
    """``|F(z) - u|`` below 1e-9 in float64, floats near an end of the interval apart."""
    reference, low, high, law = CASES[name]
    prior = ExponentiallyTilted(torch.zeros_like, reference, low, high, validate_args=True)
    u = torch.linspace(0.001, 0.999, 201, dtype=torch.float64)
    z = prior.icdf(u)
    lowest, highest = law(float(prior.low)), law(float(prior.high))
    truth = torch.from_numpy((law(z.numpy()) - lowest) / (highest - lowest))
    assert (truth - u).abs().max() <= 1e-9
    assert prior.log_prob(z).isfinite().all()


@pytest.mark.parametrize("name", ["steep gamma", "beta with a pole at 1"])
def test_mass_that_floats_cannot_tell_from_an_end_is_reported(name):
    reference, low, high, law = CASES[name]
    with pytest.warns(
        UserWarning, match="closer to an end of the interval than torch.float64 can resolve"
    ):
        prior = ExponentiallyTilted(torch.zeros_like, reference, low, high, validate_args=True)
    least, top = float(torch.finfo(torch.float64).tiny), 1 - torch.finfo(torch.float64).eps
    lost = law(least) if low is None and high else 1 - law(top)
    assert float(prior.quadrature_error) == pytest.approx(lost / law(float(prior.high)), rel=0.02)


def test_poles_have_exact_derivatives_in_their_exponent():
    """
    Against the closed form of ``Beta(a, 1)``, ``z = u^(1/a)``, and finite differences of a tilted
    one.
    """
    a = torch.tensor([0.3, 0.8]).double().requires_grad_()
    u = torch.tensor([[0.1], [0.6]]).double().requires_grad_()
    plain = ExponentiallyTilted(torch.zeros_like, dist.Beta(a, torch.ones_like(a)))
    for mine, exact in zip(
        torch.autograd.grad(plain.icdf(u).sum(), (a, u)),
        torch.autograd.grad((u ** (1 / a)).sum(), (a, u)),
        strict=True,
    ):
        torch.testing.assert_close(mine, exact, rtol=1e-7, atol=1e-9)

    def tilted(a, u):
        prior = ExponentiallyTilted(torch.sin, dist.Beta(a, torch.full_like(a, 1.5)))
        return prior.icdf(u), prior.cdf(u), prior.mean, prior.entropy(), prior.log_normalizer

    assert gradcheck(tilted, (a, u), atol=1e-6)


def test_mixtures_of_references_with_poles():
    """On one grid, and on different ones; against scipy and the entropy by definition."""
    a = torch.tensor([0.5, 0.25]).double()
    logits = torch.tensor([0.6, 0.4], dtype=torch.float64).log()
    parts = ExponentiallyTilted(torch.zeros_like, dist.Gamma(a, torch.ones_like(a)), None, 10.0)
    same = ExponentiallyTilted(
        lambda z: 0 * z * torch.ones(2).double(), dist.Gamma(a[:1], tensor(1.0)), None, 10.0
    )
    u = torch.linspace(0.01, 0.99, 50).double()
    for components, exponents in ((parts, (0.5, 0.25)), (same, (0.5, 0.5))):
        prior = TiltedMixture(logits, components)
        z = prior.icdf(u)
        truth = sum(
            w * stats.gamma(k).cdf(z.numpy()) / stats.gamma(k).cdf(10)
            for w, k in zip((0.6, 0.4), exponents, strict=True)
        )
        assert (torch.from_numpy(truth) - u).abs().max() <= 1e-9
        assert prior.quadrature_error <= 1e-9
        torch.testing.assert_close(
            prior.entropy(), -prior.expectation(prior.log_prob), rtol=1e-8, atol=1e-8
        )


def to(reference: Distribution, dtype: torch.dtype) -> Distribution:
    return copied(reference, lambda value: value.to(dtype))


def test_a_reference_narrower_than_the_interval_cuts_it():
    prior = ExponentiallyTilted(torch.zeros_like, dist.Uniform(0.2, 0.5), 0.0, 0.4)
    assert (float(prior.low), float(prior.high)) == pytest.approx((0.2, 0.4))
    assert prior.support.check(torch.tensor([0.1, 0.3, 0.45])).tolist() == [False, True, False]


def test_learned_kinks_have_exact_second_derivatives():
    def moments(loc, scale):
        prior = ExponentiallyTilted(torch.sin, dist.Laplace(loc, scale), -2.0, 3.0)
        return prior.mean, prior.icdf(torch.tensor([0.2, 0.7]).double()), prior.log_normalizer

    inputs = (
        torch.tensor([0.3]).double().requires_grad_(),
        torch.tensor([0.8]).double().requires_grad_(),
    )
    assert gradcheck(moments, inputs, atol=1e-6)
    assert gradgradcheck(moments, inputs, atol=1e-5, rtol=1e-3)


def test_validation_of_the_reference_stays_out_of_the_way():
    reference = dist.Exponential(torch.tensor(1.0), validate_args=True)
    prior = ExponentiallyTilted(torch.zeros_like, reference, -1.0, 2.0, validate_args=False)
    assert prior.log_prob(torch.tensor(-0.5)) == -torch.inf
    assert prior.log_prob(torch.tensor(0.0)).isfinite()
    assert reference._validate_args
