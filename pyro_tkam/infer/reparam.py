"""A Pyro reparameterizer through the inverse CDF."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.reparam.reparam import Reparam, ReparamMessage, ReparamResult
from torch import Tensor

from pyro_tkam.distributions.normal_quantile import normal_quantile, normal_score
from pyro_tkam.distributions.references import tensors_of


class InverseTransformReparam(Reparam):
    """
    Replace a latent site by standard normal noise and ``z = F^{-1}(Φ(ε))``.

    Under the new coordinates the site's prior is exactly ``N(0, 1)``, whatever its density: a good
    geometry for HMC, Langevin kernels and Gaussian guides. ``z`` is finite for ε in [-8, 8] also in
    float32. It works for :class:`~pyro_tkam.distributions.ExponentiallyTilted`,
    :class:`~pyro_tkam.distributions.TiltedMixture` and every ``torch`` distribution with an
    ``icdf``. A Poisson or geometric count is a step function of its noise, without a gradient: it
    can be drawn by :class:`SMC` with a :class:`RandomWalk`. The noise is the site
    ``"{name}_noise"``; ``z`` stays at ``name`` as a deterministic site.

    :raises ValueError: in the model, at sites that are observed, or whose distribution has no
        inverse CDF.

    >>> def model():
    ...     return pyro.sample("z", dist.LogNormal(torch.zeros(3), 1.0).to_event(1))
    >>> trace = pyro.poutine.trace(pyro.poutine.reparam(model,
    ...     {"z": InverseTransformReparam()})).get_trace()
    >>> bool((trace.nodes["z"]["value"] == trace.nodes["z_noise"]["value"].exp()).all())
    True
    """

    def apply(self, msg: ReparamMessage) -> ReparamResult:
        """
        Replace one site.

        :param msg: the site's name, distribution and value.
        :return: a deterministic site with the value that the noise gives.
        """
        name = msg["name"]
        fn = msg["fn"]
        value = msg["value"]
        if msg["is_observed"]:
            raise ValueError(f"{name} must be a latent site, got an observed one")
        fn, mask = _without_mask(fn)
        quantile = normal_quantile(fn)
        if quantile is None:
            raise ValueError(
                f"{name} must be a distribution with an inverse CDF, got {type(fn).__name__}"
            )
        start = None if value is None else normal_score(fn, value)
        noise = pyro.sample(
            f"{name}_noise", _noise(fn).mask(mask), obs=start, infer={"is_observed": False}
        )
        if value is None:
            value = quantile(noise)
        return {
            "fn": dist.Delta(value, event_dim=fn.event_dim).mask(False),
            "value": value,
            "is_observed": True,
        }


def _without_mask(fn: Any) -> tuple[Any, bool | Tensor]:
    if isinstance(fn, dist.MaskedDistribution):
        return fn.base_dist, fn._mask
    return fn, True


def _noise(fn: Any) -> Any:
    like = max(tensors_of(fn), key=lambda tensor: tensor.dim(), default=torch.zeros(()))
    zero = torch.zeros((), dtype=like.dtype, device=like.device)
    return (
        dist.Normal(zero, torch.ones_like(zero))
        .expand(fn.batch_shape + fn.event_shape)
        .to_event(fn.event_dim)
    )
