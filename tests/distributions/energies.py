"""Energies for the tests, and a CDF that shares no code with the package."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.integrate import quad_vec
from torch import Tensor

from pyro_tkam.distributions import ExponentiallyTilted
from pyro_tkam.distributions.references import REFERENCES
from pyro_tkam.nn import UnivariateFunctions

Energy = Callable[[Tensor], Tensor]


def bank(
    basis: str, reference: str, size: int = 4, grid_size: int = 20, seed: int = 0
) -> UnivariateFunctions:
    """
    A float64 bank of the paper's size on the reference's interval, with coefficients of size one.
    """
    torch.manual_seed(seed)
    _, low, high = REFERENCES[reference]
    functions = UnivariateFunctions(size, basis, low, high, grid_size)
    torch.nn.init.normal_(functions.coefficients)
    return functions.double()


def log_reference(name: str) -> Energy:
    """The reference densities once more, written from their definitions (float64)."""
    gaussian = torch.distributions.Normal(
        torch.tensor(0.0).double(), torch.tensor(1.0).double(), validate_args=False
    )
    lognormal = torch.distributions.LogNormal(gaussian.loc, gaussian.scale, validate_args=False)
    return {
        "uniform": torch.zeros_like,
        "flat": torch.zeros_like,
        "gaussian": gaussian.log_prob,
        "learnable_gaussian": gaussian.log_prob,
        "lognormal": lambda z: torch.where(
            z > 0, lognormal.log_prob(z.clamp_min(1e-300)), -torch.inf
        ),
    }[name]


def integrals(log_density: Energy, cuts: Tensor, ends: Tensor, tolerance: float = 1e-12) -> Tensor:
    """
    Adaptive quadrature (scipy, float64) of ``exp(log_density)`` from the first cut to each of
    ``ends``.

    :param log_density: elementwise over the batch of ``ends``'s last dimension.
    :param cuts: ascending points between which the density is smooth, shape ``(count,)``.
    :param ends: shape ``(sample, batch)``.
    """
    ends, cuts = ends.double(), cuts.double()
    piece = (torch.searchsorted(cuts, ends.contiguous(), right=True) - 1).clamp(0, len(cuts) - 2)
    whole = cuts[:-1, None].expand(-1, ends.shape[-1])
    starts = torch.cat([whole, cuts[piece]])
    widths = torch.cat([cuts.diff()[:, None].expand_as(whole), ends - cuts[piece]])

    def integrand(fraction: float) -> np.ndarray:
        with torch.no_grad():
            return (widths * log_density(starts + widths * fraction).exp()).numpy()

    value, _ = quad_vec(integrand, 0, 1, epsabs=tolerance, epsrel=tolerance, norm="max", limit=4000)
    pieces, rest = torch.as_tensor(value).split([len(cuts) - 1, len(ends)])
    below = torch.cat([torch.zeros_like(pieces[:1]), pieces.cumsum(0)])
    return below.gather(0, piece) + rest


def true_cdf(prior: ExponentiallyTilted, log_density: Energy, z: Tensor) -> tuple[Tensor, Tensor]:
    """
    Return ``log Z`` and ``F(z)`` of a prior on one interval, for ``z`` of shape ``(sample,
    batch)``.
    """
    top = torch.full_like(z[:1].double(), float(prior.high))
    mass = integrals(log_density, cuts(prior), torch.cat([top, z.double()]))
    return mass[0].log(), mass[1:] / mass[0]


def cuts(prior: ExponentiallyTilted) -> Tensor:
    """The ends of a prior's interval and the knots between them."""
    knots = prior.energy.knots.double()
    inner = knots[(knots > prior.low) & (knots < prior.high)]
    return torch.cat([prior.low.double()[None], inner, prior.high.double()[None]])
