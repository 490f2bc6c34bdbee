"""Bases keep the laws of tests/laws/basis.py, and their closed forms."""

from __future__ import annotations

import dataclasses

import pytest
import scipy.interpolate
import scipy.special
import torch
from torch.autograd.gradcheck import GradcheckError

from pyro_tkam.ops.bases import (
    BASES,
    BasisFunctions,
    BSplines,
    FourierSeries,
    GaussianKernels,
    MexicanHats,
    MorletWavelets,
    SwitchKernels,
    kernels,
    planes,
    splines,
)
from tests.laws import basis as laws

LOCAL = ["rbf", "bspline", "rswaf", "mexican_hat", "morlet"]
FUSED = ["rbf", "rswaf", "mexican_hat", "morlet", "fourier", "bspline"]
NAMES = list(BASES)


def make(
    name: str, grid_size: int = 6, degree: int = 3, dtype: torch.dtype = torch.double
) -> BasisFunctions:
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
        laws.layers_are_right,
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


def irregular(degree: int = 3, batch: tuple[int, ...] = ()) -> BasisFunctions:
    """B-splines on six steps whose lengths differ up to tenfold, with the ends 0 and 1."""
    steps = torch.rand(*batch, 6, dtype=torch.double) + 0.1
    grid = torch.nn.functional.pad(steps.cumsum(-1) / steps.sum(-1, keepdim=True), (1, 0))
    return BSplines(grid, None, degree).on_grid(grid)


@pytest.mark.parametrize("degree", [1, 2, 3, 4, 7])
def test_irregular_spline_of_any_degree(degree):
    basis = irregular(degree)
    laws.sums_to_one(basis, 0.0, 1.0)
    laws.sums_agree_with_values(basis, 1e-12)
    laws.zero_far_outside(basis)
    z = torch.linspace(-0.8, 1.8, 301, dtype=torch.double)
    outside = torch.arange(1, degree + 1).double() / 6
    knots = torch.cat([-outside.flip(0), basis.grid, 1 + outside])
    for i in range(basis.num_functions):
        element = scipy.interpolate.BSpline.basis_element(
            knots[i : i + degree + 2].numpy(), extrapolate=False
        )
        assert torch.allclose(
            basis(z)[:, i], torch.as_tensor(element(z.numpy())).nan_to_num(), atol=1e-12
        )


@pytest.mark.parametrize(
    "law",
    [
        laws.values_have_one_entry_a_function,
        laws.functions_are_independent,
        laws.gradients_are_right,
        laws.layers_are_right,
        laws.maps_over_any_input,
        laws.survives_pickling,
        laws.finite_far_outside,
    ],
    ids=lambda law: law.__name__,
)
def test_law_of_irregular_splines(law):
    law(irregular())


@pytest.mark.parametrize("name", NAMES)
def test_grids_of_their_own(name):
    """
    A basis with a grid for each input agrees with one basis for each of them, gradients included.
    """
    low, high = torch.tensor([0.0, -1.0, 0.2]).double(), torch.tensor([1.0, 2.0, 0.7]).double()
    single = make(name)
    knots = torch.lerp(
        low[:, None], high[:, None], torch.rand(3, single.placed.shape[-1]).double().sort(-1).values
    )
    together = single.moved(knots, single.grid_size)
    apart = [single.moved(own, single.grid_size) for own in knots]
    s = (1.2 * torch.randn(7, 3, dtype=torch.double)).requires_grad_()
    coefficients = torch.randn(2, 3, single.num_functions, dtype=torch.double, requires_grad=True)
    expected = sum((apart[i](s[:, i]) @ coefficients[:, i].mT) for i in range(3))
    for result in (
        together.edge_sum(s, coefficients),
        together.weighted_sum(s[:, None], coefficients).sum(-1),
    ):
        assert torch.allclose(result, expected)
        gradients = zip(
            torch.autograd.grad(result.sin().sum(), (s, coefficients), retain_graph=True),
            torch.autograd.grad(expected.sin().sum(), (s, coefficients), retain_graph=True),
            strict=True,
        )
        assert all(torch.allclose(a, b) for a, b in gradients)
    assert torch.allclose(together.weighted_sum(s, coefficients[0]).sum(-1), expected[:, 0])
    # one argument for all, values that differ
    shared = together.weighted_sum(s[:, :1, None], coefficients)
    assert torch.allclose(shared[:, 1, 2], (apart[2](s[:, 0]) * coefficients[1, 2]).sum(-1))


def test_splines_on_equal_steps_stay_fast():
    basis = make("bspline", 10)
    assert type(basis.moved(torch.linspace(-2, 3, 8, dtype=torch.double), 7)) is BSplines
    assert type(basis.moved(torch.linspace(0, 1, 8, dtype=torch.double) ** 2, 7)) is not BSplines


@pytest.mark.parametrize("degree", [1, 2, 4])
def test_spline_laws_of_other_degrees(degree):
    basis = make("bspline", 5, degree)
    laws.sums_agree_with_values(basis, 1e-12)
    laws.maps_over_any_input(basis)
    if degree > 2:  # below, second derivatives jump at the knots
        laws.gradients_are_right(basis)


def test_switch_closed_form():
    u = torch.linspace(-3, 3, 7, dtype=torch.double)
    assert torch.allclose(SwitchKernels.derivative(u, 0), 1 - torch.tanh(u) ** 2)
    assert torch.allclose(
        MexicanHats.derivative(u, 0), 0.8673250706 * (1 - u**2) * torch.exp(-(u**2) / 2)
    )
    assert torch.allclose(
        MorletWavelets.derivative(u, 0), torch.cos(5 * u) * torch.exp(-(u**2) / 2)
    )


@pytest.mark.parametrize("kernel", [GaussianKernels, SwitchKernels, MexicanHats, MorletWavelets])
def test_kernel_derivatives_of_any_order(kernel):
    u = torch.linspace(-2, 2, 9, dtype=torch.double, requires_grad=True)
    for order in range(4):
        (expected,) = torch.autograd.grad(kernel.derivative(u, order).sum(), u)
        assert torch.allclose(kernel.derivative(u, order + 1), expected)
        assert torch.allclose(kernel.overwrite(u.detach().clone(), order + 1), expected)


def test_fourier_closed_form():
    low, high, width = -1.0, 3.0, 1.3
    basis = laws.cast(FourierSeries.uniform(low, high, 3, 0, width), torch.double)
    z = torch.linspace(-2, 4, 11, dtype=torch.double)
    angle = 2 * torch.pi * width * (z - low) / (high - low)
    expected = [torch.ones_like(z)] + [
        f(k * angle) for k in (1, 2, 3) for f in (torch.cos, torch.sin)
    ]
    # the width is rounded to float32
    assert torch.allclose(basis(z), torch.stack(expected, -1), atol=1e-6)
    assert basis.knots.numel() == 7


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_without_outputs_is_refused(name):
    """Wrong version: PyTorch's lookup fails with an error of its own on two threads."""
    basis = make(name)
    coefficients = torch.zeros(0, 2, basis.num_functions, dtype=torch.double)
    with pytest.raises(ValueError, match=r"coefficients must have shape .* at least one out"):
        basis.edge_sum(torch.zeros(5, 2, dtype=torch.double), coefficients)


@pytest.mark.parametrize("width", [1.0, 0.7])
@pytest.mark.parametrize(("low", "high"), [(-4.0, 4.0), (0.0, 1.0), (0.0, 4.0)])
def test_high_frequencies_keep_their_digits_in_single_precision(low, high, width):
    """Wrong version: multiples of a rounded angle, up to 4e-5 off."""
    basis = FourierSeries.uniform(low, high, 50, 0, width)
    z = torch.linspace(low, high, 10001)
    exact = basis.cast(torch.double)(z.double())
    assert (basis(z) - exact).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["chebyshev", "gegenbauer"])
@pytest.mark.parametrize("degree", [0, 1, 3, 9])
def test_polynomials_closed_form(name, degree):
    basis = dataclasses.replace(
        make(name, degree=degree), width=torch.tensor(1.7, dtype=torch.double)
    )
    z = torch.linspace(-3, 3, 11, dtype=torch.double)
    x = torch.tanh(z).numpy()
    for n in range(degree + 1):
        exact = (
            scipy.special.eval_chebyt(n, x / 1.7)
            if name == "chebyshev"
            else scipy.special.eval_gegenbauer(n, 1.7, x)
        )
        assert torch.allclose(basis(z)[:, n], torch.as_tensor(exact))


@pytest.mark.parametrize("name", NAMES)
def test_start_reproduces_small_noise(name):
    basis = make(name, 20)
    noise = (
        0.1 / basis.num_functions * (torch.rand(500, basis.num_functions, dtype=torch.double) - 0.5)
    )
    values = basis.weighted_sum(
        torch.linspace(0, 1, 99, dtype=torch.double).unsqueeze(-1), basis.start(noise, 0.0, 1.0)
    )
    assert values.abs().max() < 0.1  # nothing is amplified


def test_start_fits_the_noise():
    basis = make("bspline", 20)
    noise = torch.randn(5, basis.num_functions, dtype=torch.double)
    points = torch.linspace(0, 1, basis.num_functions, dtype=torch.double)
    fitted = basis(points) @ basis.start(noise, 0.0, 1.0).mT
    residual = noise.mT - fitted
    assert torch.allclose(
        basis(points).mT @ residual, torch.zeros_like(residual), atol=1e-2 * noise.norm()
    )
    assert residual.norm() < 0.3 * noise.norm()


def test_fourier_starts_fall_with_the_square_of_frequency():
    start = make("fourier", 4).start(torch.ones(9, dtype=torch.double), 0.0, 1.0)
    assert torch.allclose(
        1 / start, torch.tensor([1.0, 1, 1, 4, 4, 9, 9, 16, 16], dtype=torch.double)
    )


def test_gaussian_closed_form():
    basis = GaussianKernels(torch.tensor([0.0, 0.5, 2.0]), torch.tensor(0.7), 0)
    z = torch.linspace(-1, 3, 9)
    bandwidth = 1.0 * 0.7  # mean grid step times width
    expected = torch.stack(
        [torch.exp(-0.5 * ((z - g) / bandwidth) ** 2) for g in (0.0, 0.5, 2.0)], -1
    )
    assert torch.allclose(basis(z), expected, atol=1e-6)
    coefficients = torch.randn(9, 3)
    assert torch.allclose(
        basis.weighted_sum(z, coefficients), (expected * coefficients).sum(-1), atol=1e-6
    )


def test_sums_larger_than_a_chunk():
    basis = make("rbf", 5)
    z = torch.rand(3 * planes.CHUNK // 7 + 1, 7, dtype=torch.double)
    coefficients = torch.randn(7, 5, dtype=torch.double, requires_grad=True)
    total = basis.weighted_sum(z, coefficients)
    dense = (basis(z) * coefficients).sum(-1)
    assert torch.allclose(total, dense)
    weights = torch.randn_like(z)
    gradients = [torch.autograd.grad(x, coefficients, weights)[0] for x in (total, dense)]
    assert torch.allclose(*gradients)


@pytest.mark.parametrize("name", ["rbf", "bspline"])
def test_chunks_do_not_change_results(name, monkeypatch):
    basis = make(name)
    results = []
    for size in (1 << 20, 40):  # the second makes chunks of one or two rows
        for module in (kernels, splines, planes):
            monkeypatch.setattr(module, "CHUNK", size)
        torch.manual_seed(1)
        s = torch.randn(7, 3, dtype=torch.double, requires_grad=True)
        coefficients = torch.randn(
            2, 3, basis.num_functions, dtype=torch.double, requires_grad=True
        )
        total = (
            basis.edge_sum(s, coefficients).sin().sum()
            + basis.weighted_sum(s, coefficients[0]).cos().sum()
        )
        results.append([total, *torch.autograd.grad(total, (s, coefficients))])
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a, b)


@pytest.mark.parametrize("name", FUSED)
def test_nothing_of_the_size_of_all_basis_values_is_kept(name):
    basis = make(name)
    kept: list[int] = []
    z, coefficients = (
        torch.rand(100, 4, dtype=torch.double),
        torch.randn(4, basis.num_functions, dtype=torch.double).requires_grad_(),
    )
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: kept.append(x.numel()) or x, lambda x: x
    ):
        basis.weighted_sum(z, coefficients)
    assert max(kept) <= z.numel()


def test_bad_degree_and_grid():
    with pytest.raises(ValueError, match="degree must be at least 1 for a B-spline, got 0"):
        BSplines.uniform(0.0, 1.0, 5, 0, None)
    with pytest.raises(ValueError, match="grid_size must be at least 2 centers, got 1"):
        GaussianKernels.uniform(0.0, 1.0, 1, 3, 1.0)


class Twice(GaussianKernels):
    """Two of its functions are one."""

    def __call__(self, z):
        return super().__call__(z)[..., [0, 0, *range(2, self.num_functions)]]


class TooMany(GaussianKernels):
    """It has one value too many."""

    def __call__(self, z):
        return torch.nn.functional.pad(super().__call__(z), (0, 1))


class WrongSlope(GaussianKernels):
    """Its first derivative is wrong by a hundredth, where it is made fast."""

    @classmethod
    def overwrite(cls, u, order):
        return super().overwrite(u, order) * (1.01 if order else 1.0)


class Unsaved(GaussianKernels):
    """Its pickles are of another grid."""

    def __getstate__(self):
        return {**super().__getstate__(), "grid": self.grid + 1}


class _TwiceUnderVmap(torch.autograd.Function):
    @staticmethod
    def forward(x):
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, grad):
        return grad

    @staticmethod
    def vmap(info, in_dims, x):
        return 2 * x, in_dims[0]


class Unmapped(GaussianKernels):
    """Its sums are twice as large under ``vmap``."""

    def weighted_sum(self, z, coefficients):
        return _TwiceUnderVmap.apply(super().weighted_sum(z, coefficients))


class Rounded(GaussianKernels):
    """It knows its functions to three digits in single precision, and to ten in double."""

    def weighted_sum(self, z, coefficients):
        return super().weighted_sum(z, coefficients) + (1e-3 if z.dtype == torch.float32 else 1e-10)


class Explosive(GaussianKernels):
    """It grows without bounds."""

    @staticmethod
    def derivative(u, order):
        return u.square().exp()


class Unsorted(GaussianKernels):
    """Its knots run backwards."""

    @property
    def knots(self):
        return self.grid.flip(0)


@pytest.mark.parametrize(
    ("law", "wrong"),
    [
        (laws.values_have_one_entry_a_function, TooMany),
        (laws.functions_are_independent, Twice),
        (laws.gradients_are_right, WrongSlope),
        (laws.layers_are_right, WrongSlope),
        (laws.layers_are_right, Twice),
        (laws.maps_over_any_input, Unmapped),
        (laws.survives_pickling, Unsaved),
        (lambda basis: laws.sums_agree_with_values(basis, 1e-12), Rounded),
        (lambda basis: laws.single_precision_agrees(basis, 2e-6), Rounded),
        (lambda basis: laws.knots_lie_in_order(basis, 0.0, 1.0), Unsorted),
        (laws.finite_far_outside, Explosive),
        (laws.zero_far_outside, FourierSeries),
        (lambda basis: laws.sums_to_one(basis, 0.0, 1.0), GaussianKernels),
    ],
)
def test_laws_refuse_what_breaks_them(law, wrong):
    with pytest.raises((AssertionError, GradcheckError)):
        law(laws.cast(wrong.uniform(0.0, 1.0, 6, 3, wrong.default_width), torch.double))
