"""
Weighted draws of any model: many at once where its plates allow, else under ``vmap``, else one by
one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_tkam.infer.model.attempt import attempt
from pyro_tkam.infer.model.draws import (
    Particles,
    PlateStructure,
    couples,
    draw_particles,
    plate_structure,
    total_log_density,
    with_guide,
)
from pyro_tkam.infer.model.site import is_latent

Draws = tuple[Tensor, dict[str, Tensor]]
"""Log weights ``(draw, *local)``, and values ``(draw, *plates, *event)`` of the latent sites."""

_COPIES = 4
"""Numbers in memory for each that is kept, where draws are made and weighed."""


@dataclass(frozen=True)
class Proposal:
    """A model and what its latent sites are drawn from.

    :param model: a Pyro model.
    :param guide: a Pyro guide; None draws from the prior.
    :param args: arguments of both.
    :param kwargs: keyword arguments of both.
    :param structure: how the model's sites lie in its plates.
    :param shapes: batch and event shape of each latent site.
    """

    model: Any
    guide: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    structure: PlateStructure
    shapes: dict[str, tuple[torch.Size, torch.Size]]

    @staticmethod
    def of(model: Any, guide: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Proposal:
        """Run the model to see its structure.

        :raises ValueError: if it has no latent or no observed site.
        """
        structure = with_guide(plate_structure(model, *args, **kwargs), guide, *args, **kwargs)
        if couples(model, structure, *args, **kwargs):
            structure = replace(structure, local_dims=())
        with poutine.block():
            trace = poutine.trace(model).get_trace(*args, **kwargs)
        shapes = {name: _shape(site) for name, site in trace.nodes.items() if is_latent(site)}
        return Proposal(model, guide, args, kwargs, structure, shapes)

    @property
    def bytes_a_draw(self) -> int:
        """Return the memory that a draw takes at least: its weights and values, and copies."""
        data = max(batch.numel() for batch, _ in self.shapes.values())
        return _COPIES * 4 * (data + sum(event.numel() for _, event in self.shapes.values()))

    def draw(self, num: int) -> Draws:
        """Draw and weigh."""
        ways = (self._plated, self._vmapped, self._looped)
        with torch.no_grad(), pyro.validation_enabled(False):
            return next(drawn for way in ways if (drawn := way(num)) is not None)

    def _plated(self, num: int) -> Draws | None:
        """
        Draw all at once; None if that fails, or scores a draw otherwise than the model does on its
        own.
        """

        def batch() -> tuple[Particles, Tensor]:
            with poutine.block():
                particles = draw_particles(
                    self.model, self.guide, num, self.structure, *self.args, **self.kwargs
                )
            last = {name: value[-1] for name, value in particles.values.items()}
            return particles, self._log_likelihood(last)

        drawn = attempt(batch)
        if drawn is None:
            return None
        particles, expected = drawn
        agrees = torch.allclose(
            particles.log_likelihood[-1], expected, rtol=1e-3, atol=1e-3, equal_nan=True
        )
        return (particles.log_weights, particles.values) if agrees else None

    def _vmapped(self, num: int) -> Draws | None:
        one = torch.func.vmap(self._one, randomness="different")
        return attempt(lambda: self._padded(one(torch.arange(num))))

    def _looped(self, num: int) -> Draws:
        weights, values = zip(*[self._one() for _ in range(num)], strict=True)
        return self._padded(
            (
                torch.stack(weights),
                {name: torch.stack([each[name] for each in values]) for name in self.shapes},
            )
        )

    def _one(self, _: Any = None) -> Draws:
        """Draw once: log weight ``(1, *local)`` and values ``(*site shape)``."""
        model, log_proposal = self.model, None
        with poutine.block(), _DrawDetached():
            if self.guide is not None:
                drawn = poutine.trace(self.guide).get_trace(*self.args, **self.kwargs)
                log_proposal = total_log_density(drawn, self.structure, latent=True)
                model = poutine.replay(model, trace=drawn)
            trace = poutine.trace(model).get_trace(*self.args, **self.kwargs)
        log_weight = total_log_density(trace, self.structure, latent=False)
        if log_proposal is not None:
            log_weight = (
                log_weight + total_log_density(trace, self.structure, latent=True) - log_proposal
            )
        return log_weight, {name: trace.nodes[name]["value"] for name in self.shapes}

    def _log_likelihood(self, values: dict[str, Tensor]) -> Tensor:
        """Log likelihood of one draw, ``(*plates)``."""
        own = {
            name: values[name].expand(self._padded_shape(name)).reshape(batch + event)
            for name, (batch, event) in self.shapes.items()
        }
        with poutine.block():
            trace = poutine.trace(poutine.condition(self.model, data=own)).get_trace(
                *self.args, **self.kwargs
            )
        for name in own:
            trace.nodes[name]["is_observed"] = False
        return total_log_density(trace, self.structure, latent=False)[0]

    def _padded(self, draws: Draws) -> Draws:
        log_weights, values = draws
        padded = {
            name: value.reshape(len(value), *self._padded_shape(name))
            for name, value in values.items()
        }
        return log_weights.squeeze(1), padded

    def _padded_shape(self, name: str) -> tuple[int, ...]:
        """Shape of a site with as many batch dimensions as there are plates."""
        batch, event = self.shapes[name]
        return (*(1,) * (-self.structure.particle_dim - 1 - len(batch)), *batch, *event)


class _DrawDetached(Messenger):
    """Draws by ``sample``, as ``vmap`` can't take the random numbers of ``rsample``."""

    def _pyro_sample(self, msg: Any) -> None:
        if not (msg["done"] or msg["is_observed"]) and isinstance(
            msg["fn"], TorchDistributionMixin
        ):
            msg["value"], msg["done"] = msg["fn"].sample(), True


def _shape(site: Any) -> tuple[torch.Size, torch.Size]:
    shape, event_dim = site["value"].shape, site["fn"].event_dim
    return shape[: len(shape) - event_dim], shape[len(shape) - event_dim :]
