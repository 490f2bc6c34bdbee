"""Mixtures that importance draws improve."""

import math

import torch
from torch.distributions import MultivariateNormal

from pyro_tkam.ops.estimators import importance, pareto_smooth
from pyro_tkam.ops.estimators.mixture import Mixture
from pyro_tkam.ops.estimators.population import defended, refine, with_component

DOUBLE = torch.float64
MEAN = torch.tensor([1.0, -2.0], dtype=DOUBLE)
COVARIANCE = torch.tensor([[1.0, 0.6], [0.6, 0.5]], dtype=DOUBLE)


def single(batch: int, scale: float) -> Mixture:
    eye = scale * torch.eye(2, dtype=DOUBLE)
    return Mixture(
        torch.zeros(batch, 1, dtype=DOUBLE),
        torch.zeros(batch, 1, 2, dtype=DOUBLE),
        eye.expand(batch, 1, 2, 2),
        torch.full((batch,), math.inf, dtype=DOUBLE),
    )


def test_refining_finds_the_moments_of_each_batch_element():
    """2000 draws a round: 4.5 standard errors of a mean are 0.1."""
    torch.manual_seed(0)
    laws = [MultivariateNormal(sign * MEAN, COVARIANCE) for sign in (1, -1)]

    def log_density(x):
        return torch.stack([law.log_prob(x[:, i]) for i, law in enumerate(laws)], 1) + 3.0

    start = single(2, 3.0)
    fitted = refine(start, log_density, 2000, 5)
    main = fitted.log_weights.argmax(-1)
    row = torch.arange(2)
    torch.testing.assert_close(fitted.loc[row, main], torch.stack([MEAN, -MEAN]), atol=0.15, rtol=0)
    points = fitted.sample(5000)
    estimate = importance((log_density(points) - fitted.log_prob(points)).mT)
    assert ((estimate.value - 3.0).abs() < 4.5 * estimate.standard_error).all()
    rough = start.sample(5000)
    assert (
        estimate.standard_error
        < importance((log_density(rough) - start.log_prob(rough)).mT).standard_error / 3
    ).all()


def test_weights_of_modes_are_learned_though_they_start_wrong():
    """
    The share of a mode that starts with nearly none ends at 0.7 within the floor of 5% and noise.
    """
    torch.manual_seed(0)
    modes = [
        MultivariateNormal(sign * 6 * torch.ones(2, dtype=DOUBLE), torch.eye(2, dtype=DOUBLE))
        for sign in (1, -1)
    ]

    def log_density(x):
        return torch.logaddexp(
            math.log(0.3) + modes[0].log_prob(x), math.log(0.7) + modes[1].log_prob(x)
        )

    start = Mixture(
        torch.tensor([[0.97, 0.03]], dtype=DOUBLE).log(),
        torch.tensor([[[6.0, 6.0], [-6.0, -6.0]]], dtype=DOUBLE),
        torch.eye(2, dtype=DOUBLE).expand(1, 2, 2, 2),
        torch.full((1,), math.inf, dtype=DOUBLE),
    )
    fitted = refine(start, log_density, 2000, 3)
    assert abs(fitted.log_weights[0, 1].exp() - 0.7) < 0.05


def test_a_component_is_added_only_where_wanted():
    torch.manual_seed(0)
    draws = 5 + torch.randn(400, 2, 2, dtype=DOUBLE)
    grown = with_component(single(2, 1.0), draws, torch.tensor([True, False]))
    torch.testing.assert_close(
        grown.log_weights.exp(),
        torch.tensor([[0.5, 0.5], [1.0, 0.0]], dtype=DOUBLE),
        atol=1e-12,
        rtol=0,
    )
    torch.testing.assert_close(grown.loc[0, 1], draws[:, 0].mean(0))
    assert grown.df.tolist() == [5.0, math.inf]
    far = torch.full((1, 2, 2), 5.0, dtype=DOUBLE)
    assert grown.log_prob(far)[0, 0] > -5 > grown.log_prob(far)[0, 1]


def test_draws_that_never_moved_can_be_added():
    grown = with_component(
        single(1, 1.0), torch.zeros(10, 1, 2, dtype=DOUBLE), torch.tensor([True])
    )
    assert grown.scale_tril.isfinite().all()


def test_a_part_as_wide_as_the_prior_bounds_weights():
    """A proposal of a third of the width: weights of its draws alone have no finite variance."""
    torch.manual_seed(0)
    one = torch.ones(1, 1, 1)
    narrow = Mixture(torch.zeros(1, 1), 0 * one, one[None] / 3, torch.tensor([math.inf]))
    wide = defended(narrow, 0.05)
    points = wide.sample(20_000)
    log_prior = -(points.square().sum(-1) + math.log(2 * math.pi)) / 2
    log_weights = (log_prior - wide.log_prob(points)).squeeze(-1)
    assert log_weights.max() <= -math.log(0.05) + 1e-5
    estimate = importance(log_weights)
    assert 0.01 < estimate.standard_error < 0.05
    assert abs(estimate.value) < 4 * estimate.standard_error
    alone = narrow.sample(20_000)
    log_alone = (-alone.square().sum(-1) - math.log(2 * math.pi)) / 2 - narrow.log_prob(alone)
    assert pareto_smooth(log_alone.mT).khat > 0.7 > pareto_smooth(log_weights[None]).khat
