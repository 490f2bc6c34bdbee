"""
Many draws at a time, from polynomials of the inverse CDF where these are as exact as solutions.
"""

import pytest
import torch
from torch import Tensor

from pyro_tkam.distributions import ExponentiallyTilted
from pyro_tkam.nn import UnivariateFunctions
from pyro_tkam.ops import inverse_series
from pyro_tkam.ops.inverse_cdf import _find_massive_cell, _find_scattered_cell, cdf, icdf
from pyro_tkam.ops.inverse_series import MANY_DRAWS, evaluate_series, fit_series
from pyro_tkam.ops.table import Table

NUM = MANY_DRAWS + 1


def table(basis: str, reference: str, scale: float, columns: int = 7) -> Table:
    """Densities with coefficients of a given size."""
    bank = UnivariateFunctions((columns,), basis, *INTERVALS[reference], 8)
    with torch.no_grad():
        bank.coefficients.copy_(
            scale * torch.randn(bank.coefficients.shape, generator=torch.Generator().manual_seed(5))
        )
        return ExponentiallyTilted(bank.bound(), reference, validate_args=False)._table


INTERVALS = {"uniform": (0.0, 1.0), "gaussian": (-4.0, 4.0), "lognormal": (0.0, 4.0)}
PRIORS = [
    ("rbf", "uniform", 0.5),
    ("rbf", "gaussian", 0.5),
    ("rbf", "gaussian", 6.0),
    ("rbf", "lognormal", 2.0),
    ("bspline", "gaussian", 2.0),
    ("bspline", "uniform", 6.0),
    ("chebyshev", "lognormal", 2.0),
    ("fourier", "uniform", 0.5),
    ("fourier", "gaussian", 2.0),
]


def grid(columns: int, num: int = NUM) -> Tensor:
    """Probabilities everywhere, also near both ends."""
    return torch.linspace(0, 1, num)[1:, None].expand(-1, columns)


def missed(of: Table, z: Tensor, u: Tensor) -> float:
    """Return how far the CDF of draws is from ``u``, in double precision."""
    return float(
        (cdf(z.double(), of.coefficients.double(), of.edge_columns.double()) - u).abs().max()
    )


def inverse(of: Table, u: Tensor) -> Tensor:
    return icdf(u, of.coefficients, of.edge_columns)


@pytest.mark.parametrize(("basis", "reference", "scale"), PRIORS)
def test_many_draws_are_as_exact_as_few(basis, reference, scale):
    density = table(basis, reference, scale)
    u = grid(7, 5 * NUM)
    solved = torch.cat([inverse(density, part) for part in u.split(MANY_DRAWS - 1)])
    error = missed(density, inverse(density, u), u)
    assert error <= 2e-6
    assert error <= missed(density, solved, u) + 5e-7


@pytest.mark.parametrize(("basis", "reference", "scale"), [PRIORS[2], PRIORS[5]])
def test_control_polynomials_that_nothing_checks_are_refused_by_the_same_law(
    basis, reference, scale, monkeypatch
):
    monkeypatch.setattr(inverse_series, "_TOLERANCE", torch.inf)
    density = table(basis, reference, scale)
    u = grid(7, 5 * NUM)
    assert missed(density, inverse(density, u), u) > 1e-4


def test_polynomials_serve_nearly_all_bins_of_smooth_densities_and_few_of_rough_ones():
    share = {}
    for basis, reference, scale in (PRIORS[0], PRIORS[1], PRIORS[8]):
        density = table(basis, reference, scale)
        series = fit_series(lambda u, density=density: inverse(density, u), 7, torch.zeros(()))
        share[basis, reference] = float(series[0].isfinite().float().mean())
    assert share["rbf", "uniform"] > 0.95
    assert share["rbf", "gaussian"] > 0.9
    assert share["fourier", "gaussian"] < 0.8


def test_tails_keep_the_relative_accuracy_of_solutions():
    rate = 30.0
    density = ExponentiallyTilted(lambda z: rate * z, low=0.0, high=1.0)
    u = torch.logspace(-12, -0.01, NUM)
    z = density.icdf(u).double()
    truth = (rate * z).expm1() / torch.tensor(rate).double().expm1()
    large = u > 1e-6  # below, z itself is rounded
    assert ((truth - u).abs() / u)[large].max() < 1e-5


def test_the_ends_and_what_is_no_probability_are_treated_as_in_few_draws():
    density = table(*PRIORS[1], columns=3)
    odd = torch.tensor([0.0, 1e-30, 1 / 64, 0.5, 63 / 64, 1.0, -0.1, 1.1, torch.nan])
    few = inverse(density, odd[:, None].expand(-1, 3))
    many = inverse(density, torch.cat([odd, torch.full((NUM,), 0.3)])[:, None].expand(-1, 3))[
        : len(odd)
    ]
    torch.testing.assert_close(many, few, rtol=0, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("columns", [1, 7, 400])
def test_draws_of_one_and_of_many_densities(columns):
    density = table("rbf", "gaussian", 1.0, columns)
    u = torch.rand(NUM, columns, generator=torch.Generator().manual_seed(0))
    z = inverse(density, u)
    assert z.shape == u.shape
    assert missed(density, z, u) <= 1e-6


def test_draws_in_any_layout_are_the_same():
    density = table(*PRIORS[1])
    u = torch.rand(7, NUM, generator=torch.Generator().manual_seed(0))
    assert torch.equal(inverse(density, u.mT), inverse(density, u.mT.contiguous()))


def test_double_precision_keeps_its_accuracy():
    density = ExponentiallyTilted(lambda z: 2 * z, low=0.0, high=torch.tensor(1.0).double())
    u = torch.linspace(0, 1, NUM, dtype=torch.float64)
    truth = (1 + u * torch.tensor(2.0).double().expm1()).log() / 2
    assert (density.icdf(u) - truth).abs().max() < 1e-12


def test_gradients_are_those_of_few_draws():
    slope = torch.tensor(1.5, requires_grad=True)
    u = torch.rand(NUM, generator=torch.Generator().manual_seed(0))
    density = ExponentiallyTilted(lambda z: slope * z)
    z, parts = density.icdf(u), torch.cat([density.icdf(part) for part in u.split(1000)])
    gradient, of_parts = (
        torch.autograd.grad(draws.sum(), slope, retain_graph=True)[0] for draws in (z, parts)
    )
    torch.testing.assert_close(gradient, of_parts)
    with torch.no_grad():
        torch.testing.assert_close(density.icdf(u), z, rtol=0, atol=1e-6)


def test_a_series_is_evaluated_in_its_bin():
    series = torch.zeros(2, inverse_series.NUM_BINS, 1)
    series[0, :, 0] = torch.arange(64.0)
    series[1] = 0.25
    u = (torch.arange(64) + 0.75)[:, None] / 64
    assert torch.equal(evaluate_series(series, u), torch.arange(64.0)[:, None] + 0.125)


@pytest.mark.parametrize("cells", [1, 2, 3, 14, 64, 65, 1000])
def test_cells_of_scattered_draws_are_those_that_a_search_by_column_finds(cells):
    masses = torch.rand(cells, 5, generator=torch.Generator().manual_seed(0))
    masses[1:2] = 0.0  # a cell without mass
    masses = masses.cumsum(0) / masses.sum(0)
    u = torch.rand(500, 5, generator=torch.Generator().manual_seed(1))
    u[:3] = torch.stack([torch.zeros(5), torch.ones(5), masses[0]])
    found = _find_scattered_cell(masses, u.flatten(), torch.arange(5).repeat(500))
    assert torch.equal(found.reshape(500, 5), _find_massive_cell(masses, u))
