"""Results as ArviZ objects."""

from pyro_tkam._arviz import load, save
from pyro_tkam.diagnostics.convert import to_arviz

__all__ = ["load", "save", "to_arviz"]
