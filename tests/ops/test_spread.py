"""Normal draws that lie apart."""

import pyro
import pytest
import torch

from pyro_tkam.ops.spread import spread_normals


@pytest.mark.parametrize("num", [1, 2, 5])
def test_each_is_standard_normal_and_any_two_are_as_far_apart_as_can_be(num) -> None:
    """Moments within five standard errors; independent draws, the control, miss the covariance."""
    pyro.set_rng_seed(0)
    rows = 40_000
    draws = spread_normals(num, torch.zeros(rows, dtype=torch.float64))
    error = 5 / rows**0.5
    for power, moment, spread in ((1, 0.0, 1.0), (2, 1.0, 2**0.5), (3, 0.0, 15**0.5)):
        assert float((draws**power).mean(1).sub(moment).abs().max()) < error * spread
    if num > 1:
        assert float(draws.sum(0).abs().max()) < 1e-12
        wanted = -1 / (num - 1)
        assert abs(float((draws[0] * draws[1]).mean()) - wanted) < error * (1 + wanted**2) ** 0.5
        control = torch.randn(2, rows, dtype=torch.float64).prod(0).mean()
        assert abs(float(control) - wanted) > error * (1 + wanted**2) ** 0.5


def test_type_and_shape_are_kept() -> None:
    draws = spread_normals(3, torch.zeros(2, 4, dtype=torch.float32))
    assert draws.shape == (3, 2, 4)
    assert draws.dtype == torch.float32
