"""Pyro modules: banks of univariate functions and the networks made of them."""

from pyro_tkam.nn.basis import Basis
from pyro_tkam.nn.conv import ConvGenerator
from pyro_tkam.nn.forms import LIBRARY, Form
from pyro_tkam.nn.grids import GridUpdate
from pyro_tkam.nn.kan import KAN, KANEdges, KANLayer
from pyro_tkam.nn.parse import parse_expression
from pyro_tkam.nn.sequence import DecoderCache, SequenceGenerator
from pyro_tkam.nn.symbolic import Candidate, fit_formulas
from pyro_tkam.nn.univariate import BoundFunctions, UnivariateFunctions

__all__ = [
    "KAN",
    "LIBRARY",
    "Basis",
    "BoundFunctions",
    "Candidate",
    "ConvGenerator",
    "DecoderCache",
    "Form",
    "GridUpdate",
    "KANEdges",
    "KANLayer",
    "SequenceGenerator",
    "UnivariateFunctions",
    "fit_formulas",
    "parse_expression",
]
