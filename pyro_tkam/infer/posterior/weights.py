"""The evidence of importance weights, and how many draws they are worth."""

from __future__ import annotations

from torch import Tensor

from pyro_tkam.infer.diagnosis import importance_verdict
from pyro_tkam.infer.results import Evidence
from pyro_tkam.ops.estimators import importance, pareto_smooth


def evidence_of_weights(log_weights: Tensor) -> Evidence:
    """Average importance weights.

    :param log_weights: ``(draw, *local)``, in nats.
    """
    by_datum = log_weights.movedim(0, -1)
    estimate = importance(by_datum)
    verdict = importance_verdict(pareto_smooth(by_datum).khat, effective_draws(log_weights))
    # Data may share their draws, so that their errors may go together: sum before taking the
    # spread.
    relative = (log_weights - estimate.value).expm1().reshape(len(log_weights), -1).sum(1)
    error = relative.std().item() / len(log_weights) ** 0.5
    return Evidence.of(
        estimate, "importance", verdict, evaluations=len(log_weights), total_standard_error=error
    )


def effective_draws(log_weights: Tensor) -> Tensor:
    """Return ``1 / Σ w²`` of weights ``(draw, *local)`` when they are normalized, ``(*local)``."""
    return 1 / log_weights.softmax(0).square().sum(0)
