"""Pyro modules: banks of univariate functions and the networks made of them."""

from pyro_tkam.nn.attention import Encoded
from pyro_tkam.nn.autoregressive import AutoregressivePrior, LabeledAutoregressivePrior
from pyro_tkam.nn.basis import Basis
from pyro_tkam.nn.context import ContextNetwork
from pyro_tkam.nn.conv import ConvGenerator
from pyro_tkam.nn.density_fit import DensityFit, fit_density
from pyro_tkam.nn.encoder import SequenceEncoder
from pyro_tkam.nn.ended import Beams, beam_search, ended_excess, ended_log_prob, sample_ended
from pyro_tkam.nn.fitting import FitResult, fit
from pyro_tkam.nn.forms import LIBRARY, Form
from pyro_tkam.nn.functions import BoundEdges, BoundFunctions
from pyro_tkam.nn.grids import GridUpdate
from pyro_tkam.nn.kan import KAN
from pyro_tkam.nn.layers import KANEdges, KANLayer
from pyro_tkam.nn.parse import parse_expression
from pyro_tkam.nn.sequence import DecoderCache, SequenceGenerator
from pyro_tkam.nn.simplify import simplify
from pyro_tkam.nn.symbolic import Candidate, fit_formulas
from pyro_tkam.nn.univariate import UnivariateFunctions

__all__ = [
    "KAN",
    "LIBRARY",
    "AutoregressivePrior",
    "Basis",
    "Beams",
    "BoundEdges",
    "BoundFunctions",
    "Candidate",
    "ContextNetwork",
    "ConvGenerator",
    "DecoderCache",
    "DensityFit",
    "Encoded",
    "FitResult",
    "Form",
    "GridUpdate",
    "KANEdges",
    "KANLayer",
    "LabeledAutoregressivePrior",
    "SequenceEncoder",
    "SequenceGenerator",
    "UnivariateFunctions",
    "beam_search",
    "ended_excess",
    "ended_log_prob",
    "fit",
    "fit_density",
    "fit_formulas",
    "parse_expression",
    "sample_ended",
    "simplify",
]
