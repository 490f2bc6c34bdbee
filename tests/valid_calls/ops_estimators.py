"""One small valid call of everything public in ops.estimators."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_tkam.ops.estimators import (
    annealed_log_weights,
    bar,
    bridge,
    cross_bridge,
    effective_sample_size,
    fit_normal,
    importance,
    mean_standard_error,
    pareto_smooth,
    reverse_steppingstone,
    sandwich,
    steppingstone,
    thermodynamic,
)
from tests.valid_calls.call import Call

#: Made by the package, and a protocol.
RECORDS = ("CrossBridge", "CrossProposal", "Estimate", "ParetoSmoothed", "Sandwich")


def standard_normal(z: Tensor) -> Tensor:
    """Return a log density."""
    return -z.square().sum(-1) / 2


def calls() -> dict[str, Call]:
    torch.manual_seed(0)
    ladder = {"log_lik": torch.randn(3, 4, 20, 2), "betas": torch.tensor([0.0, 0.4, 1.0])}
    draws = torch.randn(4, 20, 2)
    log_weights = torch.randn(2, 30)
    bridged = {"draws": draws, "log_density": standard_normal}
    return {
        **{
            estimator.__name__: Call(estimator, ladder)
            for estimator in (
                annealed_log_weights,
                bar,
                reverse_steppingstone,
                sandwich,
                steppingstone,
            )
        },
        "thermodynamic": Call(thermodynamic, {**ladder, "variance_correction": True}),
        "effective_sample_size": Call(effective_sample_size, {"draws": draws}),
        "mean_standard_error": Call(mean_standard_error, {"draws": draws}),
        "importance": Call(importance, {"log_weights": log_weights}),
        "pareto_smooth": Call(pareto_smooth, {"log_weights": log_weights}),
        "fit_normal": Call(fit_normal, {"draws": draws.unsqueeze(2)}),
        "bridge": Call(
            bridge,
            {**bridged, "num_proposals": 50},
            late=("log_density", "draws"),
        ),
        "cross_bridge": Call(
            cross_bridge,
            {
                **bridged,
                "fit": fit_normal,
                "log_joint": standard_normal(draws),
                "num_proposals": 100,
            },
            late=("log_density", "fit", "draws"),
        ),
    }
