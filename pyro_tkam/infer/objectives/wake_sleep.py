"""
Wake-sleep: the model learns from weighted draws of a guide, the guide from the model's dreams.
"""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any

import torch
from pyro import poutine
from torch import Tensor, nn

from pyro_tkam.infer.model.draws import Particles, score_guide
from pyro_tkam.infer.model.sites import is_latent
from pyro_tkam.infer.objectives.importance import ImportanceMLE

Site = dict[str, Any]


class WakeSleepMLE(ImportanceMLE):
    """
    Maximum likelihood by wake-sleep, with importance weights in the wake phase.

    The value and the model's gradient are those of :class:`ImportanceMLE` with draws from the
    guide. The guide learns from ``-Σ_b E[∇ log q(z | x')]`` over dreams ``(z, x') ~ p(z, x)``, one
    for each datum of the batch and held fixed: a gradient step on ``E_{p(x)} KL(p(z|x) ‖ q(z|x))``
    (sleep phase; Hinton et al. 1995, Science 268:1158; Bornschein & Bengio 2015, arXiv:1406.2751,
    Eq. 9). Dreams are draws from the current model. If the prior is sampled exactly, this gradient
    is unbiased and needs no weights. But the guide learns where the model dreams, which is not
    where the data are until the two look alike.

    A dream replaces the data in the arguments of the guide. Every observed site must therefore have
    the name of the argument that holds its data, or of its key if the argument is a dictionary.
    Masked data stay as they are.

    :param options: of :class:`ImportanceMLE`.
    :raises ValueError: as :class:`ImportanceMLE` does.

    >>> import torch
    >>> from pyro_tkam.models import TKAM, AmortizedGuide
    >>> model = TKAM.mixture(6, latent_dim=4, num_components=3)
    >>> objective = WakeSleepMLE(10)(model, AmortizedGuide(model))
    >>> objective(torch.rand(5, 6)).backward()
    """

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Particles:
        if guide is None:
            raise ValueError("guide must be given, such as AmortizedGuide(model), got None")
        return super()._get_trace(model, guide, args, kwargs)

    def _guide_score(
        self, weights: Tensor, particles: Particles, model: Any, guide: Any, args: Any, kwargs: Any
    ) -> Tensor:
        values, args, kwargs = dream(model, args, kwargs)
        return score_guide(guide, values, self._structure.last, args, kwargs).sum()


def dream(
    model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[dict[str, Tensor], tuple[Any, ...], dict[str, Any]]:
    """
    Draw latents and data from a model, without gradients.

    :param model: a Pyro model.
    :param args: its arguments; those that hold data are replaced by what is drawn.
    :param kwargs: its keyword arguments.
    :return: values of the latent sites, each ``(1, *batch, *event)``, and the arguments with the
        data drawn.
    :raises ValueError: names the observed sites that no argument is named after, or whose shape is
        not its argument's.
    """
    with torch.no_grad(), poutine.block():
        nodes = poutine.trace(poutine.uncondition(model)).get_trace(*args, **kwargs).nodes
    drawn = {name: site for name, site in nodes.items() if is_latent(site)}
    data = {name: site for name, site in drawn.items() if site["infer"].get("was_observed")}
    bound = signature(model.forward if isinstance(model, nn.Module) else model).bind(
        *args, **kwargs
    )
    for name, value in _replaced(bound.arguments, data).items():
        bound.arguments[name] = value
    if data:
        raise ValueError(
            f"model must have arguments named after its observed sites, {sorted(data)}, got none"
        )
    values = {
        name: site["value"].unsqueeze(0)
        for name, site in drawn.items()
        if "was_observed" not in site["infer"]
    }
    return values, bound.args, bound.kwargs


def _replaced(arguments: Mapping[str, Any], data: dict[str, Site]) -> dict[str, Any]:
    """
    Put what was drawn in the place of the arguments of these names; sites that are used are taken
    out.
    """
    replaced: dict[str, Any] = {}
    for name, value in arguments.items():
        if isinstance(value, Mapping):
            replaced[name] = _replaced(value, data)
        else:
            replaced[name] = (
                _hidden(name, data.pop(name), value)
                if name in data and value is not None
                else value
            )
    return replaced


def _hidden(name: str, site: Site, data: Tensor) -> Tensor:
    """Return what was drawn at a site, and the data where its mask hides them."""
    drawn: Tensor = site["value"]
    if drawn.shape != data.shape:
        raise ValueError(
            f"model must have observed sites with the shapes of their arguments, got {name!r} "
            f"of shape {tuple(drawn.shape)} and its argument of {tuple(data.shape)}"
        )
    if not isinstance(site["mask"], Tensor):
        return drawn
    mask = site["mask"].reshape(*site["mask"].shape, *[1] * site["fn"].event_dim)
    return torch.where(mask, drawn, data)
