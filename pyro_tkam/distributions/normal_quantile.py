"""
The map ``ε -> F^{-1}(Φ(ε))`` that turns standard normal noise into a distribution, accurate in both
tails.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_tkam.distributions.autoregressive import AutoregressiveTilted
from pyro_tkam.distributions.count_quantile import (
    geometric_quantile,
    geometric_score,
    poisson_quantile,
    poisson_score,
)
from pyro_tkam.distributions.normal_tails import log_normal_cdf, nearer_tail, normal_cdf
from pyro_tkam.distributions.tabulated import Tabulated

Quantile = Callable[[Any, Tensor], Tensor]


def normal_quantile(fn: Any) -> Callable[[Tensor], Tensor] | None:
    """Return ``ε -> F^{-1}(Φ(ε))``, which maps a standard normal to a distribution.

    Both tails stay accurate for tilted priors and for distributions with a closed form. For others,
    ``icdf`` is evaluated in float64, with ``Φ(ε)`` kept inside (0, 1).

    :param fn: a distribution, possibly wrapped in ``Independent`` or expanded.
    :return: a map that keeps the shape, or None where there is none (no inverse CDF, or discrete
        other than Poisson and geometric).

    >>> normal_quantile(dist.LogNormal(0.0, 1.0))(torch.zeros(2))
    tensor([1., 1.])
    """
    fn = _unwrap(fn)
    closed_form = _closed_form(fn)
    if closed_form is not None:
        return lambda normal: closed_form(fn, normal)
    if isinstance(fn, torch.distributions.TransformedDistribution):
        return _push_forward(fn)
    return _generic(fn)


def normal_score(fn: Any, value: Tensor) -> Tensor:
    """
    Return coordinates of a value in which its distribution is standard normal: ``ε =
    Φ^{-1}(F(z))``, the inverse of :func:`normal_quantile`. If that map consists of transforms,
    ``F`` belongs to the base distribution.

    If ``F(z)`` rounds to 0 or 1, it is moved inside, so the coordinates stay finite: below 8.2, or
    below 5.3 in float32 without transforms (transforms are inverted in float64). A count is the
    middle of the probabilities that map to it.

    :param fn: a distribution for which :func:`normal_quantile` has a map.
    :param value: in its support, shape ``(*sample, *batch, *event)``.

    >>> normal_score(dist.Uniform(0.0, 2.0), torch.tensor([1.0, 2.0]))
    tensor([0.0000, 5.2947])
    """
    fn = _unwrap(fn)
    if isinstance(fn, torch.distributions.MultivariateNormal):
        difference = (value - fn.loc).unsqueeze(-1)
        scores: Tensor = torch.linalg.solve_triangular(
            fn.scale_tril, difference, upper=False
        ).squeeze(-1)
        return scores
    if isinstance(fn, torch.distributions.TransformedDistribution) and _closed_form(fn) is None:
        base_value = value.double()
        for transform in reversed(fn.transforms):
            base_value = transform.inv(base_value)
        return normal_score(fn.base_dist, base_value).to(value.dtype)
    if isinstance(fn, AutoregressiveTilted):
        return fn.to_normal(value)
    for kind, score in _SCORES_OF_COUNTS.items():
        if isinstance(fn, kind):
            return score(fn, value)
    info = torch.finfo(value.dtype)
    probability = fn.cdf(value).double().clamp(info.tiny, 1 - info.eps / 2)
    return torch.special.ndtri(probability).to(value.dtype)


def _unwrap(fn: Any) -> Any:
    while isinstance(
        fn, dist.Independent | dist.ExpandedDistribution | torch.distributions.Independent
    ):
        fn = fn.base_dist
    return fn


def _closed_form(fn: Any) -> Quantile | None:
    return next((_QUANTILES[kind] for kind in type(fn).__mro__ if kind in _QUANTILES), None)


def _push_forward(
    fn: torch.distributions.TransformedDistribution,
) -> Callable[[Tensor], Tensor] | None:
    base = normal_quantile(fn.base_dist)
    base_shape = fn.base_dist.batch_shape + fn.base_dist.event_shape
    if base is None or base_shape != fn.batch_shape + fn.event_shape:
        return None

    def quantile(normal: Tensor) -> Tensor:
        value = base(normal.double())  # a float32 uniform would reach its ends
        for transform in fn.transforms:
            value = transform(value)
        return value.to(normal.dtype)

    return quantile


def _generic(fn: Any) -> Callable[[Tensor], Tensor] | None:
    if fn.event_shape or fn.support.is_discrete:
        return None
    try:
        fn.icdf(torch.tensor(0.5))
    except NotImplementedError:
        return None
    return lambda normal: fn.icdf(_clamped_probability(normal)).to(normal.dtype)


def _clamped_probability(normal: Tensor) -> Tensor:
    """Return ``Φ(ε)`` in float64, which is below one up to ε = 8.2."""
    info = torch.finfo(torch.float64)
    return normal_cdf(normal.double()).clamp(info.tiny, 1 - info.eps / 2)


def _tabulated(fn: Tabulated, normal: Tensor) -> Tensor:
    return fn.icdf(nearer_tail(normal), upper=normal > 0)


def _uniform(fn: Any, normal: Tensor) -> Tensor:
    reach = (fn.high - fn.low) * nearer_tail(normal)
    return torch.where(normal > 0, fn.high - reach, fn.low + reach)


def _half_normal(fn: Any, normal: Tensor) -> Tensor:
    upper = -torch.special.ndtri(0.5 * normal_cdf(-normal.clamp_min(0)))
    lower = math.sqrt(2) * torch.special.erfinv(normal_cdf(normal.clamp_max(0)))
    return fn.scale * torch.where(normal > 0, upper, lower)


def _half_cauchy(fn: Any, normal: Tensor) -> Tensor:
    tangent = torch.tan(0.5 * math.pi * nearer_tail(normal))
    return fn.scale * torch.where(normal > 0, 1 / tangent, tangent)


def _cauchy(fn: Any, normal: Tensor) -> Tensor:
    cotangent = 1 / torch.tan(math.pi * nearer_tail(normal))
    return fn.loc + fn.scale * torch.where(normal > 0, cotangent, -cotangent)


def _laplace(fn: Any, normal: Tensor) -> Tensor:
    distance = (2 * nearer_tail(normal)).log()
    return fn.loc + fn.scale * torch.where(normal > 0, -distance, distance)


_QUANTILES: dict[type, Quantile] = {
    AutoregressiveTilted: lambda fn, normal: fn.from_normal(normal),
    Tabulated: _tabulated,
    torch.distributions.Normal: lambda fn, normal: fn.loc + fn.scale * normal,
    torch.distributions.MultivariateNormal: lambda fn, normal: (
        fn.loc + (fn.scale_tril @ normal[..., None])[..., 0]
    ),
    torch.distributions.Uniform: _uniform,
    torch.distributions.Exponential: lambda fn, normal: -log_normal_cdf(-normal) / fn.rate,
    torch.distributions.Laplace: _laplace,
    torch.distributions.HalfNormal: _half_normal,
    torch.distributions.HalfCauchy: _half_cauchy,
    torch.distributions.Cauchy: _cauchy,
    torch.distributions.Poisson: poisson_quantile,
    torch.distributions.Geometric: geometric_quantile,
}

_SCORES_OF_COUNTS: dict[type, Quantile] = {
    torch.distributions.Poisson: poisson_score,
    torch.distributions.Geometric: geometric_score,
}
