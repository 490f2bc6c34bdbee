"""A guide network: the posterior of every datum's latents in one pass."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pyro
import torch
from pyro.distributions import TransformedDistribution
from pyro.distributions.transforms import AffineTransform, SigmoidTransform
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.distributions import Normal, Transform

from pyro_tkam.ops._precision import at_least_single


class AmortisedGuide(PyroModule):
    """
    ``q(z|x) = T(N(μ(x), σ²(x)))`` with ``μ, log σ`` from a network and ``T`` onto the interval of the prior.

    It serves any objective that takes a guide (Kingma & Welling 2014, arXiv:1312.6114): ``pyro.infer.Trace_ELBO``, and
    :class:`~pyro_tkam.infer.ImportanceWeightedELBO`, :class:`~pyro_tkam.infer.ImportanceMLE` (wake),
    :class:`~pyro_tkam.infer.WakeSleepMLE` and :class:`~pyro_tkam.infer.LangevinMLE` (refined). With ``pyro.infer.SVI``,
    though not with :class:`~pyro_tkam.train.ELBOTraining`, also ``RenyiELBO`` and ``ReweightedWakeSleep``.

    :param model: a :class:`~pyro_tkam.models.TKAM`, or another model with ``model(size=1)``, a plate ``"data"``, one
        latent site in it and one observed site ``"x"``.
    :param hidden: widths of the hidden layers of the network, a multilayer perceptron with SiLU.
    :param encoder: another network, from data ``(batch, *event)`` to ``(batch, 2 * latents)``.
    :raises ValueError: for a model with several latent sites, or none.

    >>> from pyro_tkam.models import TKAM
    >>> model = TKAM.mixture(6, latent_dim=4, num_components=3)
    >>> guide = AmortisedGuide(model)
    >>> guide(torch.rand(5, 6)).shape
    torch.Size([5, 4])
    >>> loss = pyro.infer.Trace_ELBO()(model, guide)(torch.rand(5, 6))
    """

    low: Tensor | None
    high: Tensor | None

    def __init__(self, model: Any, hidden: Sequence[int] = (256,), *, encoder: nn.Module | None = None) -> None:
        super().__init__()
        with torch.no_grad(), pyro.get_param_store().scope():
            sites = pyro.poutine.trace(model).get_trace(size=1).nodes
        latents = [
            name
            for name, site in sites.items()
            if site["type"] == "sample"
            and name != "x"
            and not site["is_observed"]
            and "_Subsample" not in repr(site["fn"])
        ]
        if len(latents) != 1:
            raise ValueError(f"model: got latent sites {latents}, takes one with a single latent site")
        self.site = latents[0]
        value, support = sites[self.site]["value"], sites[self.site]["fn"].support
        self.latent_shape = tuple(value.shape[1:])
        for name, bound in (("low", "lower_bound"), ("high", "upper_bound")):
            end = getattr(getattr(support, "base_constraint", support), bound, None)
            self.register_buffer(name, None if end is None else torch.as_tensor(end).to(value))
        size = value[0].numel()
        self.encoder = encoder or _perceptron(sites["x"]["value"][0].numel(), hidden, 2 * size).to(value)

    def forward(self, x: Tensor, size: int | None = None) -> Tensor:
        """
        Draw the latents of a mini-batch.

        :param x: data, shape ``(batch, *event)``.
        :param size: length of the whole data set, as the model takes it.
        :return: shape ``(batch, *latent)``.
        """
        rows = len(x)
        with pyro.plate("data", size or rows, subsample=torch.arange(rows) if rows < (size or rows) else None):
            return pyro.sample(self.site, self.posterior(x))

    def posterior(self, x: Tensor) -> Any:
        """
        Return ``q(z|x)``, of batch shape ``(batch,)``.

        :param x: data, shape ``(batch, *event)``.
        """
        location, log_scale = at_least_single(self.encoder(x)).unflatten(-1, (2, *self.latent_shape)).unbind(1)
        base = Normal(location, log_scale.exp(), validate_args=False)
        transforms: list[Transform] = []
        if self.low is not None and self.high is not None:
            transforms = [SigmoidTransform(cache_size=1), AffineTransform(self.low, self.high - self.low, cache_size=1)]
        return TransformedDistribution(base, transforms).to_event(len(self.latent_shape))


def _perceptron(inputs: int, hidden: Sequence[int], outputs: int) -> nn.Module:
    """Make a network whose output is near 0, so that training starts from a broad posterior."""
    widths = [inputs, *hidden]
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.SiLU()]
    last = nn.Linear(widths[-1], outputs)
    with torch.no_grad():
        last.weight.mul_(0.1)
    return nn.Sequential(*layers, last)
