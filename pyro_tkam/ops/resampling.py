"""Resamplers: turn log weights into indices of equally weighted particles, without bias.

Weights lie along the last dimension and need not be normalized; any batch dimensions go in front.
With ``w = softmax(log_weights)`` and ``M = num`` draws, every resampler has ``E[count_i] = M w_i``
exactly (Raj 2025, arXiv:2506.14167, Eq. 71-74; Douc and Cappé 2005, arXiv:cs/0507025). They differ
only in the variance of the counts. Weights in half precision are converted to single precision,
because bfloat16 can't count beyond 256 particles and float16 not beyond 2,048.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from pyro_tkam._checks import instance, whole_number
from pyro_tkam.ops._arguments import dense

__all__ = [
    "RESAMPLERS",
    "effective_sample_size",
    "multinomial",
    "residual",
    "stratified",
    "systematic",
]


def effective_sample_size(log_weights: Tensor) -> Tensor:
    """
    Effective number of equally weighted particles, ``1 / Σ_i w_i²`` with ``w =
    softmax(log_weights)``.

    :param log_weights: unnormalized log weights of shape ``(*batch, N)``, in nats.
    :return: a tensor of shape ``batch``, between 1 and ``N``.
    :raises TypeError, ValueError: if the weights are not a distribution (see :func:`multinomial`).

    >>> effective_sample_size(torch.tensor([0.0, 0.0, float("-inf")]))
    tensor(2.)
    """
    _check_log_weights(log_weights)
    log_weights = log_weights.log_softmax(-1)
    return (-(2 * log_weights).logsumexp(-1)).exp()


def multinomial(
    log_weights: Tensor, num: int | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """Independent draws: index ``i`` with probability ``w_i``.

    :param log_weights: unnormalized log weights of shape ``(*batch, N)``, in nats; ``-inf`` is
        never drawn.
    :param num: number of draws ``M``; by default ``N``.
    :param generator: source of randomness; by default torch's global generator.
    :return: indices of shape ``(*batch, M)``.
    :raises TypeError: if the weights are not a tensor of floating-point numbers, or ``generator``
        is no generator.
    :raises ValueError: if there are no weights, one is NaN or ``+inf``, all of a batch element are
        ``-inf``, or ``num < 1``.

    >>> multinomial(torch.tensor([float("-inf"), 0.0]), num=3)
    tensor([1, 1, 1])
    """
    weights, num = _checked(log_weights, num, generator)
    return _invert_cdf(weights, _uniform(weights, num, generator))


def residual(
    log_weights: Tensor, num: int | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """
    Take ``⌊M w_i⌋`` copies of each index, and draw the rest from the normalized residuals as
    :func:`multinomial` does.

    The copies come first in the result. The residual distribution is
    ``(M w_i - ⌊M w_i⌋) / (M - Σ_j ⌊M w_j⌋)``.

    Arguments, result and errors are those of :func:`multinomial`.

    >>> residual(torch.tensor([0.5, 0.25, 0.25]).log(), num=4)
    tensor([0, 0, 1, 2])
    """
    weights, num = _checked(log_weights, num, generator)
    expected = num * weights
    copies = expected.floor()
    last_copy = copies.cumsum(-1)
    slots = (
        torch.arange(num, dtype=weights.dtype, device=weights.device)
        .expand(*weights.shape[:-1], num)
        .contiguous()
    )
    copied = torch.searchsorted(last_copy, slots, right=True)
    drawn = _invert_cdf(expected - copies, _uniform(weights, num, generator))
    return torch.where(slots < last_copy[..., -1:], copied, drawn)


def stratified(
    log_weights: Tensor, num: int | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """
    Invert the distribution function at one uniform point in each of ``M`` equal strata, ``(m + U_m)
    / M``.

    Counts stay between ``⌊M w_i⌋ - 1`` and ``⌈M w_i⌉ + 1``; indices are sorted.

    Arguments, result and errors are those of :func:`multinomial`.

    >>> stratified(torch.zeros(4))
    tensor([0, 1, 2, 3])
    """
    weights, num = _checked(log_weights, num, generator)
    return _invert_cdf(weights, _strata(_uniform(weights, num, generator), num))


def systematic(
    log_weights: Tensor, num: int | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """
    Invert the distribution function at ``M`` equally spaced points with one common offset, ``(m +
    U) / M``.

    Counts are ``⌊M w_i⌋`` or ``⌈M w_i⌉``; indices are sorted.

    Arguments, result and errors are those of :func:`multinomial`.

    >>> systematic(torch.zeros(4))
    tensor([0, 1, 2, 3])
    """
    weights, num = _checked(log_weights, num, generator)
    return _invert_cdf(weights, _strata(_uniform(weights, 1, generator), num))


#: The resamplers by name, for options that take one as a string.
RESAMPLERS: dict[str, Callable[..., Tensor]] = {
    "multinomial": multinomial,
    "residual": residual,
    "stratified": stratified,
    "systematic": systematic,
}


def _checked(
    log_weights: Tensor, num: int | None, generator: torch.Generator | None
) -> tuple[Tensor, int]:
    _check_log_weights(log_weights)
    num = log_weights.shape[-1] if num is None else whole_number("num", num, 1)
    instance("generator", generator, (torch.Generator, type(None)), "a torch.Generator or None")
    return log_weights.softmax(-1, dtype=torch.promote_types(log_weights.dtype, torch.float32)), num


def _check_log_weights(log_weights: Tensor) -> None:
    dense("log_weights", log_weights)
    if not log_weights.is_floating_point():
        raise TypeError(f"log_weights must be floating-point numbers, got {log_weights.dtype}")
    if log_weights.dim() == 0 or log_weights.numel() == 0:
        raise ValueError(
            f"log_weights must have shape (*batch, N) with N >= 1, got {tuple(log_weights.shape)}"
        )
    largest = log_weights.amax(-1)  # NaN propagates
    if not largest.isfinite().all():
        wrong = largest[~largest.isfinite()][0].item()
        raise ValueError(
            f"log_weights must be below +inf, not NaN and not all -inf, got a maximum of {wrong}"
        )


def _uniform(weights: Tensor, num: int, generator: torch.Generator | None) -> Tensor:
    shape = (*weights.shape[:-1], num)
    return torch.rand(shape, dtype=weights.dtype, device=weights.device, generator=generator)


def _strata(uniform: Tensor, num: int) -> Tensor:
    return (torch.arange(num, dtype=uniform.dtype, device=uniform.device) + uniform) / num


def _invert_cdf(weights: Tensor, levels: Tensor) -> Tensor:
    """
    First index whose cumulated weight exceeds ``level`` times the total, so that no weight of zero
    is chosen.
    """
    cumulated = weights.cumsum(-1)
    total = cumulated[..., -1:]
    below_total = torch.nextafter(total, torch.zeros_like(total))
    points = torch.minimum(levels * total, below_total)
    # A total of zero (no residual left) has no such index: any will do, since none is used.
    return torch.searchsorted(cumulated, points, right=True).clamp(max=weights.shape[-1] - 1)
