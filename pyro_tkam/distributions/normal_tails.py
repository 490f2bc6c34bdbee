"""The standard normal CDF in its tails, where ``1 - Φ`` would lose all digits."""

import math

import torch
from torch import Tensor


def normal_cdf(normal: Tensor) -> Tensor:
    """
    Return ``Φ(ε)`` with full relative accuracy in the lower tail, where ``torch.special.ndtr`` has
    none.

    :param normal: ``ε``, any shape.

    >>> print(f"{normal_cdf(torch.tensor(-8.0)):.3e}")
    6.221e-16
    """
    return 0.5 * torch.special.erfc(-math.sqrt(0.5) * normal)


def log_normal_cdf(normal: Tensor) -> Tensor:
    """
    Return ``log Φ(ε)`` accurately in both tails, as ``torch.special.log_ndtr`` does, which ``vmap``
    can only run row by row.

    :param normal: ``ε``, any shape.

    >>> log_normal_cdf(torch.tensor([-20.0, 0.0]))
    tensor([-203.9172,   -0.6931])
    """
    root = math.sqrt(0.5)
    lower = normal.clamp(max=0.0)
    below = (torch.special.erfcx(-root * lower) / 2).log() - lower.square() / 2
    above = torch.log1p(-torch.erfc(root * normal.clamp(min=0.0)) / 2)
    return torch.where(normal < 0, below, above)


def nearer_tail(normal: Tensor) -> Tensor:
    """
    Return ``Φ(-|ε|)``, the probability of the nearer tail. Its derivative at 0 is that of the lower
    tail.

    :param normal: ``ε``, any shape.
    """
    tail = normal_cdf(torch.where(normal > 0, -normal, normal))
    return tail.clamp_min(torch.finfo(normal.dtype).tiny)


def normal_score_of_tails(below: Tensor, above: Tensor) -> Tensor:
    """
    Return ``Φ^{-1}(F)`` from the smaller of ``F`` and ``1 - F``, each with full relative accuracy.

    :param below: ``F``, any shape.
    :param above: ``1 - F``, likewise.

    >>> normal_score_of_tails(torch.tensor([0.2, 1.0]), torch.tensor([0.8, 1e-30]))
    tensor([-0.8416, 11.4640])
    """
    lower = below < above
    tail = torch.where(lower, below, above).clamp_min(torch.finfo(below.dtype).tiny)
    score = torch.special.ndtri(tail)
    return torch.where(lower, score, -score)
