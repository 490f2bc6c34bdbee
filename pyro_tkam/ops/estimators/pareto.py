"""Pareto-smoothed importance sampling."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_tkam.ops.estimators.checks import check_log_weights

__all__ = ["ParetoSmoothed", "pareto_smooth"]

_MIN_TAIL = 5


class ParetoSmoothed(NamedTuple):
    """
    Smoothed log weights, on the scale of the raw ones, and the tail index k̂ of each batch element.
    """

    log_weights: Tensor
    khat: Tensor


def pareto_smooth(log_weights: Tensor) -> ParetoSmoothed:
    """
    Replace the largest weights with the expected order statistics of a generalized Pareto
    distribution fitted to them.

    The tail is the largest ``⌈min(N / 5, 3 √N)⌉`` weights above the next one; smoothed weights are
    truncated at the largest raw one (Vehtari et al. 2024, arXiv:1507.02646, Alg. 1). The shape
    ``k̂`` of the distribution says whether an estimate from the weights can be trusted: yes below
    0.7.

    :param log_weights: log importance weights of shape ``(*batch, N)``, in nats; ``-inf`` is a
        weight of 0.
    :return: smoothed log weights of the same shape, and ``k̂`` of shape ``batch``. It is ``-inf``
        if the largest weights are all equal. It is ``+inf`` if fewer than 5 others stand out, which
        is too few to fit, or if a quarter of those that do is so small relative to the largest that
        the fit overflows.
    :raises TypeError: if the weights are not a tensor.
    :raises ValueError: if ``N < 25``, a weight is NaN or ``+inf``, or all of a batch element are
        ``-inf``.

    >>> _ = torch.manual_seed(0)
    >>> bool(pareto_smooth(0.3 * torch.randn(1000)).khat < 0.7)
    True
    """
    check_log_weights(log_weights, 5 * _MIN_TAIL)
    num = log_weights.shape[-1]
    ordered, order = log_weights.sort(-1)
    largest = ordered[..., -1:]
    tail_size = math.ceil(min(num / 5, 3 * num**0.5))
    cutoff = (ordered[..., -tail_size - 1, None] - largest).exp()
    tail = (ordered[..., -tail_size:] - largest).exp() - cutoff
    khat, scale = _fit_generalized_pareto(tail)
    fitted = khat.isfinite().unsqueeze(-1) & (tail > 0)
    smoothed = (_order_statistics(tail, khat, scale) + cutoff).log().clamp(max=0) + largest
    ordered = torch.cat(
        [ordered[..., :-tail_size], torch.where(fitted, smoothed, ordered[..., -tail_size:])], -1
    )
    return ParetoSmoothed(torch.empty_like(ordered).scatter(-1, order, ordered), khat)


def _fit_generalized_pareto(tail: Tensor) -> tuple[Tensor, Tensor]:
    """Shape and scale by Zhang and Stephens (2009), with a weak prior that pulls the shape to 1/2.

    :param tail: sorted values of shape ``(*batch, M)``; zeros, at the front, are no part of the
        tail.
    """
    inside = tail > 0
    count = inside.sum(-1)
    quartile_index = tail.shape[-1] - count + (count / 4 + 0.5).long() - 1
    quartile = tail.gather(-1, quartile_index.clamp(0, tail.shape[-1] - 1).unsqueeze(-1))
    fits = count >= _MIN_TAIL
    # any numbers, where there is nothing to fit
    safe_tail = torch.where(fits.unsqueeze(-1), tail, 1.0)
    safe_quartile = torch.where(fits.unsqueeze(-1), quartile, 1.0)

    num_rates = 30 + int(tail.shape[-1] ** 0.5)
    index = torch.arange(num_rates, dtype=tail.dtype, device=tail.device) + 0.5
    rates = (1 - (num_rates / index).sqrt()) / (3 * safe_quartile) + 1 / safe_tail[..., -1:]
    shapes = _mean_log(rates, safe_tail, count)
    log_profile = count.unsqueeze(-1) * ((-rates / shapes).log() - shapes - 1)
    rate = (log_profile.softmax(-1) * rates).sum(-1)
    shape = _mean_log(rate.unsqueeze(-1), safe_tail, count).squeeze(-1)
    scale = -shape / rate
    shape = (count * shape + 10 * 0.5) / (count + 10)
    no_fit = torch.where(count > 0, float("inf"), -float("inf")).to(tail.dtype)
    return torch.where(fits, shape.nan_to_num(nan=float("inf"), posinf=float("inf")), no_fit), scale


def _mean_log(rates: Tensor, tail: Tensor, count: Tensor) -> Tensor:
    """
    ``mean_i log(1 - rate x_i)`` over the tail, for each rate; zeros in the tail add nothing to the
    sum.
    """
    return (-rates.unsqueeze(-1) * tail.unsqueeze(-2)).log1p().sum(-1) / count.clamp(
        min=1
    ).unsqueeze(-1)


def _order_statistics(tail: Tensor, khat: Tensor, scale: Tensor) -> Tensor:
    """
    Quantiles of the fitted law at ``(i - ½) / M``, ``i`` counting the weights inside the tail.
    """
    inside = tail > 0
    levels = (inside.cumsum(-1) - 0.5) / inside.sum(-1, keepdim=True).clamp(min=1)
    log_survival = torch.where(inside, -levels, 0.0).log1p()
    shape = khat.unsqueeze(-1)
    scale = scale.unsqueeze(-1)
    flat = shape.abs() < torch.finfo(tail.dtype).eps
    shape = torch.where(flat | ~shape.isfinite(), 1.0, shape)
    return scale * torch.where(flat, -log_survival, (-shape * log_survival).expm1() / shape)
