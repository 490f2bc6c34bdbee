"""Whether a posterior is nearer to a normal in coordinates with a standard normal prior."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pyro_tkam.infer.mcmc.ensemble_adaptation import effective_draws
from pyro_tkam.infer.mcmc.metric import AffineFrame, Evaluated, Metric, estimated
from pyro_tkam.infer.model.attempt import attempt
from pyro_tkam.infer.model.coordinates import around_mean
from pyro_tkam.infer.model.density import ModelDensity
from pyro_tkam.infer.model.values import positions_of_values

LEAST_GAIN = 1.0
"""Nats by which the other coordinates must be nearer to a normal."""
LEAST_ERRORS = 3.0
"""Standard errors of that gain by which it must be positive."""
FEWEST_DRAWS, MOST_DRAWS = 10, 20
"""Draws of each chain that are looked at."""


def nearer_density(
    draws: Tensor,
    target: Evaluated,
    constrain: Callable[[Tensor], dict[str, Tensor]],
    make: Callable[[], ModelDensity],
) -> ModelDensity | None:
    """
    Return the density in standard normal coordinates if the posterior is nearer to a normal there.

    In either coordinates, the posterior is compared with the normal that has the moments of draws;
    the difference of the two Kullback-Leibler divergences does not depend on the evidence.

    :param draws: of the posterior, ``(chains, draws, dim)``.
    :param target: its density in the coordinates of the draws.
    :param constrain: from such coordinates to values by site.
    :param make: makes the density in the other coordinates.
    :return: None if it is nearer by less than a nat, or by less than three standard errors, or if
        there are fewer than ten draws of a chain.
    """
    if draws.shape[1] < FEWEST_DRAWS:
        return None
    draws = draws[:, :: -(-draws.shape[1] // MOST_DRAWS)]
    here = excess(draws, target)
    if here.var() / 2 < LEAST_GAIN:  # about its own divergence: there is not as much to gain
        return None
    other = attempt(make)
    if other is None or not other.has_normal_coordinates:
        return None
    moved = positions_in(other, constrain(draws.flatten(0, 1)))
    if moved is None:
        return None
    gains = (here - excess(moved.unflatten(0, draws.shape[:2]), other)).mean(1)
    error = gains.std().item() / math.sqrt(len(gains))
    return other if gains.mean() > max(LEAST_GAIN, LEAST_ERRORS * error) else None


def positions_in(density: ModelDensity, values: dict[str, Tensor]) -> Tensor | None:
    """
    Return the positions ``(rows, dim)`` of values by site, with angles around their mean direction;
    None if one is not finite.
    """
    positions = positions_of_values(density.terms, values)
    if not positions.isfinite().all():
        return None
    return around_mean(positions, density.layout.periods)


def excess(draws: Tensor, target: Evaluated) -> Tensor:
    """
    Return by how much a log density exceeds that of a normal at draws ``(chains, draws)``, up to a
    constant: the normal that has the moments of the other half of the chains.
    """
    log_density = torch.stack([target.point(each).log_density for each in draws.unbind(1)], 1)
    halves = draws.tensor_split(2)
    normal = torch.cat([_log_normal(halves[1], halves[0]), _log_normal(halves[0], halves[1])])
    return log_density.double() - normal


def _log_normal(fitted: Tensor, held: Tensor) -> Tensor:
    """Return the log density, up to a constant, of the normal with the moments of draws."""
    former = Metric(AffineFrame.identity(fitted[0, 0]), torch.ones_like(fitted[0, 0]))
    frame = estimated(fitted.flatten(0, 1), effective_draws(fitted), former, dense=True).frame
    assert isinstance(frame, AffineFrame)
    inner = frame.inner(held.flatten(0, 1)).unflatten(0, held.shape[:2]).double()
    return -inner.square().sum(-1) / 2 - frame.matrix.diagonal().double().log().sum()
