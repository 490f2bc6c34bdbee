"""The autoregressive density: conditional laws, triangular maps, mass and gradients."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import kstest
from torch.autograd import gradcheck, gradgradcheck

from pyro_tkam.distributions import AutoregressiveTilted, Conditionals, SharedCells
from pyro_tkam.distributions.normal_quantile import normal_quantile, normal_score
from pyro_tkam.infer import InverseTransformReparam
from pyro_tkam.nn import AutoregressivePrior
from tests.distributions.energies import integrals

KINDS = {
    "perceptron": {},
    "kan": {"context": "kan"},
    "mixture that moves": {"num_components": 2, "moves": True},
    "splines": {"basis": "bspline", "grid_size": 10},
}
#: ``|F(z) - u|`` asked of each conditional, with coefficients up to 10 in size
ACCURACY = {torch.float64: 1e-9, torch.float32: 2e-6}

every_kind = pytest.mark.parametrize("kind", KINDS)
every_block = pytest.mark.parametrize("blocks", [None, (1, 3, 2), 1], ids=str)


def prior(kind: str, blocks=None, latent_dim: int = 6, dtype=torch.float64, seed: int = 0):
    """Return a prior with random weights: zeros would hide a wrong mask."""
    torch.manual_seed(seed)
    module = AutoregressivePrior(latent_dim, blocks, hidden=(20, 20), **KINDS[kind])
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.1 if parameter.dim() > 1 else 0.5))
        module.start.mul_(3)
    return module.to(dtype)


def outputs(conditionals: Conditionals) -> torch.Tensor:
    """Join all that the conditional densities are made of, shape ``(*batch, Q, numbers)``."""
    shape = conditionals.batch_shape
    parts = (conditionals.coefficients, conditionals.log_weights)
    moves = (conditionals.loc, conditionals.scale)
    flat = [part.reshape(*shape, -1) for part in parts if part is not None]
    return torch.cat([*flat, *(move.expand(shape)[..., None] for move in moves)], -1)


@every_kind
@pytest.mark.parametrize("blocks", [None, (1, 3, 2)], ids=str)
def test_nothing_depends_on_its_own_block_or_later_ones(kind, blocks):
    fn = prior(kind, blocks)()
    z = torch.randn(6, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda z: outputs(fn.conditionals(z)), z)
    block = torch.arange(len(fn.blocks)).repeat_interleave(torch.tensor(fn.blocks))
    later = block >= block[:, None]
    moved = jacobian.abs().sum(1)
    assert (moved[later] == 0).all()
    assert (moved[~later] > 1e-6).all()


@pytest.mark.parametrize("size", [1.0, 10.0])
@pytest.mark.parametrize("components", [1, 3])
@pytest.mark.parametrize("dtype", ACCURACY, ids=str)
def test_conditional_cdf_and_its_inverse_against_adaptive_quadrature(dtype, components, size):
    torch.manual_seed(0)
    cells = SharedCells.over(-4.0, 4.0, like=torch.zeros((), dtype=dtype))
    exact_basis = cells.basis.cast(torch.float64)
    coefficients = (size * torch.randn(4, components, 16)).clamp(-size, size).to(dtype)
    log_weights = torch.randn(4, components).to(dtype).log_softmax(-1)
    densities = Conditionals(coefficients, log_weights)
    if components == 1:
        densities = Conditionals(coefficients[:, 0])
    u = torch.tensor([1e-6, 0.01, 0.3, 0.5, 0.77, 0.99, 1 - 1e-6], dtype=dtype)[:, None]
    z = densities.inverse(cells, u.expand(-1, 4))
    cuts = torch.linspace(-9.2, 9.2, 24, dtype=torch.float64)

    def component(k: int):
        energy = coefficients[:, k].double()
        return lambda z: (exact_basis(z) * energy).sum(-1) - 0.5 * z.square()

    ends = torch.cat([cuts[-1:, None].expand(1, 4), z.double()])
    masses = [integrals(component(k), cuts, ends, 1e-11) for k in range(components)]
    shares = torch.stack([mass[1:] / mass[0] for mass in masses], -1)
    found = (shares * log_weights.double().softmax(-1)).sum(-1)
    assert (found - u).abs().max() <= ACCURACY[dtype]
    below, above = densities.tails(cells, z)
    assert (below - found).abs().max() <= ACCURACY[dtype]
    assert (below + above - 1).abs().max() <= ACCURACY[dtype]
    log_z = torch.stack([mass[0].log() for mass in masses], -1) - 0.9189385332046727
    error = (cells.log_normalizer(coefficients) - log_z).abs().max()
    assert error <= (1e-10 if dtype == torch.float64 else 1e-5)
    assert densities.quadrature_error(cells, cells.refined(4)).max() <= 1e-5


@every_kind
@every_block
def test_maps_to_uniform_and_normal_coordinates_return(kind, blocks):
    fn = prior(kind, blocks)()
    z = fn.sample((50,))
    torch.testing.assert_close(fn.from_uniform(fn.to_uniform(z)), z, atol=1e-6, rtol=0)
    torch.testing.assert_close(fn.from_normal(fn.to_normal(z)), z, atol=1e-6, rtol=0)
    torch.testing.assert_close(normal_quantile(fn)(normal_score(fn, z)), z, atol=1e-6, rtol=0)


def test_normal_coordinates_reach_eight_in_single_precision():
    fn = prior("perceptron", dtype=torch.float32)()
    normal = torch.linspace(-8.0, 8.0, 9)[:, None].expand(-1, 6)
    z = fn.from_normal(normal)
    assert z.isfinite().all()
    assert (z.diff(dim=0)[:, 0] > 0).all()
    tail = fn.to_normal(z)[:, 0]  # the first latent has no context that rounding could move
    torch.testing.assert_close(tail, normal[:, 0], atol=0.02, rtol=0)


@every_kind
def test_the_whole_mass_of_two_latents_is_one(kind):
    fn = prior(kind, latent_dim=2)()
    line = torch.linspace(-10.0, 10.0, 161, dtype=torch.float64)
    with torch.no_grad():
        z = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1)
        mass = fn.log_prob(z).exp().sum() * (line[1] - line[0]) ** 2
    assert abs(mass - 1) < 1e-3


@every_kind
def test_draws_are_independent_uniforms_after_the_rosenblatt_transform(kind):
    """False alarms: 1e-3 a kind. The control is the transform of another density."""
    fn, other = prior(kind)(), prior(kind, seed=1)()
    z = fn.sample((1500,))
    with torch.no_grad():
        u, wrong = fn.to_uniform(z), other.to_uniform(z)
    assert all(kstest(column.numpy(), "uniform").pvalue > 1e-4 for column in u.T)
    assert min(kstest(column.numpy(), "uniform").pvalue for column in wrong.T) < 1e-6
    correlations = torch.corrcoef(u.T) - torch.eye(6)
    assert correlations.abs().max() < 5 / 1500**0.5


@every_kind
def test_pathwise_gradients_of_draws_against_finite_differences(kind):
    module = prior(kind, latent_dim=3)
    u = torch.rand(2, 3, dtype=torch.float64) * 0.9 + 0.05

    def draw(u, start):
        bias = module.start
        del module.start
        module.start = start
        try:
            return module().from_uniform(u)
        finally:
            del module.start
            module.start = bias

    start = module.start.detach().requires_grad_()
    assert gradcheck(draw, (u.requires_grad_(), start), atol=1e-5, fast_mode=True)


def test_log_density_differentiates_twice_in_values_and_coefficients():
    cells = SharedCells.over(-4.0, 4.0, 5, like=torch.zeros((), dtype=torch.float64))
    coefficients = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    z = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)

    def log_prob(coefficients, z):
        return Conditionals(coefficients).log_prob(cells, z)

    assert gradcheck(log_prob, (coefficients, z), check_forward_ad=True, fast_mode=True)
    assert gradgradcheck(log_prob, (coefficients, z), fast_mode=True)
    mapped = torch.func.vmap(torch.func.grad(lambda c: log_prob(c, z[0]).sum()))(coefficients)
    (whole,) = torch.autograd.grad(log_prob(coefficients, z[0]).sum(), coefficients)
    torch.testing.assert_close(mapped, whole)


def test_draws_are_mapped():
    fn = prior("perceptron")()
    u = torch.rand(5, 6, dtype=torch.float64)
    torch.testing.assert_close(torch.func.vmap(fn.from_uniform)(u), fn.from_uniform(u))


def test_a_plain_function_draws_as_the_network_does_block_by_block():
    module = prior("kan", (2, 1, 3))
    fn = module()
    plain = AutoregressiveTilted(fn.conditioner.__call__, fn.blocks, fn.cells)
    u = torch.rand(5, 6, dtype=torch.float64)
    torch.testing.assert_close(plain.from_uniform(u), fn.from_uniform(u))


def test_values_that_rows_share_are_scored_once():
    """A plate of many data with one set of draws costs what the draws do, in time and memory."""
    fn = prior("perceptron")()
    seen = []

    def counting(z):
        seen.append(z.shape)
        return fn.conditioner(z)

    expanded = AutoregressiveTilted(counting, fn.blocks, fn.cells).expand((1000,))
    z = fn.sample((7, 1))
    assert expanded.log_prob(z).shape == (7, 1000)
    torch.testing.assert_close(expanded.log_prob(z)[:, 3], fn.log_prob(z)[:, 0])
    assert expanded.to_uniform(z).shape == (7, 1000, 6)
    assert set(seen) == {(7, 1, 6)}
    contexts = torch.arange(3.0, dtype=torch.float64)[:, None, None]  # that differ between rows
    differing = AutoregressiveTilted(
        lambda z: Conditionals(fn.conditioner(z).coefficients * contexts), fn.blocks, fn.cells, (3,)
    )
    whole = differing.log_prob(z.expand(7, 3, 6))
    torch.testing.assert_close(differing.log_prob(z), whole)
    torch.testing.assert_close(differing.expand((7, 3)).log_prob(z), whole)


def test_dependence_is_the_divergence_of_conditionals_told_a_wrong_latent():
    """
    Conditionals N(a z_j, 1): the divergence is a² E(z - z')²/2 = a² Var z_j. Its standard error is
    at most 0.04 a² with 4,000 draws, so that a false alarm at 0.2 a² has a chance below 1e-6.
    """
    torch.manual_seed(0)
    cells = SharedCells.over(-4.0, 4.0, like=torch.zeros((), dtype=torch.float64))

    def follow(z):
        first, second, _ = z.unbind(-1)
        loc = torch.stack((torch.zeros_like(first), 0.5 * first, 2 * second), -1)
        return Conditionals(torch.zeros(*z.shape, 16, dtype=z.dtype), loc=loc)

    chain = AutoregressiveTilted(follow, (1, 1, 1), cells)
    found = chain.dependence(4000)
    exact = torch.zeros(3, 3, dtype=torch.float64)
    exact[1, 0], exact[2, 1] = 0.25, 4 * 1.25
    torch.testing.assert_close(found, exact, rtol=0.2, atol=1e-12)
    together = AutoregressiveTilted(follow, (2, 1), cells).dependence(100)
    assert together[1, 0] == 0  # in one block
    assert together[2, 1] > 1
    for wrong in (chain.expand((2,)), chain):
        with pytest.raises(ValueError, match=r"(num_samples|batch_shape) must be "):
            wrong.dependence(500 if wrong.batch_shape else 1)


def test_pieces_give_what_the_whole_gives(monkeypatch):
    fn = prior("mixture that moves")()
    z = fn.sample((2, 3))
    whole = fn.log_prob(z), fn.to_uniform(z), fn.from_normal(z)
    monkeypatch.setattr("pyro_tkam.distributions.conditional.PIECE", 1)
    with torch.no_grad():
        pieces = fn.log_prob(z), fn.to_uniform(z), fn.from_normal(z)
    for one, other in zip(whole, pieces, strict=True):
        torch.testing.assert_close(one, other)


def test_beyond_the_cells_the_density_goes_on_by_its_formula():
    fn = prior("perceptron")()
    far = torch.tensor([12.0, 0, 0, 0, 0, 0], dtype=torch.float64)
    farther = torch.tensor([13.0, 0, 0, 0, 0, 0], dtype=torch.float64)
    # the context is clamped, so that only the first latent's own density differs
    torch.testing.assert_close(
        fn.log_prob(farther) - fn.log_prob(far), torch.tensor(-12.5, dtype=torch.float64)
    )


def test_noise_is_standard_normal_behind_the_reparameterizer():
    import pyro

    fn = prior("perceptron", latent_dim=3)()

    def model():
        with pyro.plate("rows", 4):
            return pyro.sample("z", fn)

    trace = pyro.poutine.trace(
        pyro.poutine.reparam(model, {"z": InverseTransformReparam()})
    ).get_trace()
    noise = trace.nodes["z_noise"]["value"]
    torch.testing.assert_close(trace.nodes["z"]["value"], fn.from_normal(noise))


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"conditioner": None}, "conditioner"),
        ({"blocks": (2, 0)}, "blocks"),
        ({"blocks": ()}, "blocks"),
    ],
)
def test_refuses_what_is_no_density(options, name):
    cells = SharedCells.over(-4.0, 4.0, like=torch.zeros(()))
    given = {"conditioner": torch.sin, "blocks": (1,), "cells": cells, **options}
    with pytest.raises((TypeError, ValueError), match=f"^{name} must be"):
        AutoregressiveTilted(**given)


def test_refuses_another_basis_and_values_of_another_size():
    with pytest.raises(ValueError, match="basis must be one of"):
        SharedCells.over(-4.0, 4.0, basis="fourier", like=torch.zeros(()))
    with pytest.raises(ValueError, match="value must have a shape"):
        prior("perceptron")().log_prob(torch.zeros(5, dtype=torch.float64))
