"""Inference for any Pyro model: Langevin kernels, vectorised chains, parallel tempering."""

from pyro_tkam.infer.density import ModelDensity
from pyro_tkam.infer.kernels import MALA, ULA, AutoMALA
from pyro_tkam.infer.tempering import ParallelTempering, PowerPosteriors
from pyro_tkam.infer.vectorized import VectorizedMCMC

__all__ = ["MALA", "ULA", "AutoMALA", "ModelDensity", "ParallelTempering", "PowerPosteriors", "VectorizedMCMC"]
