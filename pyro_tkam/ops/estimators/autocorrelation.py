"""Effective sample sizes and standard errors of means of Markov chain draws."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_tkam.ops.estimators.checks import check_tensor

__all__ = ["effective_sample_size", "mean_standard_error"]

#: Chains shorter than this say too little about their autocorrelation.
MIN_DRAWS = 16

#: Numbers whose spectrum is taken at once: few enough for a processor's nearer cache.
ELEMENTS_AT_ONCE = 2**14


def effective_sample_size(draws: Tensor) -> Tensor:
    """
    Number of independent draws whose mean is as precise as that of these draws: ``N / τ``, with
    split chains.

    ``τ = 1 + 2 Σ_t ρ_t``, truncated by Geyer's initial monotone sequence. ``ρ_t`` is relative to
    the variance within and between chains, so chains that disagree give a small value (Vehtari et
    al. 2021, arXiv:1903.08008, Eq. 10-13).

    :param draws: a scalar quantity along Markov chains, of shape ``(chain, draw, *batch)``.
    :return: a tensor of shape ``batch``, in draws; ``N`` if the quantity never varies.
    :raises TypeError: if the draws are not a tensor.
    :raises ValueError: if there are fewer than 4 draws in a chain.

    >>> _ = torch.manual_seed(0)
    >>> effective_sample_size(torch.randn(4, 500)) > 1500
    tensor(True)
    """
    check_tensor("draws", draws)
    if draws.dim() < 2 or draws.shape[1] < 4 or draws.numel() == 0:
        raise ValueError(
            "draws must have shape (chain, draw, *batch) with at least 4 draws, got "
            f"{tuple(draws.shape)}"
        )
    _, time = _variance_and_time(draws)
    return draws.shape[0] * 2 * (draws.shape[1] // 2) / time  # an odd draw is in neither half


def mean_standard_error(draws: Tensor) -> Tensor:
    """
    Monte Carlo standard error of the mean of a quantity along Markov chains, ``sqrt(variance · τ /
    N)``.

    Chains with fewer than 16 draws are too short to estimate their autocorrelation. For them, the
    result comes from the spread of the chains' means, because chains are independent.

    :param draws: the quantity, of shape ``(chain, draw, *batch)``.
    :return: a tensor of shape ``batch``, in the unit of the draws.
    :raises TypeError: if the draws are not a tensor.
    :raises ValueError: if there is a single chain of fewer than 16 draws.

    >>> mean_standard_error(torch.tensor([[1.0], [2.0], [3.0], [4.0]]))  # four chains of one draw
    tensor(0.6455)
    """
    check_tensor("draws", draws)
    if draws.dim() < 2 or draws.numel() == 0:
        raise ValueError(
            f"draws must have a non-empty shape (chain, draw, *batch), got {tuple(draws.shape)}"
        )
    num_chains, num_draws = draws.shape[:2]
    if num_draws >= MIN_DRAWS:
        variance, time = _variance_and_time(draws)
        return (variance * time / (num_chains * num_draws)).sqrt()
    if num_chains < 2:
        raise ValueError(
            f"draws must hold at least {MIN_DRAWS} draws per chain or at least 2 chains for a "
            f"standard error, got {num_draws} in one chain"
        )
    return draws.mean(1).std(0) / num_chains**0.5


def _variance_and_time(draws: Tensor) -> tuple[Tensor, Tensor]:
    """
    Variance over all split chains and integrated autocorrelation time ``τ``, each of shape
    ``batch``.
    """
    half = draws.shape[1] // 2
    halves = draws[:, :half], draws[:, -half:]
    covariance = _mean_autocovariance(halves)
    within = covariance[0] * half / (half - 1)
    variance = covariance[0] + torch.cat([chains.mean(1) for chains in halves]).var(0)
    varies = variance > 0
    correlation = 1 - (within - covariance) / torch.where(varies, variance, 1.0)
    correlation[0] = 1.0
    time = _monotone_sequence_time(correlation)
    shortest = 1 / math.log10(2 * len(draws) * half)
    return variance, torch.where(varies, time.clamp(min=shortest), 1.0)


def _mean_autocovariance(groups: Sequence[Tensor]) -> Tensor:
    """
    Mean over chains of all groups of the autocovariance at every lag along dimension 1, by a
    zero-padded Fourier transform.

    A few chains at a time, as a spectrum takes several times the memory of its chains.
    """
    num, length = sum(map(len, groups)), groups[0].shape[1]
    at_once = max(1, ELEMENTS_AT_ONCE // groups[0][0].numel())
    parts = (part for chains in groups for part in chains.split(at_once))
    power = torch.stack([_power(part) for part in parts]).sum(0)
    return torch.fft.irfft(power, n=2 * length, dim=0)[:length] / (num * length)


def _power(chains: Tensor) -> Tensor:
    """Sum over chains of their power spectra along dimension 1, with as many zeros behind them."""
    spectrum = torch.fft.rfft(chains - chains.mean(1, keepdim=True), n=2 * chains.shape[1], dim=1)
    return (spectrum * spectrum.conj()).real.sum(0)


def _monotone_sequence_time(correlation: Tensor) -> Tensor:
    """
    Geyer (1992): sum pairs of neighboring lags while they stay positive, and never let them rise.
    """
    num_pairs = correlation.shape[0] // 2
    even = correlation[0 : 2 * num_pairs : 2]
    pairs = even + correlation[1 : 2 * num_pairs : 2]
    kept = (pairs > 0).to(pairs.dtype).cumprod(0)
    total = (kept * pairs.cummin(0).values).sum(0)
    # One more even lag, where it is positive, keeps the estimate right for alternating chains.
    first_dropped = kept.sum(0).long().clamp(max=num_pairs - 1)
    extra = even.gather(0, first_dropped.unsqueeze(0)).squeeze(0).clamp(min=0)
    return 2 * total - 1 + torch.where(kept[-1] > 0, torch.zeros_like(extra), extra)
