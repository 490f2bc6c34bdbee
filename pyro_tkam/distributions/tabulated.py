"""
Common base of the univariate distributions with a tabulated density: exact CDF, inverse, draws and
moments.
"""

import warnings
from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.distributions import constraints, register_kl

from pyro_tkam._checks import function as check_function
from pyro_tkam.distributions.checked import CheckedDistribution
from pyro_tkam.distributions.coordinates import Coordinate
from pyro_tkam.ops._arguments import dense
from pyro_tkam.ops._concrete import is_concrete
from pyro_tkam.ops._points import aligned, broadcast_together, broadcasts_to, expanded_shape
from pyro_tkam.ops._precision import in_full_precision
from pyro_tkam.ops.bases import Picklable
from pyro_tkam.ops.table import Table


class Tabulated(Picklable, CheckedDistribution):
    """
    A univariate distribution on ``[low, high]`` whose density is known on a table.

    Draws are ``F^{-1}(u)``, exact to the accuracy of the table, with pathwise gradients of every
    order.

    A subclass sets ``low``, ``high``, ``_coordinate`` and ``_table``, and defines ``_log_density``.
    ``_shared`` names the attributes that instances made by :meth:`expand` share with the original.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_rsample = True
    low: Tensor
    high: Tensor
    _coordinate: Coordinate
    _table: Table
    _shared: ClassVar[tuple[str, ...]] = ("low", "high", "_coordinate", "_table")

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> constraints.Constraint:
        """The closed interval from ``low`` to ``high``."""
        return constraints.interval(self.low, self.high)

    @property
    def quadrature_error(self) -> Tensor:
        """
        Estimated absolute error of the CDF, shape ``batch_shape``.

        It includes the mass of draws that floating point can't distinguish from an end of the
        interval, if the density has a pole there.
        """
        return (self._table.error + self._table.rounding + self._unreachable()).expand(
            self.batch_shape
        )

    @in_full_precision
    def _unreachable(self) -> Tensor:
        return self._coordinate.unreachable(self._table.cdf)

    @property
    def mean(self) -> Tensor:
        """``E_p[z]``, shape ``batch_shape``."""
        return self.expectation(lambda z: z)

    @property
    @in_full_precision
    def variance(self) -> Tensor:
        """``E_p[(z - E_p[z])²]``, shape ``batch_shape``."""
        mean = self._table.expectation(self._coordinate.place)
        return self.expectation(lambda z: (z - mean).square())

    @in_full_precision
    def expectation(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """
        Return ``E_p[h(z)]`` by the quadrature that normalizes the density.

        :param function: elementwise ``h``; it sees ``z`` of a shape that broadcasts with
            ``(nodes, *batch)``.
        :return: shape ``batch_shape``.
        """
        check_function("function", function, "z")
        rank = len(self.batch_shape)

        def placed(w: Tensor) -> Tensor:
            z = aligned(self._coordinate.place(w), rank)
            value = function(z)
            if not isinstance(value, Tensor) or not broadcast_together(value.shape, z.shape):
                got = getattr(value, "shape", type(value).__name__)
                raise TypeError(f"function must return a tensor of the shape of z, got {got}")
            return value

        in_place = self._table.expectation(placed)
        return in_place.expand(self.batch_shape)

    def entropy(self) -> Tensor:
        """Return ``-E_p[log p(z)]``, shape ``batch_shape``."""
        return self._entropy().expand(self.batch_shape)

    @in_full_precision
    def _entropy(self) -> Tensor:
        return self._table.entropy() + self._table.expectation(self._coordinate.log_slope)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        """
        Return the distribution with a larger batch shape; the table is shared, not copied.

        :param batch_shape: shape to which ``batch_shape`` broadcasts.
        :raises ValueError: for a shape to which it does not.
        """
        batch_shape = expanded_shape(self.batch_shape, batch_shape)
        new: Self = self._get_checked_instance(type(self), _instance)
        for name in self._shared:
            setattr(new, name, getattr(self, name))
        super(Tabulated, new).__init__(batch_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @in_full_precision
    def log_prob(self, value: Tensor) -> Tensor:
        """
        Return ``log p(z)``, and minus infinity outside the interval.

        :param value: shape ``(*sample, *batch_shape)``, or what broadcasts with it.
        :return: the broadcast shape.
        :raises ValueError: with ``validate_args``, for values outside the support.
        """
        self._check(value)
        return self._masked_log_prob(value)

    def _masked_log_prob(self, value: Tensor) -> Tensor:
        inside = (value >= self.low) & (value <= self.high)
        log_density = self._log_density(torch.where(inside, value, (self.low + self.high) / 2))
        log_prob = torch.where(inside, log_density, -torch.inf)
        return log_prob.expand(torch.broadcast_shapes(value.shape, self.batch_shape))

    def _log_density(self, z: Tensor) -> Tensor:
        """Return the normalized log density at ``z`` inside the interval."""
        raise NotImplementedError

    @in_full_precision
    def cdf(self, value: Tensor) -> Tensor:
        """
        Return ``F(z)``: 0 below the interval and 1 above it.

        :param value: shape ``(*sample, *batch_shape)``, or what broadcasts with it.
        :return: the broadcast shape.
        :raises ValueError: with ``validate_args``, for values outside the support.
        """
        self._check(value)
        inside = torch.maximum(torch.minimum(value, self.high), self.low)
        result = self._table.cdf(self._coordinate.inverse(inside)).clamp(0, 1)
        return result.expand(torch.broadcast_shapes(value.shape, self.batch_shape))

    @in_full_precision
    def icdf(self, value: Tensor, upper: bool | Tensor = False) -> Tensor:
        """
        Return ``F^{-1}(u)``, differentiable in ``u`` and in every parameter.

        :param value: probabilities ``u``, shape ``(*sample, *batch_shape)``, or what broadcasts
            with it.
        :param upper: whether ``u`` is the mass above ``z`` instead of the mass below it. A bool
            applies to all; a tensor that broadcasts to the shape of ``u`` applies elementwise. A
            small mass above then keeps its relative accuracy.
        :return: the broadcast shape.
        :raises ValueError: with ``validate_args``, for probabilities outside [0, 1]; for ``upper``
            of another shape.
        """
        self._check_dtype(value)
        if (
            self._validate_args
            and is_concrete(value)
            and not bool(((value >= 0) & (value <= 1)).all())
        ):
            raise ValueError("value must hold probabilities from 0 to 1, got values outside")
        place = self._coordinate.place(self._table.icdf(value, self._above(upper, value)))
        return place.expand(torch.broadcast_shapes(value.shape, self.batch_shape))

    @staticmethod
    def _above(upper: bool | Tensor, value: Tensor) -> Tensor | None:
        if upper is False:
            return None
        if not isinstance(upper, bool | Tensor):
            raise TypeError(f"upper must be a bool or a tensor, got {type(upper).__name__}")
        if isinstance(upper, Tensor) and upper.dtype != torch.bool:
            raise TypeError(f"upper must be a bool or a tensor of bools, got {upper.dtype}")
        above = torch.as_tensor(upper, dtype=torch.bool, device=value.device)
        if not broadcasts_to(above.shape, value.shape):
            wanted = tuple(value.shape)
            raise ValueError(f"upper must broadcast to {wanted}, got shape {tuple(above.shape)}")
        return above.expand(value.shape)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """
        Draw exactly by inverting the CDF, with pathwise gradients (Raj 2025, Eq. 21-25, without the
        bias).

        :param sample_shape: shape of independent draws.
        :return: shape ``(*sample_shape, *batch_shape)``.
        """
        like = self._table.error
        u = torch.rand(self._extended_shape(sample_shape), dtype=like.dtype, device=like.device)
        return self.icdf(u.clamp_min(torch.finfo(u.dtype).tiny))

    def _check(self, value: Tensor) -> None:
        self._check_dtype(value)
        self._check_value(value)

    def _check_dtype(self, value: Tensor) -> None:
        dense("value", value)
        if not broadcast_together(value.shape, self.batch_shape):
            raise ValueError(
                f"value must broadcast with the batch, {tuple(self.batch_shape)}, got shape "
                f"{tuple(value.shape)}"
            )
        if value.dtype != self._table.error.dtype and value.dim() > 0:
            raise TypeError(
                f"value must have the dtype of the parameters, {self._table.error.dtype}, got "
                f"{value.dtype}"
            )

    def _warn_of_error(self, tolerance: float | None) -> None:
        """With ``validate_args``, warn if the table misses the tolerance of its rule."""
        error = self._table.error
        if not self._validate_args or tolerance is None or not is_concrete(error):
            return
        lost = self._unreachable()
        half_the_digits = torch.finfo(error.dtype).eps ** 0.5
        if bool((error > tolerance).any()):
            warnings.warn(
                f"quadrature: the estimated error of the CDF is {float(error.max()):.1e}, above "
                f"the tolerance {tolerance:.1e}; use a rule with more nodes or a larger max_cells",
                stacklevel=3,
            )
        if bool((lost > half_the_digits).any()):
            warnings.warn(
                f"reference: a mass of {float(lost.max()):.1e} lies closer to an end of the "
                f"interval than {error.dtype} can resolve; use a reference that is less "
                "steep there",
                stacklevel=3,
            )


@register_kl(Tabulated, Tabulated)
@in_full_precision
def _kl_tabulated_tabulated(p: Tabulated, q: Tabulated) -> Tensor:
    shape = torch.broadcast_shapes(p.batch_shape, q.batch_shape)
    cross = p._table.expectation(
        lambda w: q._masked_log_prob(aligned(p._coordinate.place(w), len(shape)))
    )
    return (-p._entropy() - cross).expand(shape)
