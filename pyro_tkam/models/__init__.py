"""Models: a learned prior, a generator and a likelihood as one Pyro model."""

from pyro_tkam.models.guide import AmortizedGuide
from pyro_tkam.models.kart import KARTGenerator, LatentGenerator
from pyro_tkam.models.labeled import LabeledTKAM
from pyro_tkam.models.likelihood import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    ContinuousBernoulliLikelihood,
    GaussianLikelihood,
    Likelihood,
)
from pyro_tkam.models.multimodal import Heads, MultimodalTKAM
from pyro_tkam.models.network import NetworkOptions
from pyro_tkam.models.pair_guide import PairGuide
from pyro_tkam.models.pair_objective import PairELBO, PairTerms
from pyro_tkam.models.prior import JointPrior, LabeledPrior, MixturePrior, TiltedPrior
from pyro_tkam.models.seq2seq import EndedSequence, Seq2SeqTKAM
from pyro_tkam.models.sequence import DecodedSequence, SequenceLikelihood
from pyro_tkam.models.standardized import StandardizedLikelihood
from pyro_tkam.models.tkam import TKAM

__all__ = [
    "TKAM",
    "AmortizedGuide",
    "BernoulliLikelihood",
    "CategoricalLikelihood",
    "ContinuousBernoulliLikelihood",
    "DecodedSequence",
    "EndedSequence",
    "GaussianLikelihood",
    "Heads",
    "JointPrior",
    "KARTGenerator",
    "LabeledPrior",
    "LabeledTKAM",
    "LatentGenerator",
    "Likelihood",
    "MixturePrior",
    "MultimodalTKAM",
    "NetworkOptions",
    "PairELBO",
    "PairGuide",
    "PairTerms",
    "Seq2SeqTKAM",
    "SequenceLikelihood",
    "StandardizedLikelihood",
    "TiltedPrior",
]
