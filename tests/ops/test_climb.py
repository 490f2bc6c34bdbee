"""Climbs end at maxima, whatever the scales, and say where they do not."""

import torch
from torch import Tensor

from pyro_tkam.ops.climb import climb

SCALE = torch.tensor([1e-4, 1.0, 1e5])
MIDDLE = torch.tensor([3e-4, -2.0, 1e5])


def valley(position: Tensor) -> tuple[Tensor, Tensor]:
    """A correlated quadratic whose coordinates differ by nine orders of magnitude."""
    precision = torch.tensor([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]]).inverse()
    centered = (position - MIDDLE) / SCALE
    slope = -centered @ precision
    return (slope * centered).sum(-1) / 2, slope / SCALE


def test_climbs_reach_the_maximum_of_a_badly_scaled_quadratic() -> None:
    generator = torch.Generator().manual_seed(0)
    start = MIDDLE + 5 * SCALE * torch.randn(50, 3, generator=generator)
    found = climb(valley, start, SCALE)
    assert found.converged.all()
    assert (found.value > -0.01).all()
    assert ((found.position - MIDDLE).abs() < 0.2 * SCALE).all()
    assert 50 < found.evaluations < 50 * 40


def test_two_maxima_keep_their_own_climbs() -> None:
    def double(position: Tensor) -> tuple[Tensor, Tensor]:
        return -((position.square() - 1) ** 2).sum(-1), -4 * position * (position.square() - 1)

    start = torch.tensor([[-3.0], [-0.1], [0.2], [5.0]])
    found = climb(double, start, torch.ones(1))
    assert found.converged.all()
    torch.testing.assert_close(
        found.position.flatten(), torch.tensor([-1.0, -1.0, 1.0, 1.0]), atol=0.02, rtol=0
    )


def test_a_slope_without_end_and_an_undefined_start_are_no_maxima() -> None:
    def slope(position: Tensor) -> tuple[Tensor, Tensor]:
        value = torch.where(position[:, 0] < -1, torch.nan, position[:, 0])
        return value, torch.ones_like(position)

    found = climb(slope, torch.tensor([[0.0], [-2.0]]), torch.ones(1), most_steps=30)
    assert not found.converged.any()


def test_a_wall_of_zero_density_is_not_crossed() -> None:
    def walled(position: Tensor) -> tuple[Tensor, Tensor]:
        value = torch.where(position[:, 0] < 1, -(position[:, 0] - 0.9).square(), -torch.inf)
        return value, -2 * (position - 0.9)

    found = climb(walled, torch.tensor([[-30.0], [0.99]]), torch.ones(1))
    assert found.converged.all()
    assert (found.position - 0.9).abs().max() < 0.03
