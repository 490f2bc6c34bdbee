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

from pyro_tkam.infer.density import ModelDensity
from pyro_tkam.infer.evidence import Evidence, Finding, Verdict
from pyro_tkam.infer.verdict import TemperedRun, tempering_verdict
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
    def replicas(self) -> Tensor:
        """Which replica is at each rung, of the same shape."""

    @property
    def positions(self) -> Tensor:
        """Coordinates; the last are those at ``t = 1``, ``(chain, draw, *local, dim)``."""

    @property
    def swap_acceptance(self) -> Tensor:
        """Mean swap acceptance of neighbours."""

    @property
    def evaluations(self) -> int:
        """Evaluations that the run took."""

    @property
    def density(self) -> ModelDensity:
        """The log density that the positions belong to."""


def steppingstone_evidence(draws: TemperedDraws) -> Evidence:
    """Return the forward steppingstone estimate; the gap to the reverse one is a measure of the verdict."""
    both = sandwich(_log_likelihood(draws), draws.betas)
    verdict = run_verdict(draws) + Verdict(measures={"sandwich gap": both.gap.value.sum().item()})
    return Evidence.of(both.lower, "steppingstone", verdict, evaluations=draws.evaluations)


def thermodynamic_evidence(draws: TemperedDraws) -> Evidence:
    """Return the trapezoidal rule with its variance correction."""
    estimate = thermodynamic(_log_likelihood(draws), draws.betas, variance_correction=True)
    return Evidence.of(estimate, "thermodynamic", run_verdict(draws), evaluations=draws.evaluations)


def bar_evidence(draws: TemperedDraws) -> Evidence:
    """Return Bennett's acceptance ratio along the ladder."""
    estimate = bar(_log_likelihood(draws), draws.betas)
    return Evidence.of(estimate, "bar", run_verdict(draws), evaluations=draws.evaluations)


def bridge_evidence(draws: TemperedDraws, num_proposals: int | None = None, unseen: Tensor | None = None) -> Evidence:
    """Return bridge sampling from the draws at ``t = 1``, checked against Bennett's ratio along the ladder.

    :param draws: a tempered run.
    :param num_proposals: draws of the proposal for each half of the draws; by default as many as it has.
    :param unseen: further draws at ``t = 1``, of modes that the run has missed, ``(chain, draw, *local, dim)``.
    """
    positions = draws.positions[-1] if unseen is None else torch.cat([draws.positions[-1], unseen])
    along = bar(_log_likelihood(draws), draws.betas)
    estimate = bridge(positions, log_joint(draws.density), num_proposals=num_proposals)
    num_chains, num_draws, *_ = positions.shape
    proposed = 2 * (num_proposals or num_chains * (num_draws // 2))
    verdict = run_verdict(draws) + _agreement(estimate, along)
    evaluations = draws.evaluations + proposed + num_chains * num_draws
    return Evidence.of(estimate, "bridge", verdict, evaluations=evaluations)


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
    if method not in METHODS:
        raise ValueError(f"method must be one of {sorted(METHODS)}, got {method!r}")
    return METHODS[method](draws)


def run_verdict(draws: TemperedDraws) -> Verdict:
    """Look at a run."""
    log_likelihood = _log_likelihood(draws)
    return tempering_verdict(TemperedRun(log_likelihood, draws.betas, draws.replicas, draws.swap_acceptance))


def log_joint(density: ModelDensity) -> Callable[[Tensor], Tensor]:
    """Return the log joint density of positions ``(num, *local, dim)``, without gradients; NaN counts as ``-inf``."""
    data = math.prod(density.layout.local_shape)
    rows = max(1, CHUNK // data)

    @torch.no_grad()
    def evaluate(positions: Tensor) -> Tensor:
        with poutine.block(), pyro.validation_enabled(False):
            parts = [torch.stack(density.log_terms(chunk)).sum(0) for chunk in positions.split(rows)]
        return torch.cat(parts).nan_to_num(-torch.inf, torch.inf, -torch.inf)

    return evaluate


def _log_likelihood(draws: TemperedDraws) -> Tensor:
    """Return the log likelihoods; at ``t = 0``, where it has no part in the density, NaN counts as ``-inf``."""
    prior = draws.log_likelihood[:1]
    return torch.cat([torch.where(prior.isnan(), -torch.inf, prior), draws.log_likelihood[1:]])


def _agreement(bridged: Estimate, along: Estimate) -> Verdict:
    """Compare the bridge, which sees ``t = 1`` alone, with an estimate along the whole ladder."""
    difference = (bridged.value - along.value).abs()
    error = (bridged.standard_error.square() + along.standard_error.square()).sqrt()
    measures = {"bridge against bar": difference.max().item()}
    apart = (difference > AGREEMENT_SIGMAS * error) & (difference > AGREEMENT_LIMIT)
    if not apart.any():
        return Verdict(measures=measures)
    seen = f"draws at t = 1 and the ladder give evidences that differ by {difference[apart].max():.2f} nats"
    finding = Finding("missed mode", seen, "use more chains and temperatures, and a longer warm-up")
    return Verdict((finding,), measures)
