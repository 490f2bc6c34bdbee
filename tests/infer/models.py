"""Pyro models that the tests of inference share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.reparam import LocScaleReparam, TransformReparam
from torch import Tensor

EFFECTS = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
ROWS = torch.tensor(
    [[0.3, -1.2, 0.5], [1.1, 0.2, -0.4], [-0.8, 0.9, 2.0], [0.1, 0.0, -1.5], [0.7, 1.3, 0.6]]
)


def eight_schools() -> None:
    """Rubin's eight schools, centered."""
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", 8):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("y", dist.Normal(theta, ERRORS), obs=EFFECTS)


eight_schools_noncentered = poutine.reparam(eight_schools, {"theta": LocScaleReparam(0.0)})


def local_latents(x: Tensor) -> None:
    """A latent vector and a positive latent for each datum."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        w = pyro.sample("w", dist.Gamma(2.0, 1.0))
        pyro.sample("x", dist.Normal(z.sum(-1) * w, 1.0), obs=x[:, 0])


def nested_plates(x: Tensor) -> None:
    """Two plates that both hold everything."""
    with pyro.plate("columns", x.shape[1], dim=-1), pyro.plate("rows", len(x), dim=-2):
        z = pyro.sample("z", dist.LogNormal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def rolled(x: Tensor) -> None:
    """A plate that hides a coupling."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z.roll(1, -1), 1.0), obs=x[:, 0])


def mixture(x: Tensor) -> None:
    """A global mixture whose assignments are summed out."""
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(2)))
    low = pyro.sample("low", dist.Normal(-1.0, 1.0))
    with pyro.plate("data", len(x)):
        high = pyro.sample("k", dist.Categorical(weights))
        pyro.sample("x", dist.Normal(low + 2.0 * high, 0.7), obs=x[:, 0])


def local_mixture(x: Tensor) -> None:
    """A latent and a summed out indicator for each datum."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        k = pyro.sample("k", dist.Bernoulli(0.3))
        pyro.sample("x", dist.Normal(z + 2 * k, 1.0), obs=x[:, 0])


def correlation(x: Tensor) -> None:
    """A Cholesky factor: fewer coordinates than values."""
    factor = pyro.sample("factor", dist.LKJCholesky(3, 1.5))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.MultivariateNormal(torch.zeros(3), scale_tril=factor), obs=x)


def scaled_and_masked(x: Tensor) -> None:
    """Scale, mask and a factor."""
    with poutine.scale(scale=2.5):
        rate = pyro.sample("rate", dist.Exponential(1.0))
        angle = pyro.sample("angle", dist.VonMises(0.3, 2.0))
    pyro.factor("penalty", -rate.square() + angle.cos())
    with poutine.mask(mask=x[:, 0] > 0), pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(rate, 1.0), obs=x[:, 0])


def hierarchical(x: Tensor) -> None:
    """Sites whose priors depend on other sites."""
    scale = pyro.sample("scale", dist.HalfNormal(1.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Laplace(0.0, scale))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])


reparameterized = poutine.reparam(
    lambda x: pyro.sample("z", dist.LogNormal(0.5, 1.0).expand([3]).to_event(1)),
    {"z": TransformReparam()},
)

MODELS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "eight schools": (eight_schools, ()),
    "eight schools non-centered": (eight_schools_noncentered, ()),
    "local": (local_latents, (ROWS,)),
    "nested plates": (nested_plates, (ROWS,)),
    "rolled": (rolled, (ROWS,)),
    "mixture": (mixture, (ROWS,)),
    "local mixture": (local_mixture, (ROWS,)),
    "correlation": (correlation, (ROWS,)),
    "scaled": (scaled_and_masked, (ROWS,)),
    "hierarchical": (hierarchical, (ROWS,)),
    "reparameterized": (reparameterized, (ROWS,)),
}
LOCAL_PLATES = {"local": {"data"}, "nested plates": {"columns", "rows"}, "local mixture": {"data"}}
