"""
Univariate bases: pure functions of tensors, with the fast sums that networks and priors need.
"""

from pyro_tkam.ops.bases.base import BasisFunctions, Picklable
from pyro_tkam.ops.bases.bumps import GaussianKernels, MexicanHats, MorletWavelets, SwitchKernels
from pyro_tkam.ops.bases.fourier import FourierSeries
from pyro_tkam.ops.bases.kernels import ShiftedKernel
from pyro_tkam.ops.bases.polynomials import ChebyshevPolynomials, GegenbauerPolynomials, Polynomials
from pyro_tkam.ops.bases.splines import BSplines, IrregularBSplines

#: every basis by the name that users give
BASES: dict[str, type[BasisFunctions]] = {
    "rbf": GaussianKernels,
    "bspline": BSplines,
    "rswaf": SwitchKernels,
    "fourier": FourierSeries,
    "chebyshev": ChebyshevPolynomials,
    "gegenbauer": GegenbauerPolynomials,
    "mexican_hat": MexicanHats,
    "morlet": MorletWavelets,
}

__all__ = [
    "BASES",
    "BSplines",
    "BasisFunctions",
    "ChebyshevPolynomials",
    "FourierSeries",
    "GaussianKernels",
    "GegenbauerPolynomials",
    "IrregularBSplines",
    "MexicanHats",
    "MorletWavelets",
    "Picklable",
    "Polynomials",
    "ShiftedKernel",
    "SwitchKernels",
]
