"""Langevin kernels for Pyro's MCMC, for vectorised chains and for tempering."""

from pyro_tkam.infer.kernels.automala import AutoMALA
from pyro_tkam.infer.kernels.base import LangevinKernel
from pyro_tkam.infer.kernels.mala import MALA
from pyro_tkam.infer.kernels.ula import ULA

__all__ = ["MALA", "ULA", "AutoMALA", "LangevinKernel"]
