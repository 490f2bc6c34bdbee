"""
Coordinates of a latent site: the unconstrained ones of Pyro, or those in which its prior is
standard normal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from pyro.distributions.util import scale_and_mask, sum_rightmost
from torch import Tensor
from torch.distributions import Transform

from pyro_tkam.distributions.normal_quantile import normal_quantile, normal_score

Site = dict[str, Any]


class Coordinate(Protocol):
    """How a site's value and its log density follow from coordinates."""

    def value(self, fn: Any, coordinates: Tensor) -> Tensor:
        """Return the site's value."""

    def coordinates(self, value: Tensor) -> Tensor:
        """Return coordinates to start from, for a value of the site."""

    def of_value(self, fn: Any, value: Tensor) -> Tensor:
        """Return the coordinates of a value, differentiable in it."""

    def log_prob(self, site: Site, coordinates: Tensor) -> Tensor:
        """Return the log density of the coordinates, of the site's batch shape."""

    def log_volume(self, site: Site, coordinates: Tensor) -> Tensor:
        """Return ``log |dz/du|`` at the site's value, of its batch shape."""


@dataclass(frozen=True)
class Unconstrained:
    """Pyro's coordinates ``u``: ``z = T(u)``, ``log p(u) = log p(z) + log |det T'(u)|``.

    :param transform: ``T``, from the reals to the site's support.
    """

    transform: Transform

    def value(self, fn: Any, coordinates: Tensor) -> Tensor:
        """Return ``T(u)``."""
        return self.transform(coordinates)

    def coordinates(self, value: Tensor) -> Tensor:
        """Return ``T^{-1}(z)``."""
        return self.transform.inv(value)

    def of_value(self, fn: Any, value: Tensor) -> Tensor:
        """Return ``T^{-1}(z)``."""
        return self.transform.inv(value)

    def log_prob(self, site: Site, coordinates: Tensor) -> Tensor:
        """Return the site's scaled and masked log density plus the Jacobian, which is neither."""
        return site_log_prob(site) + self.log_volume(site, coordinates)

    def log_volume(self, site: Site, coordinates: Tensor) -> Tensor:
        """Return ``log |det T'(u)|``."""
        jacobian = self.transform.log_abs_det_jacobian(coordinates, site["value"])
        return sum_rightmost(jacobian, site["fn"].event_dim - self.transform.codomain.event_dim)


@dataclass(frozen=True)
class StandardNormal:
    """Coordinates ``ε`` with a standard normal prior: ``z = F^{-1}(Φ(ε))``."""

    def value(self, fn: Any, coordinates: Tensor) -> Tensor:
        """Return ``F^{-1}(Φ(ε))`` for the site's distribution."""
        quantile = normal_quantile(fn)
        if quantile is None:
            raise ValueError(
                "model must have sites with an inverse CDF for standard normal coordinates, got "
                f"{fn}"
            )
        return quantile(coordinates)

    def coordinates(self, value: Tensor) -> Tensor:
        """Return the median's coordinates, as a value's depend on the site's distribution."""
        return torch.zeros_like(value)

    def of_value(self, fn: Any, value: Tensor) -> Tensor:
        """Return ``Φ^{-1}(F(z))``."""
        return normal_score(fn, value)

    def log_prob(self, site: Site, coordinates: Tensor) -> Tensor:
        """Return the standard normal log density, summed over event dimensions."""
        return sum_rightmost(
            -0.5 * coordinates.square() - 0.5 * math.log(2 * math.pi), site["fn"].event_dim
        )

    def log_volume(self, site: Site, coordinates: Tensor) -> Tensor:
        """Return ``log φ(ε) - log p(z)``."""
        log_density: Tensor = site["fn"].log_prob(site["value"])
        return self.log_prob(site, coordinates) - log_density


def site_log_prob(site: Site) -> Tensor:
    """Return a trace site's log density with its scale and mask."""
    log_prob = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
    return scale_and_mask(log_prob, site["scale"], site["mask"])
