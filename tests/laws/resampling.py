"""Laws of resamplers, each over one resampler and one vector of log weights."""

from collections.abc import Callable

import torch
from torch import Tensor

Resampler = Callable[[Tensor, int], Tensor]

NUM_REPLICATIONS = 20_000
FALSE_ALARM_RATE = 1e-6  # of one call of `counts_are_unbiased`, by Bonferroni over the indices


def counts_of(resampler: Resampler, log_weights: Tensor, num: int) -> Tensor:
    """Counts of shape (replication, index), replications in the batch dimension."""
    indices = resampler(log_weights.expand(NUM_REPLICATIONS, -1), num)
    assert indices.shape == (NUM_REPLICATIONS, num)
    counts = torch.zeros(NUM_REPLICATIONS, log_weights.shape[-1], dtype=torch.float64)
    return counts.scatter_add(-1, indices, torch.ones_like(indices, dtype=torch.float64))


def counts_are_unbiased(resampler: Resampler, log_weights: Tensor, num: int) -> None:
    """
    ``E[count_i] = M w_i``: a z-test on the mean count of each index, exact where the count never
    varies.
    """
    counts = counts_of(resampler, log_weights, num)
    error = counts.mean(0) - num * log_weights.double().softmax(-1)
    standard_error = counts.std(0) / NUM_REPLICATIONS**0.5
    quantile = 1 - FALSE_ALARM_RATE / (2 * log_weights.shape[-1])
    threshold = torch.distributions.Normal(0.0, 1.0).icdf(
        torch.tensor(quantile, dtype=torch.float64)
    )
    rounding = num * torch.finfo(log_weights.dtype).eps
    assert (error.abs() <= threshold * standard_error + rounding).all(), (error, standard_error)


def impossible_indices_are_never_chosen(
    resampler: Resampler, log_weights: Tensor, num: int
) -> None:
    counts = counts_of(resampler, log_weights, num)
    assert (counts[:, log_weights == float("-inf")] == 0).all()


def counts_stay_within(resampler: Resampler, log_weights: Tensor, num: int, slack: int) -> None:
    """``⌊M w_i⌋ - slack <= count_i <= ⌈M w_i⌉ + slack``."""
    counts = counts_of(resampler, log_weights, num)
    expected = num * log_weights.double().softmax(-1)
    rounding = 4 * num * torch.finfo(log_weights.dtype).eps
    assert (counts >= (expected - rounding).floor() - slack).all()
    assert (counts <= (expected + rounding).ceil() + slack).all()
