"""Whether optima that hold mass are among the draws of an estimate."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_tkam.infer.posterior.optima import Optima
from pyro_tkam.infer.posterior.target import PosteriorTarget, weigh
from pyro_tkam.infer.posterior.weights import effective_draws
from pyro_tkam.infer.results import Finding, Verdict
from pyro_tkam.ops.estimators import importance

SMALL_SHARE = 0.01
"""Share of an evidence that a mode may hold without being looked for."""

NUM_WEIGHED, FEWEST_WEIGHED = 1000, 100
FEWEST_EFFECTIVE = 20.0
"""Effective draws of a peak below which its curvature does not describe it, and says no mass."""

REACH = 4.0
"""Standard deviations of a normal's squared radius, and more, up to which a peak reaches."""

LACKING = 0.1
"""Share of the draws that a peak should hold below which it counts as missed."""


@dataclass(frozen=True)
class WeightedPositions:
    """Draws that stand for a posterior.

    :param positions: ``(num, dim)``.
    :param log_weights: ``(num,)``, zero where all weigh the same.
    """

    positions: Tensor
    log_weights: Tensor


def missed_optima(
    target: PosteriorTarget, optima: Optima, draws: WeightedPositions, log_evidence: float
) -> Tensor:
    """
    Return the log masses of the optima that hold more than 1% of an evidence where
    there are next to no draws.

    A peak's mass is that of weighted draws of its Student-t within a radius that holds nearly all
    of a normal; beyond, there may be another peak.

    :param target: the posterior.
    :param optima: peaks.
    :param draws: what the evidence was estimated from, or draws of the posterior.
    :param log_evidence: the estimate.
    """
    masses = []
    shares = draws.log_weights.softmax(0)
    radius = target.dim + REACH * (2 * target.dim) ** 0.5 + REACH
    for index in range(len(optima)):
        if optima.log_mass[index] < log_evidence + math.log(SMALL_SHARE) - 3:
            continue
        if (num := target.budget.affords(NUM_WEIGHED)) < FEWEST_WEIGHED:
            break
        one = optima.take(torch.tensor([index]))
        positions, log_weights = weigh(target, one.mixture(), num)
        inside = one.distance(positions)[0] <= radius
        log_weights = torch.where(inside, log_weights, -torch.inf)
        if not log_weights.amax().isfinite() or effective_draws(log_weights) < FEWEST_EFFECTIVE:
            continue
        log_mass = importance(log_weights).value
        expected = (log_mass - log_evidence).clamp(max=0).exp()
        held = shares[one.distance(draws.positions)[0] <= radius].sum()
        if expected > SMALL_SHARE and held < LACKING * expected:
            masses.append(log_mass)
    return torch.stack(masses) if masses else torch.zeros(0, dtype=torch.float64)


def missed_verdict(log_masses: Tensor, log_evidence: float) -> Verdict:
    """Say that modes were missed.

    :param log_masses: of these modes, ``(number,)``.
    :param log_evidence: the estimate that lacks them.
    """
    if not len(log_masses):
        return Verdict()
    gain = torch.cat([log_masses, log_masses.new_tensor([log_evidence])]).logsumexp(0)
    seen = (
        f"climbs from prior draws found {len(log_masses)} mode(s) in which no chain is, worth "
        f"{gain.item() - log_evidence:.2g} nats"
    )
    return Verdict((Finding("missed mode", seen, "give a guide that covers all modes"),))
