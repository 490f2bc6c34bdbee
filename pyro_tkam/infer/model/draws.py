"""
Weighted draws of a Pyro model's latent sites: proposals shared by the data, and their log
densities.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_tkam.distributions.lkj import draw
from pyro_tkam.infer.model.handlers import trace_latents
from pyro_tkam.infer.model.sites import (
    Plates,
    check_guided,
    is_latent,
    same_along,
    sample_sites,
    scaled_and_masked,
    unscaled_log_prob,
)


@dataclass(frozen=True)
class PlateStructure:
    """
    How the sites of a model lie in its plates.

    :param local_dims: dimensions (negative) of the plates that hold every latent and observed site.
    :param particle_dim: the dimension (negative) left of all plates and of batches without one; it
        counts particles.
    :param exchangeable: whether the prior of the latent sites seemed the same along every local
        dimension, so that one set of prior draws serves all data.
    :param plates: the local plates.
    :param coupled: names of plates that hold every site but couple their data.
    :param trace: the run that was inspected.
    """

    local_dims: tuple[int, ...]
    particle_dim: int
    exchangeable: bool
    plates: Plates
    coupled: tuple[str, ...]
    trace: poutine.Trace


@dataclass(frozen=True)
class Particles:
    """
    Draws of the latent sites with their log densities; ``local`` is the shape of the local plates.

    :param log_prior: sum over latent sites, shape ``(particles, *local)`` or what broadcasts to it.
    :param log_likelihood: sum over observed sites, shape ``(particles, *local)``.
    :param log_proposal: log density from which the sites were drawn, or None where that is the
        prior.
    :param scale: mini-batch scale of the local plates.
    :param values: the drawn value of every latent site.
    """

    log_prior: Tensor
    log_likelihood: Tensor
    log_proposal: Tensor | None
    scale: float
    values: dict[str, Tensor]

    @property
    def log_importance(self) -> Tensor:
        """Unnormalized log importance weights, shape ``(particles, *local)``."""
        if self.log_proposal is None:
            return self.log_likelihood
        return self.log_prior + self.log_likelihood - self.log_proposal

    @property
    def log_weights(self) -> Tensor:
        """The same without gradients."""
        return self.log_importance.detach()


class _DrawParticles(Messenger):
    """
    Draw each latent site once per particle, with one value for all data along ``shared_dims``.
    """

    def __init__(
        self,
        num_particles: int,
        particle_dim: int,
        shared_dims: tuple[int, ...],
        reparameterized: bool = False,
    ) -> None:
        super().__init__()
        self.num_particles = num_particles
        self.particle_dim = particle_dim
        self.shared_dims = shared_dims
        self.reparameterized = reparameterized

    def _pyro_sample(self, msg: Any) -> None:
        fn = msg["fn"]
        if msg["done"] or msg["is_observed"] or not isinstance(fn, TorchDistributionMixin):
            return
        if self.reparameterized and not fn.has_rsample:
            raise ValueError(f"guide must have sites with rsample, got {msg['name']!r} without")
        with torch.set_grad_enabled(self.reparameterized and torch.is_grad_enabled()):
            msg["value"] = self._draw(fn)
        msg["done"] = True

    def _draw(self, fn: Any) -> Tensor:
        sample = fn.rsample if self.reparameterized else partial(draw, fn)
        rank = -self.particle_dim
        batch = (1,) * (rank - len(fn.batch_shape)) + tuple(fn.batch_shape)
        shared = [dim + rank for dim in self.shared_dims]
        if batch[0] == self.num_particles:  # it already depends on the particles
            value = sample().reshape(batch + tuple(fn.event_shape))
            return value[tuple(slice(1) if i in shared else slice(None) for i in range(rank))]
        copies = math.prod(batch[i] for i in shared)
        rounds = math.ceil(self.num_particles / copies)
        value = sample((rounds,)).reshape((rounds, *batch[1:], *fn.event_shape))
        value = value.movedim(shared, tuple(range(1, 1 + len(shared)))).flatten(0, len(shared))
        for i in sorted(shared):
            value = value.unsqueeze(i)
        return value[: self.num_particles]


class _SetParticles(Messenger):
    """Set each latent site to given values, with particles to the left of all plates."""

    def __init__(self, values: dict[str, Tensor], particle_dim: int) -> None:
        super().__init__()
        self.values = values
        self.particle_dim = particle_dim

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] or msg["name"] not in self.values:
            return
        value = self.values[msg["name"]]
        event_dim = msg["fn"].event_dim
        batch = value.shape[1 : value.dim() - event_dim]
        missing = -self.particle_dim - 1 - len(batch)
        msg["value"] = value.reshape((len(value), *(1,) * missing, *value.shape[1:]))
        msg["done"] = True


def draw_particles(
    model: Any,
    guide: Any,
    num_particles: int,
    structure: PlateStructure,
    *args: Any,
    reparameterized: bool = False,
    **kwargs: Any,
) -> Particles:
    """
    Draw the latent sites from the prior, or from a guide, and score them.

    All data share draws from an exchangeable prior: the model then runs once per particle, not once
    per particle and datum. If such draws show that their density differs between data after all,
    each datum gets its own draws. Draws carry no gradient; the densities do.

    :param model: a Pyro model.
    :param guide: a Pyro guide, or None to draw from the prior.
    :param num_particles: how many draws.
    :param structure: what :func:`plate_structure` found for this model.
    :param reparameterized: draw from the guide by ``rsample``.
    :raises ValueError: for a site that should be reparameterized and cannot be, and for a guide
        that does not draw the latent sites of the model, and only these.
    """
    local = structure.local_dims
    particle_dim = structure.particle_dim
    shared = local if guide is None and structure.exchangeable else ()
    log_proposal = None
    if guide is not None:
        drawn = _trace(
            guide, _DrawParticles(num_particles, particle_dim, (), reparameterized), args, kwargs
        )
        log_proposal = total_log_density(drawn, structure, latent=True)
        check_guided(drawn, structure.trace)
        model = poutine.replay(model, trace=drawn)
    trace = _trace(model, _DrawParticles(num_particles, particle_dim, shared), args, kwargs)
    latent = [site for site in trace.nodes.values() if is_latent(site)]
    if shared and not all(same_along(_log_prob(site).detach(), shared) for site in latent):
        trace = _trace(model, _DrawParticles(num_particles, particle_dim, ()), args, kwargs)
    return _scored(trace, structure, log_proposal)


def score_particles(
    model: Any,
    values: dict[str, Tensor],
    structure: PlateStructure,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Particles:
    """
    Score given values of the latent sites; the densities have gradients with respect to parameters,
    the values have none.

    :param model: a Pyro model.
    :param values: of every latent site, each ``(particles, *batch_shape, *event_shape)``.
    :param structure: what :func:`plate_structure` found for this model.
    :param args: the model's arguments.
    :param kwargs: its keyword arguments.
    """
    return _scored(_trace(model, _setting(values, structure), args, kwargs), structure, None)


def draw_from_guide(
    guide: Any,
    num: int,
    names: Collection[str],
    structure: PlateStructure,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    reparameterized: bool,
) -> tuple[tuple[Tensor, ...], Tensor]:
    """
    Draw the latent sites from a guide.

    :param guide: a Pyro guide that draws all latent sites.
    :param num: number of draws, in a dimension to the left of all plates.
    :param names: of the model's latent sites.
    :param structure: what :func:`plate_structure` found for the model.
    :param args: the guide's arguments.
    :param kwargs: its keyword arguments.
    :param reparameterized: draw by ``rsample``.
    :return: values of these sites, and the log density of the draws, ``(num, *local)`` or what
        broadcasts to it.
    :raises ValueError: names the sites that the guide lacks or adds, or that should be
        reparameterized and cannot be.
    """
    messenger = _DrawParticles(num, structure.particle_dim, (), reparameterized)
    drawn = _trace(guide, messenger, args, kwargs)
    check_guided(drawn, structure.trace)
    return tuple(drawn.nodes[name]["value"] for name in names), total_log_density(
        drawn, structure, latent=True
    )


def trace_latents_at(
    model: Any,
    values: dict[str, Tensor],
    structure: PlateStructure,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> poutine.Trace:
    """
    Run a model up to its last latent site, with latent sites set to given values, hidden from outer
    handlers.

    :param model: a Pyro model.
    :param values: of every latent site, each ``(particles, *batch_shape, *event_shape)``; they may
        carry gradients.
    :param structure: what :func:`plate_structure` found for this model.
    :param args: the model's arguments.
    :param kwargs: its keyword arguments.
    """
    with (
        poutine.block(),
        pyro.validation_enabled(False),
        _SetParticles(values, structure.particle_dim),
    ):
        return trace_latents(model, values, args, kwargs)


def score_guide(
    guide: Any,
    values: dict[str, Tensor],
    structure: PlateStructure,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Tensor:
    """
    Return ``log q(z|x)`` of given values, which carry no gradient, ``(particles, *local)`` or what
    broadcasts to it.

    :param guide: a Pyro guide.
    :param values: of every latent site, each ``(particles, *batch_shape, *event_shape)``.
    :param structure: what :func:`plate_structure` found for the model.
    :param args: the guide's arguments.
    :param kwargs: its keyword arguments.
    """
    trace = _trace(guide, _setting(values, structure), args, kwargs)
    return total_log_density(trace, structure, latent=True)


def _scored(
    trace: poutine.Trace, structure: PlateStructure, log_proposal: Tensor | None
) -> Particles:
    latent = {name: site for name, site in trace.nodes.items() if is_latent(site)}
    return Particles(
        log_prior=total_log_density(trace, structure, latent=True),
        log_likelihood=total_log_density(trace, structure, latent=False),
        log_proposal=log_proposal,
        scale=plate_scale(next(iter(latent.values())), structure.local_dims),
        values={name: site["value"] for name, site in latent.items()},
    )


def _setting(values: dict[str, Tensor], structure: PlateStructure) -> Messenger:
    return _SetParticles(
        {name: value.detach() for name, value in values.items()}, structure.particle_dim
    )


def _trace(fn: Any, messenger: Messenger, args: Any, kwargs: Any) -> poutine.Trace:
    """
    Run with many draws of each latent site, in a dimension to the left of all plates.

    :raises ValueError: for code that doesn't support such a dimension; says how to write it.
    """
    try:
        with messenger:
            return poutine.trace(fn).get_trace(*args, **kwargs)
    except (IndexError, RuntimeError, ValueError) as error:
        told, *_ = str(error).splitlines() or [""]
        if not any(word in told for word in _OF_SHAPES) or any(word in told for word in _OF_VALUES):
            raise
        raise ValueError(
            "model and guide must take latent values with draws in a dimension left of all plates, "
            f"got {type(error).__name__}: {told}; {WRITE}"
        ) from error


WRITE = (
    "write (X * b).sum(-1) for X.matmul(b) or X @ b, b.cumsum(-1) for b.cumsum(0), and "
    "b[..., index] for b[index]"
)
"""How to write a model that takes draws in a dimension left of all plates."""


_OF_SHAPES = (
    "Expected size",
    "Shape mismatch",
    "out of bounds",
    "must match the size",
    "shapes cannot be multiplied",
    "size mismatch",
    "inconsistent tensor size",
)
"""Words of errors about shapes."""
_OF_VALUES = ("to satisfy the constraint", "within the support")
"""Words of errors about values, which tell shapes too."""


def plate_scale(site: dict[str, Any], dims: tuple[int, ...]) -> float:
    """Return the factor by which mini-batching in the given plates scales a site."""
    return math.prod(
        f.full_size / f.size for f in site["cond_indep_stack"] if f.vectorized and f.dim in dims
    )


def total_log_density(trace: poutine.Trace, structure: PlateStructure, *, latent: bool) -> Tensor:
    """
    Sum log densities over sites and over all dimensions but the particles and the local plates.
    """
    terms = []
    for _, site in sample_sites(trace):
        if is_latent(site) == latent:
            scale = site["scale"] / plate_scale(site, structure.local_dims)
            terms.append(sum_to_local(scaled_and_masked(site, _log_prob(site), scale), structure))
    return sum(terms[1:], terms[0])


def _log_prob(site: dict[str, Any]) -> Tensor:
    """
    Return a site's log density before scale and mask, which the trace keeps under Pyro's name for
    it.
    """
    name = "unscaled_log_prob"
    if name not in site:
        site[name] = unscaled_log_prob(site)
    log_prob: Tensor = site[name]
    return log_prob


def sum_to_local(term: Tensor, structure: PlateStructure) -> Tensor:
    """
    Sum a term over all dimensions but the particles and the local plates.

    :raises ValueError: for a term with more dimensions, as where draws spread the data.
    """
    rank = -structure.particle_dim
    if term.dim() > rank:
        raise ValueError(
            "model and guide must take latent values with draws in a dimension left of all plates, "
            f"got a density of shape {tuple(term.shape)}, which has more dimensions; {WRITE}"
        )
    keep = (structure.particle_dim, *structure.local_dims)
    drop = [dim for dim in range(-rank, 0) if dim not in keep]
    term = term.reshape((1,) * (rank - term.dim()) + term.shape)
    return term.sum(drop) if drop else term
