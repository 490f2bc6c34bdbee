"""What is wrong with the draws of chains, judged from the draws and the records of the run."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pyro_tkam.infer.model.density import Density, ModelDensity
from pyro_tkam.infer.results import Finding, Verdict
from pyro_tkam.ops.estimators import effective_sample_size

TINY = 1e-300
"""Keeps what never varied out of a division by zero."""
GROUPS = 4
RHAT_LIMIT = 1.01
"""Between groups of chains. Of draws worth ``N`` it is about ``1 + 2/N``: 1.002 at 1,000."""

STRAY_LIMIT = 5.0
FAR_STRAY_LIMIT = 7.5
FROZEN_RATE = 0.02
FEWEST_EFFECTIVE = 400.0
FEWEST_DRAWS = 16
LEAST_BFMI = 0.2
MOST_DIVERGING = 0.005
MOST_FAILED = 0.01
MOST_CAPPED = 0.5
MOST_GROWTH = 1.2
TAILS = (0.05, 0.95)
BLOCK = 2**18
"""Numbers that are looked at together: their spectra take a dozen times their memory."""


@dataclass(frozen=True)
class ChainRun:
    """Draws of chains, and what was recorded of them.

    :param draws: unconstrained coordinates, ``(chain, draw, coordinate)``.
    :param names: of each coordinate.
    :param acceptance: acceptance rate, ``(chain, draw, ...)``, as the following ones.
    :param diverging: whether a proposal diverged.
    :param failed: whether density or gradient were not finite on the way to a proposal, other than
        by a density of zero.
    :param capped: whether a trajectory was shorter than wanted.
    :param energy: Hamiltonian at the start of a step, where momentum is drawn anew; None otherwise.
    :param groups: number of the population that each chain comes from, ``(chain,)``.
    :param growth: spread of the last window of the warm-up relative to that before, by coordinate;
        1 where it did not grow, or where a site has a proper prior.
    """

    draws: Tensor
    names: Sequence[str]
    acceptance: Tensor
    diverging: Tensor
    failed: Tensor
    capped: Tensor | None = None
    energy: Tensor | None = None
    groups: Tensor | None = None
    growth: Tensor | None = None

    @cached_property
    def rhat(self) -> Tensor:
        """R-hat between groups (nested, Margossian et al. 2024), ``(coordinate,)``.

        ``√(1 + B/W)``, with the variances between the means of groups and within groups.
        """

        def of(block: Tensor) -> Tensor:
            parts = [each.flatten(0, 1) for each in self._members(block)]
            between = torch.stack([each.mean(0) for each in parts]).var(0)
            within = torch.stack([each.var(0, correction=0) for each in parts]).mean(0)
            return torch.where(within > 0, (1 + between / within).sqrt(), torch.inf).where(
                within + between > 0, 1.0
            )

        return self._by_block(of)

    @cached_property
    def effective(self) -> Tensor:
        """Effective draws of all chains, ``(coordinate,)``."""
        return self._by_block(effective_sample_size)

    @cached_property
    def tail_effective(self) -> Tensor:
        """The lesser effective number of draws at the 5% and 95% quantiles, ``(coordinate,)``."""

        def of(block: Tensor) -> Tensor:
            flat = block.movedim(-1, 0).flatten(1).sort().values
            cuts = (flat[:, int(level * (flat.shape[1] - 1))] for level in TAILS)
            return torch.minimum(*(effective_sample_size((block <= cut).double()) for cut in cuts))

        return self._by_block(of)

    @cached_property
    def strays(self) -> tuple[Tensor, Tensor]:
        """
        Distance of each chain's mean from that of the others, in errors by its own draws and in
        errors by those of all, ``(chain, coordinate)``.
        """
        chains, length = self.draws.shape[:2]

        def of(block: Tensor) -> Tensor:
            own = effective_sample_size(block.transpose(0, 1)[None])
            return torch.stack([block.mean(1), block.std(1), own])

        means, scales, own = self._by_block(of)
        spread = self._by_block(lambda block: block.flatten(0, 1).std(0)).clamp_min(TINY)
        gap = (means - means.mean(0)).abs() * (chains / (chains - 1))
        pooled = spread * (chains / self.effective.clamp(1, chains * length)).sqrt()
        alone = scales / own.clamp(1, length).sqrt()
        # A chain that stands still has no error of its own: that of the others is the least.
        error = torch.maximum(alone, alone.median(0).values).clamp_min(TINY)
        return gap / error, gap / pooled

    @cached_property
    def bfmi(self) -> float:
        """Energy Bayesian fraction of missing information, of all chains."""
        assert self.energy is not None
        energy = self.energy.double()
        variance = (energy - energy.mean(1, keepdim=True)).square().mean()
        change = energy.diff(dim=1).square().mean()
        return (change / variance).item() if variance > 0 else 1.0

    def _members(self, draws: Tensor) -> list[Tensor]:
        """Return each group's draws ``(chain, draw, ...)``, or the halves of those of one chain."""
        chains, length = draws.shape[:2]
        if chains == 1:
            return [draws[:, : length // 2], draws[:, -(length // 2) :]]
        if self.groups is not None and chains >= 2 * GROUPS:
            return [draws[self.groups == each] for each in self.groups.unique()]
        return list(draws.chunk(min(GROUPS, chains)))

    def _by_block(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Look at a few coordinates at once, with a chain's draws side by side in memory."""
        chains, length, _ = self.draws.shape
        blocks = self.draws.movedim(-1, 0).split(max(1, BLOCK // (chains * length)))
        found = torch.empty(0)
        end = 0
        for block in blocks:
            part = function(block.contiguous().double().movedim(0, -1))
            if not end:  # no memory is taken between blocks, which would keep theirs in pieces
                found = part.new_empty(*part.shape[:-1], self.draws.shape[-1])
            found[..., end : (end := end + len(block))] = part
        return found


def chain_verdict(run: ChainRun) -> Verdict:
    """Diagnose chains.

    Thresholds are such that 30 runs of independent chains of 500 perfect draws have no finding, and
    one frozen chain of 64, or 8 chains half a standard deviation off, have one.

    :param run: their draws and records.
    :return: the findings and the measures behind them.
    """
    length = run.draws.shape[1]
    if length < FEWEST_DRAWS:
        seen = f"{length} draws per chain are too few to diagnose"
        return Verdict((Finding("too few draws", seen, "raise num_samples"),))
    checks = (_disagreement, _frozen, _stray, _few, _energy, _diverging, _failed, _capped, _growing)
    findings = tuple(each for check in checks if (each := check(run)) is not None)
    measures = {
        "largest R-hat between groups": run.rhat.max().item(),
        "smallest effective sample size": run.effective.min().item(),
        "smallest in a tail": run.tail_effective.min().item(),
    }
    return Verdict(findings, measures)


def prior_notes(density: Density) -> Verdict:
    """Note that draws are of a prior, where a model has no observed site."""
    if not (isinstance(density, ModelDensity) and density.is_of_prior):
        return Verdict()
    return Verdict(
        notes=(
            "draws of the prior, because no site is observed: if the model takes data, pass them",
        )
    )


def warn_of_prior(
    density: Density, args: tuple[Any, ...], kwargs: Mapping[str, Any], stacklevel: int = 3
) -> None:
    """
    Warn of draws of a prior if the model was given something that may be its data.

    :param density: what was sampled.
    :param args: the model's arguments.
    :param kwargs: its keyword arguments.
    :param stacklevel: of the warning.
    """
    if (args or kwargs) and prior_notes(density).notes:
        warnings.warn(
            "the model was given arguments but observes none of its sites, so these are draws of "
            "the prior: pass all the data that it takes",
            stacklevel=stacklevel,
        )


def warn_of(verdict: Verdict, whose: str, stacklevel: int = 4) -> None:
    """
    Give one warning with all findings.

    :param verdict: the findings.
    :param whose: what they are of.
    :param stacklevel: frames up to the caller of the sampler; one more where it takes turns with
        other threads.
    """
    if verdict.findings:
        told = "; ".join(str(finding) for finding in verdict.findings)
        warnings.warn(f"{whose} are not to be trusted: {told}", UserWarning, stacklevel=stacklevel)


def _disagreement(run: ChainRun) -> Finding | None:
    worst = run.rhat.max().item()
    if worst <= RHAT_LIMIT:
        return None
    whose = "groups of chains" if len(run.draws) > 1 else "the halves of the chain"
    seen = f"R-hat between {whose} is {worst:.3f} at {_name(run, run.rhat)} (limit {RHAT_LIMIT})"
    return Finding("chains disagree", seen, "run longer, or reparameterize")


def _frozen(run: ChainRun) -> Finding | None:
    rates = run.acceptance.reshape(*run.acceptance.shape[:2], -1).double().mean(1)
    frozen = (rates < FROZEN_RATE).any(-1)
    if not frozen.any():
        return None
    seen = f"{int(frozen.sum())} of {len(frozen)} chains accept under {FROZEN_RATE:.0%} of steps"
    return Finding("frozen chains", seen, "use a longer warm-up or a higher target_accept_prob")


def _stray(run: ChainRun) -> Finding | None:
    if len(run.draws) < 3:
        return None
    own, pooled = run.strays
    stray = (own > STRAY_LIMIT) | (pooled > FAR_STRAY_LIMIT)
    if not stray.any():
        return None
    worst = pooled.max(0).values
    seen = (
        f"{int(stray.any(1).sum())} of {len(stray)} chains are far from the others, by up to "
        f"{worst.max():.1f} standard errors at {_name(run, worst)}"
    )
    return Finding("stray chains", seen, "run longer, or reparameterize")


def _few(run: ChainRun) -> Finding | None:
    fewest = run.effective.min().item()
    tail = run.tail_effective.min().item()
    if min(fewest, tail) >= FEWEST_EFFECTIVE:
        return None
    which, where = (fewest, run.effective) if fewest <= tail else (tail, run.tail_effective)
    kind = "effective draws" if fewest <= tail else "effective draws in a tail"
    seen = f"{which:.0f} {kind} at {_name(run, -where)} (limit {FEWEST_EFFECTIVE:.0f})"
    return Finding("too few draws", seen, "raise num_samples or num_chains")


def _energy(run: ChainRun) -> Finding | None:
    if run.energy is None or run.bfmi >= LEAST_BFMI:
        return None
    seen = f"E-BFMI is {run.bfmi:.2f} (limit {LEAST_BFMI})"
    return Finding("slow energy", seen, "reparameterize, for example with LocScaleReparam")


def _diverging(run: ChainRun) -> Finding | None:
    share = run.diverging.double().mean().item()
    if share <= MOST_DIVERGING:
        return None
    seen = f"{share:.1%} of proposals diverge"
    return Finding("divergences", seen, "raise target_accept_prob, or reparameterize")


def _failed(run: ChainRun) -> Finding | None:
    share = run.failed.double().mean().item()
    if share <= MOST_FAILED:
        return None
    seen = f"{share:.1%} of proposals hit a density that is not finite"
    advice = "find where the density is NaN or infinite, or where the model raises"
    return Finding("failed proposals", seen, advice)


def _capped(run: ChainRun) -> Finding | None:
    share = 0.0 if run.capped is None else run.capped.double().mean().item()
    if share <= MOST_CAPPED:
        return None
    seen = f"{share:.0%} of trajectories are cut off at max_steps"
    return Finding("capped trajectories", seen, "raise max_steps, or reparameterize")


def _growing(run: ChainRun) -> Finding | None:
    if run.growth is None or run.growth.max() <= MOST_GROWTH:
        return None
    seen = (
        f"the spread at {_name(run, run.growth)} still grew by "
        f"{run.growth.max() - 1:.0%} at the end of the warm-up"
    )
    return Finding("improper posterior", seen, "give flat sites a prior, or use a longer warm-up")


def _name(run: ChainRun, badness: Tensor) -> str:
    return repr(run.names[int(badness.argmax())])
