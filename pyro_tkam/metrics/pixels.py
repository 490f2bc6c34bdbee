"""Errors and spreads in the units of the data."""

import torch
from torch import Tensor

from pyro_tkam._checks import instance, whole_number
from pyro_tkam.metrics.checks import of_one_kind, rows_of
from pyro_tkam.models import TKAM


@torch.no_grad()
def reconstruction_error(model: TKAM, data: Tensor, *, num_draws: int = 1000) -> float:
    r"""
    Return the mean squared error of the posterior mean of the generator's output, per element.

    :math:`\frac{1}{BD} \sum_b |x_b - E[\tilde x | x_b]|^2`. The posterior expectation is computed
        by self-normalized importance sampling from the prior, with draws shared by the data (Raj
        2025, arXiv:2506.14167, Eq. 26-28). With few effective draws, the result is the error of the
        nearest of ``num_draws`` samples, an upper bound.

    :param model: the model.
    :param data: shape ``(num, *event)``.
    :param num_draws: draws from the prior.

    >>> import pyro
    >>> pyro.set_rng_seed(0)
    >>> 0 < reconstruction_error(TKAM.kart((8, 8), latent_dim=2), torch.rand(3, 8, 8),
    ...     num_draws=30) < 1
    True
    """
    instance("model", model, TKAM, "a TKAM")
    whole_number("num_draws", num_draws, 1)
    rows_of("data", data)
    with torch.random.fork_rng(devices=[]):
        of_one_kind("data", data, model.generate(1), "what the model generates")
    locations = model.generate(num_draws)
    weights = model.likelihood(locations.unsqueeze(1)).log_prob(data).softmax(0)
    means = (weights.T @ locations.flatten(1)).unflatten(-1, data.shape[1:])
    return float((data - means).square().mean())


def unpaired_error(samples: Tensor, data: Tensor) -> float:
    r"""
    Return the mean squared difference between unrelated samples and data.

    :math:`\frac1D (|\bar x - \bar{\tilde x}|^2 + \mathrm{tr} Σ_x + \mathrm{tr} Σ_{\tilde x})`, over
        all pairs. The "test MSE" in the training logs of Raj 2025 (arXiv:2506.14167) is of this
        kind. It does not measure quality: for perfect samples it is twice the data's variance,
        while a model that always draws the mean image gets the variance once, which is the minimum.

    :param samples: shape ``(num, *event)``.
    :param data: shape ``(num, *event)``.

    >>> unpaired_error(torch.zeros(3, 2), torch.ones(5, 2))
    1.0
    """
    _check(samples, data, 1)
    offset = samples.mean(0) - data.mean(0)
    return float(
        (offset.square() + samples.var(0, correction=0) + data.var(0, correction=0)).mean()
    )


def variance_ratio(samples: Tensor, data: Tensor) -> float:
    """
    Return the total variance of samples divided by that of data: about 1 if they vary equally, 0
    for a single mean image.

    :param samples: shape ``(num, *event)``, at least two.
    :param data: shape ``(num, *event)``, at least two, not all equal.
    :raises ValueError: for data that don't vary.

    >>> x = torch.randn(10, 3)
    >>> round(variance_ratio(2 * x, x), 4)
    4.0
    """
    _check(samples, data, 2)
    spread = data.var(0).sum()
    if not spread > 0:
        raise ValueError(f"data must vary, got variance {float(spread)}")
    return float(samples.var(0).sum() / spread)


def _check(samples: Tensor, data: Tensor, least: int) -> None:
    rows_of("samples", samples, least)
    rows_of("data", data, least)
    of_one_kind("samples", samples, data, "data")
