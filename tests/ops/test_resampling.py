import pytest
import torch

from pyro_tkam.ops import resampling
from pyro_tkam.ops.resampling import RESAMPLERS, effective_sample_size
from tests.laws.resampling import (
    counts_are_unbiased,
    counts_stay_within,
    impossible_indices_are_never_chosen,
)

INF = float("inf")
WEIGHTS = {
    "uneven": [0.31, 0.02, 0.17, 0.05, 0.45],
    "even": [0.25, 0.25, 0.25, 0.25],
    "zeros": [0.0, 0.6, 0.0, 0.0, 0.4, 0.0],
    "certain": [0.0, 1.0],
    "single": [1.0],
}
NUMS = [1, 5, 12]

resamplers = pytest.mark.parametrize("resampler", RESAMPLERS.values(), ids=RESAMPLERS.keys())
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


@resamplers
@dtypes
@pytest.mark.parametrize("num", NUMS)
@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS.keys())
def test_counts(resampler, weights, num, dtype):
    # 120 calls at 1e-6 each: the false-alarm rate of the whole test is below 2e-4.
    torch.manual_seed(0)
    log_weights = torch.tensor(weights, dtype=dtype).log() + 3.0
    counts_are_unbiased(resampler, log_weights, num)
    impossible_indices_are_never_chosen(resampler, log_weights, num)


@dtypes
@pytest.mark.parametrize(("name", "slack"), [("systematic", 0), ("stratified", 1)])
def test_counts_of_stratified_designs_are_bounded(name, slack, dtype):
    torch.manual_seed(1)
    for weights in WEIGHTS.values():
        counts_stay_within(RESAMPLERS[name], torch.tensor(weights, dtype=dtype).log(), 12, slack)


def test_multinomial_counts_break_those_bounds():
    with pytest.raises(AssertionError):
        counts_stay_within(resampling.multinomial, torch.tensor(WEIGHTS["uneven"]).log(), 12, 1)


def residual_from_softmax_of_residuals(log_weights, num):
    """A published mistake: the residuals are sent through a softmax instead of being normalized."""
    expected = num * log_weights.softmax(-1)
    copies = expected.floor()
    slots = (
        torch.arange(num, dtype=log_weights.dtype).expand(*log_weights.shape[:-1], num).contiguous()
    )
    copied = torch.searchsorted(copies.cumsum(-1), slots, right=True).clamp(
        max=log_weights.shape[-1] - 1
    )
    drawn = resampling.multinomial(expected - copies, num)
    return torch.where(slots < copies.sum(-1, keepdim=True), copied, drawn)


def test_law_catches_a_biased_resampler():
    torch.manual_seed(2)
    with pytest.raises(AssertionError):
        counts_are_unbiased(
            residual_from_softmax_of_residuals, torch.tensor(WEIGHTS["uneven"]).log(), 5
        )


@resamplers
def test_batches_are_resampled_independently(resampler):
    torch.manual_seed(3)
    log_weights = torch.full((2, 3, 7), -INF)
    chosen = torch.arange(6).reshape(2, 3, 1)
    log_weights.scatter_(-1, chosen, 0.0)
    assert torch.equal(resampler(log_weights, 4), chosen.expand(2, 3, 4))
    assert resampler(torch.randn(2, 3, 7)).shape == (2, 3, 7)


@resamplers
def test_randomness_comes_from_the_given_or_the_global_generator(resampler):
    log_weights = torch.linspace(-1.0, 1.0, 50)
    torch.manual_seed(4)
    first = resampler(log_weights)
    torch.manual_seed(4)
    assert torch.equal(first, resampler(log_weights))
    given = [resampler(log_weights, generator=torch.Generator().manual_seed(4)) for _ in range(2)]
    assert torch.equal(*given)


@resamplers
def test_many_float32_particles(resampler):
    torch.manual_seed(5)
    log_weights = torch.cat([torch.randn(200_000), torch.full((3,), -INF)])
    indices = resampler(log_weights)
    assert indices.shape == (200_003,)
    assert indices.max() < 200_000


@resamplers
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_equal_weights_in_half_precision_are_all_drawn_alike(resampler, dtype):
    """
    4,000 mean counts of 1 within 1, which are 8 standard errors of the widest: false alarms below
    1e-8.
    """
    torch.manual_seed(6)
    indices = resampler(torch.zeros(64, 4000, dtype=dtype))
    mean_counts = torch.bincount(indices.flatten(), minlength=4000) / 64
    assert ((mean_counts - 1).abs() < 1).all()


@pytest.mark.parametrize("resampler", [*RESAMPLERS.values(), effective_sample_size])
def test_weights_that_are_no_distribution_are_refused(resampler):
    for wrong in (-INF, INF, float("nan")):
        log_weights = torch.zeros(2, 3)
        log_weights[1] = torch.tensor([-INF, wrong, -INF])
        with pytest.raises(ValueError, match=f"log_weights.*{wrong}"):
            resampler(log_weights)
    for empty in (torch.zeros(0), torch.zeros(2, 0), torch.zeros(0, 2), torch.tensor(0.0)):
        with pytest.raises(ValueError, match="log_weights must have shape"):
            resampler(empty)
    with pytest.raises(TypeError, match="floating-point"):
        resampler(torch.ones(3, dtype=torch.long))


@resamplers
@pytest.mark.parametrize("num", [0, -2])
def test_number_of_draws_must_be_positive(resampler, num):
    with pytest.raises(ValueError, match="num must be an integer of at least 1, got"):
        resampler(torch.zeros(3), num)


def test_effective_sample_size():
    weights = torch.tensor([[1.0, 3.0, 0.0], [1.0, 1.0, 1.0]], dtype=torch.float64)
    exact = weights.sum(-1).square() / weights.square().sum(-1)
    torch.testing.assert_close(effective_sample_size(weights.log() - 800.0), exact)
