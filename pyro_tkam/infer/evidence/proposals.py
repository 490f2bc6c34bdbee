"""
Weighted draws of any model: many at once where its plates allow, else under ``vmap``, else one by
one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from pyro_tkam.infer.model.alone import SingleRuns
from pyro_tkam.infer.model.attempt import attempt
from pyro_tkam.infer.model.batching import looped, vmapped
from pyro_tkam.infer.model.draws import (
    Particles,
    draw_particles,
    score_particles,
    total_log_density,
)
from pyro_tkam.infer.model.handlers import DrawDetached
from pyro_tkam.infer.model.known import treats_each_datum_alone
from pyro_tkam.infer.model.plates import CHECKED_DRAWS, check_draws
from pyro_tkam.infer.model.structure import plate_structure, with_guide

Draws = tuple[Tensor, dict[str, Tensor]]
"""Log weights ``(draw, *local)``, and values ``(draw, *plates, *event)`` of the latent sites."""

_COPIES = 4
"""Numbers in memory for each that is kept, where draws are made and weighed."""


class Proposal(SingleRuns):
    """A model and what its latent sites are drawn from; the model runs once to see its structure.

    :param model: a Pyro model.
    :param guide: a Pyro guide; None draws from the prior.
    :param args: arguments of both.
    :param kwargs: keyword arguments of both.
    :param trace: a run of the model on these, if there is one.
    :param joint: weigh all data as a whole, though their plates seem to hold independent ones.
    :ivar way: how draws are made, ``"plate"``, ``"vmap"`` or ``"loop"``; None before the first.
    :raises ValueError: if the model has no latent or no observed site.
    """

    def __init__(
        self,
        model: Any,
        guide: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        trace: poutine.Trace | None = None,
        joint: bool = False,
    ) -> None:
        structure = plate_structure(model, args, kwargs, trace=trace)
        structure = with_guide(structure, guide, *args, **kwargs)
        structure = replace(structure, local_dims=(), plates={}) if joint else structure
        super().__init__(model, guide, structure, args, kwargs)
        self.way: str | None = None

    @property
    def bytes_a_draw(self) -> int:
        """Return the memory that a draw takes at least: its weights and values, and copies."""
        data = max(batch.numel() for batch, _ in self.shapes.values())
        return _COPIES * 4 * (data + sum(event.numel() for _, event in self.shapes.values()))

    def draw(self, num: int) -> Draws:
        """Draw and weigh."""
        with torch.no_grad(), pyro.validation_enabled(False):
            return self._first(num) if self.way is None else self._again(num)

    def check_independence(self, draws: Draws) -> None:
        """Look again whether local data are independent, at draws of most weight and others.

        :param draws: what :meth:`draw` returned.
        :raises CoupledDataError: if they are not; it names the plates.
        """
        log_weights, values = draws
        if not self.structure.plates or treats_each_datum_alone(self.model, self.guide):
            return
        few = min(CHECKED_DRAWS, len(log_weights)) // 2
        best = log_weights.topk(few, 0).indices
        others = torch.arange(few, device=best.device).reshape(-1, *[1] * (best.ndim - 1))
        index = torch.cat([best, others.expand_as(best)])
        base = {name: self.gather(name, value, index) for name, value in values.items()}

        def mix(kept: Tensor, dim: int) -> dict[str, Tensor]:
            mixed = {}
            for name, value in base.items():
                shape = [len(value)] + [1] * (value.ndim - 1)
                shape[dim - len(self.shapes[name][1])] = kept.shape[1]
                mixed[name] = torch.where(kept.reshape(shape), value, value.roll(few, 0))
            return mixed

        with torch.no_grad(), poutine.block(), pyro.validation_enabled(False):
            check_draws(self._log_densities, base, mix, self.structure.plates)

    def gather(self, name: str, value: Tensor, index: Tensor) -> Tensor:
        """Take each datum's own draws of a site.

        :param name: of the site.
        :param value: its values ``(draw, *plates, *event)``.
        :param index: which draws, ``(num, *local)``.
        :return: ``(num, *site shape)``.
        """
        structure = self.structure
        shape = [len(index)] + [1] * (value.ndim - 1)
        target = [len(index), *value.shape[1:]]
        source = list(value.shape)
        for size, dim in zip(index.shape[1:], structure.local_dims, strict=True):
            axis = dim - structure.particle_dim
            shape[axis] = size
            target[axis] = size
            source[axis] = size
        drawn = value.expand(source).gather(0, index.reshape(shape).expand(target))
        batch, event = self.shapes[name]
        return drawn.reshape(len(drawn), *batch, *event)

    def _first(self, num: int) -> Draws:
        """Draw in the first way that works, and keep it."""
        particles = attempt(lambda: self._particles(num))
        if particles is not None and self.scores_like(particles)[0]:
            self.way = "plate"
            return particles.log_weights, particles.values
        drawn = attempt(lambda: self._one_by_one(vmapped, num))
        self.way = "loop" if drawn is None else "vmap"
        return self._again(num) if drawn is None else drawn

    def _again(self, num: int) -> Draws:
        if self.way == "plate":
            particles = self._particles(num)
            return particles.log_weights, particles.values
        return self._one_by_one(vmapped if self.way == "vmap" else looped, num)

    def _particles(self, num: int) -> Particles:
        """Draw all at once, under an outer plate."""
        with poutine.block():
            return draw_particles(
                self.model, self.guide, num, self.structure, *self.args, **self.kwargs
            )

    def _one_by_one(self, way: Callable[..., Any], num: int) -> Draws:
        """Draw by runs of a draw each."""
        log_weights, values = way(self._one, torch.arange(num))
        padded = {
            name: value.reshape(len(value), *self.padded_shape(name))
            for name, value in values.items()
        }
        return log_weights, padded

    def _one(self, _: Any) -> Draws:
        """Draw once: log weight ``(*local)`` and values ``(*site shape)``."""
        model = self.model
        log_proposal: Tensor | None = None
        with poutine.block(), DrawDetached():
            if self.guide is not None:
                drawn = poutine.trace(self.guide).get_trace(*self.args, **self.kwargs)
                log_proposal = total_log_density(drawn, self.structure, latent=True)
                model = poutine.replay(model, trace=drawn)
            trace = poutine.trace(model).get_trace(*self.args, **self.kwargs)
        log_weight = total_log_density(trace, self.structure, latent=False)
        if log_proposal is not None:
            log_prior = total_log_density(trace, self.structure, latent=True)
            log_weight = log_weight + log_prior - log_proposal
        return log_weight[0], {name: trace.nodes[name]["value"] for name in self.shapes}

    def _log_densities(self, values: dict[str, Tensor]) -> Tensor:
        """Return the log joint density ``(rows, *local)`` of values ``(rows, *site shape)``."""
        if self.way == "plate":
            run = (self.structure, self.args, self.kwargs)
            particles = score_particles(self.model, values, *run)
            return particles.log_prior + particles.log_likelihood
        return looped(lambda row: sum(self.scores(row)), values)
