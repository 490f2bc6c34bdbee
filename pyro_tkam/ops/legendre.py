"""Legendre series on one cell: transform from node values, value and antiderivative."""

from collections.abc import Iterator
from functools import cache

import numpy as np
import torch
from torch import Tensor


@cache
def _vandermonde(nodes: tuple[float, ...]) -> np.ndarray:
    return np.polynomial.legendre.legvander(2 * np.asarray(nodes) - 1, len(nodes) - 1)


@cache
def _analysis_matrix(nodes: tuple[float, ...]) -> np.ndarray:
    return np.linalg.inv(_vandermonde(nodes))


def analysis_matrix(nodes: tuple[float, ...], like: Tensor) -> Tensor:
    """
    Return the matrix that maps values at the nodes to the Legendre coefficients of their interpolant.

    :param nodes: the ``n`` nodes of one cell, on [0, 1].
    :param like: a tensor whose dtype and device the result takes.
    :return: shape ``(n, n)``, degree first.

    >>> analysis_matrix((0.25, 0.75), torch.zeros((), dtype=torch.float64)) @ torch.tensor([1.0, 3.0]).double()
    tensor([2., 2.], dtype=torch.float64)
    """
    return torch.as_tensor(_analysis_matrix(nodes), dtype=like.dtype, device=like.device)


def synthesis_matrix(nodes: tuple[float, ...], like: Tensor) -> Tensor:
    """
    Return the matrix that maps Legendre coefficients to the values at the nodes.

    :param nodes: the ``n`` nodes of one cell, on [0, 1].
    :param like: a tensor whose dtype and device the result takes.
    :return: shape ``(n, n)``, node first.

    >>> synthesis_matrix((0.25, 0.75), torch.zeros(())) @ torch.tensor([2.0, 2.0])
    tensor([1., 3.])
    """
    return torch.as_tensor(_vandermonde(nodes), dtype=like.dtype, device=like.device)


def polynomials(s: Tensor, degree: int) -> Iterator[tuple[Tensor, Tensor]]:
    """
    Yield ``P_k(2s - 1)`` and ``P_k'(2s - 1)`` for ``k = 0, ..., degree`` by Bonnet's recursion.

    :param s: positions on [0, 1], any shape.
    :param degree: the last degree.
    :return: pairs of tensors shaped as ``s``.

    >>> [float(value) for value, slope in polynomials(torch.tensor(1.0), 2)]
    [1.0, 1.0, 1.0]
    """
    x = 2 * s - 1
    previous, value = torch.zeros_like(x), torch.ones_like(x)
    previous_slope, slope = torch.zeros_like(x), torch.zeros_like(x)
    for k in range(degree + 1):
        yield value, slope
        if k == degree:
            return
        previous_slope, slope = slope, previous_slope + (2 * k + 1) * value
        previous, value = value, ((2 * k + 1) * x * value - k * previous) / (k + 1)


def antiderivatives(s: Tensor, degree: int) -> Iterator[tuple[Tensor, Tensor]]:
    """
    Yield ``P_k(2s - 1)`` and ``∫_0^s P_k(2r - 1) dr`` for ``k = 0, ..., degree``.

    The integral is formed as ``-2 s (1 - s) P_k'(2s - 1) / (k (k + 1))``, which keeps its relative accuracy as
    ``s`` goes to 0.

    :param s: positions on [0, 1], any shape.
    :param degree: the last degree.
    :return: pairs of tensors shaped as ``s``.

    >>> [round(float(integral), 6) for value, integral in antiderivatives(torch.tensor(0.5), 2)]
    [0.5, -0.25, -0.0]
    """
    bubble = -2 * s * (1 - s)
    for k, (value, slope) in enumerate(polynomials(s, degree)):
        yield value, s if k == 0 else bubble * slope / (k * (k + 1))


def series(coefficients: list[Tensor], s: Tensor) -> tuple[Tensor, Tensor]:
    """
    Evaluate a Legendre series and its antiderivative that vanishes at 0.

    :param coefficients: one tensor a degree, each broadcastable against ``s``.
    :param s: positions on [0, 1], any shape.
    :return: ``Σ_k c_k P_k(2s - 1)`` and its integral from 0 to ``s``.

    >>> density, mass = series([torch.tensor(2.0), torch.tensor(2.0)], torch.tensor(0.5))
    >>> float(density), float(mass)
    (2.0, 0.5)
    """
    density, slopes = coefficients[0], torch.zeros_like(s)
    for k, (value, slope) in enumerate(polynomials(s, len(coefficients) - 1)):
        if k > 0:
            density = density + coefficients[k] * value
            slopes = slopes + coefficients[k] * slope / (k * (k + 1))
    return density, s * (coefficients[0] - 2 * (1 - s) * slopes)
