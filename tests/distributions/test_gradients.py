"""
Pathwise gradients of the tilted prior: finite differences, closed forms, transforms of torch.func.
"""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.distributions import Normal

from pyro_tkam.distributions import ExponentiallyTilted
from pyro_tkam.ops.quadrature import composite

U = torch.tensor([[1e-4, 0.03], [0.2, 0.5], [0.81, 0.9999]], dtype=torch.double)
RULE = composite(1, 10, base_cells=4)


def parameters() -> list[torch.Tensor]:
    """Coefficients (degree, batch), location, scale, low and high."""
    torch.manual_seed(0)
    coefficients = torch.randn(4, 2, dtype=torch.double)
    ends = torch.tensor([-1.5]).double(), torch.tensor([2.0]).double()
    values = [coefficients, torch.tensor([0.2]).double(), torch.tensor([1.3]).double(), *ends]
    return [value.requires_grad_() for value in values]


def cubic(coefficients, loc, scale, low, high) -> ExponentiallyTilted:
    def energy(z):
        return (
            (coefficients[3] * z / 3 + coefficients[2]) * z / 2 + coefficients[1]
        ) * z + coefficients[0]

    return ExponentiallyTilted(energy, Normal(loc, scale), low, high, quadrature=RULE)


FUNCTIONS = {
    "icdf": lambda p, u: p.icdf(u),
    "icdf from above": lambda p, u: p.icdf(u, upper=True),
    "cdf": lambda p, u: p.cdf(2 * u - 0.5),
    "log_prob": lambda p, u: p.log_prob(2 * u - 0.5),
    "log_normalizer": lambda p, u: p.log_normalizer,
    "mean and variance": lambda p, u: torch.stack([p.mean, p.variance]),
    "entropy": lambda p, u: p.entropy(),
    "expectation": lambda p, u: p.expectation(torch.sin),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_first_and_second_derivatives_against_finite_differences(name):
    def function(u, *arguments):
        return FUNCTIONS[name](cubic(*arguments), u)

    inputs = (U.clone().requires_grad_(), *parameters())
    assert gradcheck(function, inputs, atol=1e-6)
    assert gradgradcheck(function, inputs, atol=1e-5, rtol=1e-3)


def test_closed_form_of_a_linear_energy_on_a_uniform_reference():
    slope = torch.tensor([-3.0, 0.7], dtype=torch.double, requires_grad=True)
    prior = ExponentiallyTilted(lambda z: slope * z)
    z, exact = prior.icdf(U), torch.log1p(U * torch.expm1(slope)) / slope
    torch.testing.assert_close(z, exact, atol=1e-10, rtol=0)
    torch.testing.assert_close(
        prior.log_normalizer, (torch.expm1(slope) / slope).log(), atol=1e-12, rtol=0
    )
    _same_derivatives(z, exact, slope)


def test_closed_form_of_a_quadratic_energy_on_a_gaussian_reference():
    linear = torch.tensor([0.8, -1.0], dtype=torch.double, requires_grad=True)
    prior = ExponentiallyTilted(lambda z: linear * z - 1.5 * z**2, "gaussian")
    scale = 0.5
    normal = Normal(linear * scale**2, scale)
    lower, upper = normal.cdf(prior.low), normal.cdf(prior.high)
    z, exact = prior.icdf(U), normal.icdf(lower + U * (upper - lower))
    torch.testing.assert_close(z, exact, atol=1e-9, rtol=0)
    _same_derivatives(z, exact, linear)


def test_ends_of_the_interval_move_the_draws():
    low = torch.tensor(0.0, dtype=torch.double, requires_grad=True)
    high = torch.tensor(2.0, dtype=torch.double, requires_grad=True)
    prior = ExponentiallyTilted(lambda z: -z, "uniform", low, high)
    u = U.flatten()
    exact = low - torch.log1p(u * torch.expm1(low - high))
    for end in (low, high):
        _same_derivatives(prior.icdf(u), exact, end)


def _same_derivatives(value, exact, parameter):
    first, exact_first = (grad(x.sum(), parameter, create_graph=True)[0] for x in (value, exact))
    torch.testing.assert_close(first, exact_first, atol=1e-7, rtol=0)
    second, exact_second = (
        grad(x.sum(), parameter, retain_graph=True)[0] for x in (first, exact_first)
    )
    torch.testing.assert_close(second, exact_second, atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_where_the_density_vanishes(dtype):
    slope = torch.ones(2, dtype=dtype, requires_grad=True)

    def energy(z):
        return torch.where((z - 0.5).abs() < 0.25, -torch.inf, slope * z)

    # Nothing announces the jumps, so that they are in doubt by the least width of a cell, in
    # float32 above 5e-7.
    doubt = (
        pytest.warns(UserWarning, match="the CDF is 9") if dtype == torch.float32 else nullcontext()
    )
    with doubt:
        gap = ExponentiallyTilted(energy)
    u = (
        torch.tensor([0.0, 0.25, 0.5, 1.0], dtype=dtype)[:, None]
        .expand(-1, 2)
        .clone()
        .requires_grad_()
    )
    z = gap.icdf(u)
    assert z.isfinite().all()
    assert all(
        g.isfinite().all() for g in grad(z.sum() + gap.log_prob(z).clamp_min(-9).sum(), (u, slope))
    )


def test_torch_func_transforms_agree_with_autograd():
    arguments = [p.detach() for p in parameters()]

    def draw(coefficients, u):
        return cubic(coefficients, *arguments[1:]).icdf(u)

    stacked = torch.stack([arguments[0], -arguments[0]])
    mapped = torch.func.vmap(draw, in_dims=(0, None))(stacked, U)
    torch.testing.assert_close(mapped, torch.stack([draw(c, U) for c in stacked]))

    reverse = torch.func.jacrev(draw)(arguments[0], U)
    torch.testing.assert_close(torch.func.jacfwd(draw)(arguments[0], U), reverse)
    torch.testing.assert_close(
        torch.func.jacfwd(draw, argnums=1)(arguments[0], U),
        torch.func.jacrev(draw, 1)(arguments[0], U),
    )
    by_hand = torch.autograd.functional.hessian(lambda c: draw(c, U).sum(), arguments[0])
    torch.testing.assert_close(
        torch.func.hessian(lambda c: draw(c, U).sum())(arguments[0]), by_hand
    )

    per_draw = torch.func.vmap(torch.func.grad(lambda c, u: draw(c, u).sum()), in_dims=(None, 0))(
        arguments[0], U
    )
    torch.testing.assert_close(per_draw.sum(0), reverse.sum((0, 1)))
