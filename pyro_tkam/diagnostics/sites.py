"""What ArviZ wants to know of a model's sites: plates as dimensions, data, and log likelihoods of the data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer.autoguide.initialization import init_to_uniform
from torch import Tensor

from pyro_tkam.infer.coordinates import Site
from pyro_tkam.infer.structure import Model, initial_trace, is_prior, sample_sites


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
        """Run the model once."""
        with torch.no_grad():
            trace, _ = initial_trace(model, args, dict(kwargs), init_to_uniform, None)
        return ModelSites(model, args, kwargs, dict(sample_sites(trace)))

    @property
    def observed(self) -> dict[str, Site]:
        """The likelihood's sites."""
        return {name: site for name, site in self.sites.items() if not is_prior(site)}

    def data(self) -> dict[str, Tensor]:
        """Values of observed sites; factors have none."""
        return {name: site["value"] for name, site in self.observed.items() if site["value"].numel() > 0}

    def plate_sizes(self) -> dict[str, int]:
        """Size of every vectorised plate."""
        frames = [frame for site in self.sites.values() for frame in site["cond_indep_stack"] if frame.vectorized]
        return {frame.name: frame.size for frame in frames}

    def batch_dims(self, name: str) -> list[str]:
        """Names of a site's batch dimensions: its plates, where it has them."""
        site = self.sites[name]
        plates = {frame.dim: frame.name for frame in site["cond_indep_stack"] if frame.vectorized}
        rank = len(site["fn"].batch_shape)
        return [plates.get(dim, f"{name}_dim_{dim + rank}") for dim in range(-rank, 0)]

    def dims(self, name: str) -> list[str]:
        """Names of all dimensions of a site's value."""
        batch = self.batch_dims(name)
        event = range(len(batch), len(batch) + self.sites[name]["fn"].event_dim)
        return batch + [f"{name}_dim_{i}" for i in event]

    def log_likelihood(self, draws: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Log likelihood of every datum at every draw, each ``(draw, *batch shape)``, unscaled.

        :param draws: values of the latent sites, each ``(draw, *site shape)``.
        :return: nothing, if some latent sites have no draws (as those that are summed out).
        """
        latent = {name for name, site in self.sites.items() if not site["is_observed"]}
        if not latent <= set(draws):
            return {}
        values = {name: draws[name] for name in latent}
        num = len(next(iter(values.values())))
        with torch.no_grad(), pyro.validation_enabled(False):
            batched = _all_at_once(self._one, values)
            if batched is not None:
                return batched
            runs = [self._one({name: value[i] for name, value in values.items()}) for i in range(num)]
        return {name: torch.stack([run[name] for run in runs]) for name in self.observed}

    def _one(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        with poutine.block():
            trace = poutine.trace(poutine.condition(self.model, data=values)).get_trace(*self.args, **self.kwargs)
        return {name: _log_prob(trace.nodes[name]) for name in self.observed}


Run = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def _all_at_once(run: Run, values: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """Run under ``vmap``; None if that fails or gives other values than one run at a time."""
    first = run({name: value[0] for name, value in values.items()})
    # A model may break in any way when it is batched; running it draw by draw takes it.
    try:
        batched = torch.func.vmap(run)(values)
    except Exception:
        return None
    agrees = all(torch.allclose(batched[name][0], first[name], rtol=1e-4, atol=1e-4, equal_nan=True) for name in first)
    return batched if agrees else None


def _log_prob(site: Site) -> Tensor:
    log_prob = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
    mask = site["mask"]
    log_prob = log_prob if mask is None else torch.where(torch.as_tensor(mask, device=log_prob.device), log_prob, 0.0)
    return log_prob.expand(site["fn"].batch_shape)
