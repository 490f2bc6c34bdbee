"""Covariance matrices from fewer draws than they have entries."""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST_CONDITION = 1e6
"""Of a correlation matrix in single precision: its square root is inverted with 1e-4 to spare."""


def shrunk_correlation(draws: Tensor, effective: float) -> Tensor:
    """Estimate a correlation matrix, its entries shrunk towards 0 by the least expected error.

    ``(1 - λ) r`` off the diagonal, ``λ = Σ Var(r_ij) / Σ r_ij²`` over ``i ≠ j``, within [0, 1]
    (Schäfer and Strimmer 2005, Eq. 10), where ``Var(r_ij)`` is the variance of the products of
    standardized draws over the *effective* number of draws: those of Markov chains repeat.

    :param draws: ``(n, dim)``, of which every coordinate varies.
    :param effective: number of independent draws that they are worth, at least 2.
    :return: positive definite, ``(dim, dim)``, in double precision.

    >>> _ = torch.manual_seed(0)
    >>> matrix = shrunk_correlation(torch.randn(1000, 2) @ torch.tensor([[1.0, 2.0], [0.0, 1.0]]),
    ...     1000)
    >>> round(matrix[0, 1].item(), 1)
    0.9
    """
    draws = draws.double()
    centered = draws - draws.mean(0)
    standardized = centered / centered.square().mean(0).sqrt()
    raw = standardized.T @ standardized / len(draws)
    squares = standardized.square()
    variance = (squares.T @ squares / len(draws) - raw.square()) / effective
    off_diagonal = ~torch.eye(raw.shape[-1], dtype=torch.bool, device=raw.device)
    signal = raw.square()[off_diagonal].sum()
    share = 1.0 if signal == 0 else (variance[off_diagonal].sum() / signal).clamp(0, 1).item()
    # The diagonal of raw is 1; what is left of it keeps the matrix invertible.
    kept = min(1 - share, 1 - 1 / LARGEST_CONDITION)
    return torch.where(off_diagonal, kept * raw, 1.0)


def effective_rows(positions: Tensor) -> int:
    """Return the number of rows of ``(rows, dim)`` that differ: resampled ones repeat."""
    return len(torch.unique(positions, dim=0))
