"""Bases keep the laws of tests/laws/basis.py, and their closed forms."""

from __future__ import annotations

import pytest
import scipy.interpolate
import torch

from pyro_tkam.ops.bases import BASES, BasisFunctions, BSplines, GaussianKernels
from pyro_tkam.ops.bases.planes import CHUNK
from tests.laws import basis as laws

LOCAL = ["rbf", "bspline"]
NAMES = list(BASES)


def make(name: str, grid_size: int = 6, degree: int = 3, dtype: torch.dtype = torch.double) -> BasisFunctions:
    kind = BASES[name]
    return laws.cast(kind.uniform(0.0, 1.0, grid_size, degree, kind.default_width), dtype)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "law",
    [
        laws.values_have_one_entry_a_function,
        laws.functions_are_independent,
        laws.gradients_are_right,
        laws.maps_over_any_input,
        laws.survives_pickling,
    ],
    ids=lambda law: law.__name__,
)
def test_law(name, law):
    law(make(name))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("grid_size", [3, 20, 200])
def test_grid_sizes(name, grid_size):
    basis = make(name, grid_size)
    laws.sums_agree_with_values(basis, 1e-12)
    laws.single_precision_agrees(basis, 2e-6 * max(1, grid_size / 20))
    laws.knots_lie_in_order(basis, 0.0, 1.0)
    for dtype in (torch.float32, torch.double):
        laws.finite_far_outside(laws.cast(basis, dtype))


@pytest.mark.parametrize("name", LOCAL)
def test_zero_far_outside(name):
    laws.zero_far_outside(make(name))


@pytest.mark.parametrize("degree", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("grid_size", [1, 3, 20])
def test_spline_of_any_degree(degree, grid_size):
    basis = make("bspline", grid_size, degree)
    laws.sums_to_one(basis, 0.0, 1.0)
    z = torch.linspace(-1.5 / grid_size, 1 + 1.5 / grid_size, 101, dtype=torch.double)
    step = 1 / grid_size
    for i in range(basis.num_functions):
        knots = (torch.arange(degree + 2) + i - degree).double() * step
        element = scipy.interpolate.BSpline.basis_element(knots.numpy(), extrapolate=False)
        expected = torch.as_tensor(element(z.numpy())).nan_to_num()
        assert torch.allclose(basis(z)[:, i], expected, atol=1e-12)


@pytest.mark.parametrize("degree", [1, 2, 4])
def test_spline_laws_of_other_degrees(degree):
    basis = make("bspline", 5, degree)
    laws.sums_agree_with_values(basis, 1e-12)
    laws.maps_over_any_input(basis)
    if degree > 2:  # below, second derivatives jump at the knots
        laws.gradients_are_right(basis)


def test_gaussian_closed_form():
    basis = GaussianKernels(torch.tensor([0.0, 0.5, 2.0]), torch.tensor(0.7), 0)
    z = torch.linspace(-1, 3, 9)
    bandwidth = 1.0 * 0.7  # mean grid step times width
    expected = torch.stack([torch.exp(-0.5 * ((z - g) / bandwidth) ** 2) for g in (0.0, 0.5, 2.0)], -1)
    assert torch.allclose(basis(z), expected, atol=1e-6)
    coefficients = torch.randn(9, 3)
    assert torch.allclose(basis.weighted_sum(z, coefficients), (expected * coefficients).sum(-1), atol=1e-6)


def test_sums_larger_than_a_chunk():
    basis = make("rbf", 5)
    z = torch.rand(3 * CHUNK // 7 + 1, 7, dtype=torch.double)
    coefficients = torch.randn(7, 5, dtype=torch.double, requires_grad=True)
    total = basis.weighted_sum(z, coefficients)
    dense = (basis(z) * coefficients).sum(-1)
    assert torch.allclose(total, dense)
    weights = torch.randn_like(z)
    gradients = [torch.autograd.grad(x, coefficients, weights)[0] for x in (total, dense)]
    assert torch.allclose(*gradients)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_the_size_of_all_basis_values_is_kept(name):
    if name == "bspline":
        pytest.skip("kept dense")
    basis = make(name)
    kept: list[int] = []
    z, coefficients = torch.rand(100, 4, dtype=torch.double), torch.randn(4, 6, dtype=torch.double).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        basis.weighted_sum(z, coefficients[:, : basis.num_functions])
    assert max(kept) <= z.numel()


def test_bad_degree_and_grid():
    with pytest.raises(ValueError, match="degree of a B-spline must be at least 1, got 0"):
        BSplines.uniform(0.0, 1.0, 5, 0, None)
    with pytest.raises(ValueError, match="grid_size must be at least 2 centres, got 1"):
        GaussianKernels.uniform(0.0, 1.0, 1, 3, 1.0)
