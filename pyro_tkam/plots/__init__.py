"""Plots with matplotlib: every function takes axes, or makes them, and returns them."""

from pyro_tkam.plots.axes import new_figure, save
from pyro_tkam.plots.curves import training_curves
from pyro_tkam.plots.evidence import (
    evidence_curve,
    importance_weights,
    index_process,
    ladders,
    power_posteriors,
    swap_rates,
)
from pyro_tkam.plots.formulas import formula_parity
from pyro_tkam.plots.images import are_images, image_grid
from pyro_tkam.plots.networks import fit_history, kan_edges, kan_network
from pyro_tkam.plots.priors import (
    conditional_densities,
    dependence,
    prior_components,
    prior_densities,
    prior_marginals,
)

__all__ = [
    "are_images",
    "conditional_densities",
    "dependence",
    "evidence_curve",
    "fit_history",
    "formula_parity",
    "image_grid",
    "importance_weights",
    "index_process",
    "kan_edges",
    "kan_network",
    "ladders",
    "new_figure",
    "power_posteriors",
    "prior_components",
    "prior_densities",
    "prior_marginals",
    "save",
    "swap_rates",
    "training_curves",
]
