import pytest
import torch

from pyro_tkam import _arviz
from pyro_tkam.ops.estimators import effective_sample_size, mean_standard_error
from tests.laws.estimators import autoregression


# Where chains are far too short, correlations stay positive to the end, of which ArviZ leaves out
# the last two pairs.
@pytest.mark.parametrize(
    ("correlation", "rtol"), [(-0.6, 1e-10), (0.0, 1e-10), (0.6, 1e-10), (0.97, 0.1)]
)
@pytest.mark.parametrize("shape", [(1, 200), (4, 101, 3), (8, 250, 2, 5)])
def test_effective_sample_size_is_that_of_arviz(correlation, rtol, shape):
    torch.manual_seed(0)
    draws = autoregression(torch.randn(shape, dtype=torch.float64), 1, correlation)
    size = effective_sample_size(draws)
    assert size.shape == shape[2:]
    torch.testing.assert_close(
        size, torch.from_numpy(_arviz.ess(draws, method="mean")), rtol=rtol, atol=0
    )


def test_chains_that_disagree_count_for_little():
    torch.manual_seed(0)
    draws = torch.randn(4, 500) + torch.arange(4.0).unsqueeze(-1)
    assert effective_sample_size(draws) < 10


def test_draws_that_never_vary():
    draws = torch.full((4, 50, 2), 3.0)
    assert effective_sample_size(draws).tolist() == [200.0, 200.0]
    assert mean_standard_error(draws).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("correlation", "shape"), [(0.0, (4, 100)), (0.7, (4, 400)), (0.7, (64, 8))]
)
def test_standard_error_of_a_mean(correlation, shape):
    # 2,000 replications: the ratio of variances is known to 5% and allowed 15%, a false-alarm rate
    # below 1e-2 of 1%.
    torch.manual_seed(0)
    draws = autoregression(torch.randn(*shape, 2000, dtype=torch.float64), 1, correlation)
    claimed = mean_standard_error(draws).square().mean()
    actual = draws.mean((0, 1)).square().mean()
    assert abs(claimed / actual - 1) < 0.15


def test_too_few_draws():
    with pytest.raises(ValueError, match="at least 4 draws"):
        effective_sample_size(torch.randn(4, 3))
    with pytest.raises(
        ValueError, match=r"draws must hold at least 16 draws per chain.*, got 15 in one"
    ):
        mean_standard_error(torch.randn(1, 15))


@pytest.mark.parametrize("function", [effective_sample_size, mean_standard_error])
def test_lists_are_refused(function):
    with pytest.raises(
        TypeError, match="draws must be one tensor of chains of equal length, got list"
    ):
        function([torch.randn(20), torch.randn(19)])


def test_float32_stays_float32():
    draws = torch.randn(4, 100, 2)
    assert effective_sample_size(draws).dtype == torch.float32
    assert mean_standard_error(draws).dtype == torch.float32
