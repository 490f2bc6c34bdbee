"""
Reference densities ``π0`` of the tilted prior, given by name (Raj 2025, Sec. 2.2 and Tables 4 to 6)
or as a distribution.
"""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution

from pyro_tkam._checks import LARGEST
from pyro_tkam.ops._arguments import dense
from pyro_tkam.ops._concrete import is_concrete
from pyro_tkam.ops.bases import Picklable

End = float | Tensor


class Reference(Protocol):
    """A univariate density on an interval, in the form that the tilted prior needs."""

    @property
    def low(self) -> End:
        """Lower end of the interval."""

    @property
    def high(self) -> End:
        """Upper end of the interval."""

    @property
    def breakpoints(self) -> Tensor | None:
        """Points, ascending, at which a quadrature should end a cell, shape ``(count, *batch)``."""

    @property
    def batch_shape(self) -> torch.Size:
        """Batch shape of the density."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Parameters and other tensors, which determine dtype and device."""

    @property
    def singular_part(self) -> Callable[[Tensor], Tensor] | None:
        """``log_density`` where it may have poles at the ends of the interval, else None."""

    def log_density(self, z: Tensor) -> Tensor:
        """Return ``log π0(z)`` for ``z`` in the interval."""


@dataclass(frozen=True, eq=False)
class _OnInterval(Picklable):
    """
    What references share.

    :param low: lower end of the interval.
    :param high: upper end of the interval.
    """

    low: End
    high: End

    @property
    def breakpoints(self) -> Tensor | None:
        return None

    @property
    def batch_shape(self) -> torch.Size:
        return torch.broadcast_shapes(*(tensor.shape for tensor in self.tensors))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return ()

    @property
    def singular_part(self) -> Callable[[Tensor], Tensor] | None:
        return None


@dataclass(frozen=True, eq=False)
class Constant(_OnInterval):
    """
    A constant density: ``1/(high - low)``, or 1 if it is not ``normalized``.

    :param normalized: whether the density integrates to 1.

    >>> Constant(0.0, 2.0).log_density(torch.tensor(1.0))
    tensor(-0.6931)
    """

    normalized: bool = True

    def log_density(self, z: Tensor) -> Tensor:
        """Return the logarithm of the constant, shaped as ``z``."""
        if not self.normalized:
            return torch.zeros_like(z)
        width = self.high - self.low
        return torch.zeros_like(z) - (width.log() if isinstance(width, Tensor) else math.log(width))


@dataclass(frozen=True, eq=False)
class Gaussian(_OnInterval):
    """
    The Gaussian density on an interval; standard normal if location and scale are missing.

    :param loc: location, of any batch shape.
    :param scale: scale, of any batch shape.

    >>> Gaussian(-4.0, 4.0).log_density(torch.tensor(0.0))
    tensor(-0.9189)
    """

    loc: Tensor | None = None
    scale: Tensor | None = None

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Location and scale, if given."""
        return tuple(p for p in (self.loc, self.scale) if p is not None)

    def log_density(self, z: Tensor) -> Tensor:
        """Return the logarithm of the Gaussian density at ``z``."""
        if self.loc is None or self.scale is None:
            return -0.5 * z.square() - 0.5 * math.log(2 * math.pi)
        return (
            -0.5 * ((z - self.loc) / self.scale).square()
            - self.scale.log()
            - 0.5 * math.log(2 * math.pi)
        )


@dataclass(frozen=True, eq=False)
class LogNormal(_OnInterval):
    """
    The standard lognormal density on an interval; cells are graded toward 0, where its scale
    shrinks.

    >>> LogNormal(0.0, 4.0).log_density(torch.tensor(1.0))
    tensor(-0.9189)
    """

    @property
    def breakpoints(self) -> Tensor:
        """Powers of two from 2^-14 to 4."""
        return torch.arange(-14, 3).double().exp2()

    def log_density(self, z: Tensor) -> Tensor:
        """
        Return the logarithm of the lognormal density at ``z``; it falls to minus infinity as ``z``
        goes to 0.
        """
        positive = z > 0
        log_z = torch.where(positive, z, 1).log()
        value = -0.5 * log_z.square() - log_z - 0.5 * math.log(2 * math.pi)
        return torch.where(positive, value, -math.inf)


@dataclass(frozen=True, eq=False)
class FromDistribution(_OnInterval):
    """
    A univariate ``torch.distributions`` object as a reference.

    :param distribution: the density, with empty event shape; its own validation is turned off.
    """

    distribution: Distribution

    @property
    def breakpoints(self) -> Tensor | None:
        """The location of a density that has a kink there."""
        if isinstance(self.distribution, _KINKED_AT_LOCATION):
            return self.distribution.loc[None]
        return None

    @property
    def singular_part(self) -> Callable[[Tensor], Tensor]:
        """The log density, because nothing is known about it."""
        return self.log_density

    @property
    def batch_shape(self) -> torch.Size:
        """The batch shape of the distribution."""
        return self.distribution.batch_shape

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors that the distribution holds."""
        return tuple(tensors_of(self.distribution))

    def log_density(self, z: Tensor) -> Tensor:
        """Return the distribution's log density at ``z``."""
        return self.distribution.log_prob(z)

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes, tensors detached."""
        return {**super().__getstate__(), "distribution": copied(self.distribution, Tensor.detach)}


_KINKED_AT_LOCATION = (torch.distributions.Laplace, dist.AsymmetricLaplace)


def tensors_of(distribution: Distribution) -> Iterator[Tensor]:
    """
    Yield all tensors that a distribution holds, including those of the distributions inside it.
    """
    for value in vars(distribution).values():
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Distribution):
            yield from tensors_of(value)


def copied(
    distribution: Distribution, change: Callable[[Tensor], Tensor] = lambda tensor: tensor
) -> Distribution:
    """
    Copy a distribution and those inside it, without validation and with changed tensors.
    """
    new = copy.copy(distribution)
    for name, value in vars(distribution).items():
        if isinstance(value, Distribution):
            setattr(new, name, copied(value, change))
        elif isinstance(value, Tensor):
            setattr(new, name, change(value))
    new._validate_args = False
    return new


def _learnable_gaussian(low: End, high: End) -> Reference:
    """Return a Gaussian whose location and scale are new leaves, found at ``.tensors``."""
    return Gaussian(
        low, high, torch.zeros((), requires_grad=True), torch.ones((), requires_grad=True)
    )


#: How each name becomes a reference, and its default interval.
REFERENCES: dict[str, tuple[Callable[[End, End], Reference], float, float]] = {
    "uniform": (Constant, 0.0, 1.0),
    "gaussian": (Gaussian, -4.0, 4.0),
    "lognormal": (LogNormal, 0.0, 4.0),
    "learnable_gaussian": (_learnable_gaussian, -4.0, 4.0),
    "flat": (partial(Constant, normalized=False), -1.0, 1.0),
}


def resolve_reference(
    reference: str | Distribution, low: End | None = None, high: End | None = None
) -> Reference:
    """
    Turn a name or a distribution into a reference on an interval.

    :param reference: ``"uniform"``, ``"gaussian"``, ``"lognormal"``, ``"learnable_gaussian"``,
        ``"flat"``, or a univariate distribution.
    :param low: lower end; None takes the reference's end. Anything outside a distribution's support
        is cut off.
    :param high: upper end, likewise.
    :raises ValueError: for an unknown name, a multivariate or discrete distribution, a missing end
        where the reference is unbounded, and ``low >= high``.
    :raises TypeError: for a reference that is neither a name nor a distribution, and ends that are
        not numbers.

    >>> resolve_reference("gaussian").low
    -4.0
    """
    for name, end in (("low", low), ("high", high)):
        if not isinstance(end, float | int | Tensor | None):
            raise TypeError(f"{name} must be a number, a tensor or None, got {type(end).__name__}")
        given: object = end
        if isinstance(given, Tensor):
            dense(name, given)
        elif isinstance(given, int) and abs(given) > LARGEST:
            raise ValueError(f"{name} must fit in a 64-bit integer, got {given}")
    if isinstance(reference, str):
        if reference not in REFERENCES:
            raise ValueError(
                f"reference must be one of {sorted(REFERENCES)} or a distribution, got "
                f"{reference!r}"
            )
        make, default_low, default_high = REFERENCES[reference]
        low = default_low if low is None else low
        high = default_high if high is None else high
    else:
        make, low, high = _from_distribution(reference, low, high)
    _check_interval(low, high)
    return make(low, high)


def _from_distribution(
    reference: Distribution, low: End | None, high: End | None
) -> tuple[Callable[[End, End], Reference], End, End]:
    if not isinstance(reference, Distribution):
        raise TypeError(
            f"reference must be a name or a univariate distribution, got {type(reference).__name__}"
        )
    if reference.event_shape:
        raise ValueError(
            "reference must be a univariate distribution, got event shape "
            f"{tuple(reference.event_shape)}"
        )
    support = reference.support
    if support is None or support.is_discrete:
        raise ValueError(
            f"reference must be a continuous distribution, got a discrete one, {reference}"
        )
    lowest = getattr(support, "lower_bound", -math.inf)
    highest = getattr(support, "upper_bound", math.inf)
    low = lowest if low is None else _where(lambda end, bound: end >= bound, low, lowest)
    high = highest if high is None else _where(lambda end, bound: end <= bound, high, highest)
    return partial(FromDistribution, distribution=copied(reference)), low, high


def _where(inside: Callable[[Any, Any], Any], end: End, bound: End) -> End:
    """Return the end of an interval where it is inside the bound, else the bound."""
    if isinstance(end, Tensor) or isinstance(bound, Tensor):
        return torch.where(inside(end, bound), end, bound)
    return end if inside(end, bound) else bound


def _check_interval(low: End, high: End) -> None:
    ends = {
        name: end if isinstance(end, Tensor) else torch.tensor(end)
        for name, end in (("low", low), ("high", high))
    }
    if not all(is_concrete(end) for end in ends.values()):
        return
    for name, end in ends.items():
        if not bool(end.isfinite().all()):
            raise ValueError(
                f"{name} must be finite (and given if the reference has no end on that side), "
                f"got {end.tolist()}"
            )
    try:
        ordered = bool((ends["low"] < ends["high"]).all())
    except RuntimeError as error:
        raise ValueError(f"low and high must have shapes that broadcast, got {error}") from error
    if not ordered:
        raise ValueError(
            f"low must be below high, both inside the reference's support, got low={low}, "
            f"high={high}"
        )
