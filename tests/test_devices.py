"""
Everything follows the device of its inputs: on a second device, values are those of the CPU.

``make test-gpu`` runs this file on CUDA too.
"""

from contextlib import nullcontext
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_tkam.distributions import ShortRunULA
from pyro_tkam.infer import (
    MALA,
    SMC,
    ULA,
    AutoMALA,
    EnsembleHMC,
    ImportanceMLE,
    ImportanceSampling,
    ImportanceWeightedELBO,
    LangevinMLE,
    ParallelTempering,
    SteppingstoneMLE,
    VectorizedMCMC,
    log_evidence,
)
from pyro_tkam.models import TKAM, AmortizedGuide
from pyro_tkam.nn import KAN
from tests.laws.elsewhere import second_device


def on_cpu():
    return nullcontext(torch.device("cpu"))


def on_cuda():
    return nullcontext(torch.device("cuda"))


NO_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = [
    pytest.param(second_device, id="second"),
    pytest.param(on_cuda, id="cuda", marks=NO_CUDA),
]
KERNELS = (EnsembleHMC, MALA, AutoMALA, ULA)
pytestmark = [
    pytest.mark.parametrize("device", DEVICES),
    pytest.mark.filterwarnings("ignore:the draws are not to be trusted"),  # runs are a few steps
]


def run(work, device):
    """Return what work returns and where it was."""
    pyro.set_rng_seed(0)
    with pyro.get_param_store().scope(), device() as place:
        result = work(place)
        assert result.device.type == place.type
        return result.detach().flatten().tolist()


def alike(work, device):
    """On CUDA random numbers differ, so that only places are compared."""
    found = run(work, device)
    expected = run(work, on_cpu)
    if device is second_device:
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_tensors_of_two_devices_do_not_mix(device):
    with device() as place, pytest.raises(RuntimeError, match="on the same device"):
        torch.ones(3, device=place) + torch.ones(3)


@pytest.mark.parametrize("basis", ["rbf", "bspline", "rswaf", "fourier", "chebyshev", "morlet"])
def test_networks(device, basis):
    def work(place):
        network = KAN([3, 4, 2], basis=basis).to(place)
        loss = network(torch.rand(5, 3).to(place)).square().sum()
        loss.backward()
        return torch.stack([loss, *(p.grad.abs().sum() for p in network.parameters())])

    alike(work, device)


OBJECTIVES = {
    "importance": lambda: ImportanceMLE(5),
    "ELBO": lambda: pyro.infer.Trace_ELBO(max_plate_nesting=1),
    "importance-weighted": lambda: ImportanceWeightedELBO(3),
    "steppingstone": lambda: SteppingstoneMLE(ULA, num_temperatures=3, num_steps=2),
} | {kernel.__name__: lambda kernel=kernel: LangevinMLE(kernel, num_steps=2) for kernel in KERNELS}


PRESETS = {
    "kart": TKAM.kart,
    "mixture": TKAM.mixture,
    "autoregressive": TKAM.autoregressive,
    "deep": partial(TKAM.deep, sampler=ShortRunULA(num_steps=3)),
}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("objective", ["ELBO", "importance", "MALA"])
def test_presets(device, preset, objective):
    alike(training(preset, objective), device)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_objectives(device, objective):
    alike(training("mixture", objective), device)


def training(preset, objective):
    def work(place):
        model = PRESETS[preset](6, 4).to(place)
        needs_guide = objective in ("ELBO", "importance-weighted")
        guide = AmortizedGuide(model).to(place) if needs_guide else None
        x = torch.rand(5, 6).to(place)
        loss = OBJECTIVES[objective]().differentiable_loss(model, guide, x)
        loss.backward()
        return torch.stack(
            [loss, *(p.grad.abs().sum() for p in model.parameters() if p.grad is not None)]
        )

    return work


def model(y):
    level = pyro.sample("level", dist.Normal(y.new_zeros(2), 1.0).to_event(1))
    scatter = pyro.sample("scatter", dist.LogNormal(y.new_zeros(()), 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(level.sum(), scatter), obs=y)


def data(place):
    return torch.tensor([0.3, -0.4, 1.2, 0.9, 0.1, 0.7]).to(place)


@pytest.mark.parametrize("kernel", KERNELS)
def test_chains(device, kernel):
    def work(place):
        mcmc = VectorizedMCMC(
            kernel(model), num_samples=4, num_chains=4, warmup_steps=4, disable_progbar=True
        )
        mcmc.run(data(place))
        return mcmc.get_samples()["level"]

    alike(work, device)


def test_weighted_draws(device):
    def sequential(place):
        smc = SMC(model, num_particles=64, disable_progbar=True)
        smc.run(data(place))
        return smc.get_samples()["level"].mean(0)

    alike(sequential, device)
    alike(
        lambda place: ImportanceSampling(model, num_particles=50).run(data(place)).log_weights,
        device,
    )


def test_tempering(device):
    def work(place):
        tempering = ParallelTempering(
            MALA(model),
            num_temperatures=3,
            num_samples=10,
            warmup_steps=10,
            num_chains=2,
            disable_progbar=True,
        )
        tempering.run(data(place))
        return tempering.get_samples()["level"].mean(0)

    alike(work, device)


def test_evidences(device):
    def work(place):
        found = log_evidence(model, data(place), method="importance", num_particles=50)
        return torch.tensor([found.value, found.standard_error], device=place)

    alike(work, device)
