"""A model bound to its data for one training step: the density that chains sample, and the scores that train it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import copy
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from pyro_tkam.infer.density import ModelDensity
from pyro_tkam.infer.kernels import LangevinKernel
from pyro_tkam.infer.particles import Particles, plate_scale, score_particles, structure_of
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

    def draw_start(self, num: int) -> Tensor:
        """Draw positions like :meth:`draw_prior`, anew where their density isn't finite."""
        with torch.no_grad():
            return find_start(self.density, num, self.draw_prior)

    def score(self, position: Tensor) -> Particles:
        """Score positions ``(rows, *local, dim)``; the model's parameters carry gradients and are seen by handlers."""
        with torch.no_grad(), poutine.block():
            values = self.density.constrain(position)
        return score_particles(self.model, values, self.structure, self.args, self.kwargs)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """
        Hold the parameters while chains move.

        None is differentiated, so that a prior draws no negatives for gradients that nobody asks for. A model with a
        context manager ``holding_prior()`` is asked to make its prior once.
        """
        own = self.model.parameters() if isinstance(self.model, nn.Module) else ()
        stored = (parameter for _, parameter in pyro.get_param_store().named_parameters())
        learned = [parameter for parameter in {*own, *stored} if parameter.requires_grad]
        for parameter in learned:
            parameter.requires_grad_(False)
        holding = getattr(self.model, "holding_prior", nullcontext)
        try:
            with holding():
                yield
        finally:
            for parameter in learned:
                parameter.requires_grad_(True)


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
