"""Bridge sampling between a density and a mixture fitted to its draws."""

from collections.abc import Callable

import torch
from torch import Tensor

from pyro_tkam._checks import whole_number
from pyro_tkam.ops.estimators.acceptance_ratio import LogRatio, log_ratio
from pyro_tkam.ops.estimators.autocorrelation import effective_sample_size, mean_standard_error
from pyro_tkam.ops.estimators.checks import check_chains, evaluated
from pyro_tkam.ops.estimators.estimate import Estimate
from pyro_tkam.ops.estimators.mixture import Mixture, fit_mixture

__all__ = ["bridge"]

_MIN_DRAWS = 8  # in a chain: four in each half, to see their autocorrelation


def bridge(
    draws: Tensor, log_density: Callable[[Tensor], Tensor], *, num_proposals: int | None = None
) -> Estimate:
    """
    Log normalizer of a density from draws of it, with the optimal bridge to a mixture fitted to
    those draws.

    With ``l = density / proposal`` and shares ``s`` of effective draws, ``r`` is the fixed point of
    ``r = mean_proposal[l / (s_1 l + s_2 r)] / mean_draws[1 / (s_1 l + s_2 r)]`` (Meng and Wong
    1996, Eq. 4.1). The proposal, a mixture of Gaussians or Student-t distributions, is fitted to
    one half of every chain, and the equation is solved with the other half. Then the halves are
    exchanged, and the two logs are averaged. A mode that no draw has found is not counted and does
    not show in the standard error.

    :param draws: posterior draws of shape ``(chain, draw, *batch, dim)`` in unconstrained
        coordinates.
    :param log_density: maps points of shape ``(num, *batch, dim)`` to the unnormalized log density
        in these coordinates, of shape ``(num, *batch)``, in nats; ``-inf`` is a density of 0.
    :param num_proposals: proposal draws for each half; by default as many as the half has draws.
    :return: value and standard error of shape ``batch``, in nats.
    :raises TypeError: if the draws are not a tensor of floating-point numbers.
    :raises ValueError: if there are too few draws, they do not vary in every direction, or the log
        density is NaN, ``+inf``, ``-inf`` at a draw, or of the wrong shape.

    >>> _ = torch.manual_seed(0)
    >>> draws = torch.randn(4, 250, 2, dtype=torch.float64)
    >>> estimate = bridge(draws, lambda z: -z.square().sum(-1) / 2)  # exactly log(2π) = 1.8379
    >>> round(estimate.value.item(), 2)
    1.84
    """
    _check(draws, num_proposals)
    draws = draws.detach()[:, draws.shape[1] % 2 :]
    num_chains, num_draws, *batch, dim = draws.shape
    half = num_draws // 2
    points = draws.reshape(num_chains, num_draws, -1, dim)

    def evaluate(points: Tensor) -> Tensor:
        return evaluated(log_density, points.reshape(-1, *batch, dim)).reshape(points.shape[:-1])

    log_joint = evaluate(points)
    if not log_joint.isfinite().all():
        raise ValueError("log_density must be finite at the draws, got -inf")
    halves = [slice(half), slice(half, None)]
    proposals = [
        fit_mixture(points[:, other].flatten(0, 1), effective_sample_size(log_joint[:, other]))
        for other in reversed(halves)
    ]
    gaps = [
        log_joint - q.log_prob(points.flatten(0, 1)).reshape(log_joint.shape) for q in proposals
    ]
    num_proposals = num_chains * half if num_proposals is None else num_proposals
    bridges = [
        _bridge(proposal, gap[:, held], evaluate, num_proposals)
        for proposal, gap, held in zip(proposals, gaps, halves, strict=True)
    ]
    value = (bridges[0].value + bridges[1].value) / 2
    of_draws = torch.cat([bridge.influence_of_upper for bridge in bridges], 1)
    of_proposals = torch.cat([bridge.influence_of_lower for bridge in bridges])
    held_gaps = torch.cat([gap[:, held] for gap, held in zip(gaps, halves, strict=True)], 1)
    shared = _shared_error(gaps[0] - gaps[1], held_gaps)
    variance = mean_standard_error(of_draws).square() * (1 + shared) + of_proposals.var(0) / len(
        of_proposals
    )
    return Estimate(value.reshape(batch), variance.sqrt().reshape(batch))


def _bridge(
    proposal: Mixture, log_upper: Tensor, evaluate: Callable[[Tensor], Tensor], num_proposals: int
) -> LogRatio:
    """
    Bridge from a proposal to draws whose log ratios ``log density - log proposal`` are ``(chain,
    draw, data)``.
    """
    proposed = proposal.sample(num_proposals)
    log_lower = evaluate(proposed) - proposal.log_prob(proposed)
    if not log_lower.amax(0).isfinite().all():
        raise ValueError("log_density must be finite at some draw of the proposal, got -inf at all")
    log_size_ratio = (effective_sample_size(log_upper) / num_proposals).log()
    ratio = log_ratio(log_lower, log_upper.flatten(0, 1), log_size_ratio)
    return ratio._replace(
        influence_of_upper=ratio.influence_of_upper.unflatten(0, log_upper.shape[:2])
    )


def _shared_error(difference: Tensor, held_gaps: Tensor) -> Tensor:
    """Correlation of the two halves' errors, of shape ``(data,)``.

    Where a proposal misses the density by the noise of its fit alone, that noise times the other
    half's is an error that is the same for both halves, and averaging them does not reduce it. The
    noise is what the two proposals differ by; misfits that they share give independent errors.
    """
    total = held_gaps.var((0, 1))
    noise = difference.var((0, 1)) / 2
    return torch.where(total > 0, noise / torch.where(total > 0, total, 1.0), 0.0).clamp(max=1)


def _check(draws: Tensor, num_proposals: int | None) -> None:
    check_chains(draws)
    num_chains = draws.shape[0]
    num_draws = draws.shape[1]
    dim = draws.shape[-1]
    if num_draws < _MIN_DRAWS or num_chains * (num_draws // 2) < 2 * (dim + 1):
        raise ValueError(
            f"draws must hold at least {_MIN_DRAWS} draws per chain and {4 * (dim + 1)} in "
            f"total for dimension {dim}, got {num_chains} chains of {num_draws}"
        )
    if num_proposals is not None:
        whole_number("num_proposals", num_proposals, 2)
