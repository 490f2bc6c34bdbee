"""Models: a learned prior, a generator and a likelihood as one Pyro model."""

from pyro_tkam.models.guide import AmortisedGuide
from pyro_tkam.models.kart import KARTGenerator, LatentGenerator
from pyro_tkam.models.likelihood import GaussianLikelihood
from pyro_tkam.models.prior import JointPrior, MixturePrior, TiltedPrior
from pyro_tkam.models.tkam import TKAM

__all__ = [
    "TKAM",
    "AmortisedGuide",
    "GaussianLikelihood",
    "JointPrior",
    "KARTGenerator",
    "LatentGenerator",
    "MixturePrior",
    "TiltedPrior",
]
