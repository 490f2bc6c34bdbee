"""Estimators of a log evidence, as pure functions on recorded arrays.

Draws have shape ``(temperature, chain, draw, *batch)``, and log weights ``(*batch, N)``; ``batch``
is the data, where the evidence is per datum. Each estimator returns an :class:`Estimate` of shape
``batch``.
"""

from pyro_tkam.ops.estimators.acceptance_ratio import bar
from pyro_tkam.ops.estimators.autocorrelation import effective_sample_size, mean_standard_error
from pyro_tkam.ops.estimators.bridge import bridge
from pyro_tkam.ops.estimators.cross_bridge import CrossBridge, CrossProposal, cross_bridge
from pyro_tkam.ops.estimators.estimate import Estimate
from pyro_tkam.ops.estimators.importance import annealed_log_weights, importance
from pyro_tkam.ops.estimators.normal import fit_normal
from pyro_tkam.ops.estimators.pareto import ParetoSmoothed, pareto_smooth
from pyro_tkam.ops.estimators.steppingstone import (
    Sandwich,
    reverse_steppingstone,
    sandwich,
    steppingstone,
)
from pyro_tkam.ops.estimators.thermodynamic import thermodynamic

__all__ = [
    "CrossBridge",
    "CrossProposal",
    "Estimate",
    "ParetoSmoothed",
    "Sandwich",
    "annealed_log_weights",
    "bar",
    "bridge",
    "cross_bridge",
    "effective_sample_size",
    "fit_normal",
    "importance",
    "mean_standard_error",
    "pareto_smooth",
    "reverse_steppingstone",
    "sandwich",
    "steppingstone",
    "thermodynamic",
]
