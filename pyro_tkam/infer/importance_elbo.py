"""The importance-weighted bound, by reparameterised draws of a guide."""

import math
from typing import Any

import torch
from pyro.infer import ELBO
from pyro.infer.util import torch_item
from pyro.util import warn_if_nan
from torch import Tensor

from pyro_tkam.infer.particles import Structure, draw_particles, structure_of


class ImportanceWeightedELBO(ELBO):
    """
    ``-Σ_b E log (1/S) Σ_s p(x_b, z_sb) / q(z_sb | x_b)``, a bound that tightens in ``S`` for every datum.

    Burda, Grosse & Salakhutdinov 2016 (arXiv:1509.00519, Eq. 8); one particle gives the usual evidence lower bound.
    Gradients are pathwise through the guide's draws. The weights are averaged for each datum of the local plates;
    ``pyro.infer.RenyiELBO(alpha=0)`` averages those of the whole batch, which is a looser bound.

    :param num_particles: number of draws ``S`` a datum.
    :raises ValueError: for fewer than one particle.

    The object remembers the plates of the model that it saw first: make one for each model.

    >>> from pyro_tkam.models import TKAM, AmortisedGuide
    >>> model = TKAM.mixture(6, latent_dim=4, num_components=3)
    >>> objective = ImportanceWeightedELBO(10)(model, AmortisedGuide(model))
    >>> objective(torch.rand(5, 6)).backward()
    """

    def __init__(self, num_particles: int = 1) -> None:
        if num_particles < 1:
            raise ValueError(f"num_particles: got {num_particles}, takes a whole number of at least 1")
        super().__init__(num_particles=num_particles)
        self._structure: Structure | None = None

    def loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """
        Estimate the negative bound.

        :param model: a Pyro model; ``args`` and ``kwargs`` are passed to it.
        :param guide: a guide whose sites can be reparameterised.
        :return: nats, scaled from the mini-batch to all data.
        """
        with torch.no_grad():
            return float(self.differentiable_loss(model, guide, *args, **kwargs))

    def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """
        Estimate the negative bound and add its gradient to the parameters'.

        :param model: a Pyro model; ``args`` and ``kwargs`` are passed to it.
        :param guide: a guide whose sites can be reparameterised.
        :return: nats, scaled from the mini-batch to all data.
        """
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward(retain_graph=self.retain_graph)
        return float(torch_item(loss))

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        """
        Return the estimate as a scalar whose gradient is the estimated gradient.

        :param model: a Pyro model; ``args`` and ``kwargs`` are passed to it.
        :param guide: a guide whose sites can be reparameterised.
        :return: nats, scaled from the mini-batch to all data.
        :raises ValueError: for no guide, and for one with a site that cannot be reparameterised.
        """
        if guide is None:
            raise ValueError("guide: got None, takes a guide, such as AmortisedGuide(model)")
        if self._structure is None:
            self._structure = structure_of(model, *args, **kwargs)
        particles = draw_particles(
            model, guide, self.num_particles, self._structure, *args, reparameterised=True, **kwargs
        )
        log_weights = particles.log_prior + particles.log_likelihood - particles.log_proposal
        bound = log_weights.logsumexp(0) - math.log(self.num_particles)
        loss = -particles.scale * bound.sum()
        warn_if_nan(loss, "loss")
        return loss
