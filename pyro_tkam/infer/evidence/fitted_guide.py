"""A guide that is fitted to draws instead of trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro import poutine
from pyro.infer.autoguide import AutoMultivariateNormal
from torch import Tensor

from pyro_tkam._threads import in_turn
from pyro_tkam.infer.evidence.from_draws import positions_of_draws, samples_of
from pyro_tkam.infer.model.arguments import keywords
from pyro_tkam.infer.model.coordinates import around_mean
from pyro_tkam.infer.model.density import ModelDensity
from pyro_tkam.infer.model.requirements import check_data
from pyro_tkam.ops.estimators import fit_normal

WIDEST = 0.1
"""Five standard deviations of an angle are then half a turn."""


@in_turn
def fitted_guide(
    model: Callable[..., Any],
    *args: Any,
    draws: Any,
    model_kwargs: Mapping[str, Any] | None = None,
) -> AutoMultivariateNormal:
    """
    Return Pyro's ``AutoMultivariateNormal`` with the mean and covariance of draws.

    It is a proposal for :class:`ImportanceSampling` that needs no training, and a start for
    ``SVI``. Angles are wrapped to within half a turn of their mean direction.

    If the posterior has heavy tails, the weights may have them, too: check their k-hat.

    :param model: the Pyro model that was sampled, called on ``args``.
    :param draws: whatever :func:`bridge_evidence` takes.
    :param model_kwargs: the model's keyword arguments.
    :raises ValueError: if a latent site is missing, a draw has no unconstrained coordinates, a
        coordinate does not vary, or an angle varies so much that a normal distribution would wrap
        around the circle.

    >>> import pyro, torch, pyro.distributions as dist
    >>> from pyro_tkam.infer import ImportanceSampling
    >>> def model(x):
    ...     z = pyro.sample("z", dist.Normal(0.0, 1.0))
    ...     pyro.sample("x", dist.Normal(z, 1.0), obs=x)
    >>> pyro.set_rng_seed(0)
    >>> x, samples = torch.tensor(0.5), {"z": 0.25 + 0.5**0.5 * torch.randn(4, 250)}
    >>> guide = fitted_guide(model, x, draws=samples)
    >>> round(ImportanceSampling(model, guide).run(x).evidence.value, 2)  # exactly -1.328
    -1.33
    """
    samples = samples_of(draws)
    checked = check_data(model, args, keywords(model_kwargs))
    density = ModelDensity(model, checked.args, checked.kwargs, batch_plates=())
    positions = positions_of_draws(density, samples).double()
    if not positions.isfinite().all():
        raise ValueError("draws must have no values on the boundary of the support, got some")
    guide = AutoMultivariateNormal(model)
    with torch.no_grad(), poutine.block():
        guide(
            *checked.args, **checked.kwargs
        )  # finds its sites, which it has in the model's order too
    periods = density.layout.periods
    turned = around_mean(positions.flatten(0, 1), periods).unflatten(0, positions.shape[:2])
    _check_angles(turned, periods)
    normal = fit_normal(turned.unsqueeze(2))
    scale_tril = normal.scale_tril[0].to(guide.loc)
    with torch.no_grad():
        guide.loc.copy_(normal.loc[0])
    guide.scale = scale_tril.diagonal()
    guide.scale_tril = scale_tril / scale_tril.diagonal()[:, None]
    return guide


def _check_angles(positions: Tensor, periods: Tensor | None) -> None:
    """A normal that reaches around a circle has weights that count it twice."""
    if periods is None:
        return
    widest = (positions.flatten(0, 1).std(0) / periods).max().item()
    if widest > WIDEST:
        raise ValueError(
            f"draws of angles must have a standard deviation of at most {WIDEST} turns, so "
            f"that a fitted normal does not wrap around, got {widest:.2g}; use bridge_evidence "
            "instead"
        )
