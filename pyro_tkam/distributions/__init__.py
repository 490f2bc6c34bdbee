"""Pyro distributions whose densities are learned functions."""

from pyro_tkam.distributions.autoregressive import AutoregressiveTilted
from pyro_tkam.distributions.conditional import Conditionals
from pyro_tkam.distributions.isotropic import IsotropicNormal
from pyro_tkam.distributions.joint import JointEnergy, PersistentULA, ShortRunULA
from pyro_tkam.distributions.labeled import LabeledTilted
from pyro_tkam.distributions.labeled_autoregressive import LabeledAutoregressive
from pyro_tkam.distributions.mixture import TiltedMixture
from pyro_tkam.distributions.pairwise import (
    PairwiseBernoulli,
    PairwiseCategorical,
    PairwiseContinuousBernoulli,
)
from pyro_tkam.distributions.tilted import ExponentiallyTilted
from pyro_tkam.ops.shared_cells import SharedCells

__all__ = [
    "AutoregressiveTilted",
    "Conditionals",
    "ExponentiallyTilted",
    "IsotropicNormal",
    "JointEnergy",
    "LabeledAutoregressive",
    "LabeledTilted",
    "PairwiseBernoulli",
    "PairwiseCategorical",
    "PairwiseContinuousBernoulli",
    "PersistentULA",
    "SharedCells",
    "ShortRunULA",
    "TiltedMixture",
]
