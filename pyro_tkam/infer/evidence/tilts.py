"""A learned proposal: autoregressive tilts fitted to draws, beside a wide Student-t."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_tkam.nn import AutoregressivePrior
from pyro_tkam.ops.estimators import fit_normal
from pyro_tkam.ops.estimators.mixture import STUDENT_DF, Mixture

STEPS = 600
BATCH = 512
GRID_SIZE = 16
HIDDEN = (64, 64)
DEFENSE = 0.1
STRETCH = 1.5
"""Share of the Student-t, which bounds the weights where tilts are thin, and its scale relative to
that of the draws."""


class Tilts:
    """
    Tilted densities whose tilt, location and scale depend on the coordinates before them, in
    coordinates in which the draws have unit covariance.

    :param draws: ``(chain, draw, 1, dim)``.
    """

    def __init__(self, draws: Tensor) -> None:
        normal = fit_normal(draws)
        self.loc = normal.loc[0]
        self.scale_tril = normal.scale_tril[0]
        self.wide = Mixture(
            torch.zeros(1, 1, dtype=draws.dtype),
            self.loc[None, None],
            STRETCH * self.scale_tril[None, None],
            torch.tensor([STUDENT_DF], dtype=draws.dtype),
        )
        white = self._white(draws.flatten(0, 1).squeeze(1))
        self.prior = AutoregressivePrior(
            white.shape[-1], grid_size=GRID_SIZE, hidden=HIDDEN, moves=True
        )
        self.prior.fit(white.float(), steps=STEPS, batch_size=BATCH)

    @torch.no_grad()
    def log_prob(self, value: Tensor) -> Tensor:
        """Log density at points ``(N, 1, dim)``: shape ``(N, 1)``."""
        white = self._white(value.squeeze(1))
        log_volume = self.scale_tril.diagonal().log().sum()
        tilted = self.prior().log_prob(white.float()).double() - log_volume
        wide = self.wide.log_prob(value).squeeze(1)
        both = torch.logaddexp(tilted + math.log(1 - DEFENSE), wide + math.log(DEFENSE))
        return both.unsqueeze(1)

    @torch.no_grad()
    def sample(self, num: int) -> Tensor:
        """Draws of shape ``(num, 1, dim)``."""
        white = self.prior().sample((num,)).to(self.loc)
        tilted = (self.loc + white @ self.scale_tril.mT).unsqueeze(1)
        chosen = torch.rand(num, 1, 1, device=self.loc.device) < DEFENSE
        return torch.where(chosen, self.wide.sample(num), tilted)

    def _white(self, value: Tensor) -> Tensor:
        centered = (value - self.loc).mT
        return torch.linalg.solve_triangular(self.scale_tril, centered, upper=False).mT
