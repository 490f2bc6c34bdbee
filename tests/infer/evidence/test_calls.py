"""How often a model's Python code runs; what a recorded graph evaluates is not counted."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_tkam.infer import log_evidence

calls: list[int] = []


def single(y: Tensor) -> None:
    calls.append(1)
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(z, 1.0), obs=y)


def local(y: Tensor) -> None:
    calls.append(1)
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(z, 1.0), obs=y)


@pytest.mark.parametrize(
    ("model", "data", "most"),
    [(single, torch.tensor(0.5), 8), (local, torch.tensor([0.5, 1.0]), 20)],
    ids=["one latent", "a local plate"],
)
def test_an_evidence_prepares_once(model, data: Tensor, most: int) -> None:
    pyro.set_rng_seed(0)
    calls.clear()
    evidence = log_evidence(model, data)
    exact = dist.Normal(0.0, 2**0.5).log_prob(data).sum().item()
    assert abs(evidence.value - exact) < 5 * evidence.standard_error
    assert len(calls) <= most
