"""The metric of an ensemble: the covariance of all its chains, in coordinates or in scales."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_tkam.infer.mcmc.metric import DENSITY_FRAME, AffineFrame, Frame
from pyro_tkam.ops.shrinkage import shrunk_correlation

LARGEST_DENSE = 512
"""Dimensions up to which correlations are worth ``dim²`` operations a step and a row."""

FEWEST_EFFECTIVE = 8


@dataclass(frozen=True)
class Metric:
    """Standard deviations and correlations that a kernel takes out of its target.

    :param frame: coordinates without correlations, with unit scales; those of the density where
        correlations are not taken out.
    :param scale: standard deviations in that frame, ``(*rest, dim)``.
    """

    frame: Frame
    scale: Tensor

    @staticmethod
    def identity(like: Tensor) -> Metric:
        """Return the metric of the density's own coordinates ``(*rest, dim)``."""
        return Metric(DENSITY_FRAME, torch.ones_like(like))

    @property
    def spread(self) -> Tensor:
        """Standard deviations of the density's coordinates, ``(*rest, dim)``."""
        if isinstance(self.frame, AffineFrame):
            return self.frame.matrix.square().sum(-1).sqrt()
        return self.scale

    def state(self) -> dict[str, Tensor]:
        """Return tensors from which to make it again."""
        affine = vars(self.frame) if isinstance(self.frame, AffineFrame) else {}
        return {"scale": self.scale, **affine}

    @staticmethod
    def of_state(state: dict[str, Tensor]) -> Metric:
        """Make a metric from its state."""
        if "matrix" not in state:
            return Metric(DENSITY_FRAME, state["scale"])
        return Metric(AffineFrame(state["location"], state["matrix"]), state["scale"])


def estimated(draws: Tensor, effective: float, former: Metric, dense: bool) -> Metric:
    """Return the metric of draws.

    A coordinate that does not vary, or overflows, keeps its former scale; draws that are worth less
    than 8 change nothing.

    :param draws: in the density's coordinates, ``(n, *rest, dim)``.
    :param effective: number of independent draws that they are worth.
    :param former: the metric before.
    :param dense: whether correlations are taken out; then ``rest`` is empty.
    """
    if effective < FEWEST_EFFECTIVE:
        return former
    wide = draws.double()
    spread = wide.std(0, correction=0)
    varies = spread.isfinite() & (spread > 1e-12 * former.spread)
    scale = torch.where(varies, spread, former.spread.double())
    if not dense:
        return Metric(DENSITY_FRAME, scale.to(draws.dtype))
    correlation = torch.eye(draws.shape[-1], dtype=torch.float64, device=draws.device)
    index = varies.nonzero().squeeze(-1)
    if len(index) > 1:
        correlation[index[:, None], index] = shrunk_correlation(wide[:, index], effective)
    factor = scale.unsqueeze(-1) * torch.linalg.cholesky(correlation)
    location = torch.where(varies, wide.mean(0), wide[0])
    frame = AffineFrame(location.to(draws.dtype), factor.to(draws.dtype))
    return Metric(frame, torch.ones_like(draws[0]))
