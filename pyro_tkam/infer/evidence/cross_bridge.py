"""The evidence of a model from draws of its posterior: bridge and importance sampling."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pyro_tkam.infer.diagnosis import bridge_verdict
from pyro_tkam.infer.model.density import ModelDensity
from pyro_tkam.infer.posterior.weights import evidence_of_weights
from pyro_tkam.infer.results import Evidence, Verdict
from pyro_tkam.infer.tempering.estimates import log_joint
from pyro_tkam.ops.estimators import CrossProposal, Estimate, cross_bridge, fit_normal

IMPORTANCE_KHAT = 0.5
IMPORTANCE_DRAWS = 400.0
UNCOVERED = 0.01
"""Where importance weights are at least so good, and proposals reach all but so few of the draws,
they are right against a bridge."""

APART_SIGMAS = 4.0


@dataclass(frozen=True)
class CrossFitted:
    """Two estimates of one evidence from the same fitted proposals.

    :param bridge: by bridge sampling from the draws; its error grows slowly with the dimension,
        but it inherits the shares of the modes among the draws.
    :param importance: by importance sampling from the proposals alone.
    :param uncovered: share of the draws that a proposal does not reach.
    """

    bridge: Evidence
    importance: Evidence
    uncovered: float

    @property
    def preferred(self) -> Evidence:
        """
        The bridge; importance sampling where its weights are good (k-hat up to 0.5, at least 400
        effective draws), its proposals reach the draws, and the bridge disagrees or isn't trusted.
        """
        apart = abs(self.bridge.value - self.importance.value)
        error = math.hypot(self.bridge.standard_error, self.importance.standard_error)
        disagree = apart > APART_SIGMAS * error
        if not self._importance_is_good or (self.bridge.verdict.trusted and not disagree):
            return self.bridge
        note = f"the bridge gives {self.bridge.value:.4f} ± {self.bridge.standard_error:.4f}"
        return replace(self.importance, verdict=self.importance.verdict + Verdict(notes=(note,)))

    @property
    def _importance_is_good(self) -> bool:
        measures = self.importance.verdict.measures
        return (
            measures["largest k-hat"] <= IMPORTANCE_KHAT
            and measures["smallest effective sample size"] >= IMPORTANCE_DRAWS
            and self.uncovered <= UNCOVERED
        )


def cross_fitted_evidence(
    density: ModelDensity,
    positions: Tensor,
    *,
    fit: Callable[[Tensor], CrossProposal] = fit_normal,
    log_density: Tensor | None = None,
    num_proposals: int | None = None,
) -> CrossFitted:
    """
    Estimate an evidence from draws of the posterior, see
    :func:`~pyro_tkam.ops.estimators.cross_bridge`.

    :param density: of the model.
    :param positions: draws in its coordinates, ``(chain, draw, *local, dim)``.
    :param fit: makes a proposal of draws ``(chain, draw, batch, dim)``.
    :param log_density: log joint density at the draws, where it is known,
        ``(chain, draw, *local)``.
    :param num_proposals: proposal draws for each half.
    :raises ValueError: if there are too few draws, they do not vary, or the density is not finite
        at a draw.
    """
    bridge = cross_bridge(
        positions,
        log_joint(density, recorded=False),
        fit=fit,
        log_joint=log_density,
        num_proposals=num_proposals,
    )
    evaluations = bridge.log_weights.shape[-1]
    if log_density is None:
        evaluations += positions.shape[0] * positions.shape[1]
    value, error = bridge.estimate
    # The model sums its terms in its own precision.
    rounding = torch.finfo(positions.dtype).eps * value.abs()
    bridged = Evidence.of(
        Estimate(value, torch.hypot(error, rounding)),
        "bridge",
        bridge_verdict(bridge, positions.shape[-1]),
        evaluations=evaluations,
    )
    weighed = evidence_of_weights(bridge.log_weights.movedim(-1, 0))
    importance = replace(weighed, evaluations=evaluations)
    return CrossFitted(bridged, importance, bridge.uncovered.amax().item())
