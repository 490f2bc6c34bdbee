from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from scipy import stats

from pyro_tkam.distributions.normal_quantile import normal_quantile, normal_score

QUANTILES = [
    (dist.Normal(1.0, 2.0), stats.norm(1, 2)),
    (dist.LogNormal(0.5, 0.7), stats.lognorm(0.7, scale=1.6487212707)),
    (dist.Uniform(-1.0, 3.0), stats.uniform(-1, 4)),
    (dist.Exponential(2.0), stats.expon(scale=0.5)),
    (dist.HalfNormal(1.5), stats.halfnorm(scale=1.5)),
    (dist.HalfCauchy(2.0), stats.halfcauchy(scale=2)),
    (dist.Cauchy(1.0, 2.0), stats.cauchy(1, 2)),
    (dist.Laplace(1.0, 2.0), stats.laplace(1, 2)),
    (dist.Gumbel(0.0, 1.0), stats.gumbel_r()),
    (dist.Weibull(2.0, 1.5), stats.weibull_min(1.5, scale=2)),
    (dist.Pareto(1.0, 3.0), stats.pareto(3)),
]


@pytest.mark.parametrize(("fn", "law"), QUANTILES, ids=lambda each: type(each).__name__)
def test_a_standard_normal_becomes_the_distribution(fn, law) -> None:
    """The map is F^{-1}(Φ(ε)) or its mirror image, as either has the distribution's law."""
    normal = torch.linspace(-4, 4, 81).double()
    value = normal_quantile(fn)(normal).double()
    probability = torch.from_numpy(law.cdf(value.numpy()))
    wanted = torch.special.ndtr(normal)
    rising = probability if probability[-1] > 0.5 else 1 - probability
    torch.testing.assert_close(rising, wanted, rtol=1e-4, atol=2e-7)


@pytest.mark.parametrize(
    "fn", [each for each, _ in QUANTILES[:7]], ids=lambda each: type(each).__name__
)
def test_both_tails_stay_finite_in_single_precision(fn) -> None:
    normal = torch.tensor([-6.0, 6.0], requires_grad=True)
    value = normal_quantile(fn)(normal)
    (gradient,) = torch.autograd.grad(value.sum(), normal)
    assert torch.isfinite(value).all()
    assert torch.isfinite(gradient).all()
    assert value[0] < value[1]


@pytest.mark.parametrize(
    "fn",
    [
        dist.Gamma(2.0, 1.0),
        dist.Beta(1.0, 2.0),
        dist.Dirichlet(torch.ones(3)),
        dist.NegativeBinomial(3.0, torch.tensor(0.5)),
        dist.StudentT(3.0),
        dist.InverseGamma(3.0, 2.0),
        dist.RelaxedBernoulli(torch.tensor(0.5), probs=torch.tensor(0.3)),
        dist.RelaxedOneHotCategorical(torch.tensor(0.5), torch.ones(3)),
    ],
    ids=lambda each: type(each).__name__,
)
def test_there_is_no_map_without_an_inverse_cdf(fn) -> None:
    assert normal_quantile(fn) is None


def test_multivariate_normals_have_one() -> None:
    fn = dist.MultivariateNormal(torch.ones(2), scale_tril=torch.tensor([[2.0, 0.0], [1.0, 0.5]]))
    torch.testing.assert_close(
        normal_quantile(fn)(torch.tensor([1.0, 2.0])), torch.tensor([3.0, 3.0])
    )


@pytest.mark.parametrize(
    "fn",
    [
        dist.Kumaraswamy(2.0, 3.0),
        dist.LogNormal(0.5, 0.7),
        dist.Gumbel(0.0, 1.0),
        dist.HalfNormal(1.5),
        dist.TransformedDistribution(
            dist.Normal(1.0, 0.5), [dist.transforms.AffineTransform(1.0, -2.0)]
        ),
        dist.TransformedDistribution(
            dist.Uniform(0.0, 1.0), [dist.transforms.AffineTransform(0.0, -1.0)] * 2
        ),
    ],
    ids=lambda each: type(each).__name__,
)
def test_scores_go_back_through_decreasing_transforms_too(fn) -> None:
    normal = torch.linspace(-4, 4, 17)
    torch.testing.assert_close(
        normal_score(fn, normal_quantile(fn)(normal)), normal, atol=2e-3, rtol=0
    )
