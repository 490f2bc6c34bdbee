"""The trajectories that a benchmark compares must be what they are called."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from benchmarks.trajectories import (
    KERNELS,
    PILOT_LENGTHS,
    IsokineticHMC,
    PilotHMC,
    isokinetic_step,
    isokinetic_trajectory,
    summary,
    turned,
)
from pyro_tkam.infer import EnsembleHMC, VectorizedMCMC
from pyro_tkam.ops.langevin import Noise, Point, Tuning
from tests.laws.kernel import Example, Rows, funnel, gaussian, leaves_invariant, smallest_p


def correlated() -> Example:
    """A normal with correlations of 0.8 and 0.5."""
    normal = MultivariateNormal(
        torch.zeros(3), torch.tensor([[1.0, 0.8, 0.5], [0.8, 1.0, 0.5], [0.5, 0.5, 1.0]])
    )
    return Example("correlated", 3, normal.log_prob, lambda n: normal.sample((n,)))


def banana() -> Example:
    """A normal bent along a parabola."""

    def log_density(z: Tensor) -> Tensor:
        return -0.5 * z[..., 0].square() - 2 * (z[..., 1] - z[..., 0].square()).square()

    def draw(n: int) -> Tensor:
        first = torch.randn(n)
        return torch.stack([first, first.square() + 0.5 * torch.randn(n)], -1)

    return Example("banana", 2, log_density, draw)


def move(point: Point, example: Example, step_size: float = 0.5, adjusted: bool = True) -> Point:
    num_steps = int(torch.randint(1, 6, ()))
    tuning = Tuning(torch.tensor(step_size), torch.linspace(0.5, 1.5, example.dim))
    noise = Noise.draw(point, 1)
    return isokinetic_step(point, example, tuning, noise, num_steps, adjusted)[0]


@pytest.mark.parametrize("step_size", [0.5, 0.9])
@pytest.mark.parametrize("example", [correlated(), banana(), funnel()], ids=lambda each: each.name)
def test_isokinetic_trajectories_leave_their_target_invariant(
    example: Example, step_size: float
) -> None:
    """6 calls: a right kernel fails one of them with probability 0.006; the seed is fixed."""
    torch.manual_seed(1)
    assert leaves_invariant(lambda *each: move(*each, step_size), example, steps=10)


@pytest.mark.parametrize("example", [correlated(), banana()], ids=lambda each: each.name)
def test_without_the_metropolis_test_they_do_not(example: Example) -> None:
    torch.manual_seed(2)
    assert smallest_p(lambda *each: move(*each, 0.9, adjusted=False), example, steps=10) < 1e-6


def test_a_velocity_turns_as_the_formula_says_and_keeps_its_length() -> None:
    torch.manual_seed(3)
    velocity = torch.nn.functional.normalize(torch.randn(5, 4, dtype=torch.float64), dim=-1)
    force, duration = torch.randn(5, 4, dtype=torch.float64), torch.tensor(0.7)
    got, change = turned(velocity, force, duration)
    size = force.norm(dim=-1, keepdim=True)
    delta, along = duration * size / 3, (velocity * force / size).sum(-1, keepdim=True)
    norm = delta.cosh() + along * delta.sinh()
    toward = force / size * (delta.sinh() + along * (delta.cosh() - 1))
    torch.testing.assert_close(got, (velocity + toward) / norm)
    torch.testing.assert_close(change, 3 * norm.log().squeeze(-1))
    turned_fully, change = turned(velocity, 1e6 * force, duration)
    torch.testing.assert_close(turned_fully, force / size)
    assert torch.isfinite(change).all()


def test_short_steps_keep_the_energy() -> None:
    torch.manual_seed(4)
    example = gaussian(3)
    start = example(example.draw(10).double())
    velocity = torch.nn.functional.normalize(torch.randn_like(start.position), dim=-1)
    errors = []
    for steps in (50, 100):
        step_size = torch.tensor(1.0 / steps, dtype=torch.float64)
        end, kinetic, failed, _ = isokinetic_trajectory(
            start, velocity, step_size, torch.ones(3), steps, example
        )
        assert not failed.any()
        errors.append((kinetic - end.log_density + start.log_density).abs().max().item())
    assert errors[1] < 1e-2
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)  # of second order


def test_a_failing_row_is_parked_and_rejected() -> None:
    def wall(position: Tensor, rows: Tensor | None = None) -> Point:
        """A normal whose density is NaN beyond 1."""
        value = -0.5 * position.square().sum(-1)
        return Point(position, value.where(position[:, 0] <= 1, torch.nan), -position)

    start = wall(torch.tensor([[0.9, 0.0], [0.0, 0.0]]))
    noise = Noise(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.full((2, 1), 0.01))
    tuning = Tuning(torch.tensor(0.2), torch.ones(2))
    end, info = isokinetic_step(start, Rows(wall), tuning, noise, 3)
    assert info.failed.tolist() == [True, False]
    assert info.accepted.tolist() == [False, True]
    assert end.position[0].tolist() == start.position[0].tolist()
    assert end.position[1, 0].item() == pytest.approx(-3 * 0.2 * math.sqrt(2), rel=1e-5)


def run(kernel: EnsembleHMC) -> VectorizedMCMC:
    pyro.set_rng_seed(0)
    mcmc = VectorizedMCMC(kernel, 50, disable_progbar=True)
    mcmc.run()
    return mcmc


def normal(dim: int) -> None:
    pyro.sample("z", dist.Normal(torch.zeros(dim), 1.0).to_event(1))


@pytest.mark.parametrize(("dim", "same"), [(1, True), (2, False)])
def test_in_one_dimension_trajectories_are_hamiltonian(dim: int, same: bool) -> None:
    ours, plain = (
        run(kernel(lambda: normal(dim))).get_samples()["z"]
        for kernel in (IsokineticHMC, EnsembleHMC)
    )
    assert torch.equal(ours, plain) == same


def test_a_pilot_sets_one_of_its_lengths() -> None:
    kernel = PilotHMC(lambda: normal(5))
    mcmc = run(kernel)
    assert kernel.trajectory_length in PILOT_LENGTHS
    pilot = mcmc._moving.adaptation
    assert kernel.trajectory_length == PILOT_LENGTHS[pilot.best]
    assert (pilot.costs.diff() > 0).all()  # longer lengths took more gradients


def test_the_summary_is_of_ratios_to_the_default() -> None:
    figures = {"arma-arma11": (2.0, 8.0), "garch-garch11": (0.5, 0.5), "horseshoe, 41-d": (9, 9)}
    runs = {}
    for name, ratios in figures.items():
        for seed, ratio in enumerate(ratios):
            for kernel in KERNELS:
                runs[f"{name}/{kernel}/{seed}"] = {
                    "effective_draws": 3.0 if kernel == "default" else 3.0 * ratio,
                    "tail_draws": 5.0,
                    "gradients": 7,
                    "process_seconds": 2.0 if kernel == "default" else 2.0 * ratio,
                    "rhat": 1.02 if ratio == 8 and kernel == "adapted" else 1.0,
                    "findings": ["divergences"] if ratio == 9 else [],
                }
    told = summary(runs)["adapted"]
    assert told["per_gradient"]["by_posterior"] == pytest.approx(
        {"arma-arma11": 4.0, "garch-garch11": 0.5, "horseshoe, 41-d": 9.0}
    )
    assert told["per_gradient"]["median"] == pytest.approx(2.25)  # of the posteriors alone
    assert told["per_gradient"]["seeds"] == pytest.approx([1.25, 4.25])
    assert told["per_second"]["median"] == told["tail_per_gradient"]["median"] == pytest.approx(1)
    assert told["rhat"] == 1.02
    assert set(told["failures"]) == {
        "arma-arma11/adapted/1",
        "horseshoe, 41-d/adapted/0",
        "horseshoe, 41-d/adapted/1",
    }
