"""Kernels for Pyro's MCMC, for vectorized chains and for tempering."""

from pyro_tkam.infer.mcmc.kernels.automala import AutoMALA
from pyro_tkam.infer.mcmc.kernels.base import LangevinKernel
from pyro_tkam.infer.mcmc.kernels.ensemble_hmc import EnsembleHMC
from pyro_tkam.infer.mcmc.kernels.mala import MALA
from pyro_tkam.infer.mcmc.kernels.random_walk import RandomWalk
from pyro_tkam.infer.mcmc.kernels.ula import ULA

__all__ = [
    "MALA",
    "ULA",
    "AutoMALA",
    "EnsembleHMC",
    "LangevinKernel",
    "RandomWalk",
]
