"""What all distributions refuse alike."""

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyro_tkam.ops._arguments import dense, shape
from pyro_tkam.ops._concrete import is_concrete
from pyro_tkam.ops._points import broadcast_together


class CheckedDistribution(TorchDistribution):
    """A distribution that names the argument that is wrong: a value, or the shape of draws."""

    def _extended_shape(self, sample_shape: torch.Size = torch.Size()) -> torch.Size:  # noqa: B008
        return super()._extended_shape(shape("sample_shape", sample_shape))

    def _check_value(self, value: Tensor, name: str = "value") -> None:
        """
        Refuse what cannot be scored.

        :param value: shape ``(*sample, *batch, *event)``, or what broadcasts with it.
        :param name: of the argument.
        :raises TypeError: for what is no tensor of real numbers.
        :raises ValueError: for another shape, and, with ``validate_args``, for values outside the
            support.
        """
        dense(name, value)
        if value.is_complex() or (value.dtype == torch.bool and not self.support.is_discrete):
            raise TypeError(f"{name} must hold real numbers, got {value.dtype}")
        event_dim = len(self.event_shape)
        whole = self.batch_shape + self.event_shape
        event = value.shape[value.dim() - event_dim :] if value.dim() >= event_dim else None
        if event != self.event_shape or not broadcast_together(value.shape, whole):
            raise ValueError(
                f"{name} must have a shape that broadcasts with {tuple(whole)} and ends with "
                f"the event shape {tuple(self.event_shape)}, got {tuple(value.shape)}"
            )
        if self._validate_args and is_concrete(value) and value.numel():
            self._check_support(value, name)

    def _check_support(self, value: Tensor, name: str) -> None:
        support = self.support
        inside = support.check(value)
        if not bool(inside.all()):
            wrong = value[~inside][0].tolist()
            raise ValueError(f"{name} must lie within the support, {support}, got {wrong}")
