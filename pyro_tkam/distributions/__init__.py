"""Pyro distributions whose densities are learned functions."""

from pyro_tkam.distributions.isotropic import IsotropicNormal
from pyro_tkam.distributions.joint import JointEnergy, PersistentULA, ShortRunULA
from pyro_tkam.distributions.labeled import LabeledTilted
from pyro_tkam.distributions.mixture import TiltedMixture
from pyro_tkam.distributions.pairwise import (
    PairwiseBernoulli,
    PairwiseCategorical,
    PairwiseContinuousBernoulli,
)
from pyro_tkam.distributions.tilted import ExponentiallyTilted

__all__ = [
    "ExponentiallyTilted",
    "IsotropicNormal",
    "JointEnergy",
    "LabeledTilted",
    "PairwiseBernoulli",
    "PairwiseCategorical",
    "PairwiseContinuousBernoulli",
    "PersistentULA",
    "ShortRunULA",
    "TiltedMixture",
]
