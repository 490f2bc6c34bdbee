"""How good samples are."""

from pyro_tkam.metrics.classifier import ClassShares, class_shares, train_classifier

__all__ = ["ClassShares", "class_shares", "train_classifier"]
