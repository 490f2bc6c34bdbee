"""
The log joint density of a model, evaluated in batches of suitable size, with counted evaluations.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import pyro
import torch
from pyro import poutine
from torch import Tensor

from pyro_tkam.infer.model.cost import seconds_of
from pyro_tkam.infer.model.density import ModelDensity
from pyro_tkam.infer.model.failures import ForRows
from pyro_tkam.infer.model.summands import OneSummand
from pyro_tkam.infer.posterior.budget import Budget
from pyro_tkam.ops.estimators import CrossProposal
from pyro_tkam.ops.langevin import Point

MOST_ROWS = 8192
FEW_ROWS = 128
MOST_LOOPED = 16
MOST_WITH_GRADIENT = 2048
BATCH_SHARE = 0.1
"""Share of the time for prior draws that one batch may take."""

MODEL_RUN = 5e-3
"""Seconds of a run of the model itself, with its gradient, instead of recorded operations."""

NUMBERS_AT_ONCE = 2**20
"""Data times rows that are evaluated at once: more leave the processor's cache."""


@dataclass(frozen=True)
class ReferenceDraws:
    """Draws of the prior (of its stand-in, where it can't be drawn from), scored.

    :param positions: ``(num, dim)``.
    :param log_reference: their log density in the reference, ``(num,)``.
    :param log_weights: log joint minus log reference, ``(num,)``; ``-inf`` where that is NaN.
    :param undefined: how many were NaN.
    """

    positions: Tensor
    log_reference: Tensor
    log_weights: Tensor
    undefined: int

    @property
    def log_joint(self) -> Tensor:
        """Log joint density, ``(num,)``."""
        return self.log_reference + self.log_weights


class PosteriorTarget:
    """Log joint density of a model without local plates.

    If a model raises an error or gives NaN, for example for parameters that overflow, its density
    counts as zero.

    :param density: of the model, on positions ``(rows, dim)``.
    :param budget: counts its evaluations.
    :ivar seconds: processor time of evaluations, estimated from their operations if these are
        recorded.
    """

    def __init__(self, density: ModelDensity, budget: Budget) -> None:
        self.density = density
        self.budget = budget
        self.seconds = 0.0
        self.dim = density.layout.dim
        self.dtype = density.draw_start(1).dtype
        at_once = NUMBERS_AT_ONCE // max(1, density.structure.num_data)
        most = MOST_LOOPED if density.vectorization == "loop" else MOST_ROWS
        self.many = max(1, min(most, at_once))
        self.few = min(FEW_ROWS, self.many)
        self.climbing = max(self.few, min(MOST_WITH_GRADIENT, self.many // 8))

    def draw(self, num: int, seconds: float = math.inf) -> ReferenceDraws:
        """Draw from the reference and score the draws, as many as the time allows.

        :param num: how many.
        :param seconds: after which no further batch is begun.
        """
        begin = self.seconds
        parts = []
        left = num
        size = self.few
        while left > 0:
            with _outside():
                position = self.density.sample_reference(min(left, size))
            drawn = self.seconds
            parts.append((position, *self._terms(position)))
            self.seconds += self.seconds - drawn  # drawing takes about as long as scoring
            left -= len(position)
            spent = self.seconds - begin
            if spent > seconds:
                break
            quick = (num - left) / max(spent, 1e-6) * seconds * BATCH_SHARE
            size = int(min(self.many, max(self.few, quick)))
        positions, reference, weights = (torch.cat(each) for each in zip(*parts, strict=True))
        if (weights == torch.inf).any():
            raise ValueError(
                "model must have a log likelihood below +inf, got +inf at a draw of its prior"
            )
        undefined = int(weights.isnan().sum())
        return ReferenceDraws(
            positions, reference, weights.nan_to_num(-torch.inf, torch.inf, -torch.inf), undefined
        )

    def log_joint(self, positions: Tensor) -> Tensor:
        """Return the log joint density ``(num,)``, in double precision, of ``(num, dim)``."""
        return self.score(positions).sum(0).nan_to_num(-torch.inf, torch.inf, -torch.inf)

    def score(self, positions: Tensor) -> Tensor:
        """Return log reference density and the rest of the log joint, ``(2, num)``."""
        return torch.cat([torch.stack(self._terms(each)) for each in positions.split(self.many)], 1)

    def with_gradient(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log joint density ``(num,)`` and its gradient ``(num, dim)``."""
        points = [self._point(self.density.point, each) for each in positions.split(self.climbing)]
        values, gradients = zip(*points, strict=True)
        return torch.cat(values), torch.cat(gradients)

    def of_summand(self, summand: OneSummand) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """Return what :meth:`with_gradient` does, with one summand of each sum of densities."""

        def evaluate(positions: Tensor) -> tuple[Tensor, Tensor]:
            self.seconds += MODEL_RUN
            return self._point(partial(self.density.summand_point, summand=summand), positions)

        return evaluate

    def _point(self, at: Callable[[Tensor], Point], positions: Tensor) -> tuple[Tensor, Tensor]:
        self.budget.spend(len(positions))
        begin = time.process_time()
        with _outside():
            point = at(positions)
        self.seconds += seconds_of(self.density.costs[1], len(positions), begin)
        return point.log_density, point.gradient

    def _terms(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Return log reference and the rest of the log joint, each ``(num,)``."""
        self.budget.spend(len(position))
        begin = time.process_time()
        with _outside():
            reference, rest = self.density.reference_values(position)
        self.seconds += seconds_of(self.density.costs[0], len(position), begin)
        return reference.double(), rest.double()


def weigh(target: PosteriorTarget, proposal: CrossProposal, num: int) -> tuple[Tensor, Tensor]:
    """Return draws of a proposal ``(num, dim)`` and their log weights ``(num,)``.

    The proposal scores the same rounded positions that the density evaluates.

    :param proposal: for one batch element.
    """
    positions = proposal.sample(num).squeeze(1).to(target.dtype)
    log_proposal = proposal.log_prob(positions.double().unsqueeze(1)).squeeze(1)
    return positions, target.log_joint(positions) - log_proposal


def weigh_beside(
    target: PosteriorTarget, proposal: CrossProposal, num: int, prior: ReferenceDraws
) -> tuple[Tensor, Tensor]:
    """
    Return draws of a proposal and of the prior, and their log weights as draws of the mixture of
    both (the balance heuristic of Veach and Guibas 1995): what the proposal lacks, these have.

    :param proposal: for one batch element.
    :param num: draws of it.
    :param prior: draws of the prior that were scored.
    """
    own = proposal.sample(num).squeeze(1).to(target.dtype)
    reference, rest = target.score(own)
    reference = torch.cat([reference, prior.log_reference])
    rest = torch.cat([rest, prior.log_weights])
    positions = torch.cat([own, prior.positions])
    log_proposal = proposal.log_prob(positions.double().unsqueeze(1)).squeeze(1)
    mixed = torch.logaddexp(
        log_proposal + math.log(num / len(positions)),
        reference + math.log(len(prior.positions) / len(positions)),
    )
    return positions, (reference + rest - mixed).nan_to_num(-torch.inf, torch.inf, -torch.inf)


@contextmanager
def _outside() -> Iterator[None]:
    """Evaluate a model unseen from outside, whatever its factorizations."""
    with (
        torch.no_grad(),
        poutine.block(),
        pyro.validation_enabled(False),
        ForRows(),
    ):
        yield
