"""Whether draws that are scored many at once get the densities that each has alone."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from pyro_tkam.infer.model.draws import (
    WRITE,
    Particles,
    PlateStructure,
    draw_particles,
    total_log_density,
)
from pyro_tkam.infer.model.known import treats_each_datum_alone
from pyro_tkam.infer.model.sites import Site, is_auxiliary, is_latent

SEVERAL = 8
"""Draws of which the last is compared: the more, the further it lies from where it is alone."""


class SingleRuns:
    """
    Runs of a model and guide with one draw, whose densities :meth:`scores_like` compares.

    :param model: a Pyro model.
    :param guide: a Pyro guide, or None.
    :param structure: of the model, see :func:`plate_structure`.
    :param args: arguments of both.
    :param kwargs: keyword arguments of both.
    """

    def __init__(
        self,
        model: Any,
        guide: Any,
        structure: PlateStructure,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self.model = model
        self.guide = guide
        self.structure = structure
        self.args = args
        self.kwargs = kwargs
        nodes = structure.trace.nodes
        self.shapes = {name: _shape(site) for name, site in nodes.items() if is_latent(site)}

    def padded_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a site with as many batch dimensions as there are plates."""
        batch, event = self.shapes[name]
        return (*(1,) * (-self.structure.particle_dim - 1 - len(batch)), *batch, *event)

    def scores(self, values: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return log prior and log likelihood ``(*local)`` of values ``(*site shape)``."""
        trace = self._trace(self.model, values)
        return (
            total_log_density(trace, self.structure, latent=True)[0],
            total_log_density(trace, self.structure, latent=False)[0],
        )

    def scores_like(self, particles: Particles) -> tuple[bool, Tensor, Tensor]:
        """
        Tell whether the last of some particles has the log densities that it has alone, and return
        the sums of both: prior and likelihood, less the guide where that is known.

        :param particles: of the same model and guide.
        """
        last = {
            name: particles.values[name][-1].expand(self.padded_shape(name)).reshape(batch + event)
            for name, (batch, event) in self.shapes.items()
        }
        among = [particles.log_prior[-1], particles.log_likelihood[-1]]
        alone = [*self.scores(last)]
        if particles.log_proposal is not None:
            among.append(-particles.log_proposal[-1])
            guided = self._trace(self.guide, last)
            alone.append(-total_log_density(guided, self.structure, latent=True)[0])
        is_like = all(map(_are_close, among, alone))
        return is_like, sum(among[1:], among[0]), sum(alone[1:], alone[0])

    def draw_several(self) -> Particles:
        """
        Draw particles; without the guide's density if that has auxiliary draws, which are not
        known of given values.
        """
        given = (self.structure, *self.args)
        particles = draw_particles(self.model, self.guide, SEVERAL, *given, **self.kwargs)
        if self.guide is None:
            return particles
        sites = poutine.trace(self.guide).get_trace(*self.args, **self.kwargs).nodes.values()
        if any(site["type"] == "sample" and is_auxiliary(site) for site in sites):
            return replace(particles, log_proposal=None)
        return particles

    def _trace(self, fn: Any, values: dict[str, Tensor]) -> poutine.Trace:
        with poutine.block():
            trace = poutine.trace(poutine.condition(fn, data=values)).get_trace(
                *self.args, **self.kwargs
            )
        return _unobserved(trace, values)


def refuse_mixed_draws(single: SingleRuns, drawn: Callable[[], Particles] | None = None) -> None:
    """
    Refuse a model or guide that mixes up draws in a dimension left of its plates.

    Torch's generator stays where it is. Not compared are models that are known to treat each row
    alone, and models and guides whose densities are random, as with dropout. Of guides with
    auxiliary draws, only the model is compared.

    :param single: runs of the model and the guide with one draw.
    :param drawn: makes several draws with their densities; None draws as the objectives do.
    :raises ValueError: if the density of a draw differs from that of the same draw alone; says how
        to write the model.
    """
    if single.structure.plates and treats_each_datum_alone(single.model, single.guide):
        return
    with (
        torch.random.fork_rng(devices=[]),
        torch.no_grad(),
        poutine.block(),
        pyro.validation_enabled(False),
    ):
        particles = (drawn or single.draw_several)()
        is_right, among, own = single.scores_like(particles)
        if is_right:
            return
        _, _, again = single.scores_like(particles)
    if not _are_close(own, again):
        return
    raise ValueError(
        "model and guide must give each of several draws, in a dimension left of all plates, the "
        f"density that it has alone, got {float(among.sum()):.6g} instead of "
        f"{float(own.sum()):.6g} nats; {WRITE}"
    )


def _are_close(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-4, atol=1e-4, equal_nan=True)


def _unobserved(trace: poutine.Trace, names: Collection[str]) -> poutine.Trace:
    """Mark sites as latent again, whose values were given."""
    for name in names:
        trace.nodes[name]["is_observed"] = False
    return trace


def _shape(site: Site) -> tuple[torch.Size, torch.Size]:
    shape = site["value"].shape
    event_dim = site["fn"].event_dim
    return shape[: len(shape) - event_dim], shape[len(shape) - event_dim :]
