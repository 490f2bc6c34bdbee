"""
Inference for any Pyro model: objectives, Langevin kernels, vectorized chains, parallel tempering.
"""

from pyro_tkam.infer.evidence.compare import compare
from pyro_tkam.infer.evidence.fitted_guide import fitted_guide
from pyro_tkam.infer.evidence.from_draws import bridge_evidence
from pyro_tkam.infer.evidence.importance import ImportanceSampling, WeightedDraws
from pyro_tkam.infer.evidence.log_evidence import log_evidence, log_evidences
from pyro_tkam.infer.mcmc.kernels import (
    MALA,
    ULA,
    AutoMALA,
    EnsembleHMC,
    LangevinKernel,
    RandomWalk,
)
from pyro_tkam.infer.mcmc.smc import SMC
from pyro_tkam.infer.mcmc.vectorized import VectorizedMCMC
from pyro_tkam.infer.model.density import ModelDensity
from pyro_tkam.infer.objectives.importance import ImportanceMLE, ImportanceStatistics
from pyro_tkam.infer.objectives.importance_elbo import ImportanceWeightedELBO
from pyro_tkam.infer.objectives.langevin import LangevinMLE
from pyro_tkam.infer.objectives.steppingstone import SteppingstoneMLE
from pyro_tkam.infer.objectives.wake_sleep import WakeSleepMLE
from pyro_tkam.infer.parallel import map_seeded
from pyro_tkam.infer.reparam import InverseTransformReparam
from pyro_tkam.infer.results import DataSeen, Evidence, Finding, LogBayesFactor, Verdict
from pyro_tkam.infer.tempering.parallel_tempering import ParallelTempering, PowerPosteriors

__all__ = [
    "MALA",
    "SMC",
    "ULA",
    "AutoMALA",
    "DataSeen",
    "EnsembleHMC",
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
    "RandomWalk",
    "SteppingstoneMLE",
    "VectorizedMCMC",
    "Verdict",
    "WakeSleepMLE",
    "WeightedDraws",
    "bridge_evidence",
    "compare",
    "fitted_guide",
    "log_evidence",
    "log_evidences",
    "map_seeded",
]
