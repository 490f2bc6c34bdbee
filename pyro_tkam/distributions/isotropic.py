"""
A Gaussian with one scale around a point in data space, cheap to evaluate at many points at once.
"""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints

from pyro_tkam._checks import whole_number
from pyro_tkam.distributions.checked import CheckedDistribution
from pyro_tkam.ops._arguments import floating
from pyro_tkam.ops._concrete import is_concrete
from pyro_tkam.ops._points import broadcast_together, expanded_shape
from pyro_tkam.ops._precision import in_full_precision
from pyro_tkam.ops.pairwise import squared_distance


class IsotropicNormal(CheckedDistribution):
    """
    Independent Gaussians with one standard deviation around every element of an event.

    ``log p(x) = -|x - loc|² / (2 scale²) - D log scale - (D/2) log 2π`` (Raj 2025,
    arXiv:2506.14167, Eq. 20). It is ``Normal(loc, scale).to_event(event_dim)`` with two
    differences: ``expand`` does not copy ``loc``, and if the batches of ``loc`` and the value
    broadcast against each other, one matrix product scores all pairs.

    :param loc: shape ``(*batch, *event)``.
    :param scale: standard deviation, a tensor that broadcasts to ``batch``.
    :param event_dim: number of event dimensions, at least 1.
    :raises ValueError: for an ``event_dim`` that ``loc`` does not have, or a scale that is not
        positive.

    >>> loc = torch.zeros(5, 1, 3)  # five locations
    >>> IsotropicNormal(loc, torch.tensor(1.0)).expand((5, 4)).log_prob(torch.ones(4, 3)).shape
    torch.Size([5, 4])
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {"scale": constraints.positive}
    has_rsample = True

    @in_full_precision
    def __init__(
        self, loc: Tensor, scale: Tensor, event_dim: int = 1, *, validate_args: bool | None = None
    ) -> None:
        floating("loc", loc)
        floating("scale", scale)
        if not 1 <= whole_number("event_dim", event_dim, 0) <= loc.dim():
            raise ValueError(
                f"event_dim must be from 1 to {loc.dim()}, the rank of loc, got {event_dim}"
            )
        batch_shape = loc.shape[: loc.dim() - event_dim]
        if not broadcast_together(batch_shape, scale.shape):
            raise ValueError(
                f"scale must broadcast with the batch of loc, {tuple(batch_shape)}, got shape "
                f"{tuple(scale.shape)}"
            )
        if validate_args is not False and is_concrete(scale) and not bool((scale > 0).all()):
            raise ValueError(f"scale must be positive, got {scale.tolist()}")
        self.loc = loc
        self.scale = scale
        batch_shape = torch.broadcast_shapes(batch_shape, scale.shape)
        super().__init__(
            batch_shape, loc.shape[loc.dim() - event_dim :], validate_args=validate_args
        )

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> constraints.Constraint:
        """All real events."""
        return constraints.independent(constraints.real, len(self.event_shape))

    @property
    def mean(self) -> Tensor:
        """The location, shape ``(*batch, *event)``."""
        return self.loc.expand(self.batch_shape + self.event_shape)

    @property
    def variance(self) -> Tensor:
        """The squared scale, shape ``(*batch, *event)``."""
        return self._event_scale().square().expand(self.batch_shape + self.event_shape)

    def _event_scale(self) -> Tensor:
        return self.scale.reshape(self.scale.shape + (1,) * len(self.event_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> "IsotropicNormal":
        """
        Return the distribution with a larger batch shape; nothing is copied.

        :param batch_shape: shape to which ``batch_shape`` broadcasts.
        :raises ValueError: for a shape to which it does not.
        """
        batch_shape = expanded_shape(self.batch_shape, batch_shape)
        new: IsotropicNormal = self._get_checked_instance(IsotropicNormal, _instance)
        new.loc = self.loc
        new.scale = self.scale
        super(IsotropicNormal, new).__init__(batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @in_full_precision
    def log_prob(self, value: Tensor) -> Tensor:
        """
        Return the log density.

        :param value: shape ``(*sample, *batch, *event)``, or what broadcasts with it.
        :return: shape ``(*sample, *batch)``.
        """
        self._check_value(value)
        event_dim = len(self.event_shape)
        size = self.event_shape.numel()
        distance = squared_distance(self.loc.flatten(-event_dim), value.flatten(-event_dim))
        log_prob = (
            -0.5 * distance / self.scale.square()
            - size * self.scale.log()
            - 0.5 * size * math.log(2 * math.pi)
        )
        return log_prob.expand(
            torch.broadcast_shapes(value.shape[: value.dim() - event_dim], self.batch_shape)
        )

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """
        Draw events.

        :param sample_shape: shape of independent draws.
        :return: shape ``(*sample_shape, *batch, *event)``.
        """
        noise = torch.randn(
            self._extended_shape(sample_shape), dtype=self.loc.dtype, device=self.loc.device
        )
        return self.loc + self._event_scale() * noise
