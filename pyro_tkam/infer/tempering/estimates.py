"""Evidence from the draws of a tempered run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import pyro
import torch
from pyro import poutine
from torch import Tensor

from pyro_tkam._checks import one_of
from pyro_tkam.infer.diagnosis import TemperedRun, tempering_verdict
from pyro_tkam.infer.model.density import ModelDensity
from pyro_tkam.infer.model.failures import ForRows, by_rows
from pyro_tkam.infer.results import Evidence, Finding, Verdict
from pyro_tkam.ops.estimators import Estimate, bar, bridge, sandwich, thermodynamic

AGREEMENT_SIGMAS = 5.0
AGREEMENT_LIMIT = 0.3
"""Nats by which two estimates may differ, whatever their errors say."""

CHUNK = 16_384
"""Positions times data that are evaluated at once."""


class TemperedDraws(Protocol):
    """What is asked of a tempered run; :class:`PowerPosteriors` has it."""

    @property
    def betas(self) -> Tensor:
        """Inverse temperatures, ``(temperature,)``."""

    @property
    def log_likelihood(self) -> Tensor:
        """``(temperature, chain, draw, *local)``."""

    @property
    def log_prior(self) -> Tensor:
        """Log prior of the coordinates, of the same shape."""

    @property
    def replicas(self) -> Tensor:
        """Which replica is at each rung, of the same shape."""

    @property
    def positions(self) -> Tensor:
        """Coordinates; the last are those at ``t = 1``, ``(chain, draw, *local, dim)``."""

    @property
    def swap_acceptance(self) -> Tensor:
        """Mean swap acceptance of neighbors."""

    @property
    def evaluations(self) -> int:
        """Evaluations that the run took."""

    @property
    def density(self) -> ModelDensity:
        """The log density that the positions belong to."""


def steppingstone_evidence(draws: TemperedDraws) -> Evidence:
    """
    Return the forward steppingstone estimate; the gap to the reverse one is a measure of the
    verdict.
    """
    both = sandwich(_log_likelihood(draws), draws.betas)
    verdict = run_verdict(draws) + Verdict(measures={"sandwich gap": both.gap.value.sum().item()})
    return Evidence.of(both.lower, "steppingstone", verdict, evaluations=draws.evaluations)


def thermodynamic_evidence(draws: TemperedDraws) -> Evidence:
    """Return the trapezoidal rule with its variance correction.

    What the rule still misses is no Monte Carlo error; the distance to Bennett's ratio of the same
    draws, which misses nothing, tells its size and is part of the standard error.
    """
    estimate = thermodynamic(_log_likelihood(draws), draws.betas, variance_correction=True)
    missed = estimate.value - along_ladder(draws).value
    counted = Estimate(estimate.value, torch.hypot(estimate.standard_error, missed))
    return Evidence.of(
        counted,
        "thermodynamic",
        run_verdict(draws) + Verdict(measures={"bar against it": missed.abs().max().item()}),
        evaluations=draws.evaluations,
        total_standard_error=math.hypot(
            *estimate.standard_error.flatten().tolist(), missed.sum().item()
        ),
    )


def bar_evidence(draws: TemperedDraws) -> Evidence:
    """Return Bennett's acceptance ratio along the ladder."""
    return Evidence.of(
        along_ladder(draws), "bar", run_verdict(draws), evaluations=draws.evaluations
    )


def bridge_evidence(draws: TemperedDraws) -> Evidence:
    """
    Return bridge sampling from the draws at ``t = 1``, checked against Bennett's ratio along the
    ladder.
    """
    positions = draws.positions[-1]
    estimate = bridge(positions, log_joint(draws.density))
    verdict = run_verdict(draws) + agreement(estimate, along_ladder(draws))
    evaluations = draws.evaluations + bridge_evaluations(draws)
    return Evidence.of(estimate, "bridge", verdict, evaluations=evaluations)


def bridge_evaluations(draws: TemperedDraws) -> int:
    """
    Return how many evaluations a bridge takes beside those of the run: its draws, and as many of
    the proposals.
    """
    num_chains, num_draws, *_ = draws.positions[-1].shape
    return num_chains * (num_draws + 2 * (num_draws // 2))


def guide_verdict(guided: Evidence, bridged: Evidence, draws: TemperedDraws) -> Verdict:
    """
    Compare an estimate from a guide, which may miss a mode without a trace, with two from a
    tempered run.
    """
    estimate = _estimate_of(guided)
    others = (along_ladder(draws), _estimate_of(bridged))
    verdicts = [agreement(estimate, other, limit=0.0) for other in others]
    error = AGREEMENT_SIGMAS * min(other.standard_error.max().item() for other in others)
    reach = f"a mode that the guide does not cover may be missing, worth less than {error:.2g} nats"
    return verdicts[1] + verdicts[0] + Verdict(notes=(reach,))


def _estimate_of(evidence: Evidence) -> Estimate:
    if evidence.per_datum is None or evidence.per_datum_standard_error is None:
        return Estimate(torch.tensor(evidence.value), torch.tensor(evidence.standard_error))
    return Estimate(evidence.per_datum, evidence.per_datum_standard_error)


def best_evidence(draws: TemperedDraws) -> Evidence:
    """Return the bridge where it agrees with Bennett's ratio, and that ratio elsewhere."""
    bridged = bridge_evidence(draws)
    if "missed mode" not in bridged.verdict.names:
        return bridged
    return replace(bar_evidence(draws), verdict=bridged.verdict, evaluations=bridged.evaluations)


METHODS: dict[str, Callable[[TemperedDraws], Evidence]] = {
    "auto": best_evidence,
    "steppingstone": steppingstone_evidence,
    "thermodynamic": thermodynamic_evidence,
    "bar": bar_evidence,
    "bridge": bridge_evidence,
}


def evidence_from(draws: TemperedDraws, method: str) -> Evidence:
    """Estimate the evidence from a tempered run.

    :param draws: the run.
    :param method: one of ``METHODS``.
    :raises ValueError: if the method is unknown, or the run is unfit.
    """
    one_of("method", method, METHODS)
    return METHODS[method](draws)


def recorded(draws: TemperedDraws) -> TemperedRun:
    """Return the arrays that a run is judged by."""
    return TemperedRun(_log_likelihood(draws), draws.betas, draws.replicas, draws.swap_acceptance)


def run_verdict(draws: TemperedDraws) -> Verdict:
    """Look at a run."""
    return tempering_verdict(recorded(draws))


def along_ladder(draws: TemperedDraws) -> Estimate:
    """Return Bennett's acceptance ratio along the ladder."""
    return bar(_log_likelihood(draws), draws.betas)


def log_joint(density: ModelDensity, *, recorded: bool = True) -> Callable[[Tensor], Tensor]:
    """
    Return the log joint density of positions ``(num, *local, dim)``, without gradients: ``-inf``
    where it is NaN or the model raises.

    :param recorded: evaluate by a recorded graph, which pays where many batches follow.
    """
    rows = max(1, CHUNK // math.prod(density.layout.local_shape))

    def run(chunk: Tensor) -> tuple[Tensor, ...]:
        return density.split_values(chunk) if recorded else by_rows(density.log_terms, chunk)

    @torch.no_grad()
    def evaluate(positions: Tensor) -> Tensor:
        with poutine.block(), pyro.validation_enabled(False), ForRows():
            parts = [torch.stack(run(chunk)).sum(0) for chunk in positions.split(rows)]
        return torch.cat(parts).nan_to_num(-torch.inf, torch.inf, -torch.inf)

    return evaluate


def _log_likelihood(draws: TemperedDraws) -> Tensor:
    """
    Return the log likelihoods; at ``t = 0``, where it has no part in the density, NaN counts as
    ``-inf``.
    """
    prior = draws.log_likelihood[:1]
    return torch.cat([torch.where(prior.isnan(), -torch.inf, prior), draws.log_likelihood[1:]])


def agreement(
    estimate: Estimate, along: Estimate, *, one_sided: bool = False, limit: float = AGREEMENT_LIMIT
) -> Verdict:
    """Compare an estimate at ``t = 1`` alone with one along the whole ladder.

    :param estimate: of the evidence.
    :param along: of the same.
    :param one_sided: only object to an estimate that is too low.
    :param limit: nats by which they may differ, whatever their errors say.
    """
    difference = along.value - estimate.value
    difference = difference if one_sided else difference.abs()
    error = (estimate.standard_error.square() + along.standard_error.square()).sqrt()
    measures = {"bar against it": difference.max().item()}
    apart = (difference > AGREEMENT_SIGMAS * error) & (difference > limit)
    if not apart.any():
        return Verdict(measures=measures)
    seen = (
        "draws at t = 1 and the ladder give log evidences that differ by "
        f"{difference[apart].max():.2f} nats"
    )
    finding = Finding("missed mode", seen, "use more chains and temperatures, and a longer warm-up")
    return Verdict((finding,), measures)
