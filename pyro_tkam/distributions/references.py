"""Reference densities ``π0`` of the tilted prior, by name (Raj 2025, Sec. 2.2 and Tables 4 to 6)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.distributions import Distribution


class Reference(Protocol):
    """A univariate density on an interval, in the form that the tilted prior needs."""

    @property
    def low(self) -> float | Tensor:
        """Lower end of the interval."""

    @property
    def high(self) -> float | Tensor:
        """Upper end of the interval."""

    @property
    def breakpoints(self) -> tuple[float, ...]:
        """Points, ascending, at which a quadrature should end a cell."""

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """Tensors that decide the batch shape, dtype and device."""

    def log_density(self, z: Tensor) -> Tensor:
        """Return ``log π0(z)`` for ``z`` in the interval."""


@dataclass(frozen=True)
class Constant:
    """
    A constant density: ``1/(high - low)``, or 1 where it is not ``normalized``.

    :param low: lower end of the interval.
    :param high: upper end of the interval.
    :param normalized: whether the density integrates to 1.

    >>> Constant(0.0, 2.0).log_density(torch.tensor(1.0))
    tensor(-0.6931)
    """

    low: float | Tensor
    high: float | Tensor
    normalized: bool = True
    breakpoints: tuple[float, ...] = ()
    parameters: tuple[Tensor, ...] = ()

    def log_density(self, z: Tensor) -> Tensor:
        """Return the logarithm of the constant, shaped as ``z``."""
        if not self.normalized:
            return torch.zeros_like(z)
        return -torch.as_tensor(self.high - self.low, dtype=z.dtype, device=z.device).log() + torch.zeros_like(z)


@dataclass(frozen=True)
class Gaussian:
    """
    The Gaussian density on an interval.

    :param low: lower end of the interval.
    :param high: upper end of the interval.
    :param loc: location, a tensor of any batch shape.
    :param scale: scale, a tensor of any batch shape.

    >>> Gaussian(-4.0, 4.0).log_density(torch.tensor(0.0))
    tensor(-0.9189)
    """

    low: float | Tensor = -4.0
    high: float | Tensor = 4.0
    loc: Tensor | None = None
    scale: Tensor | None = None
    breakpoints: tuple[float, ...] = ()

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """Location and scale, where they are tensors."""
        return tuple(p for p in (self.loc, self.scale) if p is not None)

    def log_density(self, z: Tensor) -> Tensor:
        """Return the logarithm of the Gaussian density at ``z``."""
        scaled = z if self.loc is None else z - self.loc
        if self.scale is None:
            return -0.5 * scaled.square() - 0.5 * math.log(2 * math.pi)
        return -0.5 * (scaled / self.scale).square() - self.scale.log() - 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True)
class LogNormal:
    """
    The standard lognormal density on an interval; cells are graded towards 0, where its scale shrinks.

    :param low: lower end of the interval.
    :param high: upper end of the interval.

    >>> LogNormal().log_density(torch.tensor(1.0))
    tensor(-0.9189)
    """

    low: float | Tensor = 0.0
    high: float | Tensor = 4.0
    breakpoints: tuple[float, ...] = tuple(2.0**-k for k in range(14, -3, -1))
    parameters: tuple[Tensor, ...] = ()

    def log_density(self, z: Tensor) -> Tensor:
        """Return the logarithm of the lognormal density at ``z``; it falls to minus infinity as ``z`` goes to 0."""
        positive = z > 0
        log_z = torch.where(positive, z, 1).log()
        value = -0.5 * log_z.square() - log_z - 0.5 * math.log(2 * math.pi)
        return torch.where(positive, value, -math.inf)


@dataclass(frozen=True)
class FromDistribution:
    """
    A univariate ``torch.distributions`` object as a reference.

    :param low: lower end of the interval.
    :param high: upper end of the interval.
    :param distribution: the density, of empty event shape.
    """

    low: float | Tensor
    high: float | Tensor
    distribution: Distribution
    breakpoints: tuple[float, ...] = ()

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The distribution's parameters."""
        return tuple(getattr(self.distribution, name) for name in self.distribution.arg_constraints)

    def log_density(self, z: Tensor) -> Tensor:
        """Return the distribution's log density at ``z``."""
        return self.distribution.log_prob(z)


def _learnable_gaussian(low: float | Tensor, high: float | Tensor) -> Reference:
    """Return a Gaussian whose location and scale are new leaves, found at ``.parameters``."""
    return Gaussian(low, high, torch.zeros((), requires_grad=True), torch.ones((), requires_grad=True))


#: How each name becomes a reference, and its default interval.
REFERENCES: dict[str, tuple[Callable[[float | Tensor, float | Tensor], Reference], float, float]] = {
    "uniform": (Constant, 0.0, 1.0),
    "gaussian": (Gaussian, -4.0, 4.0),
    "lognormal": (LogNormal, 0.0, 4.0),
    "learnable_gaussian": (_learnable_gaussian, -4.0, 4.0),
    "flat": (partial(Constant, normalized=False), -1.0, 1.0),
}


def resolve_reference(
    reference: str | Distribution, low: float | Tensor | None = None, high: float | Tensor | None = None
) -> Reference:
    """
    Turn a name or a distribution into a reference on an interval.

    :param reference: ``"uniform"``, ``"gaussian"``, ``"lognormal"``, ``"learnable_gaussian"``, ``"flat"``, or a
        univariate distribution.
    :param low: lower end; None takes the reference's own.
    :param high: upper end; None takes the reference's own.
    :raises ValueError: for an unknown name, a multivariate distribution, an end that is missing where the
        reference is unbounded, or ``low >= high``.
    :raises TypeError: for a reference that is neither a name nor a distribution.

    >>> resolve_reference("gaussian").low
    -4.0
    """
    make, default_low, default_high = _maker(reference)
    low, high = default_low if low is None else low, default_high if high is None else high
    for name, end in (("low", low), ("high", high)):
        if not bool(torch.isfinite(torch.as_tensor(end)).all()):
            raise ValueError(f"{name}: got {end}, takes a finite number (required where the reference is unbounded)")
    if not bool((torch.as_tensor(low) < torch.as_tensor(high)).all()):
        raise ValueError(f"low, high: got low={low}, high={high}, takes low < high")
    return make(low, high)


def _maker(
    reference: str | Distribution,
) -> tuple[Callable[[float | Tensor, float | Tensor], Reference], float | Tensor, float | Tensor]:
    if isinstance(reference, str):
        if reference not in REFERENCES:
            raise ValueError(f"reference: got {reference!r}, takes one of {sorted(REFERENCES)} or a distribution")
        return REFERENCES[reference]
    if not isinstance(reference, Distribution):
        raise TypeError(f"reference: got {type(reference).__name__}, takes a name or a univariate distribution")
    if reference.event_shape:
        raise ValueError(f"reference: got event shape {tuple(reference.event_shape)}, takes a univariate distribution")
    low, high = (
        getattr(reference.support, "lower_bound", -math.inf),
        getattr(reference.support, "upper_bound", math.inf),
    )
    return partial(FromDistribution, distribution=reference), low, high
