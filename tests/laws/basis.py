"""Laws of a univariate basis: what every one of them must keep, whatever its functions are."""

from __future__ import annotations

import dataclasses
import pickle

import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import vmap

from pyro_tkam.ops.bases import BasisFunctions


def _dense(basis: BasisFunctions, z: Tensor, coefficients: Tensor) -> Tensor:
    return (basis(z) * coefficients).sum(-1)


def values_have_one_entry_a_function(basis: BasisFunctions) -> None:
    """The last dimension counts functions, and the others are those of the argument."""
    z = torch.rand(3, 2, dtype=basis.grid.dtype)
    assert basis(z).shape == (3, 2, basis.num_functions)
    assert basis(z[0, 0]).shape == (basis.num_functions,)
    assert torch.allclose(basis(z)[1, 1], basis(z[1, 1]))


def functions_are_independent(basis: BasisFunctions) -> None:
    """No function is a combination of the others (double precision)."""
    points = torch.linspace(0, 1, 40 * basis.num_functions, dtype=torch.double)
    assert torch.linalg.matrix_rank(basis(points)) == basis.num_functions


def sums_agree_with_values(basis: BasisFunctions, tolerance: float) -> None:
    """However ``z`` broadcasts against the bank, the sum is that of values times coefficients."""
    dtype = basis.grid.dtype
    coefficients = torch.randn(4, 3, basis.num_functions, dtype=dtype)
    for shape in [
        (),
        (3,),
        (4, 3),
        (4, 1),
        (1, 3),
        (5, 1, 1),
        (5, 4, 1),
        (5, 1, 3),
        (5, 4, 3),
        (2, 5, 4, 3),
        (0, 4, 3),
    ]:
        z = 1.4 * torch.rand(shape, dtype=dtype) - 0.2
        result = basis.weighted_sum(z, coefficients)
        assert result.shape == torch.broadcast_shapes(shape, (4, 3))
        assert torch.allclose(
            result, _dense(basis, z, coefficients), rtol=tolerance, atol=tolerance
        ), shape
    z = torch.rand(2, 3, dtype=dtype)
    single = coefficients[:1, :1]
    assert torch.allclose(
        basis.weighted_sum(z, single), _dense(basis, z, single), rtol=tolerance, atol=tolerance
    )


def gradients_are_right(basis: BasisFunctions) -> None:
    """First and second derivatives in argument, coefficients and width match finite differences."""
    width = basis.width
    coefficients = torch.randn(2, basis.num_functions, dtype=torch.double, requires_grad=True)

    def total(z: Tensor, coefficients: Tensor, *width: Tensor) -> Tensor:
        return rebound(basis, *width).weighted_sum(z, coefficients)

    for shape in [(3, 2), (3, 1)]:
        z = (1.2 * torch.rand(shape, dtype=torch.double) - 0.1).requires_grad_()
        inputs = (
            (z, coefficients)
            if width is None
            else (z, coefficients, width.clone().requires_grad_())
        )
        assert gradcheck(total, inputs)
        assert gradgradcheck(total, inputs)
        fixed = (z.detach(), *inputs[1:])  # what is not needed is not computed
        assert gradcheck(total, fixed)


def layers_are_right(basis: BasisFunctions) -> None:
    """
    A layer's product is the sum over its edges; gradients match finite differences, and ``vmap`` a
    loop.
    """
    coefficients = torch.randn(2, 3, basis.num_functions, dtype=torch.double, requires_grad=True)
    s = (1.2 * torch.rand(4, 3, dtype=torch.double) - 0.1).requires_grad_()
    inputs = (
        (s, coefficients)
        if basis.width is None
        else (s, coefficients, basis.width.clone().requires_grad_())
    )

    def layer(s: Tensor, coefficients: Tensor, *width: Tensor) -> Tensor:
        return rebound(basis, *width).edge_sum(s, coefficients)

    expected = (basis(s).unsqueeze(1) * coefficients).sum((-1, -2))
    assert torch.allclose(layer(*inputs), expected)
    assert gradcheck(layer, inputs)
    assert gradgradcheck(layer, inputs)
    for fixed in range(2):  # what is not needed is not computed
        assert gradcheck(layer, [x.detach() if i == fixed else x for i, x in enumerate(inputs)])
    pulled = vmap(torch.func.grad(lambda s: layer(s, coefficients).sin().sum()))(s)
    (together,) = torch.autograd.grad(layer(s, coefficients).sin().sum(), s)
    assert torch.allclose(pulled, together)
    many = torch.stack([coefficients, -2 * coefficients])
    assert torch.allclose(
        vmap(layer, in_dims=(None, 0))(s, many), torch.stack([expected, -2 * expected])
    )


def maps_over_any_input(basis: BasisFunctions) -> None:
    """``vmap`` over the argument, the coefficients, the width, or all of them equals a loop."""
    z = torch.rand(5, 3, 2, dtype=torch.double)
    coefficients = torch.randn(5, 2, basis.num_functions, dtype=torch.double)
    widths = (
        ()
        if basis.width is None
        else (basis.width * torch.linspace(1, 1.5, 5, dtype=torch.double),)
    )

    def gradient(z: Tensor, coefficients: Tensor, *width: Tensor) -> tuple[Tensor, ...]:
        def total(*inputs: Tensor) -> Tensor:
            return rebound(basis, *inputs[2:]).weighted_sum(*inputs[:2]).sin().sum()

        every = tuple(range(2 + len(width)))
        return torch.func.grad(total, every)(z, coefficients, *width)

    arguments = (z, coefficients, *widths)
    for mapped in [(0,), (1,), (0, 1), *([(2,), (0, 1, 2)] if widths else [])]:
        dims = tuple(0 if i in mapped else None for i in range(len(arguments)))
        inputs = [x if i in mapped else x[0] for i, x in enumerate(arguments)]
        result = vmap(gradient, in_dims=dims)(*inputs)
        for i in range(5):
            expected = gradient(*(x[i] if k in mapped else x for k, x in enumerate(inputs)))
            for a, b in zip(result, expected, strict=True):
                assert torch.allclose(a[i], b)


def finite_far_outside(basis: BasisFunctions) -> None:
    """Values and gradients stay finite however far the argument lies outside of the grid."""
    for far in (-1e30, -1e6, -30.0, 30.0, 1e6, 1e30):
        z = torch.tensor([[far]], dtype=basis.grid.dtype, requires_grad=True)
        coefficients = torch.ones(1, basis.num_functions, dtype=basis.grid.dtype)
        for total in (basis.weighted_sum(z, coefficients), _dense(basis, z, coefficients)):
            (gradient,) = torch.autograd.grad(total.sum(), z)
            assert torch.isfinite(total).all(), far
            assert torch.isfinite(gradient).all(), far


def zero_far_outside(basis: BasisFunctions) -> None:
    """A local basis is exactly zero far outside of its grid."""
    z = torch.tensor([-1e30, -1e3, 1e3, 1e30], dtype=basis.grid.dtype)
    assert (basis(z) == 0).all()
    assert (
        basis.weighted_sum(z, torch.ones(4, basis.num_functions, dtype=basis.grid.dtype)) == 0
    ).all()


def single_precision_agrees(basis: BasisFunctions, tolerance: float) -> None:
    """Sums in float32 are those in float64 to rounding (``basis`` is the float64 one)."""
    z = torch.rand(50, 4, dtype=torch.double)
    coefficients = torch.randn(4, basis.num_functions, dtype=torch.double)
    exact = basis.weighted_sum(z.float().double(), coefficients.float().double())
    single = cast(basis, torch.float32).weighted_sum(z.float(), coefficients.float())
    assert single.dtype == torch.float32
    assert (single.double() - exact).abs().max() < tolerance * coefficients.abs().sum(-1).max()


def knots_lie_in_order(basis: BasisFunctions, low: float, high: float) -> None:
    """Knots are sorted, one-dimensional, and inside of the interval."""
    if basis.knots is None:
        return
    assert basis.knots.dim() == 1
    assert (basis.knots.diff() > 0).all()
    assert basis.knots[0] >= low
    assert basis.knots[-1] <= high


def survives_pickling(basis: BasisFunctions) -> None:
    """A pickled basis has the same values."""
    z = torch.rand(6, dtype=basis.grid.dtype)
    assert torch.equal(pickle.loads(pickle.dumps(basis))(z), basis(z))


def sums_to_one(basis: BasisFunctions, low: float, high: float) -> None:
    """Partition of unity inside of the grid, ends included (B-splines)."""
    z = torch.linspace(low, high, 257, dtype=basis.grid.dtype)
    total = basis(z).sum(-1)
    assert torch.allclose(total, torch.ones_like(total), atol=4 * torch.finfo(total.dtype).eps)
    assert (basis(z) >= 0).all()


def rebound(basis: BasisFunctions, width: Tensor | None = None) -> BasisFunctions:
    """Return the basis with another width, where one is given."""
    return basis if width is None else dataclasses.replace(basis, width=width)


def cast(basis: BasisFunctions, dtype: torch.dtype) -> BasisFunctions:
    """Return the basis in another precision."""
    width = None if basis.width is None else basis.width.to(dtype)
    return dataclasses.replace(basis, grid=basis.grid.to(dtype), width=width)
