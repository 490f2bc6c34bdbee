"""A normal distribution fitted to draws, with correlations shrunk as held-out draws require."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_tkam.ops.estimators.checks import check_chains

__all__ = ["Normal", "fit_normal", "independent_halves"]

_SHRINKAGE = (0.0, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.2, 0.4, 0.7, 1.0)
_GAP = 10  # a single chain loses one draw in so many between its halves


class Normal(NamedTuple):
    """A normal ``N(μ, L Lᵀ)`` for each batch element: ``loc (batch, dim)``, ``scale_tril``."""

    loc: Tensor
    scale_tril: Tensor

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density at points of shape ``(N, batch, dim)``: shape ``(N, batch)``."""
        centered = (value - self.loc).movedim(0, -1)
        white = torch.linalg.solve_triangular(self.scale_tril, centered, upper=False)
        log_volume = self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        constant = log_volume + value.shape[-1] / 2 * math.log(2 * math.pi)
        return (-white.square().sum(-2) / 2).mT - constant

    def sample(self, num: int) -> Tensor:
        """Draws of shape ``(num, batch, dim)``."""
        batch, dim = self.loc.shape
        noise = torch.randn(batch, dim, num, dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + (self.scale_tril @ noise).movedim(-1, 0)


def fit_normal(draws: Tensor) -> Normal:
    """
    Mean and covariance of draws, with correlations shrunk toward zero: ``(1 - λ) R + λ I``.

    Estimating a covariance from ``n`` independent draws costs ``d² / 4n`` nats of Kullback-Leibler
    divergence. ``λ`` gives one half of the chains the largest likelihood under the other half's
    fit, so it vanishes if there are enough draws, however strong the correlations.

    :param draws: of shape ``(chain, draw, batch, dim)``.
    :raises TypeError: if the draws are not a tensor of floating-point numbers.
    :raises ValueError: if the shape is another, a draw is not finite, or a coordinate does not
        vary.

    >>> _ = torch.manual_seed(0)
    >>> normal = fit_normal(torch.randn(4, 2000, 1, 2, dtype=torch.float64))
    >>> normal.sample(5).shape
    torch.Size([5, 1, 2])
    """
    check_chains(draws)
    if draws.dim() != 4:
        raise ValueError(
            f"draws must have shape (chain, draw, batch, dim), got {tuple(draws.shape)}"
        )
    loc, scale = _moments(draws)
    correlation = _correlation(draws, loc, scale)
    folds = independent_halves(draws)
    gains = _held_out(folds[0], folds[1]) + _held_out(folds[1], folds[0])
    best = torch.tensor(_SHRINKAGE, dtype=draws.dtype, device=draws.device)[gains.argmax(0)]
    shrunk = _shrunk(correlation, best[:, None, None])
    scale_tril, failed = torch.linalg.cholesky_ex(shrunk)
    if failed.any():  # rounding left no factor: a little more never hurts
        scale_tril = torch.linalg.cholesky(_shrunk(correlation, best[:, None, None] + 1e-6))
    return Normal(loc, scale.unsqueeze(-1) * scale_tril)


def independent_halves(draws: Tensor) -> tuple[Tensor, Tensor]:
    """
    Split draws ``(chain, draw, ...)`` by chain; split a single chain in time, with a gap.
    """
    num_chains, num_draws = draws.shape[:2]
    if num_chains > 1:
        return draws[: num_chains // 2], draws[num_chains // 2 :]
    half = (num_draws - num_draws // _GAP) // 2
    return draws[:, :half], draws[:, -half:]


def _moments(draws: Tensor) -> tuple[Tensor, Tensor]:
    flat = draws.flatten(0, 1)
    scale = flat.std(0)
    if not (scale > 0).all():
        raise ValueError("draws must vary in every coordinate, got one that is constant")
    return flat.mean(0), scale


def _correlation(draws: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    standard = ((draws.flatten(0, 1) - loc) / scale).movedim(0, 1)
    return standard.mT @ standard / standard.shape[1]


def _shrunk(correlation: Tensor, amount: Tensor) -> Tensor:
    eye = torch.eye(correlation.shape[-1], dtype=correlation.dtype, device=correlation.device)
    return (1 - amount) * correlation + amount * eye


def _held_out(fitted: Tensor, held: Tensor) -> Tensor:
    """Log likelihood of draws under a fit to others, for each shrinkage: ``(shrinkage, batch)``.

    It is relative to the likelihood of the scales alone, and per draw.
    """
    loc, scale = _moments(fitted)
    values, vectors = torch.linalg.eigh(_correlation(fitted, loc, scale))
    rotated = (vectors.mT @ _correlation(held, loc, scale) @ vectors).diagonal(dim1=-2, dim2=-1)
    amount = torch.tensor(_SHRINKAGE, dtype=values.dtype, device=values.device)[:, None, None]
    floor = torch.finfo(values.dtype).tiny
    shrunk = ((1 - amount) * values.clamp(min=0) + amount).clamp(min=floor)
    gain = -(shrunk.log() + rotated / shrunk).sum(-1) / 2
    return gain.nan_to_num(-torch.inf)
