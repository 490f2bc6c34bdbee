"""Penalties on functions: on their size, number and roughness."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import jvp

from pyro_tkam.nn import _checks
from pyro_tkam.ops._points import aligned, broadcasts_to
from pyro_tkam.ops.bases import BasisFunctions
from pyro_tkam.ops.bases.regrid import quadratic, refined_knots
from pyro_tkam.ops.quadrature import composite

if TYPE_CHECKING:
    from pyro_tkam.nn.functions import BoundFunctions

#: number of equally spaced arguments on an interval if no samples are given
_NUM_POINTS = 64
_NODES_A_CELL = 8


def _plain_silu(z: Tensor) -> Tensor:
    return z * torch.sigmoid(z)


#: base functions without a second forward derivative in torch, written in operations that have one
_TWICE_DIFFERENTIABLE: dict[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]] = {
    nn.functional.silu: _plain_silu
}


def mean_sizes(functions: BoundFunctions, samples: Tensor | None = None) -> Tensor:
    """
    Return the mean absolute value of every function, shape ``batch_shape``.

    :param samples: shape ``(N, *grid_batch)``; None takes equally spaced arguments on the grid's
        interval.
    :raises ValueError: for empty samples or samples that are not finite.
    """
    if samples is None:
        samples = spaced_arguments(functions.basis.placed)
    check_samples(samples, functions.coefficients)
    _check_shape(samples, functions.batch_shape)
    return functions(aligned(samples, len(functions.batch_shape))).abs().mean(0)


def _check_shape(samples: Tensor, batch: torch.Size) -> None:
    """Check that samples have one argument for each function or shared arguments."""
    if samples.dim() > len(batch) + 1 or not broadcasts_to(samples.shape[1:], batch):
        raise ValueError(
            f"samples must have shape (N, *grid_batch) within {tuple(batch)}, got "
            f"{tuple(samples.shape)}"
        )


def spaced_arguments(placed: Tensor) -> Tensor:
    """
    Return equally spaced arguments on a grid's interval, ``(N, *grid_batch)``.

    :param placed: the grid, shape ``(*grid_batch, M)``.
    """
    return refined_knots(placed[..., [0, -1]], _NUM_POINTS).movedim(-1, 0)


def check_samples(samples: Tensor, like: Tensor) -> None:
    """
    Check that samples are not empty and are finite.

    :param like: a tensor with the dtype of the coefficients.
    """
    _checks.dense("samples", samples)
    if samples.is_complex():
        raise TypeError(f"samples must hold real numbers, got {samples.dtype}")
    if samples.dim() == 0 or len(samples) == 0 or not bool(samples.isfinite().all()):
        bad = int((~samples.isfinite()).sum())
        raise ValueError(
            f"samples must be finite and not empty, got shape {tuple(samples.shape)} with "
            f"{bad} values that are NaN or infinite"
        )
    if not torch.is_autocast_enabled(samples.device.type):
        _checks.same_dtype("samples", samples, like, "the coefficients")


class PenaltyWeights(NamedTuple):
    """Weights of the terms of a penalty on edges, see :meth:`pyro_tkam.nn.KAN.regularization`."""

    l1: float
    entropy: float
    smoothness: float

    @classmethod
    def checked(cls, l1: float, entropy: float, smoothness: float) -> PenaltyWeights:
        """Check that all are finite numbers."""
        given = {"l1": l1, "entropy": entropy, "smoothness": smoothness}
        return cls(**{name: _checks.number(name, value) for name, value in given.items()})


def edge_penalty(functions: BoundFunctions, spreads: Tensor, weights: PenaltyWeights) -> Tensor:
    """
    Return the penalty on a layer's edges, a scalar.

    :param functions: the edges, of batch shape ``(out, in)``.
    :param spreads: standard deviations of the edges, shape ``(out, in)``.
    :param weights: of the terms.
    """
    total = weights.l1 * spreads.sum()
    if weights.entropy:
        within = 2 * entropy_of(spreads) - entropy_of(spreads.sum(1)) - entropy_of(spreads.sum(0))
        total = total + weights.entropy * within
    if weights.smoothness:
        total = total + weights.smoothness * curvature(functions).sum()
    return total


def sparsity(
    functions: BoundFunctions, samples: Tensor | None, l1: float, entropy: float
) -> Tensor:
    """Return the weighted sum of the L1 norm and the entropy of the functions' sizes, a scalar."""
    sizes = mean_sizes(functions, samples)
    return l1 * sizes.sum() + entropy * entropy_of(sizes)


def entropy_of(sizes: Tensor) -> Tensor:
    """
    Return the entropy of sizes divided by their sum. Sizes of zero contribute nothing to the value
    or to gradients.

    >>> entropy_of(torch.tensor([1.0, 1.0, 0.0]))
    tensor(0.6931)
    """
    total = sizes.sum()
    shares = sizes / torch.where(total > 0, total, 1.0)
    logs = torch.where(shares > 0, shares, 1.0).log()
    return -(shares * logs).sum()


def curvature(functions: BoundFunctions) -> Tensor:
    r"""
    Return :math:`\int f''(s)^2 ds` over the grid's interval, by Gauss-Legendre quadrature, shape
    ``batch_shape``.

    :raises ValueError: for splines of degree 1.
    """
    basis = functions.basis
    if not basis.has_curvature:
        raise ValueError(
            f"basis must be splines of degree at least 2 for smoothness, got degree {basis.degree}"
        )
    nodes, weights = quadrature_points(basis)
    smooth = replace(
        functions, activation=_TWICE_DIFFERENTIABLE.get(functions.activation, functions.activation)
    )
    second = second_derivative(smooth.features, nodes).movedim(0, -2)
    return quadratic((second.mT * weights.movedim(0, -1).unsqueeze(-2)) @ second, functions.weights)


def second_derivative(function: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """
    Differentiate an elementwise function twice; its values may have an extra dimension.

    >>> second_derivative(lambda z: z**3, torch.tensor([1.0, 2.0]))
    tensor([ 6., 12.])
    """
    ones = torch.ones_like(z)

    def slope(z: Tensor) -> Tensor:
        return jvp(function, (z,), (ones,))[1]

    return jvp(slope, (z,), (ones,))[1]


def quadrature_points(basis: BasisFunctions) -> tuple[Tensor, Tensor]:
    """
    Return nodes and weights that integrate over the grid's interval, both ``(nodes, *grid_batch)``.
    """
    low = basis.placed[..., 0]
    high = basis.placed[..., -1]
    knots = None if basis.knots is None else basis.knots.movedim(-1, 0)
    edges = composite(4, _NODES_A_CELL).edges(low, high, knots)
    places, weights = (
        torch.as_tensor(x).to(edges) for x in np.polynomial.legendre.leggauss(_NODES_A_CELL)
    )
    shape = (-1, *[1] * (edges.dim() - 1))
    starts = edges[:-1, None]
    widths = edges.diff(dim=0)[:, None]
    nodes = starts + widths * (places.reshape(shape) + 1) / 2
    return nodes.flatten(0, 1), (widths * weights.reshape(shape) / 2).flatten(0, 1)
