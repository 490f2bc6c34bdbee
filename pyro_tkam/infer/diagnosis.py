"""Diagnosis of tempered runs and of importance weights.

Each check looks at recorded arrays and returns a :class:`Finding` or None. Thresholds are set so
that healthy runs have no findings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from pyro.ops.stats import gelman_rubin
from torch import Tensor

from pyro_tkam.infer.results import Finding, Verdict
from pyro_tkam.ops.estimators import (
    CrossBridge,
    Estimate,
    effective_sample_size,
    mean_standard_error,
    pareto_smooth,
    sandwich,
)
from pyro_tkam.ops.schedules import communication_barrier, suggested_number
from pyro_tkam.ops.tempering import round_trips

SQUARED_COORDINATES = 8
"""An effective draw in a half of the chains for so many of them: covariances are fitted to it."""
KHAT_LIMIT = 0.7
SWAP_RATE_LIMIT = 0.15
RHAT_LIMIT = 1.15
DRIFT_LIMIT = 0.6  # standard deviations between the halves of a run
STUCK_LIMIT = 0.95  # share of steps that leave a chain where it is
SPREAD_LIMIT = 1e-4  # variance of a chain's log likelihood relative to that of the middle chain
GROUP_RHAT_LIMIT = 1.05
STRAY_RHAT_LIMIT = 1.01
SCORE_LIMIT = 0.2  # standard deviations
HALVES_SIGMAS = 4.0
TERMS_LIMIT = 100.0  # of each sum of a bridge
DRAWS_LIMIT = 50.0  # effective, of all chains together
GAP_LIMIT = 0.5  # nats, of a pair of neighbors
SIGMAS = 5.0  # the checks are many (temperatures times data), so single ones are strict
FEWEST_DRAWS = 16  # per chain; of a single one twice as many, as its halves are compared


@dataclass(frozen=True)
class TemperedRun:
    """The arrays of a tempered run, and the measures that the checks share.

    :param log_likelihood: ``(temperature, chain, draw, *local)``.
    :param betas: inverse temperatures, ``(temperature,)``.
    :param replicas: which replica is at each rung, shaped like ``log_likelihood``.
    :param swap_acceptance: mean swap acceptance of neighbors, ``(temperature - 1,)``.
    """

    log_likelihood: Tensor
    betas: Tensor
    replicas: Tensor
    swap_acceptance: Tensor

    @cached_property
    def by_chain(self) -> Tensor:
        """Log likelihoods that chains moved through, ``(chain, draw, temperature - 1, *local)``."""
        return self.log_likelihood[1:].movedim(0, 2)

    @cached_property
    def effective_draws(self) -> Tensor:
        """Effective sample size of the log likelihood, ``(temperature - 1, *local)``."""
        return effective_sample_size(self.by_chain)

    @cached_property
    def rhat(self) -> Tensor:
        """
        Split R-hat of the log likelihood, ``(temperature - 1, *local)``: between the halves of all
        chains.

        On 15 rungs of healthy autoregressions with 50 effective draws or more (1 to 8 chains, 128
        to 1,000 draws) it stayed below its limit in each of 400 runs; where there are fewer draws,
        "too few draws" says so.
        """
        half = self.by_chain.shape[1] // 2
        if half < 2:
            raise ValueError(
                f"num_samples must be at least 4 per chain for R-hat, got {self.by_chain.shape[1]}"
            )
        halves = torch.cat([self.by_chain[:, :half], self.by_chain[:, -half:]])
        varies = halves.flatten(0, 1).var(0) > 0
        return torch.where(varies, gelman_rubin(halves, 0, 1).reshape(varies.shape), 1.0)

    @cached_property
    def round_trips(self) -> Tensor:
        """Round trips of all chains together, of each datum."""
        return round_trips(self.replicas).sum(0)

    @cached_property
    def barrier(self) -> float:
        """Communication barrier of the ladder."""
        return communication_barrier(1 - self.swap_acceptance)[-1].item()

    @cached_property
    def pair_gaps(self) -> Estimate:
        """
        Reverse minus forward steppingstone estimate of each pair of neighbors, ``(temperature - 1,
        *local)``.
        """
        lower = self.log_likelihood[:-1]
        upper = self.log_likelihood[1:]
        steps = self.betas.diff()
        ladder = self.betas.new_tensor([0.0, 1.0])
        # Pairs are batch elements here: each is a ladder of two rungs on its own.
        pairs = torch.stack([lower, upper]).movedim(1, 3) * steps.reshape(
            -1, *(1,) * (lower.ndim - 3)
        )
        return sandwich(pairs, ladder).gap

    @cached_property
    def khat(self) -> Tensor:
        """Pareto k-hat of the forward weights of each pair, ``(temperature - 1, *local)``."""
        steps = self.betas.diff().reshape(-1, *(1,) * (self.log_likelihood.ndim - 1))
        weights = (steps * self.log_likelihood[:-1]).flatten(1, 2).movedim(1, -1)
        return pareto_smooth(weights).khat


Check = Callable[[TemperedRun], Finding | None]


def stuck_ladder(run: TemperedRun) -> Finding | None:
    """No replica traveled from prior to posterior and back."""
    stuck = run.round_trips == 0
    if not stuck.any():
        return None
    where = f" for {int(stuck.sum())} of {stuck.numel()} data" if stuck.ndim else ""
    seen = (
        f"no round trip{where}; swaps are rarest between {_pair(run, run.swap_acceptance.argmin())}"
    )
    return Finding("stuck ladder", seen, "use more temperatures, or run longer")


def too_few_rungs(run: TemperedRun) -> Finding | None:
    """Neighboring power posteriors overlap too little."""
    lowest = run.swap_acceptance.min().item()
    if lowest >= SWAP_RATE_LIMIT:
        return None
    where = _pair(run, run.swap_acceptance.argmin())
    seen = (
        f"worst swap rate {lowest:.2f} of {len(run.betas)} temperatures, between {where}, "
        f"barrier {run.barrier:.1f}"
    )
    wanted = max(len(run.betas) + 1, suggested_number(run.barrier))
    return Finding("too few rungs", seen, f"use {wanted} temperatures or more")


def missed_mode(run: TemperedRun) -> Finding | None:
    """A rung doesn't look like its neighbor reweighted, as when a mode is lost in between."""
    gap, error = run.pair_gaps
    apart = gap.abs().where((gap.abs() > SIGMAS * error) & (gap.abs() > GAP_LIMIT), 0.0)
    if not apart.any():
        return None
    where = _pair(run, _worst_rung(apart))
    seen = f"the two estimates of a pair of temperatures, {where}, differ by {apart.max():.2f} nats"
    return Finding("missed mode", seen, "use more chains and temperatures, and a longer warm-up")


def heavy_tailed_weights(run: TemperedRun) -> Finding | None:
    """A few draws dominate a steppingstone estimate."""
    where = f" between {_pair(run, _worst_rung(run.khat))}"
    return _heavy_tailed(run.khat, "use more temperatures", where)


def non_stationary_rung(run: TemperedRun) -> Finding | None:
    """The first half of a run differs from the second."""
    half = run.by_chain.shape[1] // 2
    first = run.by_chain[:, :half]
    last = run.by_chain[:, -half:]
    spread = run.by_chain.flatten(0, 1).std(0)
    shift = (first.mean((0, 1)) - last.mean((0, 1))).abs()
    error = (mean_standard_error(first).square() + mean_standard_error(last).square()).sqrt()
    drift = (shift / spread).where((shift > DRIFT_LIMIT * spread) & (shift > 2 * error), 0.0)
    if not drift.any():
        return None
    seen = (
        f"the halves of the draws at {_rung(run, drift)} differ by {drift.max():.1f} standard "
        "deviations"
    )
    return Finding("non-stationary rung", seen, "use a longer warm-up")


def chains_in_disagreement(run: TemperedRun) -> Finding | None:
    """Chains at one temperature, or the halves of one chain, sample different things."""
    worst = run.rhat.max().item()
    if worst <= RHAT_LIMIT:
        return None
    seen = f"split R-hat up to {worst:.2f}, at {_rung(run, run.rhat)}"
    return Finding("chains in disagreement", seen, "run longer, or use more temperatures")


def boundary_stuck_chains(run: TemperedRun) -> Finding | None:
    """A chain sits where it can't move, as at a boundary of the support."""
    still = (run.by_chain.diff(dim=1) == 0).to(run.by_chain).mean(1)
    spread = run.by_chain.var(1)
    typical = spread.median(0).values
    stuck = (still > STUCK_LIMIT) | (spread < SPREAD_LIMIT * typical)
    stuck = stuck & (run.by_chain.flatten(0, 1).var(0) > 0)
    if not stuck.any():
        return None
    where = _rung(run, stuck.sum(0))
    seen = (
        f"{int(stuck.flatten(1).any(1).sum())} of {len(stuck)} chains barely move, most of "
        f"them at {where}, as at a boundary"
    )
    advice = (
        "check whether they sit at a boundary of the support; use a smaller step size or other "
        "coordinates"
    )
    return Finding("boundary-stuck chains", seen, advice)


def too_few_draws(run: TemperedRun) -> Finding | None:
    """A temperature has too few effective draws."""
    fewest = run.effective_draws.min().item()
    if fewest >= DRAWS_LIMIT:
        return None
    where = _rung(run, -run.effective_draws)
    return Finding("too few draws", f"{fewest:.0f} effective draws at {where}", "raise num_samples")


CHECKS: tuple[Check, ...] = (
    stuck_ladder,
    too_few_rungs,
    missed_mode,
    heavy_tailed_weights,
    non_stationary_rung,
    chains_in_disagreement,
    boundary_stuck_chains,
    too_few_draws,
)


def tempering_verdict(run: TemperedRun) -> Verdict:
    """Diagnose a tempered run.

    :param run: its arrays.
    :return: the findings and the measures behind them.
    """
    num_chains, num_draws = run.by_chain.shape[:2]
    if num_draws < FEWEST_DRAWS * (1 if num_chains > 1 else 2):
        seen = f"{num_draws} draws per chain are too few to diagnose"
        return Verdict((Finding("too few draws", seen, "raise num_samples"),))
    findings = tuple(finding for check in CHECKS if (finding := check(run)) is not None)
    measures = {
        "round trips": float(run.round_trips.min()),
        "worst swap rate": run.swap_acceptance.min().item(),
        "largest sandwich gap of a pair": run.pair_gaps.value.abs().max().item(),
        "largest k-hat": run.khat.max().item(),
        "worst split R-hat": run.rhat.max().item(),
        "smallest effective sample size": run.effective_draws.min().item(),
    }
    return Verdict(findings, measures)


def importance_verdict(khat: Tensor, effective_draws: Tensor) -> Verdict:
    """Diagnose importance weights.

    :param khat: Pareto k-hat of each datum.
    :param effective_draws: effective sample size of each datum's weights.
    """
    findings = [_heavy_tailed(khat, "use a guide, more particles, or tempering")]
    fewest = effective_draws.min().item()
    if fewest < DRAWS_LIMIT:
        seen = (
            f"{_share(effective_draws < DRAWS_LIMIT)} effective draws below {DRAWS_LIMIT:.0f} "
            f"(fewest {fewest:.1f})"
        )
        findings.append(
            Finding("too few draws", seen, "raise num_particles, or use a guide or tempering")
        )
    measures = {"largest k-hat": khat.max().item(), "smallest effective sample size": fewest}
    return Verdict(tuple(finding for finding in findings if finding is not None), measures)


def bridge_verdict(bridge: CrossBridge, dim: int) -> Verdict:
    """Diagnose a bridge between two halves of the draws.

    :param bridge: with its halves.
    :param dim: number of coordinates.
    """
    findings = []
    (first, second), (its_error, other_error) = bridge.halves
    sigmas = (first - second).abs() / torch.hypot(its_error, other_error)
    if (sigmas > HALVES_SIGMAS).any():
        worst = int(sigmas.argmax())
        seen = (
            f"the halves of the draws give log evidences that differ by {sigmas.max():.1f} "
            f"standard errors ({(first - second).abs().flatten()[worst]:.2g} nats)"
        )
        advice = "run longer, with more chains"
        findings.append(Finding("halves in disagreement", seen, advice))
    terms = bridge.effective_terms.min().item()
    if terms < TERMS_LIMIT:
        seen = (
            f"a sum of the bridge has {terms:.0f} effective terms, below {TERMS_LIMIT:.0f}: "
            "the normal distributions fitted to the draws overlap too little with them"
        )
        findings.append(Finding("little overlap", seen, "run longer, or use other coordinates"))
    fewest = bridge.effective_draws.min().item()
    needed = max(DRAWS_LIMIT / 2, dim * dim / SQUARED_COORDINATES)
    if fewest < needed:
        seen = (
            f"{fewest:.0f} effective draws in a half of the chains, {needed:.0f} are needed for "
            f"{dim} coordinates"
        )
        findings.append(Finding("too few draws", seen, f"run {needed / fewest:.1f} times as long"))
    measures = {
        "difference of halves, in standard errors": sigmas.max().item(),
        "effective terms": terms,
        "effective draws of a half": fewest,
    }
    return Verdict(tuple(findings), measures)


def chains_verdict(positions: Tensor, names: Sequence[str]) -> Verdict:
    """Check whether chains agree.

    Four groups of chains are compared (the halves of chains, where there are fewer than four). A
    group of chains with a different mean is reported if R-hat is above 1.05, or if it is above 1.01
    and the mean is more than five of its standard errors from that of the others.

    :param positions: draws ``(chain, draw, *local, dim)``.
    :param names: the site of each coordinate.
    """
    groups = _groups(positions.double())
    rhat = gelman_rubin(groups.flatten(1, 2), 0, 1).reshape(groups.shape[3:])
    means = torch.stack([group.mean((0, 1)) for group in groups])
    errors = torch.stack([mean_standard_error(group) for group in groups])
    number = len(groups)
    others = (means.sum(0) - means) / (number - 1)
    error = (
        errors.square() + (errors.square().sum(0) - errors.square()) / (number - 1) ** 2
    ).sqrt()
    stray = ((means - others).abs() > SIGMAS * error).any(0)
    apart = (rhat > GROUP_RHAT_LIMIT) | ((rhat > STRAY_RHAT_LIMIT) & stray)
    measures = {"worst R-hat of groups": rhat.max().item()}
    if not apart.any():
        return Verdict(measures=measures)
    worst = names[int(torch.where(apart, rhat, 0.0).argmax()) % len(names)]
    seen = f"R-hat between groups of chains is up to {rhat.max():.3f}, at site {worst!r}"
    finding = Finding("chains in disagreement", seen, "run longer, with a longer warm-up")
    return Verdict((finding,), measures)


def _groups(positions: Tensor) -> Tensor:
    """Groups of chains ``(group, chain, draw, ...)``."""
    num_chains, num_draws = positions.shape[:2]
    if num_chains >= 4:
        return positions[: num_chains // 4 * 4].unflatten(0, (4, -1))
    half = num_draws // 2
    return torch.cat([positions[:, :half], positions[:, -half:]]).unsqueeze(1)


def score_verdict(positions: Tensor, gradient: Tensor, names: Sequence[str]) -> Verdict:
    """Check whether draws come from the density whose gradient is given.

    If they do, the gradient ``∂_i`` has mean 0 and ``z_i ∂_i`` has mean -1. In units of the draws'
    standard deviation, these means measure how much the draws are shifted and stretched.

    :param positions: draws ``(chain, draw, *local, dim)``.
    :param gradient: of the log density at the draws, of the same shape.
    :param names: the site of each coordinate.
    """
    positions = positions.double()
    gradient = gradient.double()
    scale = positions.flatten(0, 1).std(0)
    score = gradient * scale
    standard = (positions - positions.mean((0, 1))) / scale
    moments = torch.stack([score, 1 + standard * score])
    # A model that isn't differentiable in a coordinate tells nothing of it.
    known = gradient.isfinite().all(0).all(0) & (gradient != 0).any(0).any(0)
    worst = 0.0
    finding = None
    for moment, what in zip(moments, ("shifted", "stretched"), strict=True):
        off = torch.where(known, moment.mean((0, 1)).abs(), 0.0)
        wrong = (off > SCORE_LIMIT) & (off > SIGMAS * mean_standard_error(moment))
        worst = max(worst, off.max().item())
        if wrong.any() and finding is None:
            where = int(torch.where(wrong, off, 0.0).argmax()) % len(names)
            seen = (
                f"the density's gradient shows that the draws of {names[where]!r} are {what} by "
                f"{off.max():.2g} standard deviations"
            )
            advice = "check that the model, arguments and data are the ones that were sampled"
            finding = Finding("draws of another posterior", seen, advice)
    measures = {"shift of the draws, in standard deviations": worst}
    return Verdict(() if finding is None else (finding,), measures)


def _heavy_tailed(khat: Tensor, advice: str, where: str = "") -> Finding | None:
    heavy = khat > KHAT_LIMIT
    if not heavy.any():
        return None
    seen = f"{_share(heavy)} Pareto k-hat above {KHAT_LIMIT} (worst {khat.max():.2f}{where})"
    return Finding("heavy-tailed weights", seen, advice)


def _share(which: Tensor) -> str:
    return f"{int(which.sum())} of {which.numel()} have"


def _worst_rung(badness: Tensor) -> int:
    """Index along the first dimension of the largest value of ``(temperature - 1, *local)``."""
    return int(badness.flatten(1).amax(1).argmax()) if badness.ndim > 1 else int(badness.argmax())


def _rung(run: TemperedRun, badness: Tensor) -> str:
    """Name the temperature with the largest value of ``(temperature - 1, *local)``, in words."""
    return f"t = {run.betas[1 + _worst_rung(badness)]:.3g}"


def _pair(run: TemperedRun, lower: int | Tensor) -> str:
    """Name a pair of neighbors in words."""
    return f"t = {run.betas[int(lower)]:.3g} and {run.betas[int(lower) + 1]:.3g}"
