"""
The tilted prior against adaptive quadrature that shares no code with it, for every named reference
and basis.
"""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import kstest, norm

from pyro_tkam.distributions import ExponentiallyTilted, TiltedMixture
from pyro_tkam.distributions.references import REFERENCES
from pyro_tkam.nn import UnivariateFunctions
from pyro_tkam.ops.quadrature import default_rule
from tests.distributions.energies import bank, cuts, integrals, log_reference, true_cdf

BASES = ["rbf", "bspline"]
#: ``|F(icdf(u)) - u|`` and ``|log Z - log Z_ref|`` that the model asks for
ACCURACY = {torch.float64: (1e-9, 1e-10), torch.float32: (2e-6, 5e-6)}

every_case = pytest.mark.parametrize(
    ("reference", "basis", "dtype"),
    [(r, b, d) for r in REFERENCES for b in BASES for d in ACCURACY],
    ids=str,
)


@every_case
def test_inverse_cdf_and_normalizer_against_adaptive_quadrature(reference, basis, dtype):
    double = bank(basis, reference)
    narrow = copy.deepcopy(double).to(dtype)
    double = narrow.to(torch.float64) if dtype == torch.float64 else copy.deepcopy(narrow).double()
    prior = ExponentiallyTilted(narrow.bound(), reference)
    energy, log_pi = double.bound(), log_reference(reference)
    u = torch.tensor([1e-6, 0.01, 0.1, 0.3, 0.5, 0.77, 0.9, 0.99, 1 - 1e-6], dtype=dtype)[
        :, None
    ].expand(-1, 4)
    with torch.no_grad():
        z = prior.icdf(u)
        log_z, cdf = true_cdf(prior, lambda z: energy(z) + log_pi(z), z)
        cdf_error, log_z_error = ACCURACY[dtype]
        assert z.dtype == prior.log_normalizer.dtype == dtype
        assert (cdf - u).abs().max() <= cdf_error
        assert (prior.log_normalizer - log_z).abs().max() <= log_z_error
        assert (prior.cdf(z) - cdf).abs().max() <= cdf_error
        assert (
            (cdf - u).abs().amax(0) <= prior.quadrature_error + 10 * torch.finfo(dtype).eps
        ).all()


@pytest.mark.parametrize(
    ("energy_scale", "largest"), [(0.1, 1e-6), (1.0, 1.5e-6), (5.0, 5e-6), (20.0, 2e-5)]
)
@pytest.mark.parametrize("reference", ["uniform", "gaussian", "lognormal"])
def test_error_estimate_bounds_the_error_of_the_cdf_in_float32_and_is_not_idle(
    reference, energy_scale, largest
):
    narrow = bank("rbf", reference)
    with torch.no_grad():
        narrow.coefficients.copy_(energy_scale * torch.randn_like(narrow.coefficients))
    narrow = narrow.float()
    prior = ExponentiallyTilted(narrow.bound(), reference)
    exact = ExponentiallyTilted(copy.deepcopy(narrow).double().bound(), reference)
    assert (exact.quadrature_error < 1e-9).all()
    with torch.no_grad():
        z = prior.icdf(torch.linspace(0.001, 0.999, 199)[:, None])
        error = (prior.cdf(z) - exact.cdf(z.double())).abs().amax(0)
    assert (error <= prior.quadrature_error).all()
    assert (prior.quadrature_error <= largest).all()


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("reference", ["uniform", "gaussian"])
def test_small_tail_masses_keep_their_relative_accuracy(reference, upper):
    prior = ExponentiallyTilted(bank("rbf", reference).bound(), reference)
    energy, log_pi = prior.energy, log_reference(reference)
    u = torch.tensor([1e-14, 1e-11, 1e-8]).double()[:, None].expand(-1, 4)
    z = prior.icdf(u, upper=upper).detach()
    end = prior.high if upper else prior.low
    distance = (end - z).abs() if upper else z - end
    sign = -1 if upper else 1
    first_piece = torch.tensor([0.0, 1e-3]).double()
    tail = integrals(
        lambda t: energy(end + sign * t) + log_pi(end + sign * t), first_piece, distance
    )
    torch.testing.assert_close(tail / prior.log_normalizer.detach().exp(), u, rtol=1e-4, atol=1e-15)


@pytest.mark.parametrize("basis", BASES)
def test_moments_entropy_and_divergence_against_adaptive_quadrature(basis):
    prior = ExponentiallyTilted(bank(basis, "gaussian", seed=1).bound(), "gaussian")
    other = ExponentiallyTilted(bank(basis, "gaussian", seed=2).bound(), "gaussian")

    def average(function):
        nodes, weights = torch.tensor([4.0] * 4).double()[None], prior.log_prob
        shift = 50.0  # integrands may be negative; scipy sees exp(log(h + shift))
        total = integrals(lambda z: weights(z) + (function(z) + shift).log(), cuts(prior), nodes)[0]
        return total - shift

    with torch.no_grad():
        mean = average(lambda z: z)
        torch.testing.assert_close(prior.mean, mean, atol=1e-9, rtol=0)
        torch.testing.assert_close(
            prior.variance, average(lambda z: (z - mean) ** 2), atol=1e-9, rtol=0
        )
        torch.testing.assert_close(prior.entropy(), -average(prior.log_prob), atol=1e-9, rtol=0)
        torch.testing.assert_close(
            prior.expectation(torch.sin), average(torch.sin), atol=1e-9, rtol=0
        )
        kl = torch.distributions.kl_divergence(prior, other)
        torch.testing.assert_close(
            kl, average(lambda z: prior.log_prob(z) - other.log_prob(z)), atol=1e-9, rtol=0
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Peaks:
    """Narrow Gaussians with knots that need not lie on the interval of each."""

    loc: torch.Tensor
    scale: float
    knots: torch.Tensor

    def __call__(self, z: torch.Tensor) -> torch.Tensor:
        return -0.5 * ((z - self.loc) / self.scale).square()


def apart(unit: float, dtype: torch.dtype) -> ExponentiallyTilted:
    """Return the same two peaks on two intervals, in other units of ``z``."""
    loc, low, high, knots = (
        unit * torch.tensor(values, dtype=dtype)
        for values in ([-2.0, 3.0], [-8.0, -5.0], [5.0, 8.0], [*range(-7, 8, 2)])
    )
    return ExponentiallyTilted(Peaks(loc, 0.05 * unit, knots), "uniform", low, high)


@pytest.mark.parametrize("dtype", ACCURACY, ids=str)
@pytest.mark.parametrize("unit", [0.5, 1.0, 100.0])
def test_batch_on_different_intervals_is_as_accurate_in_any_unit(unit, dtype):
    prior, normal = apart(unit, dtype), norm([-2.0, 3.0], 0.05)
    u = torch.linspace(0.005, 0.995, 199, dtype=dtype)[:, None].expand(-1, 2)
    cdf_error, log_z_error = ACCURACY[dtype]
    found = normal.cdf((prior.icdf(u) / unit).double().numpy())
    assert np.abs(found - u.double().numpy()).max() <= cdf_error
    log_z = np.log(0.05 * np.sqrt(2 * np.pi) / 13)
    assert (prior.log_normalizer - log_z).abs().max() <= log_z_error
    assert (prior.quadrature_error <= 10 * cdf_error).all()


@pytest.mark.parametrize("unit", [0.5, 1.0, 100.0])
def test_mixture_of_components_on_different_intervals_is_as_accurate_in_any_unit(unit):
    prior = TiltedMixture(torch.zeros(2), apart(unit, torch.float32))
    u = torch.linspace(0.005, 0.995, 199)
    z = (prior.icdf(u) / unit).double().numpy()
    found = 0.5 * (norm(-2.0, 0.05).cdf(z) + norm(3.0, 0.05).cdf(z))
    assert np.abs(found - u.double().numpy()).max() <= 2e-6
    assert (prior.quadrature_error <= 2e-5).all()
    assert (prior.variance / unit**2 - 6.2525).abs() < 1e-4


def test_cells_without_width_at_a_break_point_on_the_end_of_an_interval_do_not_spoil_the_error():
    torch.manual_seed(0)
    functions = UnivariateFunctions(2, "bspline", 0.0, 8.0, 8)  # 4 is a break point of both
    prior = ExponentiallyTilted(functions.bound(), "lognormal", 0.0, 8.0)
    assert (prior.quadrature_error <= 5e-6).all()


def cells_of_passes(functions, reference, size):
    """Return the numbers of cells of a table's passes in float32, with functions made larger."""
    with torch.no_grad():
        functions.float().coefficients.mul_(size)
    energy = functions.bound()
    passes = []

    def counted(z):
        passes.append(len(z) if z.dim() else 0)
        return energy(z)

    counted.knots, counted.magnitude = energy.knots, energy.magnitude
    rule = default_rule(torch.float32, energy.nodes_per_cell)
    ExponentiallyTilted(counted, reference, quadrature=rule)
    return [count // len(rule.nodes) for count in passes if count > len(rule.nodes)]


@pytest.mark.parametrize("reference", ["uniform", "gaussian", "lognormal"])
@pytest.mark.parametrize(("basis", "grid_size", "size"), [("rbf", 20, 3.0), ("fourier", 50, 0.3)])
def test_cells_of_many_steep_densities_are_found_in_two_passes(basis, grid_size, size, reference):
    """Wrong version: halving all cells that err too much, which takes a pass for each halving."""
    cells = cells_of_passes(bank(basis, reference, 300, grid_size=grid_size), reference, size)
    assert len(cells) == 2
    assert cells[0] < cells[1] < 5 * cells[0]


def test_energies_say_how_many_nodes_their_cells_need():
    def energy(z):
        return torch.sin(9 * z) + torch.zeros(2)

    energy.nodes_per_cell = 11
    low, high = torch.tensor([0.0, -1.0]), torch.tensor([1.0, 2.0])
    prior = ExponentiallyTilted(energy, "flat", low, high)
    assert len(prior._table.fractions) == 11
    apart = TiltedMixture(torch.zeros(2), prior)  # has a table of its own
    assert len(apart._table.fractions) == 11
    energy.nodes_per_cell = 201
    with pytest.raises(ValueError, match="nodes_per_cell must be an integer from 1 to 200, got 20"):
        ExponentiallyTilted(energy, "flat", low, high)


@pytest.mark.parametrize("width", [1.0, 0.7])
@pytest.mark.parametrize("reference", ["uniform", "gaussian", "lognormal"])
def test_no_cell_is_cut_in_vain_for_waves_that_round(reference, width):
    """
    Wrong versions: multiples of a rounded angle, and angles from the middle of the interval. Both
    round more than the arguments of the density do.
    """
    functions = bank("fourier", reference, 300, grid_size=50)
    with torch.no_grad():
        functions.basis.width.fill_(width)
    assert len(cells_of_passes(functions, reference, 1.0)) <= 3


@pytest.mark.filterwarnings("ignore:quadrature")
def test_no_pass_goes_far_beyond_the_largest_number_of_cells():
    """Wrong version: 32 cells cut in four at once, as if there were no such number."""
    cells = []

    def energy(z):
        cells.append(len(z) // 8 if z.dim() else 0)
        return 30 * torch.sin(200 * z)

    rule = dataclasses.replace(default_rule(torch.float32), max_cells=60)
    ExponentiallyTilted(energy, "uniform", quadrature=rule)
    assert 60 <= max(cells) < 2 * 60


@pytest.mark.parametrize("dtype", ACCURACY, ids=str)
@pytest.mark.parametrize("ends", ["lower", "both"])
def test_few_and_many_draws_are_the_same(ends, dtype):
    """
    Few draws pick their cells first, many pick from ready polynomials: neither the values nor the
    gradients may tell which.
    """
    functions = bank("rbf", "gaussian").to(dtype)
    u = torch.rand(400, 4, dtype=dtype, generator=torch.Generator().manual_seed(0))
    above = (u < 0.5) & (ends == "both")

    def draws_and_gradient(rows):
        prior = ExponentiallyTilted(functions.bound(), "gaussian")
        pieces = zip(u.split(rows), above.split(rows), strict=True)
        z = torch.cat([prior.icdf(some, upper=up) for some, up in pieces])
        (gradient,) = torch.autograd.grad(z.sin().mean(), functions.coefficients)
        return z.detach(), gradient

    for few, many in zip(draws_and_gradient(20), draws_and_gradient(400), strict=True):
        torch.testing.assert_close(few, many, rtol=0, atol=100 * torch.finfo(dtype).eps)


@pytest.mark.slow
@pytest.mark.parametrize("reference", REFERENCES)
def test_a_million_draws_follow_the_cdf(reference):
    """Kolmogorov-Smirnov; false alarms: 1e-4 a reference."""
    functions = bank("rbf", reference, size=1)
    prior = ExponentiallyTilted(copy.deepcopy(functions).float().bound(), reference)
    exact = ExponentiallyTilted(functions.bound(), reference)
    torch.manual_seed(7)
    with torch.no_grad():
        u = exact.cdf(prior.sample((1_000_000,)).double().clamp(exact.low, exact.high))
    assert kstest(u.flatten().numpy(), "uniform").pvalue > 1e-4


def test_published_inversion_is_biased():
    """
    The control of the accuracy law: linear interpolation between cumulated node weights misses the
    CDF.
    """
    prior = ExponentiallyTilted(bank("rbf", "uniform").bound(), "uniform")
    nodes, weights = (torch.as_tensor(x) for x in np.polynomial.legendre.leggauss(100))
    nodes = (nodes + 1) / 2
    with torch.no_grad():
        cumulated = (weights[:, None] / 2 * prior.log_prob(nodes[:, None]).exp()).cumsum(0)
        u = torch.rand(1000, dtype=torch.double)
        index = torch.searchsorted(cumulated[:, 0].contiguous(), u).clamp(1, 99)
        below, above = cumulated[index - 1, 0], cumulated[index, 0]
        z = nodes[index - 1] + (nodes[index] - nodes[index - 1]) * (u - below) / (above - below)
        assert (prior.cdf(z[:, None].clamp(0, 1))[:, 0] - u).abs().max() > 1e-3
