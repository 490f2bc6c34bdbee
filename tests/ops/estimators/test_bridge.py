import math

import pytest
import torch
from torch.distributions import Gamma, Normal, StudentT

from pyro_tkam.ops.estimators import Estimate, bar, bridge
from pyro_tkam.ops.estimators.acceptance_ratio import log_ratio
from tests.laws.estimators import (
    ConjugateRegression,
    autoregression,
    errors_are_calibrated,
    value_is_right,
)

DOUBLE = torch.float64


def test_log_ratio_is_the_fixed_point_of_meng_and_wong():
    torch.manual_seed(0)
    log_lower, log_upper = (
        2 * torch.randn(300, 3, dtype=DOUBLE) - 5,
        2 * torch.randn(70, 3, dtype=DOUBLE) - 3,
    )
    log_lower[:100] = -math.inf
    share_upper = torch.tensor([0.1, 0.5, 0.9], dtype=DOUBLE)
    share_lower = 1 - share_upper
    ratio = torch.ones(3, dtype=DOUBLE)
    for _ in range(500):
        lower, upper = log_lower.exp(), log_upper.exp()
        above = (lower / (share_upper * lower + share_lower * ratio)).mean(0)
        ratio = above / (1 / (share_upper * upper + share_lower * ratio)).mean(0)
    found = log_ratio(log_lower, log_upper, (share_upper / share_lower).log())
    torch.testing.assert_close(found.value, ratio.log(), rtol=1e-9, atol=0)


@pytest.mark.parametrize("shift", [-1e4, 0.0, 300.0])
def test_log_ratio_of_sides_far_apart(shift):
    log_lower, log_upper = (
        torch.tensor([[-500.0], [-800.0]], dtype=DOUBLE),
        torch.tensor([[400.0], [900.0]], dtype=DOUBLE),
    )
    found = log_ratio(log_lower + shift, log_upper + shift).value
    # Both sides are exponentials there: -500 - c - log 2 = c - 400 - log 2.
    torch.testing.assert_close(
        found, torch.tensor([-50.0 + shift], dtype=DOUBLE), rtol=1e-9, atol=1e-9
    )


def regression(replications):
    model = ConjugateRegression.example(num_data=5, dim=2)
    return (
        model.draws(torch.ones(1, dtype=DOUBLE), (4, 100, replications))[0],
        model.log_joint,
        model.log_evidence,
    )


def autocorrelated(replications):
    normal = torch.randn(4, 150, replications, 2, dtype=DOUBLE)
    normal = autoregression(normal, 1, 0.5)
    return (
        normal,
        lambda z: Normal(0.0, 1.0).log_prob(z).sum(-1) + 7.0,
        torch.tensor(7.0, dtype=DOUBLE),
    )


def banana(replications):
    z = torch.randn(4, 100, replications, 2, dtype=DOUBLE)
    z[..., 1] = z[..., 0].square() + 0.3 * z[..., 1]

    def log_density(z):
        return -z[..., 0].square() / 2 - ((z[..., 1] - z[..., 0].square()) / 0.3).square() / 2

    return z, log_density, torch.tensor(math.log(2 * math.pi * 0.3), dtype=DOUBLE)


def two_modes(replications):
    modes = torch.tensor([-2.0, 2.0], dtype=DOUBLE)
    chosen = modes[torch.randint(2, (4, 100, replications, 1))]
    z = chosen + 0.1 * torch.randn(4, 100, replications, 2, dtype=DOUBLE)

    def log_density(z):
        return Normal(modes, 0.1).log_prob(z.unsqueeze(-1)).sum(-2).logsumexp(-1)

    return z, log_density, torch.tensor(math.log(2), dtype=DOUBLE)


def heavy_tails(replications):
    law = StudentT(torch.tensor(3.0, dtype=DOUBLE))
    return (
        law.sample((4, 100, replications, 2)),
        lambda z: law.log_prob(z).sum(-1),
        torch.tensor(0.0, dtype=DOUBLE),
    )


def skewed(replications):
    one = torch.tensor(1.0, dtype=DOUBLE)
    z = Gamma(one, one).sample((4, 100, replications, 2)).log()
    return z, lambda z: (z - z.exp()).sum(-1), torch.tensor(0.0, dtype=DOUBLE)


@pytest.mark.slow
def test_bridge_is_right_and_knows_its_error():
    # Pooled over problems: 360 replications, of which the 95% point has a standard error of 0.1
    # (false alarms: 0.5%).
    torch.manual_seed(0)
    pooled = []
    for problem in (regression, autocorrelated, banana, two_modes, heavy_tails, skewed):
        draws, log_density, exact = problem(60)
        value, error = bridge(draws, log_density)
        assert (value - exact).square().mean().sqrt() < 0.04, problem
        value_is_right(Estimate(value, error), exact)
        pooled.append(Estimate(value - exact, error))
    errors = Estimate(*(torch.cat(parts) for parts in zip(*pooled, strict=True)))
    errors_are_calibrated(errors, torch.tensor(0.0, dtype=DOUBLE))


def test_bridge_beats_bar_on_ten_dimensions():
    torch.manual_seed(0)
    model = ConjugateRegression.example(num_data=50, dim=10)
    betas = torch.linspace(0, 1, 12, dtype=DOUBLE) ** 5
    draws = model.draws(betas, (8, 100, 10))
    error_of_bar = bar(model.log_lik(draws), betas).value - model.log_evidence
    error_of_bridge = bridge(draws[-1], model.log_joint).value - model.log_evidence
    assert error_of_bar.square().mean().sqrt() < 0.2
    assert error_of_bridge.square().mean().sqrt() < 0.02


def test_batch_shapes_and_dtypes():
    torch.manual_seed(0)
    for batch in ((), (3,), (2, 3)):
        draws = torch.randn(2, 51, *batch, 2)
        value, error = bridge(draws, lambda z: -z.square().sum(-1) / 2, num_proposals=500)
        assert value.shape == error.shape == batch
        assert value.dtype == error.dtype == torch.float32
        assert (value - math.log(2 * math.pi)).abs().max() < 6 * error.max()


def test_halves_of_space_without_density():
    torch.manual_seed(0)
    draws = torch.randn(4, 200, 1, dtype=DOUBLE).abs()
    half_normal = lambda z: torch.where(z > 0, -z.square() / 2, -math.inf).sum(-1)  # noqa: E731
    value, error = bridge(draws, half_normal)
    assert abs(value - math.log(math.pi / 2) / 2) < 4 * error


def good(z):
    return -z.square().sum(-1) / 2


@pytest.mark.parametrize(
    ("draws", "log_density", "message"),
    [
        (torch.randn(4, 7, 2), good, "8 draws per chain"),
        (torch.randn(1, 20, 10), good, "44 in total for dimension 10"),
        (torch.randn(4, 20), good, "non-empty shape"),
        (torch.randn(4, 20, 0, 2), good, "non-empty shape"),
        (torch.full((4, 20, 2), math.nan), good, "draws must be finite"),
        (torch.ones(4, 20, 2), good, "vary in every direction"),
        (torch.randn(4, 20, 2), lambda z: z.sum(), "must return the shape"),
        (torch.randn(4, 20, 2), lambda z: torch.full(z.shape[:-1], math.nan), "not NaN"),
        (torch.randn(4, 20, 2), lambda z: torch.full(z.shape[:-1], math.inf), "below .inf"),
        (
            torch.randn(4, 20, 2),
            lambda z: torch.full(z.shape[:-1], -math.inf),
            "finite at the draws",
        ),
    ],
)
def test_bad_input(draws, log_density, message):
    with pytest.raises(ValueError, match=message):
        bridge(draws, log_density)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE], ids=str)
@pytest.mark.parametrize("seed", range(20))
def test_refuses_coordinates_that_depend_on_each_other(seed, dtype):
    draws = torch.randn(4, 20, 2, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    dependent = torch.cat([draws, 1 + draws @ draws.new_tensor([[2.0], [-0.3]])], -1)
    for given in (draws[..., :1].expand(4, 20, 2), dependent):
        with pytest.raises(ValueError, match="vary in every direction"):
            bridge(given, good)


def test_coordinates_may_be_nearly_dependent():
    draws = torch.randn(4, 200, 2, generator=torch.Generator().manual_seed(0))
    near = torch.stack([draws[..., 0], draws[..., 0] + 0.01 * draws[..., 1]], -1)
    torch.manual_seed(0)
    value, error = bridge(
        near, lambda z: good(torch.stack([z[..., 0], 100 * (z[..., 1] - z[..., 0])], -1))
    )
    assert abs(value - math.log(2 * math.pi / 100)) < 4 * error + 0.01


def test_other_bad_input():
    with pytest.raises(TypeError, match="floating-point"):
        bridge(torch.ones(4, 20, 2, dtype=torch.long), good)
    with pytest.raises(
        TypeError, match="draws must be one tensor of chains of equal length, got list"
    ):
        bridge([torch.randn(20, 2), torch.randn(19, 2)], good)
    with pytest.raises(ValueError, match="num_proposals must be an integer of at least 2"):
        bridge(torch.randn(4, 20, 2), good, num_proposals=1)
