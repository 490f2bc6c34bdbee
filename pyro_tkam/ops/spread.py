"""Normal draws that lie apart."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def spread_normals(num: int, like: Tensor) -> Tensor:
    r"""
    Draw standard normals that sum to zero: two of them are antithetic.

    .. math:: x_i = \sqrt{\tfrac{n}{n-1}} (e_i - \bar e), \quad e_i \sim N(0, 1)

    Each is standard normal, and any two have the correlation ``-1 / (num - 1)``, the lowest that
    ``num`` exchangeable draws can have.

    :param num: number ``n`` of draws; one is a plain draw.
    :param like: gives shape, type and device.
    :return: shape ``(num, *like.shape)``.

    >>> draws = spread_normals(5, torch.zeros(3))
    >>> draws.shape, bool(draws.sum(0).abs().max() < 1e-5)
    (torch.Size([5, 3]), True)
    """
    draws = torch.randn((num, *like.shape), dtype=like.dtype, device=like.device)
    return draws if num == 1 else (draws - draws.mean(0)) * math.sqrt(num / (num - 1))
