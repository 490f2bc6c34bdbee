"""Importance sampling from Student-t distributions at the optima of a posterior."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from pyro_tkam.infer.posterior.climbs import Climbs
from pyro_tkam.infer.posterior.coverage import WeightedPositions
from pyro_tkam.infer.posterior.optima import Optima
from pyro_tkam.infer.posterior.search import Search
from pyro_tkam.infer.posterior.target import PosteriorTarget, weigh
from pyro_tkam.infer.posterior.weights import effective_draws, evidence_of_weights
from pyro_tkam.infer.results import Evidence
from pyro_tkam.ops.estimators import pareto_smooth
from pyro_tkam.ops.estimators.mixture import Mixture
from pyro_tkam.ops.estimators.population import refine

PER_COORDINATE = 10
FEWEST_COORDINATES = 5
"""Weights for each coordinate and some more, without which a second mixture is not fitted."""
LARGEST = 20
"""Dimensions up to which a Student-t at an optimum may fit well enough."""

NORMAL_SHARE = 0.8
"""Of a normal's draws beyond: how many they must be worth for a posterior that is as good as
normal."""

WIDEST = 100.0
WIDEST_STEP = 0.3
WIDE_STEP = 2.0
WIDE_DRAWS = 4000
FEWEST_WIDE = 50
"""Widths at which mass beside a normal is looked for, in its own: the largest, the ratio of
neighbors in nats, at most and times the root of the dimension; draws in all, and of each width."""

DENSER = 1.0
BESIDE_LIMIT = math.log(1e-3)
"""Nats above the normal where a posterior is denser, and the share of the evidence that may be."""

KHAT_LIMIT = 0.5
FEWEST_EFFECTIVE = 400.0
ROUGH_CLIMBS = 4
FEWEST_ROUGH = 20.0
"""Climbs for an estimate without a budget; effective draws below which it says nothing."""

FEWEST_WEIGHTS = 10_000
WEIGHING_SECONDS = 10.0
"""Weights that an estimate takes in any case, and seconds after which a pilot's number will do."""

MOST_WEIGHTS = 2**18
PILOT_WEIGHTS = 4000
REFINEMENT_DRAWS = 3000
REFINEMENT_ROUNDS = 2
MOST_REFINEMENTS = 2
PILOT_SHARE = 0.2
REFINEMENT_SHARE = 0.25
"""Most of what is left of a budget that a pilot and a refinement take."""

FINAL_SHARE = 0.6
"""Most of what is left of a budget that the estimate takes; the rest is for what judges it."""


def draws_needed(log_weights: Tensor, error: float, fewest: int = FEWEST_WEIGHTS) -> int | None:
    """
    Return how many draws like some reach a standard error; None if their weights are poor.

    :param log_weights: of these, ``(num,)``.
    :param error: wanted, in nats.
    :param fewest: draws in any case.
    """
    if not log_weights.amax().isfinite():
        return None
    effective = effective_draws(log_weights).item()
    if effective < FEWEST_EFFECTIVE or pareto_smooth(log_weights).khat > KHAT_LIMIT:
        return None
    variance = len(log_weights) / effective - 1
    return max(fewest, math.ceil(variance / error**2))


def laplace_evidence(search: Search, error: float) -> Evidence | None:
    """
    Weigh draws of Student-t distributions at the optima, each weighted by its mass, and moved by
    weighted draws where their weights are poor. In many dimensions they are normal, and must fit.

    The mixture and the number of draws are chosen on pilots, and the estimate takes new draws.

    :param search: has the posterior and its optima.
    :param error: standard error wanted, in nats.
    :return: None if the weights are poor.
    """
    budget = search.target.budget
    if not len(search.optima) or budget.left < 2 * PILOT_WEIGHTS:
        return None
    search.progress.route("Laplace importance")
    if search.target.dim > LARGEST:
        return _by_normal(search, error)

    def log_joint(points: Tensor) -> Tensor:
        positions = points.squeeze(1).to(search.target.dtype)
        return search.target.log_joint(positions).unsqueeze(1)

    quick = int(WEIGHING_SECONDS / max(search.seconds_a_draw, 1e-9))
    fewest = min(FEWEST_WEIGHTS, max(PILOT_WEIGHTS, quick))
    mixture = search.optima.mixture()
    pilot = search.weigh(mixture, budget.affords(PILOT_WEIGHTS, share=PILOT_SHARE))[1]
    size = draws_needed(pilot, error, fewest)
    for _ in range(MOST_REFINEMENTS):
        enough = size is not None and size <= fewest
        num = budget.affords(REFINEMENT_DRAWS, each=REFINEMENT_ROUNDS, share=REFINEMENT_SHARE)
        fitted = PER_COORDINATE * (search.target.dim + FEWEST_COORDINATES)
        if enough or not pilot.amax().isfinite() or num < fitted:
            break
        mixture = refine(mixture, log_joint, num, REFINEMENT_ROUNDS)
        pilot = search.weigh(mixture, budget.affords(PILOT_WEIGHTS, share=PILOT_SHARE))[1]
        size = draws_needed(pilot, error, fewest)
    if size is None:
        search.poor = replace(evidence_of_weights(pilot), method="Laplace importance")
        return None
    return _estimate(search, mixture, pilot, size)


def _by_normal(search: Search, error: float) -> Evidence | None:
    """Weigh draws of normal distributions at peaks, if they are nearly all worth the same."""
    peaks = search.optima.take(search.optima.flat)
    if not len(peaks):
        return None
    normal = _normal(peaks)
    pilot = weigh(search.target, normal, search.target.budget.affords(PILOT_WEIGHTS))[1]
    size = draws_needed(pilot, error)
    if size is None or effective_draws(pilot) < NORMAL_SHARE * len(pilot):
        return None
    value = evidence_of_weights(pilot).value
    if _mass_beside(search.target, normal, value) > value + BESIDE_LIMIT:
        return None
    return _estimate(search, normal, pilot, size)


def _mass_beside(target: PosteriorTarget, normal: Mixture, log_evidence: float) -> float:
    """
    Return the largest log mass that draws of wider normals around the same optima find where the
    posterior is denser than the normal says: none where it is normal. It is infinite where the
    budget does not allow to look.
    """
    step = min(WIDEST_STEP, WIDE_STEP / math.sqrt(target.dim))
    widths = torch.arange(1, math.ceil(math.log(WIDEST) / step) + 1).mul(step).exp().tolist()
    num = max(FEWEST_WIDE, WIDE_DRAWS // len(widths))
    found = -math.inf
    for width in widths:
        if target.budget.affords(num) < num:
            return math.inf
        wide = normal._replace(scale_tril=width * normal.scale_tril)
        positions, weights = weigh(target, wide, num)
        points = positions.double().unsqueeze(1)
        excess = weights + (wide.log_prob(points) - normal.log_prob(points)).squeeze(1)
        denser = weights[excess > log_evidence + DENSER]
        if len(denser):
            found = max(found, denser.logsumexp(0).item() - math.log(len(weights)))
    return found


def _estimate(search: Search, mixture: Mixture, pilot: Tensor, size: int) -> Evidence | None:
    """Weigh new draws, of surprises too, and judge what they give."""
    surprises = search.surprises(mixture, evidence_of_weights(pilot).value)
    if len(surprises):
        mixture = _with_optima(mixture, surprises)
    size = search.target.budget.affords(min(size, MOST_WEIGHTS), share=FINAL_SHARE)
    if size < FEWEST_EFFECTIVE:
        return None
    positions, weights = search.weigh(mixture, size)
    evidence = replace(evidence_of_weights(weights), method="Laplace importance")
    return search.judge(evidence, WeightedPositions(positions, weights))


def rough_evidence(search: Search) -> Evidence | None:
    """
    Weigh few draws of normal distributions at the optima to which the likeliest prior draws lead,
    in any dimension.

    :param search: has the posterior and its prior draws.
    :return: None if there is no optimum, or no budget, or hardly any draw has weight.
    """
    climbs = Climbs(search.target, search.draws, search.seconds_a_draw)
    optima = climbs.climb(search.draws.log_weights.topk(ROUGH_CLIMBS).indices)
    num = search.target.budget.affords(PILOT_WEIGHTS)
    if not len(optima) or num < FEWEST_EFFECTIVE:
        return None
    weights = weigh(search.target, _normal(optima), num)[1]
    if not weights.amax().isfinite() or effective_draws(weights) < FEWEST_ROUGH:
        return None
    return replace(evidence_of_weights(weights), method="Laplace importance")


def _normal(optima: Optima) -> Mixture:
    """Return a mixture of normal distributions at optima, each weighted by its mass."""
    mixture = optima.mixture()
    return mixture._replace(df=torch.full_like(mixture.df, math.inf))


def _with_optima(mixture: Mixture, optima: Optima) -> Mixture:
    """Add components at optima, which share half of the draws."""
    extra = optima.mixture()
    half = math.log(0.5)
    return Mixture(
        torch.cat([mixture.log_weights + half, extra.log_weights + half], 1),
        torch.cat([mixture.loc, extra.loc], 1),
        torch.cat([mixture.scale_tril, extra.scale_tril], 1),
        mixture.df,
    )
