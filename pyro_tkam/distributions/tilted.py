"""The univariate exponentially tilted prior with an exact inverse CDF."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Distribution, constraints, register_kl

from pyro_tkam.distributions.references import resolve_reference
from pyro_tkam.ops._concrete import is_concrete
from pyro_tkam.ops.quadrature import Quadrature, default_rule
from pyro_tkam.ops.table import Table, tabulate

Energy = Callable[[Tensor], Tensor]


class ExponentiallyTilted(TorchDistribution):
    """
    A univariate reference density tilted by the exponential of an energy, normalised by quadrature.

    ``p(z) = exp(f(z)) π0(z) / Z`` on ``[low, high]``, with ``Z = ∫ exp(f) π0`` (Raj 2025, arXiv:2506.14167,
    Eq. 4-6). Draws are ``F^{-1}(u)``, exact to the accuracy of the quadrature, with pathwise gradients of every
    order in the parameters of ``f`` and ``π0``, in ``low``, ``high`` and in ``u``.

    :param energy: elementwise ``f``: it takes any ``z`` that broadcasts against ``(*sample, *batch)`` and returns
        the broadcast shape. An attribute ``knots``, of shape ``(count,)``, gives the edges of the cells within
        which it is smooth.
    :param reference: ``π0``, a univariate distribution or one of ``"uniform"`` (on [0, 1]), ``"gaussian"`` and
        ``"learnable_gaussian"`` (on [-4, 4]), ``"lognormal"`` (on [0, 4]) and ``"flat"`` (1 on [-1, 1]).
    :param low: lower end, a number or a tensor that broadcasts with the batch; None takes the reference's.
    :param high: upper end, likewise.
    :param quadrature: a rule of :mod:`pyro_tkam.ops.quadrature`; the default halves its cells until the error of
        the CDF is estimated below 1e-10 (float64) or 5e-7 (float32).
    :param validate_args: whether to check arguments, also of ``log_prob`` and ``icdf``.
    :raises ValueError: for ``low >= high``, an unknown reference, an energy of the wrong shape or not finite, and a
        density without mass on the interval.
    :raises TypeError: for an energy that cannot be called, and other types that are not listed here.

    >>> import torch
    >>> exponential = ExponentiallyTilted(lambda z: -2 * z, low=0.0, high=1.0)
    >>> print(f"{exponential.log_normalizer:.4f}")  # log((1 - exp(-2)) / 2)
    -0.8386
    >>> exponential.rsample((3,)).shape
    torch.Size([3])
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_rsample = True

    def __init__(
        self,
        energy: Energy,
        reference: str | Distribution = "uniform",
        low: float | Tensor | None = None,
        high: float | Tensor | None = None,
        *,
        quadrature: Quadrature | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if not callable(energy):
            raise TypeError(f"energy: got {type(energy).__name__}, takes a callable of z")
        if quadrature is not None and not isinstance(quadrature, Quadrature):
            raise TypeError(f"quadrature: got {type(quadrature).__name__}, takes a Quadrature")
        self.energy = energy
        self.reference = resolve_reference(reference, low, high)
        ends = (self.reference.low, self.reference.high)
        tensors = [t for t in (*ends, *self.reference.parameters) if isinstance(t, Tensor)]
        like = _prototype(energy, tensors)
        self.low, self.high = (torch.as_tensor(end, dtype=like.dtype, device=like.device) for end in ends)
        batch_shape = torch.broadcast_shapes(energy((self.low + self.high) / 2).shape, *(t.shape for t in tensors))
        super().__init__(batch_shape, validate_args=validate_args)
        self._table = self._tabulate(quadrature or default_rule(like.dtype))

    def _tabulate(self, rule: Quadrature) -> Table:
        low, high = torch.broadcast_tensors(self.low, self.high)
        shape = (1,) * (len(self.batch_shape) - low.dim()) + low.shape
        low, high = low.reshape(shape), high.reshape(shape)
        table = tabulate(self._log_density, low, high, self.batch_shape, rule, self._breakpoints())
        if is_concrete(table.log_normalizer) and not bool(table.log_normalizer.isfinite().all()):
            raise ValueError(self._why_not_finite(table))
        return table

    def _breakpoints(self) -> Tensor | None:
        """Return the reference's and the energy's break points inside the interval."""
        cuts = [torch.as_tensor(self.reference.breakpoints, dtype=self.low.dtype, device=self.low.device)]
        knots = getattr(self.energy, "knots", None)
        if knots is not None:
            cuts.append(knots.detach())
        points = torch.cat(cuts).sort().values
        if is_concrete(points) and is_concrete(self.low) and is_concrete(self.high):
            points = points[(points > self.low.min()) & (points < self.high.max())]
        return points if len(points) > 0 else None

    def _log_density(self, z: Tensor) -> Tensor:
        """Return the unnormalised ``f(z) + log π0(z)``."""
        energy = self.energy(z)
        expected = torch.broadcast_shapes(z.shape, energy.shape)
        if energy.shape != expected:
            raise ValueError(f"energy: got values of shape {tuple(energy.shape)} for z of shape {tuple(z.shape)}")
        return energy + self.reference.log_density(z)

    def _why_not_finite(self, table: Table) -> str:
        energy = self.energy(table.nodes.flatten(0, 1))
        if bool((energy.isnan() | energy.isposinf()).any()):
            return "energy: got values that are not finite inside the interval, takes finite ones (or -inf)"
        return f"reference: got no mass on the interval from low={self.low.tolist()} to high={self.high.tolist()}"

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> constraints.Constraint:
        """The closed interval from ``low`` to ``high``."""
        return constraints.interval(self.low, self.high)

    @property
    def log_normalizer(self) -> Tensor:
        """``log Z``, shape ``batch_shape``."""
        return self._table.log_normalizer.expand(self.batch_shape)

    @property
    def quadrature_error(self) -> Tensor:
        """Estimated absolute error of the CDF, shape ``batch_shape``."""
        return self._table.error.expand(self.batch_shape)

    @property
    def mean(self) -> Tensor:
        """``E_p[z]``, shape ``batch_shape``."""
        return self.expectation(lambda z: z)

    @property
    def variance(self) -> Tensor:
        """``E_p[(z - E_p[z])²]``, shape ``batch_shape``."""
        mean = self._table.expectation(lambda z: z)
        return self.expectation(lambda z: (z - mean).square())

    def expectation(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """
        Return ``E_p[h(z)]`` by the quadrature that normalises the density.

        :param function: elementwise ``h``; it sees ``z`` of a shape that broadcasts with ``(nodes, *batch)``.
        :return: shape ``batch_shape``.

        >>> uniform = ExponentiallyTilted(lambda z: 0 * z)
        >>> print(f"{uniform.expectation(lambda z: z**2):.4f}")
        0.3333
        """
        return self._table.expectation(function).expand(self.batch_shape)

    def entropy(self) -> Tensor:
        """Return ``-E_p[log p(z)]``, shape ``batch_shape``."""
        return -self._table.average(self._table.log_density).expand(self.batch_shape)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "ExponentiallyTilted":
        """
        Return the distribution with a larger batch shape; the table is shared, not copied.

        :param batch_shape: shape to which ``batch_shape`` broadcasts.
        """
        new: ExponentiallyTilted = self._get_checked_instance(ExponentiallyTilted, _instance)
        new.energy, new.reference, new._table = self.energy, self.reference, self._table
        new.low, new.high = self.low, self.high
        batch_shape = torch.Size(batch_shape)
        torch.broadcast_shapes(self.batch_shape, batch_shape)
        super(ExponentiallyTilted, new).__init__(batch_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        """
        Return ``f(z) + log π0(z) - log Z``, and minus infinity outside the interval.

        :param value: shape ``(*sample, *batch_shape)``, or what broadcasts with it.
        :return: the broadcast shape.
        :raises ValueError: with ``validate_args``, for values outside the support.
        """
        if self._validate_args:
            self._validate_sample(value)
        inside = (value >= self.low) & (value <= self.high)
        density = self._log_density(torch.where(inside, value, (self.low + self.high) / 2))
        log_prob = torch.where(inside, density - self._table.log_normalizer, -math.inf)
        return log_prob.expand(torch.broadcast_shapes(value.shape, self.batch_shape))

    def cdf(self, value: Tensor) -> Tensor:
        """
        Return ``F(z)``: 0 below the interval and 1 above it.

        :param value: shape ``(*sample, *batch_shape)``, or what broadcasts with it.
        :return: the broadcast shape.
        """
        if self._validate_args:
            self._validate_sample(value)
        inside = torch.maximum(torch.minimum(value, self.high), self.low)
        result = self._table.cdf(inside).clamp(0, 1)
        return result.expand(torch.broadcast_shapes(value.shape, self.batch_shape))

    def icdf(self, value: Tensor, upper: bool = False) -> Tensor:
        """
        Return ``F^{-1}(u)``, differentiable in ``u`` and in every parameter.

        :param value: probabilities ``u``, shape ``(*sample, *batch_shape)``, or what broadcasts with it.
        :param upper: whether ``u`` is the mass above ``z`` instead of that below it.
        :return: the broadcast shape.
        :raises ValueError: with ``validate_args``, for probabilities outside [0, 1].
        """
        if self._validate_args and is_concrete(value) and not bool(((value >= 0) & (value <= 1)).all()):
            raise ValueError("value: got probabilities outside [0, 1], takes probabilities")
        return self._table.icdf(value, upper).expand(torch.broadcast_shapes(value.shape, self.batch_shape))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """
        Draw exactly by inverting the CDF, with pathwise gradients (Raj 2025, Eq. 21-25 without their bias).

        :param sample_shape: shape of independent draws.
        :return: shape ``(*sample_shape, *batch_shape)``.
        """
        like = self._table.log_normalizer
        u = torch.rand(self._extended_shape(sample_shape), dtype=like.dtype, device=like.device)
        return self.icdf(u.clamp_min(torch.finfo(u.dtype).tiny))


def _prototype(energy: Energy, tensors: list[Tensor]) -> Tensor:
    """Return a tensor of the dtype and device in which the energy computes."""
    knots = getattr(energy, "knots", None)
    if isinstance(knots, Tensor):
        return knots
    like = max(tensors, key=lambda t: t.dim(), default=torch.zeros(()))
    value = energy(torch.zeros((), dtype=like.dtype, device=like.device))
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise TypeError(f"energy: got a result of type {type(value).__name__}, takes a function to floating tensors")
    return value


@register_kl(ExponentiallyTilted, ExponentiallyTilted)
def _kl_tilted_tilted(p: ExponentiallyTilted, q: ExponentiallyTilted) -> Tensor:
    table = p._table
    values = q.log_prob(table.nodes.flatten(0, 1)).unflatten(0, table.nodes.shape[:2])
    return table.average(table.log_density - values)
