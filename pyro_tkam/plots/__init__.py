"""Pictures with matplotlib: every function takes axes, or makes them, and returns them."""

from pyro_tkam.plots.axes import new_figure, save
from pyro_tkam.plots.curves import training_curves
from pyro_tkam.plots.images import image_grid
from pyro_tkam.plots.priors import prior_densities

__all__ = ["image_grid", "new_figure", "prior_densities", "save", "training_curves"]
