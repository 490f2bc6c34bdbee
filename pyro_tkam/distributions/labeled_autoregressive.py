"""
A label coupled to ordered latents: given the label, the latents have an autoregressive density.
"""

from collections.abc import Callable
from typing import Any, Self

import torch
from pyro.distributions import Distribution
from torch import Tensor
from torch.distributions import constraints

from pyro_tkam._checks import function
from pyro_tkam.distributions.autoregressive import AutoregressiveTilted
from pyro_tkam.distributions.labeled import LabelSummedOut
from pyro_tkam.ops._arguments import floating
from pyro_tkam.ops._points import expanded_shape
from pyro_tkam.ops.bases import Picklable
from pyro_tkam.ops.symbols import check_symbols


class LabeledAutoregressive(Picklable, LabelSummedOut):
    """
    Latents coupled to a label that is part of their context, with the label summed out.

    ``p(z, y) = w_y p(z | y)`` with ``w = softmax(logits)`` and ``p(z | y)`` an
    :class:`AutoregressiveTilted`. Draws are exact with or without the label, and ``p(y | z)``
    follows from Bayes' rule, as in :class:`LabeledTilted`.

    :param logits: unnormalized log probabilities of the labels, shape ``(num_labels,)``.
    :param of_label: from labels of any shape ``batch`` to a density of that batch shape.
    :param validate_args: whether to check values given to ``log_prob``.
    :raises ValueError: for logits of another rank.
    :raises TypeError: for arguments of another kind.
    """

    support = constraints.real_vector

    def __init__(
        self,
        logits: Tensor,
        of_label: Callable[[Tensor], AutoregressiveTilted],
        *,
        validate_args: bool | None = None,
    ) -> None:
        floating("logits", logits)
        function("of_label", of_label, "labels")
        if logits.dim() != 1 or len(logits) == 0:
            raise ValueError(f"logits must have shape (num_labels,), got {tuple(logits.shape)}")
        self.log_weights = logits.log_softmax(-1)
        self.of_label = of_label
        self.labels = torch.arange(len(logits), device=logits.device)
        all_labels = of_label(self.labels)
        if not isinstance(all_labels, AutoregressiveTilted):
            raise TypeError(
                f"of_label must return an AutoregressiveTilted, got {type(all_labels).__name__}"
            )
        super().__init__(torch.Size(), all_labels.event_shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        """
        Return the distribution with a larger batch shape; nothing is copied.

        :param batch_shape: shape to which ``batch_shape`` broadcasts.
        :raises ValueError: for a shape to which it does not.
        """
        batch_shape = expanded_shape(self.batch_shape, batch_shape)
        new: Self = self._get_checked_instance(LabeledAutoregressive, _instance)
        for name in ("log_weights", "of_label", "labels"):
            setattr(new, name, getattr(self, name))
        super(LabeledAutoregressive, new).__init__(
            batch_shape, self.event_shape, validate_args=False
        )
        new._validate_args = self._validate_args
        return new

    def _joint(self, z: Tensor) -> Tensor:
        """Return ``log p(z, y)`` for every label, with a last dimension of labels."""
        return self.of_label(self.labels).log_prob(z.unsqueeze(-2)) + self.log_weights

    def given(self, label: Tensor) -> Distribution:
        """
        Return ``p(z | y)``, exact to sample and normalized.

        :param label: integers from 0 to ``num_labels - 1``, any shape ``batch``.
        :return: a distribution of batch shape ``batch`` and event shape ``(Q,)``.
        :raises ValueError: for a label outside the classes.
        :raises TypeError: for labels that are not integers.
        """
        check_symbols("label", label, self.num_labels)
        return self.of_label(label)
