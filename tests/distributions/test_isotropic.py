import pyro.distributions as dist
import pytest
import torch

from pyro_tkam.distributions import IsotropicNormal
from tests.laws.memory import LargestTensor


@pytest.mark.parametrize("event", [(3,), (2, 4)])
def test_equals_independent_normals(event: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    loc, scale = (
        torch.randn(5, 1, *event, dtype=torch.float64),
        torch.tensor(0.7, dtype=torch.float64),
    )
    ours = IsotropicNormal(loc, scale, len(event)).expand((5, 4))
    theirs = dist.Normal(loc, scale).expand((5, 4, *event)).to_event(len(event))
    value = torch.randn(4, *event, dtype=torch.float64)
    torch.testing.assert_close(ours.log_prob(value), theirs.log_prob(value))
    torch.testing.assert_close(ours.mean, theirs.mean)
    torch.testing.assert_close(ours.variance, theirs.variance)
    assert ours.rsample((2,)).shape == theirs.rsample((2,)).shape


def test_scores_all_pairs_without_a_tensor_of_pairs_times_elements() -> None:
    loc, value = torch.randn(50, 1, 1000), torch.randn(40, 1000)
    with LargestTensor() as largest:
        IsotropicNormal(loc, torch.tensor(1.0)).expand((50, 40)).log_prob(value)
    assert largest.numel <= 50 * 1000
    with LargestTensor() as largest:
        dist.Normal(loc, 1.0).expand((50, 40, 1000)).to_event(1).log_prob(value)
    assert largest.numel == 50 * 40 * 1000  # the measure does see such a tensor


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 0.001), (100.0, 1.0), (1000.0, 1.0)])
def test_pairs_of_data_far_apart_are_as_accurate_as_single_ones(shift: float, scale: float) -> None:
    torch.manual_seed(0)
    value = torch.rand(20, 784) + torch.where(torch.arange(20) < 10, shift, -shift)[:, None]
    loc = value + scale * torch.randn(20, 784)  # each explains a datum
    pairs = IsotropicNormal(loc[:, None], torch.tensor(scale)).expand((20, 20)).log_prob(value)
    single = dist.Normal(loc, scale).to_event(1).log_prob(value).double()
    exact = dist.Normal(loc.double(), scale).to_event(1).log_prob(value.double())
    assert (pairs.diagonal() - exact).abs().max() <= 2 * (single - exact).abs().max()


def test_draws_have_its_moments() -> None:
    torch.manual_seed(0)
    draws = IsotropicNormal(torch.tensor([1.0, -2.0]), torch.tensor(0.5)).sample((100_000,))
    # five standard errors: false alarms below 3e-6
    assert (draws.mean(0) - torch.tensor([1.0, -2.0])).abs().max() < 5 * 0.5 / 100_000**0.5
    assert (draws.std(0) - 0.5).abs().max() < 5 * 0.5 / 200_000**0.5


@pytest.mark.parametrize("event_dim", [0, 3])
def test_refuses_an_event_that_loc_does_not_have(event_dim: int) -> None:
    with pytest.raises(ValueError, match="event_dim must be from 1 to 2, the rank of loc, got "):
        IsotropicNormal(torch.zeros(2, 3), torch.tensor(1.0), event_dim)


def test_refuses_a_scale_that_is_not_positive() -> None:
    with pytest.raises(ValueError, match="scale"):
        IsotropicNormal(torch.zeros(2, 3), torch.tensor(-1.0), validate_args=True)
