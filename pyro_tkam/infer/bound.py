"""A model bound to its data for one training step: the density that chains sample, and the scores that train it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import copy
from functools import partial
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.nn import PyroModule
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from pyro_tkam.infer.coordinates import StandardNormal
from pyro_tkam.infer.density import ModelDensity
from pyro_tkam.infer.kernels import LangevinKernel
from pyro_tkam.infer.normal_quantile import normal_score
from pyro_tkam.infer.particles import (
    Particles,
    draw_from_guide,
    plate_scale,
    score_guide,
    score_particles,
    structure_of,
)
from pyro_tkam.infer.start import find_start


class BoundModel:
    """
    A model with its arguments and present parameters, whose latents a kernel can sample.

    Plates that hold every site are sampled datum by datum, without the scale that a mini-batch gives them. The first
    binding finds out how the model is built; :meth:`rebind` keeps that.

    :param model: a Pyro model.
    :param kernel: what will move the latents; its own model is replaced.
    :param args: the model's arguments.
    :param kwargs: its keyword arguments.
    :raises ValueError: for a model without latent or observed sites, with discrete latents, or with a plate that
        holds every site and couples its data.
    """

    def __init__(self, model: Any, kernel: LangevinKernel, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.model, self.kernel = model, copy(kernel)
        self.args, self.kwargs = args, kwargs
        with torch.no_grad():
            self.structure = structure_of(model, *args, **kwargs)
            self.kernel.model = _WithoutScale(self.structure.local_dims)(model)
            options = {"preferred": ("plate", "vmap"), "trace_graph": False}  # vmap would forgo faster gradients
            density = self.kernel.density(args, kwargs, None, standard_normal=True, **options)
        assert isinstance(density, ModelDensity)
        if density.structure.enumerated:
            raise ValueError(f"model: got discrete latent sites {density.structure.enumerated}, takes continuous ones")
        if density.layout.local_dims != self.structure.local_dims:
            raise ValueError(f"model: got a plate that holds every site but couples its data{_cause(model)}")
        self.density = density

    def rebind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> BoundModel:
        """Return the model bound to other arguments."""
        new = copy(self)
        new.args, new.kwargs = args, kwargs
        with torch.no_grad():
            new.density = self.density.rebind(args, kwargs)
        return new

    @property
    def is_mini_batch(self) -> bool:
        """Whether the data are a part of all."""
        trace = self.density.structure.trace
        return plate_scale(trace.nodes[self.density.structure.latent[0]], self.structure.local_dims) != 1

    def draw_prior(self, num: int) -> Tensor:
        """Draw positions ``(num, *local, dim)`` from the prior, or as chains start where it can't be drawn from."""
        density = self.density
        with torch.no_grad():
            return density.sample_prior(num) if density.can_sample_prior() else density.draw_start(num)

    def draw_guide(self, guide: Any, num: int) -> Tensor:
        """Draw positions ``(num, *local, dim)`` from a guide that takes the model's arguments."""
        with torch.no_grad(), poutine.block():
            trace = draw_from_guide(self.model, guide, num, self.structure, self.args, self.kwargs)
            sites, shapes = self.density.layout.sites, self.density.structure.trace.nodes
            scores = {
                name: normal_score(trace.nodes[name]["fn"], trace.nodes[name]["value"])
                for name, site in sites.items()
                if isinstance(site.coordinate, StandardNormal)
            }
            known = {name: each.reshape(num, *shapes[name]["value"].shape) for name, each in scores.items()}
            return self.density.terms.coordinates(trace, known, (num,))

    def draw_start(self, num: int, guide: Any = None) -> Tensor:
        """Draw positions from the prior, or from a guide if there is one, anew where their density isn't finite."""
        draw = self.draw_prior if guide is None else partial(self.draw_guide, guide)
        with torch.no_grad():
            return find_start(self.density, num, draw)

    def score(self, position: Tensor) -> Particles:
        """Score positions ``(rows, *local, dim)``; the model's parameters carry gradients and are seen by handlers."""
        with torch.no_grad(), poutine.block():
            values = self.density.constrain(position)
        return score_particles(self.model, values, self.structure, self.args, self.kwargs)

    def score_guide(self, guide: Any, position: Tensor) -> Tensor:
        """Return the guide's log density at positions ``(rows, *local, dim)``, in the sites' own coordinates."""
        with torch.no_grad(), poutine.block():
            values = self.density.constrain(position)
        return score_guide(guide, values, self.structure, self.args, self.kwargs)

    @contextmanager
    def frozen(self, guide: Any = None) -> Iterator[None]:
        """
        Hold the parameters while chains move.

        None is differentiated, so that a prior draws no negatives for gradients that nobody asks for; those of torch's
        own modules stay as they are, since Pyro warns of a module whose parameters require none. A model with a
        context manager ``holding_prior()`` is asked to make its prior once.

        :param guide: what chains start from; its parameters, which no step of a chain reads, are left alone.
        """
        kept = {*_plain(self.model), *(guide.parameters() if isinstance(guide, nn.Module) else ())}
        own = self.model.parameters() if isinstance(self.model, nn.Module) else ()
        stored = (parameter for _, parameter in pyro.get_param_store().named_parameters())
        learned = [parameter for parameter in {*own, *stored} - kept if parameter.requires_grad]
        for parameter in learned:
            parameter.requires_grad_(False)
        holding = getattr(self.model, "holding_prior", nullcontext)
        try:
            with holding():
                yield
        finally:
            for parameter in learned:
                parameter.requires_grad_(True)


def _plain(model: Any) -> Iterator[nn.Parameter]:
    """Iterate over the parameters of modules that are not Pyro's."""
    for module in model.modules() if isinstance(model, nn.Module) else ():
        if not isinstance(module, PyroModule):
            yield from module.parameters(recurse=False)


def _cause(model: Any) -> str:
    """Name what couples data, where it is batch normalisation, and what to do."""
    parts = model.named_modules() if isinstance(model, nn.Module) else ()
    norms = [name for name, part in parts if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.training]
    by = f", by batch normalisation in {norms[0]!r}, which eval() or batch_norm=False ends" if norms else ""
    return f"{by}, takes independent data"


class _WithoutScale(Messenger):
    """Takes off the scale of mini-batches in the plates at some dimensions."""

    def __init__(self, dims: tuple[int, ...]) -> None:
        super().__init__()
        self.dims = dims

    def _pyro_sample(self, msg: Any) -> None:
        msg["scale"] = msg["scale"] / plate_scale(msg, self.dims)
