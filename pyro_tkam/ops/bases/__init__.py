"""Univariate bases: pure functions of tensors, with the fast sums of them that networks and priors need."""

from pyro_tkam.ops.bases.base import BasisFunctions, Picklable
from pyro_tkam.ops.bases.kernels import GaussianKernels
from pyro_tkam.ops.bases.splines import BSplines

#: every basis by the name that users give
BASES: dict[str, type[BasisFunctions]] = {"rbf": GaussianKernels, "bspline": BSplines}

__all__ = ["BASES", "BSplines", "BasisFunctions", "GaussianKernels", "Picklable"]
