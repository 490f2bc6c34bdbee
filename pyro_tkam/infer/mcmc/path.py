"""The path of densities from a reference to the posterior, on batches of positions."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial

import torch
from torch import Tensor

from pyro_tkam.infer.model.compiled import Known, TracedFunction
from pyro_tkam.infer.model.coordinates import Layout
from pyro_tkam.infer.model.cost import Cost
from pyro_tkam.infer.model.density import Density
from pyro_tkam.infer.model.evaluate import LogTerms
from pyro_tkam.infer.model.failures import ROW_ERRORS, by_rows
from pyro_tkam.ops.langevin import Point

TRIES = 20


class Path:
    """``log π_t = log reference + t (log joint - log reference)`` with one gradient.

    Points carry the log reference and the rest as ``parts``.

    :param density: the joint density and its reference.
    :param gradients: whether gradients are wanted; they are zero otherwise.
    """

    def __init__(self, density: Density, gradients: bool = True) -> None:
        self.density = density
        self.gradients = gradients
        function = _with_gradient if gradients else _without_gradient
        self._evaluate = TracedFunction(
            partial(function, density.reference_terms),
            density.records_graphs,
            _known(function, density),
            row_by_row=density.loops,
            most_rows=density.most_rows,
        )
        self._record()

    @property
    def layout(self) -> Layout:
        """Where each site lies in a position."""
        return self.density.layout

    @property
    def device(self) -> torch.device:
        """Device of positions."""
        return self.density.draw_start(1).device

    @property
    def cost(self) -> Cost | None:
        """What a batch of positions takes, once it is recorded."""
        return self._evaluate.cost

    def from_normal(self) -> Path:
        """Return a path to the same end from ``N(0, 2²)`` of all coordinates."""
        return Path(self.density.from_normal(), self.gradients)

    def at(self, t: Tensor) -> PathTarget:
        """Return the density at a temperature ``t`` of shape ``(*local)``."""
        return PathTarget(self, t)

    def point(self, position: Tensor, t: Tensor) -> Point:
        """Evaluate positions ``(rows, *local, dim)`` at ``t``, broadcastable to their rows."""
        column = t.to(position).expand(position.shape[:-1]).unsqueeze(-1)
        batch = torch.cat([position, column], -1)
        reference, rest, value, gradient = by_rows(self._evaluate, batch)
        return Point(position, value, gradient, (reference, rest))

    def _record(self) -> None:
        # At ordinary values: one failing row of the first batch would end the recording for good.
        for _ in range(TRIES):
            start = self.density.draw_start(1)
            with suppress(*ROW_ERRORS):
                self.point(start, torch.ones(()))
                return


Terms = Callable[[Tensor], LogTerms]


def _without_gradient(terms: Terms, batch: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    position = batch[..., :-1]
    with torch.no_grad():
        reference, rest = terms(position)
        value = torch.addcmul(reference, batch[..., -1], rest)
    return reference, rest, value, torch.zeros_like(position)


def _with_gradient(terms: Terms, batch: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    with torch.enable_grad():
        position = batch[..., :-1].detach().requires_grad_()
        reference, rest = terms(position)
        value = torch.addcmul(reference, batch[..., -1], rest)
        (gradient,) = torch.autograd.grad(value.sum(), position, materialize_grads=True)
    return reference.detach(), rest.detach(), value.detach(), gradient


def _known(function: Callable[..., tuple[Tensor, ...]], density: Density) -> Known | None:
    """Return what a path is known to be at half way, where its ends are."""
    known = density.known_reference()
    if known is None:
        return None
    half = torch.full_like(known.position[..., :1], 0.5)
    batch = torch.cat([known.position, half], -1)
    return lambda: (batch, function(known.terms, batch))


class PathTarget:
    """A path at one temperature, as a target of kernels.

    :param path: the path.
    :param t: ``(*local)``.
    """

    def __init__(self, path: Path, t: Tensor) -> None:
        self.path = path
        self.t = t

    @property
    def layout(self) -> Layout:
        """Where each site lies in a position."""
        return self.path.layout

    def draw_start(self, num: int) -> Tensor:
        """Draw positions at which chains might start, as the joint density does."""
        return self.path.density.draw_start(num)

    def point(self, position: Tensor, rows: Tensor | None = None) -> Point:
        """Evaluate positions and gradients."""
        return self.path.point(position, self.t)

    def log_density(self, position: Tensor, rows: Tensor | None = None) -> Tensor:
        """Evaluate the log density alone."""
        return self.path.point(position, self.t).log_density
