"""Formulas from networks: forms on all edges, chosen and fitted together."""

from pyro_tkam.nn.forms import LIBRARY, Form
from pyro_tkam.symbolic.find import find_formula
from pyro_tkam.symbolic.formula import Formula, FormulaEdge
from pyro_tkam.symbolic.posterior import form_probabilities

__all__ = ["LIBRARY", "Form", "Formula", "FormulaEdge", "find_formula", "form_probabilities"]
