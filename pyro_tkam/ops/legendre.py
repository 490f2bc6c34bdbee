"""
Legendre series on one cell: the transforms from node values to it, and from it to its integral.
"""

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


@cache
def _integral_matrix(count: int) -> np.ndarray:
    """
    Return, in column ``k``, the coefficients of ``s, ..., s^count`` in ``∫_0^s P_k(2r - 1) dr``.
    """
    matrix = np.zeros((count, count))
    shift = np.polynomial.Polynomial([-1.0, 2.0])
    for k in range(count):
        powers = np.polynomial.legendre.leg2poly([0.0] * k + [1.0])
        integral = np.polynomial.Polynomial(powers)(shift).integ().coef[1:]
        matrix[: len(integral), k] = integral
    return matrix


@cache
def _split_matrix(count: int, degree_count: int) -> tuple[np.ndarray, np.ndarray]:
    """
    Return cosine-spaced pieces of [0, 1] and the map from a long series to a short one in each of
    them.
    """
    pieces = (count + 1) // 2
    ends = (1 - np.cos(np.pi * np.arange(pieces + 1) / pieces)) / 2
    roots, _ = np.polynomial.legendre.leggauss(degree_count)
    short = np.linalg.inv(np.polynomial.legendre.legvander(roots, degree_count - 1))
    places = ends[:-1, None] + np.diff(ends)[:, None] * (roots + 1) / 2
    return ends, short @ np.polynomial.legendre.legvander(2 * places - 1, count - 1)


def split(coefficients: Tensor, edges: Tensor, degree_count: int) -> tuple[Tensor, Tensor]:
    """
    Cut every cell into pieces, so that long series become short ones.

    :param coefficients: Legendre coefficients, shape ``(cells, count, batch)``.
    :param edges: cell edges, shape ``(cells + 1, batch)`` or ``(cells + 1, 1)``.
    :param degree_count: number of coefficients of the short series.
    :return: coefficients of shape ``(cells pieces, degree_count, batch)`` and the edges of the
        pieces.

    >>> [part.shape[0] for part in split(torch.ones(2, 20, 1), torch.tensor([[0.0], [0.5], [1.0]]),
    ...     12)]
    [20, 21]
    """
    ends, matrix = (
        torch.as_tensor(part, dtype=edges.dtype, device=edges.device)
        for part in _split_matrix(coefficients.shape[1], degree_count)
    )
    starts = edges[:-1, None] + edges.diff(dim=0)[:, None] * ends[:-1, None]
    return (matrix @ coefficients[:, None]).flatten(0, 1), torch.cat(
        [starts.flatten(0, 1), edges[-1:]]
    )


def analysis_matrix(nodes: tuple[float, ...], like: Tensor) -> Tensor:
    """
    Return the matrix that maps values at the nodes to the Legendre coefficients of their
    interpolant.

    :param nodes: the ``n`` nodes of one cell, on [0, 1].
    :param like: a tensor whose dtype and device the result takes.
    :return: shape ``(n, n)``, degree first.

    >>> analysis_matrix((0.25, 0.75), torch.zeros((), dtype=torch.float64)) @ torch.tensor([1.0,
    ...     3.0]).double()
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


def integral_matrix(count: int, like: Tensor) -> Tensor:
    """
    Return the matrix from a Legendre series to the powers of its integral from the cell's start.

    :param count: number of Legendre coefficients.
    :param like: a tensor whose dtype and device the result takes.
    :return: shape ``(count, count)``; row ``j`` belongs to ``s^{j + 1}``.

    >>> integral_matrix(2, torch.zeros(()))
    tensor([[ 1., -1.],
            [ 0.,  1.]])
    """
    return torch.as_tensor(_integral_matrix(count), dtype=like.dtype, device=like.device)
