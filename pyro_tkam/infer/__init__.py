"""Inference for any Pyro model: objectives, Langevin kernels, vectorised chains, parallel tempering."""

from pyro_tkam.infer.density import ModelDensity
from pyro_tkam.infer.evidence import Evidence, Finding, LogBayesFactor, Verdict
from pyro_tkam.infer.importance import ImportanceSampling, WeightedDraws
from pyro_tkam.infer.importance_elbo import ImportanceWeightedELBO
from pyro_tkam.infer.importance_mle import ImportanceMLE, ImportanceStatistics
from pyro_tkam.infer.kernels import MALA, ULA, AutoMALA, LangevinKernel
from pyro_tkam.infer.langevin_mle import LangevinMLE
from pyro_tkam.infer.methods import log_evidence
from pyro_tkam.infer.reparam import InverseTransformReparam
from pyro_tkam.infer.steppingstone_mle import SteppingstoneMLE
from pyro_tkam.infer.tempering import ParallelTempering, PowerPosteriors
from pyro_tkam.infer.vectorized import VectorizedMCMC
from pyro_tkam.infer.wake_sleep import WakeSleepMLE

__all__ = [
    "MALA",
    "ULA",
    "AutoMALA",
    "Evidence",
    "Finding",
    "ImportanceMLE",
    "ImportanceSampling",
    "ImportanceStatistics",
    "ImportanceWeightedELBO",
    "InverseTransformReparam",
    "LangevinKernel",
    "LangevinMLE",
    "LogBayesFactor",
    "ModelDensity",
    "ParallelTempering",
    "PowerPosteriors",
    "SteppingstoneMLE",
    "VectorizedMCMC",
    "Verdict",
    "WakeSleepMLE",
    "WeightedDraws",
    "log_evidence",
]
