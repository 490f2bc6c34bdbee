"""Log prior and log likelihood of a Pyro model at given coordinates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import config_enumerate
from torch import Tensor

from pyro_tkam.distributions.joint import in_latents_only
from pyro_tkam.infer.model.coordinates import Layout, StandardNormal
from pyro_tkam.infer.model.enumeration import marginal
from pyro_tkam.infer.model.failures import ChangingShapeError, ForRows
from pyro_tkam.infer.model.handlers import DrawDetached, trace_latents
from pyro_tkam.infer.model.sites import (
    Model,
    Site,
    Structure,
    is_flat,
    is_latent,
    is_prior,
    sample_sites,
    site_log_prob,
)

_ROWS = "_rows"
REFERENCE_SCALE = 2.0
"""Standard deviation of unconstrained coordinates that have no prior to draw from."""
LogTerms = tuple[Tensor, Tensor]
"""Log prior and log likelihood."""
_CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-4, "equal_nan": True}


class ModelTerms:
    """Runs a model with its latent sites set from coordinates and sums its log densities by role.

    Observed sites and factors count as likelihood; latent sites, ``Delta`` sites and sites marked
    ``infer={"is_prior": True}`` count as prior. With enumerated sites ``k``: ``log prior = log Σ_k
    p(z, k)`` and ``log likelihood = log Σ_k p(x, z, k) - log prior``.

    :param model: a Pyro model.
    :param args: its arguments.
    :param kwargs: its keyword arguments.
    :param structure: of the model.
    :param layout: of its latent sites.
    """

    def __init__(
        self,
        model: Model,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        structure: Structure,
        layout: Layout,
    ) -> None:
        self.model = model
        self.args = args
        self.kwargs = kwargs
        self.structure = structure
        self.layout = layout
        self._names = [name for name, _ in structure.sites()]
        self.prior_names = [name for name, site in structure.sites() if is_prior(site)]
        self._flat = {name for name in structure.latent if is_flat(structure.trace.nodes[name])}

    def one(self, position: Tensor) -> LogTerms:
        """Return log prior and log likelihood ``(*local)`` of one position ``(*local, dim)``."""
        trace, coordinates = self.run(self.layout.unflatten(position))
        return self._sum(trace, coordinates, self.layout.local_dims, self.layout.local_shape)

    def positions_to_compare(self) -> Tensor:
        """
        Return positions ``(rows, *local, dim)``, beginning with that of the first run. Their number
        differs from the size of every dimension of the model.
        """
        first = self.coordinates(self.structure.trace)
        return torch.stack([first + 0.1 * i for i in range(self._other_size(2))])

    def _other_size(self, least: int) -> int:
        """
        Return the smallest number from ``least`` that is not the size of a dimension of the model.
        """
        sizes = {
            size
            for _, site in self.structure.sites()
            for size in torch.as_tensor(site["value"]).shape
        }
        return next(rows for rows in range(least, least + len(sizes) + 1) if rows not in sizes)

    def first_terms(self, position: Tensor) -> LogTerms:
        """
        Return log prior and log likelihood at a position. If it is the position of the first run,
        and all values have a density, use that run's distributions instead of another run.
        """
        coordinates = self.layout.unflatten(position)
        nodes = self.structure.trace.nodes
        for name, site in self.layout.sites.items():
            value = site.coordinate.value(nodes[name]["fn"], coordinates[name])
            if not torch.allclose(
                value.to(position.dtype), nodes[name]["value"].to(position.dtype)
            ):
                return self.one(position)
        with torch.no_grad(), in_latents_only():
            dims = self.layout.local_dims
            sizes = self.layout.local_shape
            try:
                return self._sum(self.structure.trace, coordinates, dims, sizes)
            except ValueError:  # data are outside a support; the run below checks this
                pass
        return self.one(position)

    def unsummed(self, position: Tensor) -> dict[str, Tensor]:
        """Return the log density of each site at one position, unsummed."""
        return self.site_terms(*self.run(self.layout.unflatten(position)))

    def plated_unsummed(self, position: Tensor) -> dict[str, Tensor]:
        """Return the log density of each site, unsummed, each ``(rows, *batch)``."""
        trace, coordinates = self.run(self._spread(position), len(position))
        rank = self.structure.max_plate_nesting + 1
        terms = {}
        for name, term in self.site_terms(trace, coordinates).items():
            padded = term.reshape((1,) * (rank - term.ndim) + term.shape)
            by_row = padded.movedim(-rank, 0)
            terms[name] = by_row.expand(len(position), *by_row.shape[1:])
        return terms

    def values(self, position: Tensor) -> dict[str, Tensor]:
        """Return the values of the latent sites at one position."""
        coordinates = self.layout.unflatten(position)
        trace = self._run_latents(coordinates)
        return {name: trace.nodes[name]["value"] for name in coordinates}

    def plated(self, position: Tensor) -> LogTerms:
        """
        Return log prior and log likelihood ``(rows, *local)`` of positions ``(rows, *local, dim)``.
        """
        rows = len(position)
        trace, coordinates = self.run(self._spread(position), rows)
        dims = (-self.structure.max_plate_nesting - 1, *self.layout.local_dims)
        return self._sum(trace, coordinates, dims, (rows, *self.layout.local_shape))

    def plated_values(self, position: Tensor) -> dict[str, Tensor]:
        """Return the values of the latent sites, each ``(rows, *site shape)``."""
        rows = len(position)
        coordinates = self._spread(position)
        trace = self._run_latents(coordinates, rows)
        nodes = self.structure.trace.nodes
        return {
            name: trace.nodes[name]["value"].reshape(rows, *nodes[name]["value"].shape)
            for name in coordinates
        }

    def coordinates(
        self,
        trace: poutine.Trace,
        given: Mapping[str, Tensor] | None = None,
        rows: tuple[int, ...] = (),
    ) -> Tensor:
        """Return the position ``(*rows, *local, dim)`` of a run of the model.

        :param trace: the run.
        :param given: coordinates ``(*rows, *shape)`` of some sites; those of the others follow from
            their values.
        :param rows: number of rows of the outer plate, if there was one.
        """
        known = dict(given or {})
        for name, site in self.layout.sites.items():
            if name not in known:
                node = trace.nodes[name]
                coordinates = site.coordinate.of_value(node["fn"], node["value"].detach())
                known[name] = coordinates.detach().reshape((*rows, *site.shape))
        return self.layout.flatten(known, len(rows))

    def draw_prior(self, normal: Tensor) -> Tensor:
        """Draw a position ``(*local, dim)`` from the prior.

        :param normal: standard normal, of that shape; used as it is where that is the prior of the
            coordinates, and twice where a flat prior leaves none to draw from.
        """
        given = self._from_normal(self.layout.unflatten(normal))
        return self.coordinates(self._run_latents(given), given)

    def plated_draw_prior(self, normal: Tensor) -> Tensor:
        """Draw positions ``(rows, *local, dim)`` from the prior, as :meth:`draw_prior` does."""
        given = self._from_normal(self.layout.unflatten(normal))
        spread = self._from_normal(self._spread(normal))
        rows = len(normal)
        return self.coordinates(self._run_latents(spread, rows), given, (rows,))

    def compared_draws(self, normal: Tensor) -> Tensor | None:
        """
        Draw positions as :meth:`plated_draw_prior` does, in a run in which another row has the
        values of the first run; return None where its densities are not those of the first run.
        """
        rows = self._other_size(len(normal) + 1)
        more = torch.cat([normal[:1].expand(rows - len(normal), *normal.shape[1:]), normal])
        given = self._from_normal(self.layout.unflatten(more))
        spread = self._from_normal(self._spread(more))
        trace = self._run_latents(spread, rows, _FirstRow(self.structure))
        if not self._begins_as_first_run(trace):
            return None
        return self.coordinates(trace, given, (rows,))[rows - len(normal) :]

    def _begins_as_first_run(self, trace: poutine.Trace) -> bool:
        """Tell whether the first row of latent sites has the densities of the first run."""
        rank = self.structure.max_plate_nesting + 1
        plain = self.structure.plain.nodes
        latent = [(name, site) for name, site in sample_sites(trace) if is_latent(site)]
        with torch.no_grad(), pyro.validation_enabled(False), in_latents_only():
            for name, site in latent:
                term = site_log_prob(site)
                wanted = site_log_prob(plain[name])
                first = term[0] if term.ndim == rank else term
                if first.numel() != wanted.numel():
                    return False
                if not are_close(first.reshape(wanted.shape), wanted):
                    return False
        return True

    def _from_normal(self, coordinates: dict[str, Tensor]) -> dict[str, Tensor]:
        sites = self.layout.sites
        flat = {name: REFERENCE_SCALE * coordinates[name] for name in self._flat}
        return flat | {
            name: each
            for name, each in coordinates.items()
            if isinstance(sites[name].coordinate, StandardNormal)
        }

    def _spread(self, position: Tensor) -> dict[str, Tensor]:
        """Split positions by site, with the rows at the dimension of the outer plate."""
        coordinates = {}
        for name, value in self.layout.unflatten(position).items():
            site = self.layout.sites[name]
            missing = self.structure.max_plate_nesting - (len(site.shape) - site.event_dim)
            coordinates[name] = value.reshape(len(position), *(1,) * missing, *site.shape)
        return coordinates

    def run(
        self, coordinates: dict[str, Tensor], rows: int | None = None
    ) -> tuple[poutine.Trace, dict[str, Tensor]]:
        """Run the model at these coordinates, under an outer plate if a number of rows is given.

        :raises ValueError: if its sites differ from those of the first run.
        """
        with self._setting(coordinates):
            trace = poutine.trace(self._enumerated(rows)).get_trace(*self.args, **self.kwargs)
        names = [name for name, _ in sample_sites(trace)]
        if names != self._names:
            raise ValueError(f"model must keep its sites between calls, {self._names}, got {names}")
        return trace, coordinates

    def _run_latents(
        self,
        coordinates: dict[str, Tensor],
        rows: int | None = None,
        handler: AbstractContextManager[Any] | None = None,
    ) -> poutine.Trace:
        """
        Run the model like :meth:`run`, but only up to its last latent site, with discrete sites
        drawn.

        :param handler: another messenger, which processes a site after the others.
        """
        with self._setting(coordinates), handler or nullcontext():
            return trace_latents(self._with_rows(rows), self.layout.sites, self.args, self.kwargs)

    @contextmanager
    def _setting(self, coordinates: dict[str, Tensor]) -> Iterator[None]:
        """Let models run at these coordinates, hidden from outer handlers."""
        setting = _SetCoordinates(self.layout, coordinates)
        with (
            poutine.block(),
            pyro.validation_enabled(False),
            in_latents_only(),
            ForRows(),
            DrawDetached(),
            setting,
        ):
            yield

    def _with_rows(self, rows: int | None) -> Model:
        """Return the model, under an outer plate if a number of rows is given."""
        if rows is None:
            return self.model
        plated: Model = pyro.plate(_ROWS, rows, dim=-1 - self.structure.max_plate_nesting)(
            self.model
        )
        return plated

    def _enumerated(self, rows: int | None) -> Model:
        """Return the model as :meth:`_with_rows` does, with its discrete sites enumerated."""
        model = self._with_rows(rows)
        if not self.structure.enumerated:
            return model
        first_free = -1 - self.structure.max_plate_nesting - (rows is not None)
        enumerated: Model = poutine.enum(config_enumerate(model), first_available_dim=first_free)
        return enumerated

    def site_terms(self, trace: poutine.Trace, coordinates: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the log density of each site, unsummed."""
        with pyro.validation_enabled(False):
            return {
                name: self._site_term(name, site, coordinates) for name, site in sample_sites(trace)
            }

    def _site_term(self, name: str, site: Site, coordinates: dict[str, Tensor]) -> Tensor:
        """Return a site's scaled and masked log density, that of its coordinates if it has some."""
        if name not in coordinates:
            return site_log_prob(site)
        coordinate = self.layout.sites[name].coordinate
        if isinstance(coordinate, StandardNormal):
            return coordinate.log_prob(site, coordinates[name])
        # The Jacobian is neither scaled nor masked.
        return site_log_prob(site) + coordinate.log_volume(site, coordinates[name])

    def _sum(
        self,
        trace: poutine.Trace,
        coordinates: dict[str, Tensor],
        dims: tuple[int, ...],
        sizes: tuple[int, ...],
    ) -> LogTerms:
        zero = next(iter(coordinates.values())).new_zeros(sizes)
        terms = {
            name: term.to(zero.dtype) for name, term in self.site_terms(trace, coordinates).items()
        }
        prior = self.prior_names
        if self.structure.enumerated:
            log_prior = marginal(trace, terms, prior, dims)
            log_prior, log_joint = (
                keep_dims(each, dims, sizes)
                for each in (log_prior, marginal(trace, terms, terms, dims))
            )
            return log_prior, log_joint - log_prior
        log_prior = sum((keep_dims(terms[name], dims, sizes) for name in prior), zero)
        log_likelihood = sum(
            (keep_dims(terms[name], dims, sizes) for name in terms if name not in prior), zero
        )
        return log_prior, log_likelihood


class _SetCoordinates(poutine.messenger.Messenger):
    """Sets latent sites to the values of their coordinates."""

    def __init__(self, layout: Layout, coordinates: dict[str, Tensor]) -> None:
        super().__init__()
        self.layout = layout
        self.coordinates = coordinates

    def _pyro_sample(self, msg: Site) -> None:
        name = msg["name"]
        if name in self.coordinates and not msg["is_observed"]:
            value = self.layout.sites[name].coordinate.value(msg["fn"], self.coordinates[name])
            _check_shape(name, msg["fn"], value)
            msg["value"] = value


class _FirstRow(poutine.messenger.Messenger):
    """Sets the first row of each latent site to its value in the first run."""

    def __init__(self, structure: Structure) -> None:
        super().__init__()
        self.nodes = structure.plain.nodes
        self.nesting = structure.max_plate_nesting

    def _pyro_post_sample(self, msg: Site) -> None:
        if not is_latent(msg) or msg["name"] not in self.nodes:
            return
        value = msg["value"]
        dim = -1 - self.nesting - msg["fn"].event_dim
        first = self.nodes[msg["name"]]["value"].reshape(value.narrow(dim, 0, 1).shape)
        msg["value"] = torch.cat([first, value.narrow(dim, 1, value.shape[dim] - 1)], dim)


def are_close(value: Tensor, expected: Tensor) -> bool:
    """Tell whether two ways of running a model give the same values."""
    return value.shape == expected.shape and torch.allclose(value, expected, **_CLOSE)


def _check_shape(name: str, fn: Any, value: Tensor) -> None:
    """
    Refuse a distribution whose shape differs from the first run; enumerated dimensions are further
    left and ignored.
    """
    shape = tuple(fn.shape())
    pairs = zip(reversed(shape), reversed(value.shape), strict=False)
    if any(size not in (1, wanted) for size, wanted in pairs):
        raise ChangingShapeError(
            f"model: the shape of its site {name!r} must not depend on the values of others, got "
            f"{shape} where it was {tuple(value.shape)}"
        )


def keep_dims(term: Tensor, dims: tuple[int, ...], sizes: tuple[int, ...]) -> Tensor:
    """
    Sum a term over all dimensions but ``dims``, along which it has (or is spread to) ``sizes``.
    """
    shape = [1] * max(0, -min(dims, default=0) - term.ndim) + list(term.shape)
    for dim, size in zip(dims, sizes, strict=True):
        shape[dim] = size
    others = [dim for dim in range(-len(shape), 0) if dim not in dims]
    term = term.expand(shape)
    return term.sum(others) if others else term
