"""Inference for any Pyro model."""

from pyro_tkam.infer.importance_mle import ImportanceMLE, ImportanceStatistics

__all__ = ["ImportanceMLE", "ImportanceStatistics"]
