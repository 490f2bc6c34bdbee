"""The importance-weighted bound, from reparameterized draws of a guide."""

import math
from typing import Any

from pyro.util import warn_if_nan
from torch import Tensor

from pyro_tkam._checks import whole_number
from pyro_tkam.infer.model.draws import Particles, draw_particles
from pyro_tkam.infer.objectives.base import MaximumLikelihood
from pyro_tkam.infer.objectives.structure import KnownStructure


class ImportanceWeightedELBO(MaximumLikelihood):
    """
    ``-Σ_b E log (1/S) Σ_s p(x_b, z_sb) / q(z_sb | x_b)``, a bound that tightens in ``S`` for every
    datum.

    Burda, Grosse & Salakhutdinov 2016 (arXiv:1509.00519, Eq. 8); one particle gives the usual
    evidence lower bound. Gradients are pathwise through the guide's draws. The weights are averaged
    for each datum of the local plates; ``pyro.infer.RenyiELBO(alpha=0)`` averages those of the
    whole batch, which is a looser bound.

    :param num_particles: number of draws ``S`` per datum.
    :raises ValueError: for fewer than one particle.

    >>> import torch
    >>> from pyro_tkam.models import TKAM, AmortizedGuide
    >>> model = TKAM.mixture(6, latent_dim=4, num_components=3)
    >>> objective = ImportanceWeightedELBO(10)(model, AmortizedGuide(model))
    >>> objective(torch.rand(5, 6)).backward()
    """

    def __init__(self, num_particles: int = 1) -> None:
        super().__init__(num_particles=whole_number("num_particles", num_particles, 1))
        self._structure = KnownStructure()

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Particles:
        if guide is None:
            raise ValueError("guide must be given, such as AmortizedGuide(model), got None")
        structure = self._structure.of(model, guide, args, kwargs)
        return draw_particles(
            model, guide, self.num_particles, structure, *args, reparameterized=True, **kwargs
        )

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        """
        Return the estimate as a scalar whose gradient is the estimated gradient.

        :param model: a Pyro model; ``args`` and ``kwargs`` are passed to it.
        :param guide: a guide whose sites can be reparameterized.
        :return: nats, scaled from the mini-batch to all data.
        :raises ValueError: for a missing guide, and for a guide with a site that cannot be
            reparameterized.
        """
        particles = self._get_trace(model, guide, args, kwargs)
        bound = particles.log_importance.logsumexp(0) - math.log(self.num_particles)
        loss = -particles.scale * bound.sum()
        warn_if_nan(loss, "loss")
        return loss
