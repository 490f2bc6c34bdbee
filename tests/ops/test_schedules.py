from __future__ import annotations

import math

import pytest
import torch
from scipy.interpolate import PchipInterpolator

from pyro_tkam.ops.schedules import (
    adaptive,
    communication_barrier,
    cyclic_exponent,
    monotone_cubic,
    power_law,
    suggested_number,
)


def test_power_law_is_a_power_of_a_linear_ladder() -> None:
    torch.testing.assert_close(power_law(5, 3.0), (torch.arange(5) / 4) ** 3)
    assert power_law(4, dtype=torch.float64).dtype == torch.float64


@pytest.mark.parametrize(
    ("num", "exponent"), [(1, 1.0), (3, 0.0), (3, -1.0), (3, math.inf), (3, math.nan)]
)
def test_power_law_refuses(num: int, exponent: float) -> None:
    with pytest.raises(ValueError, match=r"num|exponent"):
        power_law(num, exponent)


def test_cyclic_exponent_ends_at_its_end_and_returns_as_often_as_it_cycles() -> None:
    values = [cyclic_exponent(i, 700, 4.0, 1.0, cycles=3) for i in range(701)]
    assert values[0] == pytest.approx(4)
    assert values[-1] == pytest.approx(1)
    assert [i for i in range(1, 700) if values[i] > max(values[i - 1], values[i + 1])] == [
        200,
        400,
        600,
    ]
    once = [cyclic_exponent(i, 9, 4.0, 1.0) for i in range(10)]
    assert once == sorted(once, reverse=True)


@pytest.mark.parametrize("step", [-1, 11])
def test_cyclic_exponent_refuses_steps_outside(step: int) -> None:
    with pytest.raises(ValueError, match="step"):
        cyclic_exponent(step, 10, 4.0, 1.0)


def test_monotone_cubic_agrees_with_scipy_inside_and_rises() -> None:
    x = torch.tensor([0.0, 0.1, 0.35, 0.7, 1.0]).double()
    y = torch.tensor([0.0, 0.5, 0.6, 1.4, 1.5]).double()
    inner = torch.linspace(0.1, 0.7, 50).double()
    torch.testing.assert_close(
        monotone_cubic(x, y, inner), torch.from_numpy(PchipInterpolator(x, y)(inner.numpy()))
    )
    assert (monotone_cubic(x, y, torch.linspace(0, 1, 1000).double()).diff() > 0).all()


def test_adaptive_ladder_equalizes_a_known_barrier() -> None:
    """
    With local barrier λ(t) = 6 / (1 + 20 t), equal rejection means equal steps of its integral.
    """

    def barrier(t: torch.Tensor) -> torch.Tensor:
        return 0.3 * torch.log1p(20 * t)

    betas = power_law(12, 2.0, dtype=torch.float64)
    for _ in range(3):
        betas = adaptive(betas, barrier(betas).diff())
    torch.testing.assert_close(
        barrier(betas).diff(),
        torch.full((11,), barrier(betas)[-1].item() / 11).double(),
        rtol=0.01,
        atol=0,
    )
    assert betas[0] == 0
    assert betas[-1] == 1
    assert len(adaptive(betas, barrier(betas).diff(), num=5)) == 5


def test_adaptive_ladder_stays_rising_where_nothing_is_rejected() -> None:
    assert (adaptive(power_law(6), torch.zeros(5)).diff() > 0).all()
    assert (adaptive(power_law(6), torch.tensor([0.0, 0, 0, 0, 1])).diff() > 0).all()


def test_adaptive_refuses_wrong_shapes() -> None:
    with pytest.raises(ValueError, match="rejections"):
        adaptive(power_law(4), torch.zeros(4))
    with pytest.raises(ValueError, match="num"):
        adaptive(power_law(4), torch.zeros(3), num=1)


@pytest.mark.parametrize("rejection", [math.nan, math.inf, -0.1, 1.1])
def test_adaptive_refuses_what_is_no_rejection(rejection: float) -> None:
    with pytest.raises(ValueError, match=r"rejections must lie in \[0, 1\], got"):
        adaptive(power_law(3), torch.tensor([0.3, rejection]))


@pytest.mark.parametrize(
    "betas",
    [[0.0, 0.7, 0.5, 1.0], [0.0, 0.5, math.nan, 1.0], [0.1, 0.2, 0.3, 1.0], [0.0, 0.2, 0.3, 0.9]],
)
def test_adaptive_refuses_what_is_no_ladder(betas: list[float]) -> None:
    with pytest.raises(ValueError, match="betas must increase from 0 to 1, got"):
        adaptive(torch.tensor(betas), torch.full((3,), 0.3))


def test_adaptive_goes_on_from_rungs_that_rounding_merged() -> None:
    """
    A step of the barrier at 1 draws all rungs there, until single precision can't tell them apart.
    """
    betas = power_law(16, 4.0)
    for _ in range(10):
        betas = adaptive(betas, torch.eye(15)[-1])
    assert (betas.diff() == 0).any()
    assert (betas.diff() >= 0).all()


def test_barrier_and_number() -> None:
    torch.testing.assert_close(
        communication_barrier(torch.tensor([0.5, 0.25])), torch.tensor([0.0, 0.5, 0.75])
    )
    assert suggested_number(0.0) == 2
    assert suggested_number(4.01) == 10
    with pytest.raises(ValueError, match="barrier"):
        suggested_number(math.nan)
