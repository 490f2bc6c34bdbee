"""Bridge and importance sampling from proposals fitted to the other half of the chains."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pyro_tkam._checks import function, whole_number
from pyro_tkam.ops.estimators.acceptance_ratio import log_ratio
from pyro_tkam.ops.estimators.autocorrelation import effective_sample_size, mean_standard_error
from pyro_tkam.ops.estimators.checks import check_chains, check_tensor, evaluated
from pyro_tkam.ops.estimators.estimate import Estimate
from pyro_tkam.ops.estimators.normal import fit_normal, independent_halves

__all__ = ["CrossBridge", "CrossProposal", "cross_bridge"]

_MIN_DRAWS = 8  # in a chain, where others show their error
_MIN_DRAWS_ALONE = 16  # in a chain that alone shows its error
_FEWEST_PROPOSALS = 4096


class CrossProposal(Protocol):
    """A distribution for each batch element, fitted to draws."""

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density at points ``(N, batch, dim)``: shape ``(N, batch)``."""

    def sample(self, num: int) -> Tensor:
        """Draws of shape ``(num, batch, dim)``."""


@dataclass(frozen=True)
class CrossBridge:
    """A log normalizer from bridge sampling, with diagnostics.

    :param estimate: mean of the two halves; its standard error is the mean of theirs, because their
        errors are correlated.
    :param halves: of shape ``(2, *batch)``: each half's draws against the other half's proposal.
    :param effective_terms: effective number of terms in each half's sums over draws and over
        proposals, ``(2, 2, *batch)``: fewer than 100 are too few.
    :param effective_draws: of each half, the harmonic mean over coordinates, ``(2, *batch)``: a
        normal in ``d`` dimensions needs ``d² / 8``.
    :param log_weights: importance weights ``log density - log proposal`` of the proposals' draws,
        both halves together, ``(*batch, N)``. They do not depend on how the draws are distributed
        among modes.
    :param uncovered: share of each half's draws whose weight exceeds that of all draws of the
        proposal, ``(2, *batch)``: it does not reach them.
    """

    estimate: Estimate
    halves: Estimate
    effective_terms: Tensor
    effective_draws: Tensor
    log_weights: Tensor
    uncovered: Tensor


def cross_bridge(
    draws: Tensor,
    log_density: Callable[[Tensor], Tensor],
    *,
    fit: Callable[[Tensor], CrossProposal] = fit_normal,
    log_joint: Tensor | None = None,
    num_proposals: int | None = None,
) -> CrossBridge:
    """
    Log normalizer of a density from draws of it, with the optimal bridge from a fitted proposal.

    A proposal is fitted to one half of the chains, and the equation of Meng and Wong (1996, Eq.
    4.1) is solved with the other half. Then the halves are exchanged, and the two logs are
    averaged. A single chain is cut in two, with a gap. Each half's standard error comes from the
    delta method: the draws' term uses the multi-chain effective sample size of that term. A mode
    that no draw has found is not counted and does not show in the standard error.

    :param draws: posterior draws of shape ``(chain, draw, *batch, dim)`` in unconstrained
        coordinates.
    :param log_density: maps points of shape ``(num, *batch, dim)`` to the unnormalized log density
        in these coordinates, of shape ``(num, *batch)``, in nats; ``-inf`` is a density of 0.
    :param fit: makes a proposal from draws ``(chain, draw, batch, dim)``.
    :param log_joint: log density at the draws, if known, ``(chain, draw, *batch)``.
    :param num_proposals: proposal draws for each half; by default as many as the half has draws,
        and at least 4096.
    :raises TypeError: if the draws are not a tensor of floating-point numbers.
    :raises ValueError: if there are too few draws, they do not vary, or the log density is NaN,
        ``+inf``, ``-inf`` at a draw, or of the wrong shape.

    >>> _ = torch.manual_seed(0)
    >>> draws = torch.randn(4, 250, 2, dtype=torch.float64)
    >>> bridge = cross_bridge(draws, lambda z: -z.square().sum(-1) / 2)  # exactly log(2π) = 1.8379
    >>> round(bridge.estimate.value.item(), 2)
    1.84
    """
    _check(draws, num_proposals)
    function("fit", fit, "draws")
    function("log_density", log_density, "points")
    if log_joint is not None:
        _check_log_joint(log_joint, draws)
    batch = draws.shape[2:-1]
    dim = draws.shape[-1]
    points = draws.detach().reshape(*draws.shape[:2], -1, dim)

    def evaluate(points: Tensor) -> Tensor:
        given = points.reshape(-1, *batch, dim).to(draws.dtype)
        return evaluated(log_density, given).reshape(points.shape[:-1])

    at_draws = evaluate(points) if log_joint is None else log_joint.reshape(points.shape[:-1])
    if not at_draws.isfinite().all():
        raise ValueError("log_density must be finite at the draws, got a NaN or an infinity")
    halves = independent_halves(points.double())
    joints = independent_halves(at_draws.double())
    proposals = [_fitted(fit, half) for half in halves]
    num = num_proposals or max(_FEWEST_PROPOSALS, halves[0].shape[0] * halves[0].shape[1])
    parts = [
        _half(proposals[1 - k], halves[k], joints[k], evaluate, num, draws.dtype) for k in (0, 1)
    ]
    value, error, terms = (torch.stack(each) for each in zip(*[p[:3] for p in parts], strict=True))
    effective = torch.stack([_harmonic_mean(effective_sample_size(half)) for half in halves])
    return CrossBridge(
        Estimate(value.mean(0).reshape(batch), error.mean(0).reshape(batch)),
        Estimate(value.reshape(2, *batch), error.reshape(2, *batch)),
        terms.reshape(2, 2, *batch),
        effective.reshape(2, *batch),
        torch.cat([part[3] for part in parts]).mT.reshape(*batch, 2 * num),
        torch.stack([part[4] for part in parts]).reshape(2, *batch),
    )


def _fitted(fit: Callable[[Tensor], CrossProposal], half: Tensor) -> CrossProposal:
    proposal = fit(half)
    if not all(callable(getattr(proposal, name, None)) for name in ("log_prob", "sample")):
        raise TypeError(
            "fit must return a distribution with log_prob and sample, got "
            f"{type(proposal).__name__}"
        )
    return proposal


def _half(
    proposal: CrossProposal,
    held: Tensor,
    log_joint: Tensor,
    evaluate: Callable[[Tensor], Tensor],
    num_proposals: int,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Bridge from a proposal to the draws it was not fitted to.

    :return: value, standard error, effective numbers of the two sums, log weights, and the share of
        the draws that the proposal does not reach.
    """
    upper = log_joint - proposal.log_prob(held.flatten(0, 1)).reshape(log_joint.shape)
    # What the density sees is rounded, and so is what the proposal scores.
    proposed = proposal.sample(num_proposals).to(dtype).double()
    lower = evaluate(proposed).double() - proposal.log_prob(proposed)
    if not (lower.amax(0) > -torch.inf).all():
        raise ValueError("log_density is -inf at every draw of the proposal")
    size_ratio = (effective_sample_size(upper) / num_proposals).log()
    ratio = log_ratio(lower, upper.flatten(0, 1), size_ratio)
    of_draws = ratio.influence_of_upper.unflatten(0, upper.shape[:2])
    of_proposals = ratio.influence_of_lower
    error = torch.hypot(mean_standard_error(of_draws), of_proposals.std(0) / num_proposals**0.5)
    terms = torch.stack(
        [
            effective_sample_size(of_draws) / (1 + of_draws.var((0, 1))),
            num_proposals / (1 + of_proposals.var(0)),
        ]
    )
    uncovered = (upper > lower.amax(0)).double().mean((0, 1))
    return ratio.value, error, terms, lower, uncovered


def _harmonic_mean(sizes: Tensor) -> Tensor:
    return sizes.shape[-1] / (1 / sizes).sum(-1)


def _fewest_draws(num_chains: int) -> int:
    """Draws in a chain that show the autocorrelation within each quarter of all draws."""
    if num_chains == 1:
        return 3 * _MIN_DRAWS_ALONE  # two halves, a gap between them, and two parts of each
    if num_chains < 4:
        return 2 * _MIN_DRAWS_ALONE
    return _MIN_DRAWS_ALONE if num_chains < 8 else _MIN_DRAWS


def _check(draws: Tensor, num_proposals: int | None) -> None:
    check_chains(draws)
    num_chains, num_draws = draws.shape[:2]
    if num_draws < (needed := _fewest_draws(num_chains)):
        raise ValueError(
            f"draws must hold at least {needed} draws per chain for {num_chains} chains, got "
            f"{num_draws}"
        )
    if num_proposals is not None:
        whole_number("num_proposals", num_proposals, 100)


def _check_log_joint(log_joint: Tensor, draws: Tensor) -> None:
    check_tensor("log_joint", log_joint)
    if log_joint.shape != draws.shape[:-1]:
        raise ValueError(
            f"log_joint must have shape {tuple(draws.shape[:-1])}, got {tuple(log_joint.shape)}"
        )
    if not log_joint.isfinite().all():
        raise ValueError("log_joint must be finite at the draws, got a NaN or an infinity")
