"""
Quality of samples: distances to real images, copies of the training data, errors, and classes.
"""

from pyro_tkam.metrics.classifier import ClassShares, class_shares, train_classifier
from pyro_tkam.metrics.distances import frechet_distance, kernel_distance
from pyro_tkam.metrics.features import (
    StandardizedFeatures,
    classifier_features,
    embed,
    principal_features,
)
from pyro_tkam.metrics.infinite import SAMPLE_SIZES, Extrapolation, extrapolate
from pyro_tkam.metrics.memory import Copies, copies
from pyro_tkam.metrics.pixels import reconstruction_error, unpaired_error, variance_ratio

__all__ = [
    "SAMPLE_SIZES",
    "ClassShares",
    "Copies",
    "Extrapolation",
    "StandardizedFeatures",
    "class_shares",
    "classifier_features",
    "copies",
    "embed",
    "extrapolate",
    "frechet_distance",
    "kernel_distance",
    "principal_features",
    "reconstruction_error",
    "train_classifier",
    "unpaired_error",
    "variance_ratio",
]
