"""
What the objectives of maximum likelihood share: the surface of a Pyro ELBO, and state that a
checkpoint keeps.
"""

from abc import abstractmethod
from typing import Any, Protocol

import torch
from pyro.infer import ELBO
from pyro.infer.util import torch_item
from torch import Tensor

from pyro_tkam._threads import in_turn


class Statistics(Protocol):
    """Statistics of an estimate."""

    @property
    def metrics(self) -> dict[str, Tensor]:
        """Scalars to log, by name."""


class MaximumLikelihood(ELBO):
    """
    A negative log marginal likelihood whose gradient comes from posterior draws without gradients
    of their own.

    By Fisher's identity, ``∇ log p(x) = E_{p(z|x)}[∇ log p(x, z)]``. The draws, however they are
    made, are therefore held fixed, and only the log densities are differentiated. Subclasses make
    the draws; see :class:`ImportanceMLE`, :class:`LangevinMLE` and :class:`SteppingstoneMLE`.
    ``statistics`` describes the last estimate.
    """

    statistics: Statistics | None = None

    @abstractmethod
    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        """
        Return the estimate as a scalar whose gradient is the estimated gradient.

        :param model: a Pyro model; ``args`` and ``kwargs`` are passed to it.
        :param guide: a guide, or None where the objective needs none.
        :return: nats, scaled from the mini-batch to all data.
        """

    @in_turn
    def loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """
        Estimate the negative log marginal likelihood of the data.

        :param model: a Pyro model; ``args`` and ``kwargs`` are passed to it.
        :param guide: a guide, or None where the objective needs none.
        :return: nats, scaled from the mini-batch to all data.
        """
        with torch.no_grad():
            return float(self.differentiable_loss(model, guide, *args, **kwargs))

    @in_turn
    def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """
        Estimate the negative log marginal likelihood and add its gradient to the parameters'.

        :param model: a Pyro model; ``args`` and ``kwargs`` are passed to it.
        :param guide: a guide, or None where the objective needs none.
        :return: nats, scaled from the mini-batch to all data.
        """
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward(retain_graph=self.retain_graph)
        return float(torch_item(loss))

    def state_dict(self) -> dict[str, Any]:
        """Return the numbers and tensors that the objective carries from one update to the next."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Continue from a state.

        :param state: what :meth:`state_dict` returned.
        """
