"""
Thermodynamic Kolmogorov-Arnold models for Pyro: exact learned priors, Langevin kernels, tempering
and evidence.
"""

__version__ = "0.2.0"
