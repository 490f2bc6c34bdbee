"""Evidence from importance weights, including those of annealed importance sampling."""

from torch import Tensor

from pyro_tkam.ops.estimators.checks import check_log_weights
from pyro_tkam.ops.estimators.estimate import Estimate, check_ladder, log_mean_exp, relative

__all__ = ["annealed_log_weights", "importance"]


def importance(log_weights: Tensor) -> Estimate:
    """Log evidence from weights of independent draws, ``log mean_i w_i``.

    The standard error comes from the delta method, ``sd(w) / (mean(w) √N)``. It means little if the
    Pareto k̂ of :func:`~pyro_tkam.ops.estimators.pareto_smooth` is above 0.7.

    :param log_weights: ``log p(x, z_i) - log q(z_i)`` of shape ``(*batch, N)``, in nats; ``-inf``
        is a weight of 0.
    :return: value and standard error of shape ``batch``, in nats.
    :raises TypeError: if the weights are not a tensor.
    :raises ValueError: if ``N < 2``, a weight is NaN or ``+inf``, or all of a batch element are
        ``-inf``.

    >>> import torch
    >>> importance(torch.full((10,), -2.0))
    Estimate(value=tensor(-2.), standard_error=tensor(0.))
    """
    check_log_weights(log_weights, 2)
    value = log_mean_exp(log_weights, (-1,))
    spread = relative(log_weights, value.unsqueeze(-1)).std(-1)
    return Estimate(value, spread / log_weights.shape[-1] ** 0.5)


def annealed_log_weights(log_lik: Tensor, betas: Tensor) -> Tensor:
    """Log weights of annealed importance sampling, ``Σ_k Δt_k L(z^(k))``.

    ``z^(0)`` is drawn from the prior, and ``z^(k)`` from ``z^(k-1)`` by a transition that leaves
    the power posterior at ``betas[k]`` invariant. Every chain and draw is one particle's path along
    dimension 0, independent of all others (Neal 2001, Eq. 8-11). The log likelihood at ``betas =
    1`` has no weight.

    :param log_lik: log likelihoods of shape ``(temperature, chain, draw, *batch)``, in nats.
    :param betas: inverse temperatures, strictly rising from 0 to 1, of shape ``(temperature,)`` or
        ``(temperature, *batch)``.
    :return: log weights of shape ``(*batch, chain * draw)``, for :func:`importance` or a resampler.
    :raises TypeError, ValueError: if these are not a tempered run.

    >>> import torch
    >>> log_lik = torch.full((3, 4, 100), -2.0)
    >>> annealed_log_weights(log_lik, torch.tensor([0.0, 0.5, 1.0])).shape
    torch.Size([400])
    """
    steps = check_ladder(log_lik, betas).diff(dim=0)
    return (steps * log_lik[:-1]).sum(0).flatten(0, 1).movedim(0, -1)
