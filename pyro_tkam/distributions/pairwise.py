"""
Independent elements of an event from an exponential family, cheap to evaluate at many points at
once.
"""

from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    Distribution,
    constraints,
)

from pyro_tkam._checks import whole_number
from pyro_tkam.distributions.checked import CheckedDistribution
from pyro_tkam.ops._arguments import floating
from pyro_tkam.ops._concrete import is_concrete
from pyro_tkam.ops._points import expanded_shape
from pyro_tkam.ops._precision import in_full_precision
from pyro_tkam.ops.pairwise import inner_product
from pyro_tkam.ops.symbols import check_symbols


class _PairwiseFamily(CheckedDistribution):
    """
    Independent elements with natural parameters ``η``: ``log p(x) = Σ_d η_d·T(x_d) - A(η_d)``.

    ``expand`` copies nothing, and where the batch of ``η`` and that of the value broadcast against
    each other, all pairs are scored by a matrix product.

    A subclass says how many dimensions one element's ``η`` has, and what ``T`` and ``A`` are.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    _element_dim: ClassVar[int] = 0

    @in_full_precision
    def __init__(
        self, logits: Tensor, event_dim: int = 1, *, validate_args: bool | None = None
    ) -> None:
        floating("logits", logits)
        if whole_number("event_dim", event_dim, 0) > logits.dim() - self._element_dim:
            raise ValueError(
                f"event_dim must be from 0 to {logits.dim() - self._element_dim}, got {event_dim}"
            )
        self.logits = logits
        shape = logits.shape[: logits.dim() - self._element_dim]
        split = len(shape) - event_dim
        super().__init__(shape[:split], shape[split:], validate_args=validate_args)

    def _elements(self) -> Distribution:
        """
        Return torch's distribution of the single elements, of batch shape ``(*batch, *event)``.
        """
        raise NotImplementedError

    def _statistic(self, value: Tensor) -> Tensor:
        """Return ``T(x)``, shape ``(*value.shape, *element)``."""
        return value

    def _log_partition(self) -> Tensor:
        """Return ``A(η)`` of every element, shape ``(*batch, *event)``."""
        raise NotImplementedError

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        """
        Return the distribution with a larger batch shape; nothing is copied.

        :param batch_shape: shape to which ``batch_shape`` broadcasts.
        :raises ValueError: for a shape to which it does not.
        """
        batch_shape = expanded_shape(self.batch_shape, batch_shape)
        new: Self = self._get_checked_instance(type(self), _instance)
        new.logits = self.logits
        super(_PairwiseFamily, new).__init__(batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @in_full_precision
    def log_prob(self, value: Tensor) -> Tensor:
        """
        Return the log probability (density) of whole events.

        :param value: shape ``(*sample, *batch, *event)``, or what broadcasts with it.
        :return: shape ``(*sample, *batch)``.
        """
        self._check_value(value)
        batch_shape = value.shape[: value.dim() - len(self.event_shape)]
        cross = self._cross(self._statistic(value))
        log_prob = cross - self._flat(self._log_partition(), 0).sum(-1)
        return log_prob.expand(torch.broadcast_shapes(batch_shape, self.batch_shape))

    def _cross(self, statistic: Tensor) -> Tensor:
        """Return ``Σ_d η_d·T(x_d)`` of all pairs."""
        return self._pairs(self.logits, statistic)

    def _pairs(self, of_logits: Tensor, statistic: Tensor) -> Tensor:
        return inner_product(
            *(self._flat(tensor, self._element_dim) for tensor in (of_logits, statistic))
        )

    def _flat(self, tensor: Tensor, element_dim: int) -> Tensor:
        """Join the event's and the element's dimensions to one, the last."""
        keep = tensor.dim() - element_dim - len(self.event_shape)
        return tensor.reshape(*tensor.shape[:keep], -1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """
        Draw events.

        :param sample_shape: shape of independent draws.
        :return: shape ``(*sample_shape, *batch, *event)``.
        """
        shape = self._extended_shape(sample_shape)
        return self._elements().expand(shape[len(sample_shape) :]).sample(torch.Size(sample_shape))


class PairwiseBernoulli(_PairwiseFamily):
    """
    Independent bits, ``log p(x) = Σ_d x_d η_d - log(1 + exp η_d)``.

    It is ``Bernoulli(logits=η).to_event(event_dim)`` with two differences: ``expand`` copies
    nothing, and if the batches of ``η`` and the value broadcast against each other, one matrix
    product scores all pairs.

    :param logits: ``η``, shape ``(*batch, *event)``.
    :param event_dim: number of event dimensions.
    :raises ValueError: for an ``event_dim`` that ``logits`` does not have.
    :raises TypeError: for logits that are not a floating tensor.

    >>> bits = PairwiseBernoulli(torch.zeros(5, 1, 3)).expand((5, 4))
    >>> bits.log_prob(torch.ones(4, 3)).shape
    torch.Size([5, 4])
    """

    @constraints.dependent_property(is_discrete=True)
    def support(self) -> constraints.Constraint:
        """Events of zeros and ones."""
        return constraints.independent(constraints.boolean, len(self.event_shape))

    @property
    def mean(self) -> Tensor:
        """Probabilities of ones, shape ``(*batch, *event)``."""
        return self.logits.sigmoid().expand(self.batch_shape + self.event_shape)

    def _elements(self) -> Distribution:
        return Bernoulli(logits=self.logits, validate_args=False)

    def _log_partition(self) -> Tensor:
        return torch.nn.functional.softplus(self.logits)


class PairwiseContinuousBernoulli(_PairwiseFamily):
    """
    Independent values in [0, 1], ``log p(x) = Σ_d x_d η_d - log((exp η_d - 1)/η_d)``.

    The continuous Bernoulli distribution (Loaiza-Ganem and Cunningham 2019, arXiv:1907.06845). It
    is torch's distribution with two differences: ``expand`` copies nothing, and if the batches of
    ``η`` and the value broadcast against each other, one matrix product scores all pairs.

    :param logits: ``η``, shape ``(*batch, *event)``.
    :param event_dim: number of event dimensions.
    :raises ValueError: for an ``event_dim`` that ``logits`` does not have.
    :raises TypeError: for logits that are not a floating tensor.

    >>> PairwiseContinuousBernoulli(torch.zeros(3)).log_prob(torch.rand(3))  # uniform
    tensor(0.)
    """

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> constraints.Constraint:
        """Events in the unit cube."""
        return constraints.independent(constraints.unit_interval, len(self.event_shape))

    @property
    def mean(self) -> Tensor:
        """Mean value, the derivative of the log normalizer, shape ``(*batch, *event)``."""
        half = self.logits / 2
        small = half.abs() < 0.1
        safe = torch.where(small, 1.0, half)
        series = half / 3 * (1 - half.square() / 15 * (1 - 2 * half.square() / 21))
        mean = 0.5 + 0.5 * torch.where(small, series, 1 / safe.tanh() - 1 / safe)
        return mean.expand(self.batch_shape + self.event_shape)

    def _elements(self) -> Distribution:
        return ContinuousBernoulli(logits=self.logits, validate_args=False)

    def _log_partition(self) -> Tensor:
        return self.logits / 2 + _log_sinhc(self.logits / 2)


class PairwiseCategorical(_PairwiseFamily):
    """
    Independent symbols, ``log p(x) = Σ_d log softmax(η_d)[x_d]``: a class for every position of an
    event.

    It is ``Categorical(logits=η).to_event(event_dim)`` with two differences: ``expand`` copies
    nothing, and if the batches of ``η`` and the value broadcast against each other, one matrix
    product with the symbols' indicators scores all pairs.

    :param logits: ``η``, shape ``(*batch, *event, num_classes)``; minus infinity forbids a class.
    :param event_dim: number of event dimensions; 0 for one label.
    :raises ValueError: for an ``event_dim`` that ``logits`` does not have, and, when scoring, for a
        symbol outside the classes.
    :raises TypeError: for logits that are not a floating tensor, and, when scoring, for values that
        are not integers.

    >>> PairwiseCategorical(torch.zeros(2, 5, 3), event_dim=1).log_prob(torch.tensor([0, 1, 2, 1,
    ...     0])).shape
    torch.Size([2])
    """

    _element_dim = 1

    @constraints.dependent_property(is_discrete=True)
    def support(self) -> constraints.Constraint:
        """Events of integers from 0 to one less than the number of classes."""
        return constraints.independent(
            constraints.integer_interval(0, self.logits.shape[-1] - 1), len(self.event_shape)
        )

    def _elements(self) -> Distribution:
        return Categorical(logits=self.logits, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """
        Return the log probability of whole events.

        :param value: integers, shape ``(*sample, *batch, *event)``, or what broadcasts with it.
        :return: shape ``(*sample, *batch)``.
        :raises ValueError: for a symbol outside the classes.
        :raises TypeError: for values that are not integers.
        """
        check_symbols("value", value, self.logits.shape[-1])
        return super().log_prob(value)

    def _statistic(self, value: Tensor) -> Tensor:
        classes = torch.arange(self.logits.shape[-1], device=value.device)
        return (value[..., None] == classes).to(self.logits)

    def _cross(self, statistic: Tensor) -> Tensor:
        """Sum the logits of the symbols; those of impossible ones, -inf, count only where drawn."""
        impossible = self.logits.isneginf()
        if is_concrete(impossible) and not bool(impossible.any()):
            return super()._cross(statistic)
        possible = self._pairs(self.logits.masked_fill(impossible, 0), statistic)
        drawn = self._pairs(impossible.to(statistic), statistic) > 0
        return possible.masked_fill(drawn, -torch.inf)

    def _log_partition(self) -> Tensor:
        return self.logits.logsumexp(-1)


def _log_sinhc(a: Tensor) -> Tensor:
    """Return ``log(sinh(a)/a)``, by its series near zero, where the quotient has no derivative."""
    small = a.abs() < 0.1
    square = a.square()
    series = square / 6 * (1 - square / 30 * (1 - 4 * square / 63))
    safe = torch.where(small, 1.0, a).abs()
    return torch.where(
        small, series, safe + torch.log(-torch.expm1(-2 * safe)) - torch.log(2 * safe)
    )
