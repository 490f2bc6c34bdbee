"""How often a model's Python code runs; what a recorded graph evaluates is not counted."""

from contextlib import AbstractContextManager, nullcontext

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_tkam.infer import EnsembleHMC, VectorizedMCMC, log_evidence
from pyro_tkam.infer.evidence.log_evidence import METHODS
from tests.untrusted import untrusted

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


SMALL = {name: {"num_samples": 50, "warmup_steps": 30} for name in METHODS} | {
    "auto": {},
    "importance": {"num_particles": 2000},
    "ais": {"num_particles": 100, "steps_between": 3, "warmup_steps": 30},
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("model", "data", "most"),
    [(single, torch.tensor(0.5), 8), (local, torch.tensor([0.5, 1.0]), 20)],
    ids=["one latent", "a local plate"],
)
def test_an_evidence_prepares_once(model, data: Tensor, most: int, method: str) -> None:
    pyro.set_rng_seed(0)
    calls.clear()
    evidence = log_evidence(model, data, method=method, **SMALL[method])
    exact = dist.Normal(0.0, 2**0.5).log_prob(data).sum().item()
    assert abs(evidence.value - exact) < 5 * evidence.standard_error
    assert len(calls) <= most


@pytest.mark.parametrize(("num_chains", "expected"), [(4, untrusted()), (64, nullcontext())])
def test_chains_prepare_once(num_chains: int, expected: AbstractContextManager) -> None:
    pyro.set_rng_seed(0)
    calls.clear()
    mcmc = VectorizedMCMC(EnsembleHMC(single), 20, 20, num_chains=num_chains, disable_progbar=True)
    with expected:
        mcmc.run(torch.tensor(0.5))
    assert len(calls) <= 4
