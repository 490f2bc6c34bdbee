"""
Coordinates of a latent site: the unconstrained ones of Pyro, or those in which its prior is
standard normal; and where each site lies in a flat vector of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from pyro.distributions import constraints
from pyro.distributions.util import sum_rightmost
from torch import Tensor
from torch.distributions import Transform

from pyro_tkam.distributions.normal_quantile import normal_quantile, normal_score
from pyro_tkam.distributions.positive_definite import bijection

GAP_DRAWS = 1000
GAP_ANGLES = 32
GAP_CONCENTRATION = 4.0


class Coordinate(Protocol):
    """
    How a site's value and its log density follow from coordinates, given its distribution in the
    same run: its support may depend on the values of other sites.
    """

    def value(self, fn: Any, coordinates: Tensor) -> Tensor:
        """Return the site's value."""

    def of_value(self, fn: Any, value: Tensor) -> Tensor:
        """Return the coordinates of a value, differentiable in it."""

    def log_volume(self, site: dict[str, Any], coordinates: Tensor) -> Tensor:
        """Return ``log |dz/du|`` at the site's value, of its batch shape."""


@dataclass(frozen=True)
class Unconstrained:
    """Pyro's coordinates ``u``: ``z = T(u)``, ``log p(u) = log p(z) + log |det T'(u)|``.

    :param given: ``T``, from the reals to the site's support; Pyro's own for the support that the
        site has in the run if None.
    """

    given: Transform | None = None

    def transform(self, fn: Any) -> Transform:
        """Return ``T`` for the site's distribution."""
        return bijection(fn.support) if self.given is None else self.given

    def value(self, fn: Any, coordinates: Tensor) -> Tensor:
        """Return ``T(u)``."""
        return self.transform(fn)(coordinates)

    def of_value(self, fn: Any, value: Tensor) -> Tensor:
        """Return ``T^{-1}(z)``."""
        return self.transform(fn).inv(value)

    def log_volume(self, site: dict[str, Any], coordinates: Tensor) -> Tensor:
        """Return ``log |det T'(u)|``."""
        transform = self.transform(site["fn"])
        jacobian = transform.log_abs_det_jacobian(coordinates, site["value"])
        return sum_rightmost(jacobian, site["fn"].event_dim - transform.codomain.event_dim)


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

    def of_value(self, fn: Any, value: Tensor) -> Tensor:
        """Return ``Φ^{-1}(F(z))``."""
        return normal_score(fn, value)

    def log_prob(self, site: dict[str, Any], coordinates: Tensor) -> Tensor:
        """Return the standard normal log density, summed over event dimensions."""
        return sum_rightmost(
            -0.5 * coordinates.square() - 0.5 * math.log(2 * math.pi), site["fn"].event_dim
        )

    def log_volume(self, site: dict[str, Any], coordinates: Tensor) -> Tensor:
        """Return ``log φ(ε) - log p(z)``."""
        log_density: Tensor = site["fn"].log_prob(site["value"])
        return self.log_prob(site, coordinates) - log_density


@dataclass(frozen=True)
class AsDrawn:
    """Discrete values as they are, without a transform.

    :param dtype: dtype of the values.
    """

    dtype: torch.dtype

    def value(self, fn: Any, coordinates: Tensor) -> Tensor:
        """Return the coordinates in the site's own type."""
        return coordinates.to(self.dtype)

    def of_value(self, fn: Any, value: Tensor) -> Tensor:
        """Return the value as a floating point number."""
        return value.to(torch.get_default_dtype())

    def log_volume(self, site: dict[str, Any], coordinates: Tensor) -> Tensor:
        """Return zero."""
        return coordinates.new_zeros(())


class Turns(Transform):
    """Shifts numbers by whole periods into ``(center - period / 2, center + period / 2]``.

    :param period: a whole turn, positive.
    :param center: middle of the values.

    >>> Turns(2.0)(torch.tensor([0.5, 1.0, 1.5, -1.0]))
    tensor([ 0.5000,  1.0000, -0.5000,  1.0000])
    """

    domain = constraints.real
    codomain = constraints.real
    bijective = True  # on the circle

    def __init__(self, period: float, center: float = 0.0) -> None:
        super().__init__()
        self.period = period
        self.center = center

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Turns):
            return False
        return (self.period, self.center) == (other.period, other.center)

    def __hash__(self) -> int:
        return hash((self.period, self.center))

    def _call(self, x: Tensor) -> Tensor:
        return x - self.period * torch.ceil((x - self.center) / self.period - 0.5)

    def _inverse(self, y: Tensor) -> Tensor:
        return y

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Return zero."""
        return torch.zeros_like(x)


class TurnsAround(Turns):
    """The same, with an inverse that lies in one turn around another middle.

    :param period: a whole turn, positive.
    :param center: middle of the values.
    :param middle: middle of the inverse's values, broadcastable to the values.

    >>> TurnsAround(2.0, 0.0, torch.tensor(1.0)).inv(torch.tensor([0.5, -0.5]))
    tensor([0.5000, 1.5000])
    """

    def __init__(self, period: float, center: float, middle: Tensor) -> None:
        super().__init__(period, center)
        self.middle = middle

    def _inverse(self, y: Tensor) -> Tensor:
        return y - self.period * torch.ceil((y - self.middle) / self.period - 0.5)


def is_fixed(support: Any) -> bool:
    """
    Tell whether a support is one of those that have no bounds to set, so that it is the same in
    every run of a model.
    """
    if isinstance(support, constraints.independent):
        return is_fixed(support.base_constraint)
    return any(support is each for each in vars(constraints).values())


def _period(coordinate: Coordinate) -> float:
    given = coordinate.given if isinstance(coordinate, Unconstrained) else None
    return given.period if isinstance(given, Turns) else math.inf


@dataclass(frozen=True)
class SiteLayout:
    """One latent site.

    :param shape: of its coordinates, batch and event.
    :param event_dim: number of event dimensions of the coordinates.
    :param coordinate: what the coordinates mean.
    """

    shape: tuple[int, ...]
    event_dim: int
    coordinate: Coordinate


@dataclass(frozen=True)
class Layout:
    """
    How sites are laid out in vectors ``(*lead, *local, dim)``; each datum holds its own
    coordinates.

    :param sites: the latent sites by name, in order.
    :param local_dims: plate dimensions (negative, from the left) that are local.
    :param local_shape: their sizes.
    """

    sites: Mapping[str, SiteLayout]
    local_dims: tuple[int, ...]
    local_shape: tuple[int, ...]

    @property
    def dim(self) -> int:
        """Number of coordinates of a datum (of everything, if nothing is local)."""
        return sum(self._size(site) for site in self.sites.values())

    @property
    def names(self) -> list[str]:
        """Name of the site of each coordinate ``(*local, dim)``, flat."""
        one = [name for name, site in self.sites.items() for _ in range(self._size(site))]
        return one * math.prod(self.local_shape)

    def angles_around_mean(self, draws: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return draws ``(chain, draw, *shape)`` by site, angles turned to their mean direction."""
        turned = dict(draws)
        for name, value in draws.items():
            period = _period(self.sites[name].coordinate) if name in self.sites else math.inf
            if math.isfinite(period):
                flat = value.flatten(0, 1).unsqueeze(-1)
                around = around_mean(flat, torch.tensor([period]).double()).squeeze(-1)
                turned[name] = around.unflatten(0, value.shape[:2])
        return turned

    @property
    def periods(self) -> Tensor | None:
        """
        A whole turn of each coordinate ``(dim,)``, infinite where it is no angle; None if none is.
        """
        turns = [_period(site.coordinate) for site in self.sites.values()]
        if all(math.isinf(each) for each in turns):
            return None
        sizes = [self._size(site) for site in self.sites.values()]
        each = zip(turns, sizes, strict=True)
        return torch.tensor([turn for turn, size in each for _ in range(size)]).double()

    def flatten(self, coordinates: Mapping[str, Tensor], lead: int = 0) -> Tensor:
        """Join the sites' coordinates ``(*lead, *shape)`` into ``(*lead, *local, dim)``."""
        parts = []
        for name, site in self.sites.items():
            value = coordinates[name]
            if self.local_dims:
                value = value.movedim(self._axes(site), self._front(lead))
            parts.append(value.reshape((*value.shape[:lead], *self.local_shape, self._size(site))))
        return torch.cat(parts, -1)

    def unflatten(self, position: Tensor) -> dict[str, Tensor]:
        """Split ``(*lead, *local, dim)`` into the sites' coordinates ``(*lead, *shape)``."""
        lead = position.ndim - 1 - len(self.local_shape)
        sizes = [self._size(site) for site in self.sites.values()]
        coordinates = {}
        for (name, site), part in zip(self.sites.items(), position.split(sizes, -1), strict=True):
            value = part.reshape((*position.shape[:-1], *self._rest(site)))
            if self.local_dims:
                value = value.movedim(self._front(lead), self._axes(site))
            coordinates[name] = value
        return coordinates

    def _axes(self, site: SiteLayout) -> tuple[int, ...]:
        return tuple(dim - site.event_dim for dim in self.local_dims)

    def _front(self, lead: int) -> tuple[int, ...]:
        return tuple(range(lead, lead + len(self.local_dims)))

    def _rest(self, site: SiteLayout) -> tuple[int, ...]:
        local = {axis % len(site.shape) for axis in self._axes(site)}
        return tuple(size for axis, size in enumerate(site.shape) if axis not in local)

    def _size(self, site: SiteLayout) -> int:
        return math.prod(self._rest(site))


def around_mean(positions: Tensor, periods: Tensor | None) -> Tensor:
    """Shift angles by whole turns so that they are closest to the mean direction of all draws.

    :param positions: ``(draws, *local, dim)``.
    :param periods: a whole turn of each coordinate, infinite where it is no angle; None if none is.

    >>> draws = torch.tensor([[3.0], [-3.0]])
    >>> around_mean(draws, torch.tensor([2 * math.pi])).flatten()
    tensor([3.0000, 3.2832])
    """
    return positions if periods is None else Chart(periods).turned(positions)


def opposite_of_gap(draws: Tensor, period: float) -> Tensor:
    """Return the angle opposite to the one with the fewest draws.

    Their density is estimated at 32 angles with a kernel of half a radian.

    :param draws: ``(draw, *shape)``.
    :param period: a whole turn.

    >>> opposite_of_gap(torch.tensor([3.0, -3.0, 3.2]), 2 * math.pi)
    tensor(3.1416)
    """
    step = max(1, len(draws) // GAP_DRAWS)
    unit = period / (2 * math.pi)
    angles = torch.linspace(0, 2 * math.pi, GAP_ANGLES + 1, dtype=draws.dtype)[:-1].to(draws.device)
    apart = draws[::step].unsqueeze(-1) / unit - angles
    density = (GAP_CONCENTRATION * (apart.cos() - 1)).exp().mean(0)
    return (angles[density.argmin(-1)] + math.pi) % (2 * math.pi) * unit


class Chart:
    """Shifts angles by whole turns to be closest to the mean direction of all positions so far.

    :param periods: a whole turn of each coordinate, infinite where it is no angle.
    """

    def __init__(self, periods: Tensor) -> None:
        self.columns = periods.isfinite().nonzero().squeeze(-1)
        self.periods = periods[self.columns]
        self.resultant: Tensor | None = None

    def turned(self, position: Tensor) -> Tensor:
        """Return positions ``(rows, *rest, dim)``, the same where no angle needs a turn."""
        angle = position[..., self.columns]
        periods = self.periods.to(position.device)
        radians = angle.double() * (2 * math.pi / periods)
        total = torch.stack([radians.sin().sum(0), radians.cos().sum(0)])
        self.resultant = total if self.resultant is None else self.resultant + total
        center = torch.atan2(*self.resultant) * (periods / (2 * math.pi))
        turns = torch.round((angle - center) / periods)
        if not turns.any():
            return position
        turned = position.clone()
        turned[..., self.columns] = (angle - turns * periods).to(position.dtype)
        return turned
