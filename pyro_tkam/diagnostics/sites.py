"""
What ArviZ needs from a model's sites: plates as dimensions, data, and log likelihoods of the data.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import config_enumerate
from pyro.infer.autoguide.initialization import InitMessenger, init_to_uniform
from torch import Tensor

from pyro_tkam.diagnostics.summed_out import SharedSiteError, summed_out
from pyro_tkam.infer.model.batching import at_all_rows
from pyro_tkam.infer.model.sites import Model, Site, is_prior, sample_sites


@dataclass(frozen=True)
class ModelSites:
    """The sites of a model, from one run of it.

    :param model: a Pyro model.
    :param args: its arguments.
    :param kwargs: its keyword arguments.
    :param sites: all sites that have a density, by name.
    """

    model: Model
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    sites: Mapping[str, Site]

    @staticmethod
    def of(model: Model, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> ModelSites:
        """
        Run the model once with its discrete sites sampled, not enumerated, so that shapes match the
        data.
        """
        with torch.no_grad(), poutine.block():
            trace = poutine.trace(InitMessenger(_start)(model)).get_trace(*args, **kwargs)
        return ModelSites(model, args, kwargs, dict(sample_sites(trace)))

    @property
    def observed(self) -> dict[str, Site]:
        """The likelihood's sites."""
        return {name: site for name, site in self.sites.items() if not is_prior(site)}

    def data(self) -> dict[str, Tensor]:
        """Values of observed sites, one per datum; factors have none."""
        values = {name: torch.as_tensor(site["value"]) for name, site in self.observed.items()}
        return {
            name: value.expand(
                _batch_shape(self.observed[name]) + _event_shape(self.observed[name])
            )
            for name, value in values.items()
            if value.numel() > 0
        }

    def plate_sizes(self) -> dict[str, int]:
        """Size of every vectorized plate; a plate without a size has the size of its data."""
        sizes: dict[str, int] = {}
        for site in self.sites.values():
            shape = _batch_shape(site)
            for frame in site["cond_indep_stack"]:
                if frame.vectorized:
                    own = shape[frame.dim] if len(shape) >= -frame.dim else 1
                    size = own if frame.size < 0 else frame.size
                    sizes[frame.name] = max(size, sizes.get(frame.name, 1))
        return sizes

    def batch_dims(self, name: str) -> list[str]:
        """Names of a site's batch dimensions: its plates, if it has any."""
        site = self.sites[name]
        sizes = self.plate_sizes()
        shape = _batch_shape(site)
        plates = {frame.dim: frame.name for frame in site["cond_indep_stack"] if frame.vectorized}
        names = []
        for i, size in enumerate(shape):
            plate = plates.get(i - len(shape))
            names.append(plate if plate and size == sizes[plate] else f"{name}_dim_{i}")
        return names

    def dims(self, name: str) -> list[str]:
        """Names of all dimensions of a site's value."""
        batch = self.batch_dims(name)
        event = range(len(batch), len(batch) + self.sites[name]["fn"].event_dim)
        return batch + [f"{name}_dim_{i}" for i in event]

    def log_likelihood(self, draws: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Log likelihood of every datum at every draw, each ``(draw, *batch shape)``, unscaled.

        Discrete sites without draws are summed out.

        :param draws: values of the latent sites, each ``(draw, *site shape)``.
        :return: nothing, with a warning, if other latent sites have no draws, or if data share a
            site that is summed out.
        """
        latent = {name: site for name, site in self.sites.items() if not site["is_observed"]}
        missing = [name for name in latent if name not in draws]
        if lost := [name for name in missing if not latent[name]["fn"].has_enumerate_support]:
            return _left_out(f"the sites {lost} have no draws")
        values = {name: draws[name] for name in latent if name in draws}
        one, all_at_once = (self._summed_out, self._plated) if missing else (self._one, None)
        try:
            with torch.no_grad(), pyro.validation_enabled(False):
                return at_all_rows(one, values, all_at_once)
        except SharedSiteError as error:
            return _left_out(str(error))

    def _one(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        with poutine.block():
            trace = poutine.trace(poutine.condition(self.model, data=values)).get_trace(
                *self.args, **self.kwargs
            )
        return {name: _log_prob(trace.nodes[name]) for name in self.observed}

    @property
    def _nesting(self) -> int:
        frames = [
            frame
            for site in self.sites.values()
            for frame in site["cond_indep_stack"]
            if frame.vectorized
        ]
        return max((-frame.dim for frame in frames), default=0)

    def _plated(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Sum out at all draws at once, which are an outer plate."""
        spread = {}
        for name, value in values.items():
            missing = self._nesting - len(_batch_shape(self.sites[name]))
            spread[name] = value.reshape(len(value), *(1,) * missing, *value.shape[1:])
        return self._summed_out(spread, (len(next(iter(values.values()))),))

    def _summed_out(
        self, values: dict[str, Tensor], rows: tuple[int, ...] = ()
    ) -> dict[str, Tensor]:
        """Sum the discrete sites out, under an outer plate if a number of rows is given."""
        nesting = self._nesting + len(rows)
        model = config_enumerate(poutine.condition(self.model, data=values))
        if rows:
            model = pyro.plate("_draws", *rows, dim=-nesting)(model)
        with poutine.block():
            enumerated = poutine.enum(model, first_available_dim=-1 - nesting)
            trace = poutine.trace(enumerated).get_trace(*self.args, **self.kwargs)
        terms = {name: _log_prob(trace.nodes[name]) for name in self.sites}
        summed_out(trace, terms, self.observed, nesting)
        return {
            name: terms[name].reshape((*rows, *_batch_shape(site)))
            for name, site in self.observed.items()
        }


def _batch_shape(site: Site) -> torch.Size:
    """Return the shape of a site's log density: a value may repeat along it, or spread it."""
    batch = torch.as_tensor(site["value"]).shape
    return torch.broadcast_shapes(
        site["fn"].batch_shape, batch[: len(batch) - site["fn"].event_dim]
    )


def _event_shape(site: Site) -> torch.Size:
    shape = torch.as_tensor(site["value"]).shape
    return shape[len(shape) - site["fn"].event_dim :]


def _start(site: Site) -> Tensor:
    """Draw what is discrete, and start elsewhere where chains do."""
    value: Tensor = site["fn"].sample() if site["fn"].support.is_discrete else init_to_uniform(site)
    return value


def _left_out(why: str) -> dict[str, Tensor]:
    warnings.warn(
        f"log_likelihood is left out, so loo and compare will not work: {why}", stacklevel=2
    )
    return {}


def _log_prob(site: Site) -> Tensor:
    log_prob = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
    mask = site["mask"]
    log_prob = (
        log_prob
        if mask is None
        else torch.where(torch.as_tensor(mask, device=log_prob.device), log_prob, 0.0)
    )
    return log_prob.expand(torch.broadcast_shapes(log_prob.shape, site["fn"].batch_shape))
