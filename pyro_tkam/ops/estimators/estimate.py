"""The result type of every evidence estimator, its checks of inputs, and its standard error."""

import math
from typing import NamedTuple

from torch import Tensor

from pyro_tkam.ops.estimators.autocorrelation import mean_standard_error
from pyro_tkam.ops.estimators.checks import check_tensor

__all__ = ["Estimate", "check_ladder", "log_mean_exp", "relative", "with_standard_error"]


class Estimate(NamedTuple):
    """
    An estimate of a log evidence and its Monte Carlo standard error, each of shape ``batch``, in
    nats.
    """

    value: Tensor
    standard_error: Tensor


def with_standard_error(value: Tensor, influence: Tensor) -> Estimate:
    """Standard error of an estimate whose error is, to first order, ``Σ_k mean_i influence[k, i]``.

    The influences are summed over temperatures before their autocorrelation is computed, so rungs
    that exchange states do not count as independent.

    :param value: the estimate, of shape ``batch``.
    :param influence: of shape ``(temperature, chain, draw, *batch)``.
    """
    return Estimate(value, mean_standard_error(influence.sum(0)))


def log_mean_exp(log_weights: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Logarithm of the mean of ``exp(log_weights)`` over some dimensions."""
    count = math.prod(log_weights.shape[dim] for dim in dims)
    return log_weights.logsumexp(dims) - math.log(count)


def relative(log_weights: Tensor, log_mean: Tensor) -> Tensor:
    """Influence of each draw on a log mean: ``w_i / mean(w) - 1``."""
    return (log_weights - log_mean).expm1()


def check_ladder(log_lik: Tensor, betas: Tensor) -> Tensor:
    """
    Refuse anything but a tempered run; return the inverse temperatures in a shape that broadcasts
    against it.

    :param log_lik: log likelihoods of shape ``(temperature, chain, draw, *batch)``, in nats; at
        ``betas[0] = 0`` some may be ``-inf``.
    :param betas: inverse temperatures of shape ``(temperature,)`` or ``(temperature, *batch)``.
    :return: ``betas`` of shape ``(temperature, 1, 1, *batch)``, or with ones for ``batch``.
    :raises TypeError: if either is not a tensor of floating-point numbers, or the two have
        different dtypes.
    :raises ValueError: if shapes disagree, the ladder does not rise strictly from 0 to 1, or values
        are impossible.
    """
    check_tensor("log_lik", log_lik)
    check_tensor("betas", betas)
    if betas.dtype != log_lik.dtype:
        raise TypeError(
            f"log_lik and betas must have the same floating-point dtype, got {log_lik.dtype} "
            f"and {betas.dtype}"
        )
    if log_lik.dim() < 3 or log_lik.numel() == 0:
        shape = tuple(log_lik.shape)
        raise ValueError(
            f"log_lik must have a non-empty shape (temperature, chain, draw, *batch), got {shape}"
        )
    num_temperatures = log_lik.shape[0]
    batch = log_lik.shape[3:]
    if num_temperatures < 2:
        raise ValueError("log_lik must have at least 2 temperatures, got 1")
    if betas.shape not in ((num_temperatures,), (num_temperatures, *batch)):
        raise ValueError(
            f"betas must have shape ({num_temperatures},) or (…, *batch), got {tuple(betas.shape)}"
        )
    if not ((betas[0] == 0).all() and (betas[-1] == 1).all() and (betas.diff(dim=0) > 0).all()):
        raise ValueError(f"betas must increase strictly from 0 to 1, got {betas.tolist()}")
    if not log_lik[1:].isfinite().all():
        raise ValueError(
            "log_lik must be finite wherever betas > 0, got a NaN or an infinity there"
        )
    largest = log_lik[0].amax((0, 1))  # NaN propagates
    if not largest.isfinite().all():
        raise ValueError(
            "log_lik at betas = 0 must be below +inf, not NaN and not -inf everywhere, got a "
            f"maximum of {largest[~largest.isfinite()][0].item()}"
        )
    return betas.reshape(num_temperatures, 1, 1, *(betas.shape[1:] or (1,) * len(batch)))
