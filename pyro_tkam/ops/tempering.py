"""
Swaps between neighboring temperatures (Raj 2025, arXiv:2506.14167, Eq. 37; Syed et al. 2022,
arXiv:1905.02939).

Arrays have shape ``(temperature, chain, *local)``; each chain and datum decides by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Swap:
    """What a round of swaps decided.

    :param source: rung from which each rung takes its state, a permutation along the first
        dimension.
    :param acceptance_rate: of the pairs tried, ``(pairs, chain, *local)``.
    :param lower: index of the lower rung of each pair, ``(pairs,)``.
    """

    source: Tensor
    acceptance_rate: Tensor
    lower: Tensor

    def apply(self, values: Tensor) -> Tensor:
        """Permute values ``(temperature, chain, *local, ...)``."""
        extra = values.ndim - self.source.ndim
        index = self.source.reshape(self.source.shape + (1,) * extra) if extra else self.source
        return values.gather(0, index.expand(values.shape))


def swap(log_likelihood: Tensor, betas: Tensor, uniforms: Tensor, odd: bool) -> Swap:
    """Decide the swaps of every other pair of neighbors.

    Rungs ``k, k + 1`` exchange with probability
    ``min(1, exp((t_{k+1} - t_k)(L(z_k) - L(z_{k+1}))))``, which leaves the product of power
    posteriors invariant (Raj 2025, arXiv:2506.14167, Eq. 37).

    :param log_likelihood: ``L``, ``(temperature, chain, *local)``.
    :param betas: rising inverse temperatures, ``(temperature,)``.
    :param uniforms: uniform on (0, 1), ``(pairs, chain, *local)`` or more pairs.
    :param odd: whether the pairs start at rung 1 instead of 0.
    :return: the permutation and the acceptance probabilities.

    >>> swap(torch.zeros(3, 1), torch.tensor([0.0, 0.5, 1.0]), torch.rand(1, 1),
    ...     odd=False).source.squeeze()
    tensor([1, 0, 2])
    """
    lower = torch.arange(int(odd), len(betas) - 1, 2, device=betas.device)
    gap = (betas[lower + 1] - betas[lower]).reshape(-1, *(1,) * (log_likelihood.ndim - 1))
    log_ratio = gap * (log_likelihood[lower] - log_likelihood[lower + 1])
    accepted = uniforms[: len(lower)].log() < log_ratio
    source = torch.arange(len(betas), device=betas.device).reshape(
        -1, *(1,) * (log_likelihood.ndim - 1)
    )
    source = source.repeat(1, *log_likelihood.shape[1:])
    source[lower] += accepted.long()
    source[lower + 1] -= accepted.long()
    return Swap(source, log_ratio.exp().clamp(max=1).nan_to_num(0.0), lower)


def round_trips(replicas: Tensor) -> Tensor:
    """Count how often a replica went from the lowest rung to the highest and back.

    :param replicas: which replica is at each rung, ``(temperature, chain, draw, *local)``, a
        permutation along the first dimension.
    :return: number of round trips of all replicas together, ``(chain, *local)``.
    """
    rung = replicas.argsort(0)
    time = torch.arange(replicas.shape[2], device=replicas.device).reshape(
        -1, *(1,) * (replicas.ndim - 3)
    )
    never = torch.full_like(time, -1)
    last_low = torch.where(rung == 0, time, never).cummax(2).values
    last_high = torch.where(rung == len(rung) - 1, time, never).cummax(2).values
    arrives = (last_low > last_high) & (last_high >= 0)
    first = arrives[:, :, :1] & False
    returns = arrives & ~torch.cat([first, arrives[:, :, :-1]], 2)
    # A replica that saw the highest rung first has made only half a trip when it first reaches the
    # lowest.
    started_low = (last_low >= 0) & (last_high < 0)
    counted = returns.sum(2) - (returns.any(2) & ~started_low.any(2)).long()
    return counted.sum(0)
