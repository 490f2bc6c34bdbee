from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pyro_tkam.ops.hmc import hmc_step, trajectory
from pyro_tkam.ops.langevin import Noise, Point, Tuning
from pyro_tkam.ops.random_walk import random_walk_step
from tests.laws.kernel import (
    EXAMPLES,
    Example,
    Rows,
    gaussian,
    leaves_invariant,
    smallest_p,
    two_modes,
)

CHAINS = 3
"""Of an ensemble: among many chains a wrong kernel hides."""


def move(point: Point, example: Example) -> Point:
    num_steps = int(torch.randint(1, 6, ()))
    tuning = Tuning(torch.tensor(0.3), torch.linspace(0.5, 1.5, example.dim))
    return hmc_step(point, example, tuning, Noise.draw(point, 1), num_steps)[0]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_hmc_leaves_its_target_invariant(example: Example) -> None:
    """6 calls: a right kernel fails one of them with probability 0.006; the seed is fixed."""
    torch.manual_seed(1)
    assert leaves_invariant(move, example)


def test_random_walk_leaves_its_target_invariant() -> None:
    """A right kernel fails with probability 0.002; the seed is fixed."""
    torch.manual_seed(2)
    tuning = Tuning(torch.tensor(1.0), torch.ones(()))
    for example in (gaussian(3), two_modes()):
        assert leaves_invariant(
            lambda point, target: random_walk_step(point, target, tuning, Noise.draw(point, 1))[0],
            example,
            steps=10,
        )


def spread_of_ensembles(point: Point) -> Tensor:
    """Standard deviation of each ensemble's rows, at each of its rows, ``(rows, 1)``."""
    ensembles = point.position.unflatten(0, (-1, CHAINS))
    return ensembles.std(1, keepdim=True).expand_as(ensembles).flatten(0, 1)


def own_metric(point: Point, example: Example) -> Point:
    """Use as scale the spread of the ensemble where it is."""
    tuning = Tuning(torch.tensor(1.7), spread_of_ensembles(point))
    return hmc_step(point, example, tuning, Noise.draw(point, 1), 2)[0]


def own_length(point: Point, example: Example) -> Point:
    """Make more steps from where the density is high."""
    tuning, noise = Tuning(torch.tensor(0.8), torch.ones(1)), Noise.draw(point, 1)
    short, long = (hmc_step(point, example, tuning, noise, steps)[0] for steps in (1, 4))
    inside = point.position.abs() < 0.2
    return short.map(lambda a, b: torch.where(inside.reshape(-1, *(1,) * (a.ndim - 1)), b, a), long)


def never_rejecting(point: Point, example: Example) -> Point:
    """Take every proposal."""
    tuning = Tuning(torch.tensor(0.45), torch.ones(1))
    return hmc_step(point, example, tuning, Noise.draw(point, 1), 1, adjusted=False)[0]


@pytest.mark.parametrize("wrong", [own_metric, own_length, never_rejecting])
def test_the_law_rejects_what_depends_on_the_state(wrong) -> None:
    torch.manual_seed(3)
    assert smallest_p(wrong, gaussian(1), draws=9_999, steps=20) < 1e-6


def test_a_failing_row_is_parked_and_rejected_and_disturbs_no_other() -> None:
    seen = []

    def wall(position: Tensor, rows: Tensor | None = None) -> Point:
        """A normal whose density is NaN beyond 1."""
        seen.append(position.clone())
        value = -0.5 * position.square().sum(-1)
        value = torch.where(position[:, 0] > 1, torch.nan, value)
        return Point(position, value, -position)

    start = wall(torch.tensor([[0.0], [0.0]]))
    momentum = torch.tensor([[5.0], [0.1]])
    end, _, failed, outside = trajectory(
        start, momentum, torch.tensor(0.1), torch.ones(1), 10, Rows(wall)
    )
    assert failed.tolist() == [True, False]
    assert not outside.any()
    assert torch.isfinite(end.log_density).all()
    # It goes one step beyond the wall, and stays at the last point before it.
    assert end.position[0].item() <= 1
    assert all(position[0].item() < 1.6 for position in seen)
    exact = 0.1 * math.sin(1.0)
    assert end.position[1].item() == pytest.approx(exact, rel=1e-2)


def test_walls_leave_the_target_invariant() -> None:
    """Rejecting trajectories that fail on the way samples the normal that is cut off."""
    torch.manual_seed(4)

    def cut(position: Tensor) -> Tensor:
        return torch.where(position[:, 0] > 0, torch.nan, -0.5 * position.square().sum(-1))

    half = Example("half normal", 1, cut, lambda n: -torch.randn(n, 1).abs())
    tuning = Tuning(torch.tensor(0.5), torch.ones(1))
    assert leaves_invariant(
        lambda point, target: hmc_step(point, target, tuning, Noise.draw(point, 1), 3)[0], half
    )
