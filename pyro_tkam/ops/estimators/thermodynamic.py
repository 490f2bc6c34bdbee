"""Thermodynamic integration."""

import torch
from torch import Tensor

from pyro_tkam._checks import flag
from pyro_tkam.ops.estimators.estimate import Estimate, check_ladder, with_standard_error

__all__ = ["thermodynamic"]


def thermodynamic(log_lik: Tensor, betas: Tensor, *, variance_correction: bool = False) -> Estimate:
    """Log evidence with the trapezoidal rule along the path of power posteriors.

    ``Σ_k Δt_k (E_k + E_{k+1}) / 2``, where ``E_k`` is the mean log likelihood at rung ``k`` (Raj
    2025, arXiv:2506.14167, Eq. 31). The rule misses ``½ Σ_k [KL(p_k‖p_{k+1}) - KL(p_{k+1}‖p_k)]``
    (Eq. 32), which the standard error does not include. ``- Σ_k Δt_k² (V_{k+1} - V_k) / 12``, with
    the variances ``V_k``, removes most of it (Friel, Hurn and Wyse 2014, arXiv:1209.3198, Eq. 11).

    :param log_lik: log likelihoods of shape ``(temperature, chain, draw, *batch)``, in nats.
    :param betas: inverse temperatures, strictly rising from 0 to 1, of shape ``(temperature,)`` or
        ``(temperature, *batch)``.
    :param variance_correction: whether to add the second-order term.
    :return: value and standard error of shape ``batch``, in nats.
    :raises TypeError, ValueError: if these are not a tempered run, or a log likelihood is infinite.

    >>> log_lik = torch.tensor([-3.0, -1.0]).reshape(2, 1, 1).expand(2, 4, 100)
    >>> thermodynamic(log_lik, torch.tensor([0.0, 1.0])).value
    tensor(-2.)
    """
    flag("variance_correction", variance_correction)
    betas = check_ladder(log_lik, betas)
    if not log_lik[0].isfinite().all():
        raise ValueError(
            "log_lik must be finite at betas = 0 too, because -inf has no mean, got -inf; use "
            "steppingstone instead"
        )
    steps = betas.diff(dim=0)
    none = torch.zeros_like(steps[:1])
    mean_weight = (torch.cat([steps, none]) + torch.cat([none, steps])) / 2
    mean = log_lik.mean((1, 2), keepdim=True)
    value = mean_weight * mean
    influence = mean_weight * (log_lik - mean)
    if variance_correction:
        square = steps.square() / 12
        variance_weight = torch.cat([square, none]) - torch.cat([none, square])
        variance = log_lik.var((1, 2), keepdim=True)
        value = value + variance_weight * variance
        influence = influence + variance_weight * ((log_lik - mean).square() - variance)
    return with_standard_error(value.sum((0, 1, 2)), influence)
