"""Angles: a circle, whatever its rotation, and no line."""

from __future__ import annotations

import math
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions.transforms import AffineTransform, identity_transform

from pyro_tkam.infer import MALA, SMC, EnsembleHMC, ParallelTempering, VectorizedMCMC
from pyro_tkam.infer.model.density import ModelDensity
from tests.untrusted import untrusted

NUM = 3


@pytest.fixture(autouse=True)
def _seed() -> None:
    pyro.set_rng_seed(0)


def towards(angle: float, concentration: float) -> Callable[[], None]:
    """Angles with an even prior and likelihood ``exp(κ cos(θ - angle))``: ``log Z = log I0(κ)``."""

    def model() -> None:
        with pyro.plate("angles", NUM):
            theta = pyro.sample("theta", dist.VonMises(0.0, 1e-6))
        pyro.factor("data", (concentration * torch.cos(theta - angle)).sum(-1))

    return model


def exact(concentration: float) -> float:
    scaled = torch.special.i0e(torch.tensor(concentration).double())
    return NUM * (scaled.log().item() + concentration)


def resultant(draws: Tensor) -> Tensor:
    """Return mean cosine and sine, ``(2, NUM)``."""
    flat = draws.flatten(0, 1)
    return torch.stack([flat.cos().mean(0), flat.sin().mean(0)])


@pytest.mark.parametrize("angle", [0.0, math.pi, 2.5])
@pytest.mark.parametrize("concentration", [0.0, 5.0])
def test_evidence_and_draws_on_a_circle_do_not_depend_on_rotation(
    angle: float, concentration: float
) -> None:
    """Within 6 errors from the scatter of 16 runs, or 5 that are known: false alarm below 3e-4."""
    smc = SMC(towards(angle, concentration), 256, num_runs=16, disable_progbar=True)
    smc.run()
    evidence = smc.log_evidence
    assert abs(evidence.value - exact(concentration)) <= 6 * evidence.standard_error + 1e-5
    mcmc = VectorizedMCMC(
        EnsembleHMC(towards(angle, concentration)), 100, warmup_steps=100, disable_progbar=True
    )
    mcmc.run()
    assert mcmc.verdict.trusted
    assert evidence.verdict.trusted
    k = torch.tensor(concentration).double()
    length = (torch.special.i1e(k) / torch.special.i0e(k)).float()
    expected = length * torch.tensor([[math.cos(angle)], [math.sin(angle)]]).expand(2, NUM)
    for draws in (smc.get_samples(group_by_chain=True), mcmc.get_samples(group_by_chain=True)):
        theta = draws["theta"]
        assert (theta.abs() <= math.pi + 1e-6).all()
        # At least a sixteenth of SMC's 4,096 rows are worth an independent draw.
        torch.testing.assert_close(resultant(theta), expected, rtol=0, atol=5 * (0.5 / 256) ** 0.5)


def test_tempering_on_a_circle_and_its_mean_direction(capsys: pytest.CaptureFixture[str]) -> None:
    run = ParallelTempering(
        EnsembleHMC(towards(math.pi, 5.0)),
        num_temperatures=5,
        num_samples=200,
        num_chains=8,
        disable_progbar=True,
    )
    result = run.run()
    evidence = run.log_evidence("bar")
    assert abs(evidence.value - exact(5.0)) < 5 * evidence.standard_error
    assert "chains disagree" not in result.verdict.names
    assert (run.get_samples()["theta"].abs() <= math.pi + 1e-6).all()
    run.summary()
    first = next(line for line in capsys.readouterr().out.splitlines() if "theta[0]" in line)
    assert abs(abs(float(first.split()[1])) - math.pi) < 0.1


def test_angles_as_numbers_on_a_line_are_seen_to_fail() -> None:
    """The control: chains leave the circle, and their spread grows."""
    kernel = EnsembleHMC(towards(0.0, 0.5), transforms={"theta": identity_transform})
    mcmc = VectorizedMCMC(kernel, 100, warmup_steps=100, disable_progbar=True)
    with untrusted("stray chains"):
        mcmc.run()
    assert (mcmc.get_samples()["theta"].abs() > 2 * math.pi).any()


def test_a_resumed_run_on_a_circle_is_the_same_to_the_bit() -> None:
    def make(num_samples: int) -> VectorizedMCMC:
        kernel = MALA(towards(math.pi, 1.0))
        return VectorizedMCMC(
            kernel, num_samples, warmup_steps=10, num_chains=2, disable_progbar=True
        )

    whole, first, second = make(30), make(15), make(30)
    with untrusted():
        whole.run()
    pyro.set_rng_seed(0)
    with untrusted():
        first.run()
    second.resume(first.state)
    with untrusted():
        second.run()
    assert torch.equal(second.get_samples()["theta"], whole.get_samples()["theta"])


def test_which_sites_are_angles() -> None:
    def model() -> None:
        degrees = [AffineTransform(10.0, 180 / math.pi)]
        pyro.sample("plain", dist.Normal(0.0, 1.0))
        pyro.sample("degrees", dist.TransformedDistribution(dist.VonMises(0.0, 1.0), degrees))
        pyro.sample("flat", dist.VonMises(0.0, 1.0).mask(False))
        pyro.sample("two", dist.VonMises(torch.zeros(2), 1.0).to_event(1))

    density = ModelDensity(model)
    turn = 2 * math.pi
    expected = torch.tensor([math.inf, 360.0, math.inf, turn, turn], dtype=torch.float64)
    assert density.layout.periods is not None
    torch.testing.assert_close(density.layout.periods, expected)
    position = torch.tensor([[1.0, 200.0, 7.0, 4.0, -4.0]])
    values = density.constrain(position)
    assert values["degrees"].item() == pytest.approx(-160.0, abs=1e-4)
    assert values["flat"].item() == 7.0
    torch.testing.assert_close(values["two"], torch.tensor([[4 - turn, turn - 4]]))
    turned = position - torch.tensor([0.0, 360.0, 0.0, turn, -turn])
    torch.testing.assert_close(density.log_density(position), density.log_density(turned))
