"""Coordinates of a latent site: the unconstrained ones of Pyro, or those in which its prior is standard normal."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import pyro.distributions as dist
import torch
from pyro.distributions.util import scale_and_mask, sum_rightmost
from torch import Tensor
from torch.distributions import Transform

Site = dict[str, Any]
Quantile = Callable[[Any, Tensor], Tensor]


class Coordinate(Protocol):
    """How a site's value and its log density follow from coordinates."""

    def value(self, fn: Any, coordinates: Tensor) -> Tensor:
        """Return the site's value."""

    def coordinates(self, value: Tensor) -> Tensor:
        """Return coordinates to start from, for a value of the site."""

    def log_prob(self, site: Site, coordinates: Tensor) -> Tensor:
        """Return the log density of the coordinates, of the site's batch shape."""


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

    def log_prob(self, site: Site, coordinates: Tensor) -> Tensor:
        """Return the site's scaled and masked log density plus the Jacobian, which is neither."""
        jacobian = self.transform.log_abs_det_jacobian(coordinates, site["value"])
        extra = site["fn"].event_dim - self.transform.codomain.event_dim
        return site_log_prob(site) + sum_rightmost(jacobian, extra)


@dataclass(frozen=True)
class StandardNormal:
    """Coordinates ``ε`` with a standard normal prior: ``z = F^{-1}(Φ(ε))``."""

    def value(self, fn: Any, coordinates: Tensor) -> Tensor:
        """Return ``F^{-1}(Φ(ε))`` for the site's distribution."""
        quantile = normal_quantile(fn)
        if quantile is None:
            raise ValueError(f"{fn} has no inverse CDF, so it has no standard normal coordinates")
        return quantile(coordinates)

    def coordinates(self, value: Tensor) -> Tensor:
        """Return the median's coordinates, as a value's depend on the site's distribution."""
        return torch.zeros_like(value)

    def log_prob(self, site: Site, coordinates: Tensor) -> Tensor:
        """Return the standard normal log density, summed over event dimensions."""
        return sum_rightmost(-0.5 * coordinates.square() - 0.5 * math.log(2 * math.pi), site["fn"].event_dim)


def site_log_prob(site: Site) -> Tensor:
    """Return a trace site's log density with its scale and mask."""
    log_prob = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
    return scale_and_mask(log_prob, site["scale"], site["mask"])


def normal_quantile(fn: Any) -> Callable[[Tensor], Tensor] | None:
    """Return ``ε -> F^{-1}(Φ(ε))``, which maps a standard normal to a distribution.

    Both tails keep their accuracy where the distribution has a closed form; elsewhere ``icdf`` is used, with ``Φ(ε)``
    kept inside (0, 1).

    :param fn: a distribution, possibly wrapped in ``Independent`` or expanded.
    :return: a map that keeps the shape, or None where there is none (discrete, or no inverse CDF).

    >>> normal_quantile(dist.LogNormal(0.0, 1.0))(torch.zeros(2))
    tensor([1., 1.])
    """
    fn = _unwrap(fn)
    for kind in type(fn).__mro__:
        if kind in _QUANTILES:
            return lambda normal: _QUANTILES[kind](fn, normal)
    if isinstance(fn, torch.distributions.TransformedDistribution):
        return _push_forward(fn)
    return _generic(fn)


def _unwrap(fn: Any) -> Any:
    while isinstance(fn, dist.Independent | dist.ExpandedDistribution | torch.distributions.Independent):
        fn = fn.base_dist
    return fn


def _push_forward(fn: torch.distributions.TransformedDistribution) -> Callable[[Tensor], Tensor] | None:
    base = normal_quantile(fn.base_dist)
    base_shape = fn.base_dist.batch_shape + fn.base_dist.event_shape
    if base is None or base_shape != fn.batch_shape + fn.event_shape:
        return None

    def quantile(normal: Tensor) -> Tensor:
        value = base(normal)
        for transform in fn.transforms:
            value = transform(value)
        return value

    return quantile


def _generic(fn: Any) -> Callable[[Tensor], Tensor] | None:
    if fn.event_dim or fn.support.is_discrete:
        return None
    try:
        fn.icdf(torch.tensor(0.5))
    except NotImplementedError:
        return None
    return lambda normal: fn.icdf(_clamped_probability(normal))


def _clamped_probability(normal: Tensor) -> Tensor:
    info = torch.finfo(normal.dtype)
    return _cdf(normal).clamp(info.tiny, 1 - info.eps / 2)


def _cdf(normal: Tensor) -> Tensor:
    """Return ``Φ(ε)``; ``torch.special.ndtr`` is 0 from -5.5 on in single precision."""
    return 0.5 * torch.erfc(-normal / math.sqrt(2))


def _tail(normal: Tensor) -> Tensor:
    """Return ``Φ(-|ε|)``, the probability of the nearer tail."""
    return _cdf(-normal.abs())


def _uniform(fn: Any, normal: Tensor) -> Tensor:
    reach = (fn.high - fn.low) * _tail(normal)
    return torch.where(normal > 0, fn.high - reach, fn.low + reach)


def _half_normal(fn: Any, normal: Tensor) -> Tensor:
    upper = -torch.special.ndtri(0.5 * _cdf(-normal.clamp_min(0)))
    lower = math.sqrt(2) * torch.special.erfinv(_cdf(normal.clamp_max(0)))
    return fn.scale * torch.where(normal > 0, upper, lower)


def _half_cauchy(fn: Any, normal: Tensor) -> Tensor:
    tangent = torch.tan(0.5 * math.pi * _tail(normal))
    return fn.scale * torch.where(normal > 0, 1 / tangent, tangent)


def _cauchy(fn: Any, normal: Tensor) -> Tensor:
    return fn.loc + fn.scale * normal.sign() / torch.tan(math.pi * _tail(normal))


_QUANTILES: dict[type, Quantile] = {
    torch.distributions.Normal: lambda fn, normal: fn.loc + fn.scale * normal,
    torch.distributions.MultivariateNormal: lambda fn, normal: fn.loc + (fn.scale_tril @ normal[..., None])[..., 0],
    torch.distributions.Uniform: _uniform,
    torch.distributions.Exponential: lambda fn, normal: -torch.special.log_ndtr(-normal) / fn.rate,
    torch.distributions.HalfNormal: _half_normal,
    torch.distributions.HalfCauchy: _half_cauchy,
    torch.distributions.Cauchy: _cauchy,
}
