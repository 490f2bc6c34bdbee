"""
A label coupled to univariate latents: given the label, the latents are independent tilted
densities.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch
from pyro.distributions import Distribution
from torch import Tensor
from torch.distributions import Categorical, constraints

from pyro_tkam.distributions.checked import CheckedDistribution
from pyro_tkam.distributions.mixture import check_weights
from pyro_tkam.distributions.tilted import ExponentiallyTilted
from pyro_tkam.ops._arguments import shape
from pyro_tkam.ops._concrete import is_concrete
from pyro_tkam.ops._points import expanded_shape
from pyro_tkam.ops._precision import in_full_precision
from pyro_tkam.ops.symbols import check_symbols


class LabelSummedOut(CheckedDistribution):
    """
    Latents coupled to a label, with the label summed out: ``p(z) = Σ_y w_y p(z | y)``.

    Subclasses set ``log_weights``, shape ``(num_labels,)``.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_rsample = False
    log_weights: Tensor

    @property
    def num_labels(self) -> int:
        """Number of labels."""
        return len(self.log_weights)

    @abstractmethod
    def _joint(self, z: Tensor) -> Tensor:
        """Return ``log p(z, y)`` for every label, with a last dimension of labels."""

    @abstractmethod
    def given(self, label: Tensor) -> Distribution:
        """Return ``p(z | y)`` for labels of any shape."""

    def log_prob(self, value: Tensor) -> Tensor:
        """
        Return ``log p(z) = log Σ_y w_y p(z | y)``.

        :param value: shape ``(*sample, *batch, Q)``.
        :return: shape ``(*sample, *batch)``.
        """
        self._check_value(value)
        log_prob = self._joint(value).logsumexp(-1)
        return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))

    def label_logits(self, value: Tensor) -> Tensor:
        """
        Return ``log p(y | z)``.

        :param value: latents, shape ``(*batch, Q)``.
        :return: shape ``(*batch, num_labels)``; its exponentials sum to one.
        :raises ValueError: for latents without density under any label.
        """
        self._check_value(value)
        joint = self._joint(value)
        if is_concrete(joint) and bool(joint.isneginf().all(-1).any()):
            raise ValueError("value must have a density above zero, got latents with zero density")
        return joint.log_softmax(-1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """
        Draw labels, discard them, and return the latents drawn given the labels.

        :param sample_shape: shape of independent draws.
        :return: shape ``(*sample_shape, *batch, Q)``.
        """
        drawn = shape("sample_shape", sample_shape) + self.batch_shape
        labels = Categorical(logits=self.log_weights, validate_args=False).sample(drawn)
        return self.given(labels).sample()


class LabeledTilted(LabelSummedOut):
    """
    Latents coupled to a label ``y`` by label energies, with the label summed out.

    ``p(z, y) = w_y Π_q p_{y,q}(z_q)`` with ``w = softmax(logits)`` and ``p_{y,q} ∝ exp(f_{y,q})
    π0``. This is the symbol-vector coupling ``p(z, y) ∝ exp(Σ_q f_{y,q}(z_q) + b_y) Π_q π0(z_q)``
    of Pang and Wu 2021 (arXiv:2108.11556), with energies of single latents, as suggested in Raj
    2025 (arXiv:2506.14167, Sec. 5.2). Each ``p_{y,q}`` is normalized, so draws are exact with or
    without the label, and ``p(y | z)`` is a softmax of energies.

    :param logits: unnormalized log probabilities of the labels, shape ``(num_labels,)``.
    :param components: tilted densities of batch shape ``(num_labels, Q)``.
    :param validate_args: whether to check values given to ``log_prob``.
    :raises ValueError: for components of another shape, and logits that are NaN, plus infinity or
        all minus infinity.
    :raises TypeError: for components that are not :class:`ExponentiallyTilted`, and mixed dtypes.

    >>> tilts = torch.tensor([-8.0, 8.0])[:, None]
    >>> prior = LabeledTilted(torch.zeros(2), ExponentiallyTilted(lambda z: tilts * z).expand((2,
    ...     3)))
    >>> prior.event_shape, prior.sample((5,)).shape, prior.given(torch.tensor([0,
    ...     1])).sample().shape
    (torch.Size([3]), torch.Size([5, 3]), torch.Size([2, 3]))
    >>> prior.label_logits(torch.full((3,), 0.9)).exp().argmax()
    tensor(1)
    """

    def __init__(
        self, logits: Tensor, components: ExponentiallyTilted, *, validate_args: bool | None = None
    ) -> None:
        check_weights(logits, components)
        if len(components.batch_shape) != 2 or logits.shape != components.batch_shape[:1]:
            raise ValueError(
                "logits and components must have shape (num_labels,) and batch shape (num_labels, "
                f"Q), got {tuple(logits.shape)} and {tuple(components.batch_shape)}"
            )
        self.log_weights = logits.log_softmax(-1)
        self.components = components
        super().__init__(torch.Size(), components.batch_shape[1:], validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def support(self) -> constraints.Constraint:
        """The smallest box that holds the components' intervals, whatever the label."""
        low = _over_labels(self.components.low, torch.amin)
        high = _over_labels(self.components.high, torch.amax)
        return constraints.independent(constraints.interval(low, high), 1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        """
        Return the distribution with a larger batch shape; the table is shared, not copied.

        :param batch_shape: shape to which ``batch_shape`` broadcasts.
        :raises ValueError: for a shape to which it does not.
        """
        batch_shape = expanded_shape(self.batch_shape, batch_shape)
        new: Self = self._get_checked_instance(LabeledTilted, _instance)
        new.log_weights = self.log_weights
        new.components = self.components
        super(LabeledTilted, new).__init__(batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @classmethod
    def infer_shapes(cls, **shapes: torch.Size) -> tuple[torch.Size, torch.Size]:
        """
        Return the batch and event shape from the shapes of the arguments.

        :param shapes: shape of ``logits``, and the batch shape of ``components``.
        """
        return torch.Size(), shapes["components"][1:]

    def _joint(self, z: Tensor) -> Tensor:
        """Return ``log p(z, y)`` for every label, with a last dimension of labels."""
        return self._of_labels(z).sum(-1) + self.log_weights

    @in_full_precision
    def _of_labels(self, z: Tensor) -> Tensor:
        """Return every ``log p_{y,q}(z_q)``, minus infinity outside the label's own interval."""
        self.components._check_dtype(z.unsqueeze(-2))
        return self.components._masked_log_prob(z.unsqueeze(-2))

    def given(self, label: Tensor) -> Distribution:
        """
        Return ``p(z | y)``, exact to sample and normalized.

        :param label: integers from 0 to ``num_labels - 1``, any shape ``batch``.
        :return: a distribution of batch shape ``batch`` and event shape ``(Q,)``.
        :raises ValueError: for a label outside the classes.
        :raises TypeError: for labels that are not integers.
        """
        check_symbols("label", label, self.num_labels)
        return _GivenLabel(self, label)


def _over_labels(ends: Tensor, reduce: Callable[[Tensor, int], Tensor]) -> Tensor:
    return reduce(ends, -2) if ends.dim() > 1 else ends


class _GivenLabel(CheckedDistribution):
    """``p(z | y)`` of :class:`LabeledTilted` for a batch of labels, with pathwise gradients."""

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_rsample = True

    def __init__(self, prior: LabeledTilted, label: Tensor) -> None:
        self.prior = prior
        self.label = label
        super().__init__(label.shape, prior.event_shape, validate_args=prior._validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def support(self) -> constraints.Constraint:
        """The prior's."""
        return self.prior.support

    def expand(self, batch_shape: Any, _instance: Any = None) -> "_GivenLabel":
        return _GivenLabel(self.prior, self.label.expand(batch_shape))

    def _own(self, of_all: Tensor) -> Tensor:
        """Take each row's own label from ``(*sample, *batch, num_labels, Q)``."""
        index = self.label[..., None, None].expand(*of_all.shape[:-2], 1, of_all.shape[-1])
        return of_all.gather(-2, index).squeeze(-2)

    def log_prob(self, value: Tensor) -> Tensor:
        self._check_value(value)
        whole = torch.broadcast_shapes(value.shape, self.label.shape + self.event_shape)
        return self._own(self.prior._of_labels(value.expand(whole))).sum(-1)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        components = self.prior.components
        drawn = self._extended_shape(sample_shape)
        u = torch.rand(drawn, dtype=components.low.dtype, device=components.low.device)
        return self._own(components.icdf(u.clamp_min(torch.finfo(u.dtype).tiny).unsqueeze(-2)))
