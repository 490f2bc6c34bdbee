"""Laws of grid updates and penalties: what every bank of functions keeps, whatever its basis is."""

from __future__ import annotations

import copy
import io
import itertools

import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from pyro_tkam.nn import KANLayer, UnivariateFunctions
from pyro_tkam.nn.regularizers import mean_sizes
from pyro_tkam.ops.bases.regrid import refit


def random_bank(basis: str, shape: tuple[int, ...] = (2, 3), grid_size: int = 6, **options: object):
    """Make a bank in double precision with coefficients of size one, over [0, 1]."""
    torch.manual_seed(0)
    bank = UnivariateFunctions(shape, basis, grid_size=grid_size, **options).double()
    torch.nn.init.normal_(bank.coefficients)
    return bank


def skewed(*shape: int) -> Tensor:
    return torch.rand(*shape, dtype=torch.double) ** 3


def inside(rank: int) -> Tensor:
    return torch.linspace(0, 1, 101, dtype=torch.double).reshape(-1, *[1] * rank)


def states_what_changed(basis: str) -> None:
    """The reported change is that of the functions at the points of the fit."""
    bank = random_bank(basis)
    before = copy.deepcopy(bank).bound()
    samples = skewed(100, 1, 3)
    update = bank.update_grid(samples)
    assert update.accepted
    points = refit(before.basis, bank.bound().basis, samples).points
    changed = (bank(points) - before(points)).detach().square().mean(0).sqrt()
    torch.testing.assert_close(update.error, changed, rtol=1e-5, atol=1e-9)
    relative = (
        changed.detach().square().mean().sqrt() / before(points).detach().square().mean().sqrt()
    )
    assert update.change == pytest.approx(float(relative), rel=1e-5, abs=1e-9)


def fits_best(basis: str) -> None:
    """
    What is left over after a fit is orthogonal to every new function: no other coefficients fit
    better.
    """
    bank = random_bank(basis)
    old = copy.deepcopy(bank).bound()
    samples = skewed(100)
    bank.update_grid(samples)
    new = bank.bound()
    points = refit(old.basis, new.basis, samples).points
    values = new.basis(points)
    left = (
        values @ new.coefficients.flatten(0, 1).mT
        - old.basis(points) @ old.coefficients.flatten(0, 1).mT
    )
    if basis in ("bspline", "rbf", "rswaf"):
        assert left.norm() > 1e-3
    assert (values.mT @ left).norm() <= 1e-3 * values.norm() * left.norm() + 1e-9


def keeps_low_and_high(basis: str) -> None:
    """Without widening the ends stay, whatever the samples are; knots stay in order."""
    bank = random_bank(basis)
    bank.update_grid(3 * skewed(100, 2, 3) - 1)
    grid = bank.basis.grid
    assert (grid[..., 0] == 0).all()
    assert (grid[..., -1] == 1).all()
    assert (grid.diff() > 0).all()
    bank.update_grid(3 * skewed(100, 2, 3) - 1, widen=True)
    assert (bank.basis.grid[..., 0] < -0.5).all()
    assert (bank.basis.grid[..., -1] > 1.5).all()


def refines(basis: str) -> None:
    """
    A finer grid keeps functions of the new space to 1e-4; the others' error is stated and falls
    with the grid.
    """
    bank = random_bank(basis)
    before = bank(inside(2))
    functions = bank.basis.num_functions
    update = bank.update_grid(grid_size=12)
    assert bank.basis.num_functions >= functions
    if basis in ("bspline", "fourier", "chebyshev", "gegenbauer"):
        assert (bank(inside(2)) - before).abs().max() < 1e-4
        assert update.change < 1e-4
    else:
        assert (bank(inside(2)) - before).abs().max() > 1e-4
        assert update.change > 1e-4


def refuses_too_large_a_change(basis: str) -> None:
    """A refused update leaves grid, coefficients and values as they were."""
    bank = random_bank(basis)
    state = {name: value.clone() for name, value in bank.state_dict().items()}
    update = bank.update_grid(2 * skewed(50, 2, 3) - 1, widen=True, max_change=1e-9)
    if basis in ("chebyshev", "gegenbauer"):  # they have no grid to change
        assert update.accepted
        return
    assert not update.accepted
    assert update.change > 1e-9
    assert all(torch.equal(value, state[name]) for name, value in bank.state_dict().items())


def comes_back_from_a_checkpoint(basis: str) -> None:
    """A fresh module takes an updated and refined grid, and computes the same."""
    bank = random_bank(basis)
    bank.update_grid(skewed(50, 1, 3), grid_size=9)
    file = io.BytesIO()
    torch.save(bank.state_dict(), file)
    file.seek(0)
    fresh = UnivariateFunctions((2, 3), basis, grid_size=6).double()
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(fresh(inside(2)), bank(inside(2)))
    fresh.float()
    assert torch.allclose(fresh(inside(2).float()).double(), bank(inside(2)), atol=1e-3)


def updates_a_layer(basis: str) -> None:
    """
    Inputs of a layer get grids of their own; the layer stays the sum of its edges and the parameter
    the same.
    """
    layer = KANLayer(3, 4, basis, 0.0, 1.0, grid_size=6).double()
    parameter = layer.coefficients
    before = layer(skewed(20, 3))
    update = layer.update_grid(skewed(50, 3) * torch.tensor([1.0, 0.5, 0.2]).double())
    inner_knots = layer.basis.bound().num_knots(6) > 2
    assert layer.basis.grid.dim() == (2 if inner_knots else 1)
    assert update.moved == inner_knots
    assert layer.coefficients is parameter is update.parameter
    assert parameter.is_contiguous()
    s = skewed(20, 3).requires_grad_()
    assert torch.allclose(layer(s), layer.edges(s).sum(-2))
    assert torch.autograd.gradcheck(layer, (s[:3],))
    assert layer(s).shape == before.shape


def smoothness_is_the_integral(basis: str) -> None:
    """
    The penalty is ∫ f''² by scipy, on the uniform grid and on an updated one, and has a gradient.
    """
    bank = random_bank(basis, (2,))
    for _ in range(2):
        penalty = bank.regularization(l1=0.0, entropy=0.0, smoothness=1.0)
        cuts = [0.0, 1.0] if bank.knots is None else bank.knots.tolist()

        def integrand(z: float, i: int) -> float:
            at = torch.tensor(z, dtype=torch.double)
            return float(torch.autograd.functional.hessian(lambda t: bank(t)[i], at)) ** 2

        pairs = list(itertools.pairwise(cuts))
        exact = sum(
            quad(integrand, a, b, args=(i,), epsrel=1e-6)[0] for i in range(2) for a, b in pairs
        )
        assert float(penalty.detach()) == pytest.approx(exact, rel=1e-4)
        gradients = torch.autograd.grad(penalty, [p for p in bank.parameters() if p.requires_grad])
        assert all(gradient.abs().sum() > 0 for gradient in gradients)
        with torch.no_grad():
            assert bank.regularization(l1=0.0, entropy=0.0, smoothness=1.0) == penalty
        bank.update_grid(skewed(50))


def penalties_bear_zeros(basis: str) -> None:
    """Functions that are zero have finite penalties with finite gradients."""
    bank = random_bank(basis)
    with torch.no_grad():
        bank._in_bank_order(bank.coefficients)[0] = 0.0
        if bank.base_weight is not None:
            bank.base_weight[0] = 0.0
    for _ in range(2):
        penalty = bank.regularization()
        gradients = torch.autograd.grad(penalty, list(bank.parameters()))
        assert penalty.isfinite()
        assert all(gradient.isfinite().all() for gradient in gradients)
        with torch.no_grad():
            for parameter in bank.parameters():
                parameter.zero_()
    assert float(penalty.detach()) == 0


def prunes_what_is_zero(basis: str) -> None:
    """Without the functions that contribute nothing the bank computes the same."""
    bank = random_bank(basis)
    with torch.no_grad():
        bank.coefficients[0, 1] = 0.0
        if bank.base_weight is not None:
            bank.base_weight[0, 1] = 0.0
    pruned = bank.prune(1e-9)
    assert torch.equal(pruned(inside(2)), bank(inside(2)))
    largest = float(mean_sizes(bank.bound()).detach().max())
    most = bank.prune(0.999 * largest)
    assert (most(inside(2)).abs().amax(0) > 0).sum() == 1
