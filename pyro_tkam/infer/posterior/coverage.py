"""Whether optima that hold mass are among the draws of an estimate."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_tkam.infer.posterior.optima import NARROW, RULE_OF_THREE, UNLIKE, Optima
from pyro_tkam.infer.posterior.target import PosteriorTarget, weigh
from pyro_tkam.infer.posterior.weights import effective_draws
from pyro_tkam.infer.results import Evidence, Finding, Verdict
from pyro_tkam.ops.estimators import importance

SMALL_SHARE = 0.01
"""Share of an evidence that a mode may hold without being looked for."""

NUM_WEIGHED = 1000
FEWEST_WEIGHED = 100
FEWEST_EFFECTIVE = 20.0
"""Effective draws of a peak below which its curvature does not describe it, and says no mass."""

FEWEST_HITS = 3
"""Prior draws that lead to a mode below which finding it was luck."""

LACKING = 0.3
"""Share of the draws that a peak should hold below which it counts as missed."""

APART_SIGMAS = 4.0
APART_NATS = 0.1
"""Standard errors and nats by which a peak's mass may exceed the evidence, as it cannot."""


@dataclass(frozen=True)
class WeightedPositions:
    """Draws that stand for a posterior.

    :param positions: ``(num, dim)``.
    :param log_weights: ``(num,)``, zero where all weigh the same.
    """

    positions: Tensor
    log_weights: Tensor


@dataclass(frozen=True)
class Peaks:
    """Optima that hold more than 1% of an evidence.

    :param optima: these.
    :param log_mass: of the posterior within the reach of each, ``(number,)``.
    :param missed: which hold next to no draws, ``(number,)``.
    """

    optima: Optima
    log_mass: Tensor
    missed: Tensor


def heavy_peaks(
    target: PosteriorTarget, optima: Optima, draws: WeightedPositions, evidence: Evidence
) -> Peaks:
    """
    Weigh the optima that may hold more than 1% of an evidence.

    A peak's mass is that of weighted draws of its Student-t within a radius that holds nearly all
    of a normal; beyond, there may be another peak.

    :param target: the posterior.
    :param optima: peaks.
    :param draws: what the evidence was estimated from, or draws of the posterior.
    :param evidence: the estimate.
    """
    log_evidence = evidence.value
    chosen = []
    masses = []
    missed = []
    shares = draws.log_weights.softmax(0)
    for index in range(len(optima)):
        if optima.log_mass[index] < log_evidence + math.log(SMALL_SHARE) - 3:
            continue
        if (num := target.budget.affords(NUM_WEIGHED)) < FEWEST_WEIGHED:
            break
        one = optima.take(torch.tensor([index]))
        positions, log_weights = weigh(target, one.mixture(), num)
        inside = one.distance(positions)[0] <= one.reach
        log_weights = torch.where(inside, log_weights, -torch.inf)
        if not log_weights.amax().isfinite() or effective_draws(log_weights) < FEWEST_EFFECTIVE:
            continue
        mass = importance(log_weights)
        log_mass = mass.value
        expected = (log_mass - log_evidence).clamp(max=0).exp()
        held = shares[one.distance(draws.positions)[0] <= one.reach].sum()
        if expected > SMALL_SHARE:
            chosen.append(index)
            masses.append(log_mass)
            error = math.hypot(evidence.standard_error, float(mass.standard_error))
            too_heavy = log_mass > log_evidence + APART_SIGMAS * error + APART_NATS
            missed.append((held < LACKING * expected) | too_heavy)
    if not chosen:
        empty = torch.zeros(0, dtype=torch.float64)
        return Peaks(optima.take(empty.long()), empty, empty.bool())
    return Peaks(optima.take(torch.tensor(chosen)), torch.stack(masses), torch.stack(missed))


def missed_verdict(peaks: Peaks, log_evidence: float) -> Verdict:
    """Return the verdict that modes were missed.

    :param peaks: of an evidence.
    :param log_evidence: the estimate.
    """
    if not peaks.missed.any():
        return Verdict()
    lacking = peaks.log_mass[peaks.missed]
    gain = torch.cat([lacking, lacking.new_tensor([log_evidence])]).logsumexp(0)
    seen = (
        f"climbs from prior draws found {len(lacking)} mode(s) with too few draws, worth "
        f"{gain.item() - log_evidence:.2g} nats"
    )
    return Verdict((Finding("missed mode", seen, "give a guide that covers all modes"),))


def rare_verdict(peaks: Peaks, num_ended: int) -> Verdict:
    """
    Return the verdict that a mode was found by luck: if few prior draws lead to one mode, there may
    be others to which none has led (Good 1953, 10.1093/biomet/40.3-4.237). There is no such verdict
    if few draws lead to any mode, but all to the same one.

    :param peaks: of an evidence.
    :param num_ended: how many prior draws led to any optimum.
    """
    hits = peaks.optima.same_peak.long() @ peaks.optima.hits
    lucky = peaks.optima.flat & (hits < FEWEST_HITS) & ((hits < num_ended) | (hits == 0))
    if not lucky.any():
        return Verdict()
    seen = (
        f"{int(hits[lucky].amin())} of {num_ended} prior draws led to a mode with considerable mass"
    )
    finding = Finding("rare mode", f"{seen}: others may be missing", "give a guide that covers it")
    return Verdict((finding,))


def unlike_verdict(peaks: Peaks, num_seen: int) -> Verdict:
    """
    Return the verdict that modes of other widths may remain, if the known ones differ in width.

    The share of prior draws in the basin of a mode falls with its width to the power of the
    dimension, so ``n`` of them see modes down to a width of ``(3 / n)^{1/dim}`` of the widest.

    :param peaks: of an evidence.
    :param num_seen: how many prior draws climbed, or are explained by the modes that are known.
    """
    unlike = peaks.optima.take(peaks.optima.flat).unlikeness
    if unlike < UNLIKE:
        return Verdict()
    seen_down_to = (num_seen / RULE_OF_THREE) ** (1 / peaks.optima.location.shape[-1])
    if seen_down_to >= NARROW:
        return Verdict()
    seen = (
        f"the widths of the modes differ {math.exp(unlike):.1f}-fold, and {num_seen} prior draws "
        f"show none that is {seen_down_to:.1f} times as narrow as the widest"
    )
    advice = "give a guide that covers all modes"
    return Verdict((Finding("modes of different widths", seen, advice),))
