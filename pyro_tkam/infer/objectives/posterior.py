"""
A model bound to its data for one training step: the density that chains sample, and the scores that
train it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import sum_rightmost
from pyro.nn import PyroModule
from pyro.params.param_store import user_param_name
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from pyro_tkam.infer.mcmc.initialization import Draws, find_finite, find_start
from pyro_tkam.infer.mcmc.kernels.base import LangevinKernel
from pyro_tkam.infer.model.alone import SEVERAL, SingleRuns, refuse_mixed_draws
from pyro_tkam.infer.model.density import ModelDensity
from pyro_tkam.infer.model.draws import (
    Particles,
    draw_from_guide,
    plate_scale,
    score_guide,
    score_particles,
    sum_to_local,
    trace_latents_at,
)
from pyro_tkam.infer.model.structure import refuse_coupled
from pyro_tkam.infer.objectives.structure import checked_structure
from pyro_tkam.ops.langevin import Point


@dataclass(frozen=True)
class GuideDraws(Draws):
    """
    Draws from a guide, which may carry gradients of its parameters; the positions carry none.

    :param values: of the latent sites, in their order, each ``(rows, *batch, *event)``.
    :param log_density: of the values under the guide, ``(rows, *local)``.
    """

    values: tuple[Tensor, ...]
    log_density: Tensor


class BoundModel:
    """
    A model with its arguments and present parameters, whose latents a kernel can sample.

    Plates that hold every site are sampled datum by datum, without the scale that a mini-batch
    gives them. The first binding finds out how the model is built; :meth:`rebind` keeps that.

    :param model: a Pyro model.
    :param kernel: what will move the latents; its own model is replaced.
    :param args: the model's arguments.
    :param kwargs: its keyword arguments.
    :raises ValueError: for a model without latent or observed sites, with discrete latents, with a
        plate that holds every site and couples its data, or that mixes up several draws.
    """

    def __init__(
        self, model: Any, kernel: LangevinKernel, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.model = model
        self.kernel = copy(kernel)
        self.args = args
        self.kwargs = kwargs
        with torch.no_grad():
            self.structure = checked_structure(model, args, kwargs)
            if self.structure.coupled:
                refuse_coupled(model, self.structure.coupled)
            self.kernel.model = _WithoutScale(self.structure.local_dims)(model)
            # vmap would forgo faster gradients
            options = {
                "preferred": ("plate", "vmap"),
                "trace_graph": False,
                "batch_plates": self.structure.plates,
            }
            density = self.kernel.density(args, kwargs, None, standard_normal=True, **options)
        assert isinstance(density, ModelDensity)
        if density.structure.enumerated:
            raise ValueError(
                "model must have continuous latent sites, got discrete ones "
                f"{density.structure.enumerated}"
            )
        self.density = density
        single = SingleRuns(model, None, self.structure, args, kwargs)
        refuse_mixed_draws(single, lambda: self.score(self.values(self._positions(SEVERAL))))

    def rebind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> BoundModel:
        """Return the model bound to other arguments."""
        new = copy(self)
        new.args = args
        new.kwargs = kwargs
        with torch.no_grad():
            new.density = self.density.rebind(args, kwargs)
        return new

    @property
    def is_mini_batch(self) -> bool:
        """Whether the data are a part of all."""
        trace = self.density.structure.trace
        return (
            plate_scale(trace.nodes[self.density.structure.latent[0]], self.structure.local_dims)
            != 1
        )

    def _positions(self, num: int) -> Tensor:
        """Return positions ``(num, *local, dim)`` near the middle, without drawing."""
        layout = self.density.layout
        like = self.structure.trace.nodes[self.density.structure.latent[0]]["value"]
        shape = (num, *layout.local_shape, layout.dim)
        line = torch.linspace(-1, 1, math.prod(shape), dtype=like.dtype, device=like.device)
        return line.reshape(shape)

    def draw_prior(self, num: int) -> Tensor:
        """
        Draw positions ``(num, *local, dim)`` from the prior, or as chains start where it can't be
        drawn from.
        """
        density = self.density
        with torch.no_grad():
            return (
                density.sample_prior(num) if density.can_sample_prior() else density.draw_start(num)
            )

    def draw_start(self, num: int) -> Point:
        """Draw positions from the prior, anew where their density isn't finite."""
        with torch.no_grad():
            return find_start(self.density, num, self.draw_prior)

    def draw_guide(
        self, guide: Any, num: int, *, reparameterized: bool
    ) -> tuple[GuideDraws, Point]:
        """
        Draw the latent sites from a guide, anew where the density isn't finite.

        :param guide: a Pyro guide that takes the model's arguments; its parameters are seen by
            handlers.
        :param num: number of draws.
        :param reparameterized: let the draws, and their density under the guide, carry gradients.
        :return: the draws, and positions ``(num, *local, dim)`` with the density of the model
            there.
        """
        names = tuple(self.density.layout.sites)

        def draw() -> GuideDraws:
            with torch.set_grad_enabled(reparameterized and torch.is_grad_enabled()):
                run = (guide, num, names, self.structure, self.args, self.kwargs)
                values, log_density = draw_from_guide(*run, reparameterized=reparameterized)
            with torch.no_grad():
                return GuideDraws(self._coordinates(values)[0], values, log_density)

        return find_finite(self.density, draw)

    def lower_bound(self, drawn: GuideDraws, point: Point) -> Tensor:
        """
        Return a stand-in for ``log p(x, z) - log q(z|x)`` with its gradient in the draws alone,
        ``(num, *local)``.

        The gradient ``∇_z log p = J^T ∇_u log p(u) - ∇_z log |dz/du|`` takes that in the
        coordinates ``u`` from the point at which chains start, so that the likelihood is not
        differentiated again.

        :param drawn: draws of a guide.
        :param point: the positions with the density there.
        """
        with torch.enable_grad():
            leaves = tuple(value.detach().requires_grad_() for value in drawn.values)
            position, log_volume = self._coordinates(leaves)
            gradients = torch.autograd.grad(
                (point.gradient * position).sum() - log_volume.sum(), leaves
            )
        nodes = self.density.structure.trace.nodes
        lower_bound = -drawn.log_density
        for name, gradient, value in zip(
            self.density.layout.sites, gradients, drawn.values, strict=True
        ):
            product = sum_rightmost(gradient * value, nodes[name]["fn"].event_dim)
            lower_bound = lower_bound + sum_to_local(product, self.structure)
        return lower_bound

    def _coordinates(self, values: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """
        Return positions ``(num, *local, dim)`` of the latent sites' values, and ``log |dz/du|`` of
        each datum.
        """
        sites = self.density.layout.sites
        given = dict(zip(sites, values, strict=True))
        nodes = trace_latents_at(
            self.density.terms.model, given, self.structure, self.args, self.kwargs
        ).nodes
        parts = {}
        volumes = []
        for name, site in sites.items():
            coordinates = site.coordinate.of_value(nodes[name]["fn"], given[name])
            volumes.append(
                sum_to_local(site.coordinate.log_volume(nodes[name], coordinates), self.structure)
            )
            parts[name] = coordinates.reshape(len(coordinates), *site.shape)
        return self.density.layout.flatten(parts, 1), sum(volumes[1:], volumes[0])

    @contextmanager
    def frozen(self, guide: Any = None) -> Iterator[None]:
        """
        Hold the model's parameters while chains move.

        No parameter is differentiated, as its gradient is not needed; those of torch's own modules
        and of what ``pyro.module`` registers stay as they are, since Pyro warns of a module whose
        parameters require none.

        :param guide: what chains start from; its parameters are left alone.
        """
        kept = {*_plain(self.model), *(() if guide is None else self._parameters_of(guide))}
        own = self.model.parameters() if isinstance(self.model, nn.Module) else ()
        store = pyro.get_param_store()
        stored = (
            parameter
            for name, parameter in store.named_parameters()
            if user_param_name(name) == name
        )
        learned = [parameter for parameter in {*own, *stored} - kept if parameter.requires_grad]
        for parameter in learned:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in learned:
                parameter.requires_grad_(True)

    def _parameters_of(self, guide: Any) -> Iterable[Tensor]:
        """Return the parameters of a guide; those of a function are seen by running it."""
        if isinstance(guide, nn.Module):
            return guide.parameters()
        with torch.no_grad(), poutine.block():
            nodes = (
                poutine.trace(guide, param_only=True)
                .get_trace(*self.args, **self.kwargs)
                .nodes.values()
            )
        return [site["value"].unconstrained() for site in nodes if site["type"] == "param"]

    def values(self, position: Tensor) -> dict[str, Tensor]:
        """
        Return the values of the latent sites at positions ``(rows, *local, dim)``, without
        gradients.
        """
        with torch.no_grad():
            return self.density.constrain(position)

    def score(self, values: dict[str, Tensor]) -> Particles:
        """
        Score values of the latent sites; the model's parameters carry gradients and are seen by
        handlers.
        """
        return score_particles(self.model, values, self.structure, self.args, self.kwargs)

    def score_guide(self, guide: Any, values: dict[str, Tensor]) -> Tensor:
        """Return the guide's log density at values of the latent sites."""
        return score_guide(guide, values, self.structure, self.args, self.kwargs)


def holding_prior(model: Any) -> AbstractContextManager[None]:
    """
    Return a context in which a model with a context manager ``holding_prior()`` makes its prior
    once.

    :param model: a Pyro model.
    """
    holding: Callable[[], AbstractContextManager[None]] = getattr(
        model, "holding_prior", nullcontext
    )
    return holding()


def _plain(model: Any) -> Iterator[nn.Parameter]:
    """Iterate over the parameters of modules that are not Pyro's."""
    for module in model.modules() if isinstance(model, nn.Module) else ():
        if not isinstance(module, PyroModule):
            yield from module.parameters(recurse=False)


class _WithoutScale(Messenger):
    """Takes off the scale of mini-batches in the plates at some dimensions."""

    def __init__(self, dims: tuple[int, ...]) -> None:
        super().__init__()
        self.dims = dims

    def _pyro_sample(self, msg: Any) -> None:
        msg["scale"] = msg["scale"] / plate_scale(msg, self.dims)
