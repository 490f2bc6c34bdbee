import math

import pyro.distributions as dist
import pytest
import torch

from pyro_tkam.ops.estimators.mixture import Mixture, fit_mixture, maximize

DOUBLE = torch.float64


def example(df):
    torch.manual_seed(0)
    scale_tril = torch.eye(2, dtype=DOUBLE) + torch.rand(2, 3, 2, 2, dtype=DOUBLE).tril()
    logits = torch.randn(2, 3, dtype=DOUBLE).log_softmax(-1)
    return Mixture(
        logits,
        2 * torch.randn(2, 3, 2, dtype=DOUBLE),
        scale_tril,
        torch.full((2,), df, dtype=DOUBLE),
    )


def reference(mixture):
    if mixture.df[0].isinf():
        components = dist.MultivariateNormal(mixture.loc, scale_tril=mixture.scale_tril)
    else:
        components = dist.MultivariateStudentT(mixture.df[:, None], mixture.loc, mixture.scale_tril)
    return dist.MixtureSameFamily(dist.Categorical(logits=mixture.log_weights), components)


@pytest.mark.parametrize("df", [math.inf, 5.0])
def test_log_prob(df):
    mixture = example(df)
    points = 3 * torch.randn(7, 2, 2, dtype=DOUBLE)
    torch.testing.assert_close(mixture.log_prob(points), reference(mixture).log_prob(points))


@pytest.mark.parametrize("df", [math.inf, 5.0])
def test_samples_follow_the_density(df):
    # E[q(x) / p(x)] = 1 under p, for any density q inside p's support: 4.5 standard errors, twice.
    mixture = example(df)
    draws = mixture.sample(40_000)
    assert draws.shape == (40_000, 2, 2)
    for loc in (0.0, 1.5):
        other = dist.Normal(torch.tensor(loc, dtype=DOUBLE), 0.5).expand([2]).to_event(1)
        ratio = (other.log_prob(draws) - mixture.log_prob(draws)).exp()
        error = ratio.std(0) / len(draws) ** 0.5
        assert ((ratio.mean(0) - 1).abs() < 4.5 * error).all()
        assert (error < 0.2).all()


def test_each_batch_element_gets_its_own_kind_of_mixture():
    torch.manual_seed(0)
    num = 1000
    gaussian = torch.randn(num, 2, dtype=DOUBLE)
    modes = torch.tensor([-300.0, 300.0], dtype=DOUBLE)[torch.randint(2, (num, 1))] + torch.randn(
        num, 2, dtype=DOUBLE
    )
    heavy = dist.MultivariateStudentT(
        4.0, torch.zeros(2, dtype=DOUBLE), torch.eye(2, dtype=DOUBLE)
    ).sample((num,))
    draws = torch.stack([gaussian, modes, heavy], 1)
    mixture = fit_mixture(draws, torch.full((3,), float(num), dtype=DOUBLE))
    sizes = mixture.log_weights.isfinite().sum(-1)
    assert sizes.tolist() == [1, 2, 1]
    assert mixture.df[0].isinf()
    assert mixture.df[1].isinf()
    assert mixture.df[2] == 5.0
    centers = mixture.loc[1, mixture.log_weights[1].isfinite()]
    torch.testing.assert_close(
        centers[:, 0].sort().values, torch.tensor([-300.0, 300.0], dtype=DOUBLE), atol=0.3, rtol=0
    )
    torch.testing.assert_close(mixture.log_weights.exp().sum(-1), torch.ones(3, dtype=DOUBLE))


def test_maximum_likelihood_of_one_gaussian_is_its_moments():
    torch.manual_seed(0)
    draws = torch.randn(500, 1, 3, dtype=DOUBLE) @ torch.randn(3, 3, dtype=DOUBLE) + 10.0
    mixture = fit_mixture(draws, torch.tensor([500.0], dtype=DOUBLE))
    covariance = mixture.scale_tril[0, 0] @ mixture.scale_tril[0, 0].T
    torch.testing.assert_close(mixture.loc[0, 0], draws.mean((0, 1)))
    torch.testing.assert_close(covariance, draws[:, 0].T.cov(correction=0), rtol=1e-8, atol=1e-8)


def test_draws_whose_covariance_rounds_to_a_singular_one():
    # In single precision the ridge is lost beside variances of a hundred; the other element must
    # not notice.
    torch.manual_seed(0)
    on_a_line = 10 * torch.randn(1, 200, 1) * torch.randn(8)
    draws = torch.cat([on_a_line, torch.randn(1, 200, 8)])
    one, nothing = torch.ones(2, 1, 200), torch.zeros(2, 1, 200)
    fitted = maximize(draws, one, nothing, torch.full((2,), math.inf))
    alone = maximize(draws[1:], one[1:], nothing[1:], torch.full((1,), math.inf))
    torch.testing.assert_close(fitted.scale_tril[1], alone.scale_tril[0])
    torch.testing.assert_close(
        fitted.scale_tril[0, 0].diag(), draws[0].std(0, correction=0), rtol=1e-4, atol=0
    )
    assert fitted.log_prob(draws.movedim(0, 1)).isfinite().all()


def test_each_set_of_draws_is_fitted_as_if_it_were_alone():
    """Few draws take one component, whose Student-t fits end after different numbers of steps."""
    torch.manual_seed(0)
    draws = dist.StudentT(torch.tensor([1.0, 2.0, 5.0, 1e4], dtype=DOUBLE)).sample((15,))
    size = torch.full((4,), 15.0, dtype=DOUBLE)
    together = fit_mixture(draws.unsqueeze(-1), size)
    for number, alone in enumerate(draws.mT):
        own = fit_mixture(alone.reshape(-1, 1, 1), size[:1])
        for whole, field in zip(together, own, strict=True):
            torch.testing.assert_close(whole[number : number + 1], field)
