"""From results to ArviZ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor

from pyro_tkam._arviz import Container, from_groups
from pyro_tkam.diagnostics.sites import ModelSites
from pyro_tkam.infer.evidence import Evidence
from pyro_tkam.infer.importance import WeightedDraws
from pyro_tkam.infer.tempering import ParallelTempering, PowerPosteriors
from pyro_tkam.infer.vectorized import VectorizedMCMC

Group = Mapping[str, Tensor]
Dims = dict[str, Sequence[str]]


@singledispatch
def to_arviz(result: Any, *, evidence: Evidence | None = None) -> Container:
    """Turn a result into an ArviZ container: ``InferenceData`` under ArviZ 0.2x, ``DataTree`` under 1.x.

    Groups: ``posterior``, ``sample_stats`` (``lp, acceptance_rate, step_size, diverging, energy, reversible``, or
    ``log_weight``), ``log_likelihood`` of every datum, ``observed_data``, and of a tempered run ``tempering`` with
    dimensions ``(temperature, chain, draw)`` and, if the draws of all temperatures were kept, ``prior``. Plates are
    dimensions. It survives netCDF (:func:`save`, :func:`load`).

    :param result: a run :class:`VectorizedMCMC` or :class:`ParallelTempering`, :class:`PowerPosteriors`, or
        :class:`WeightedDraws`, whose posterior is resampled into one chain: all its draws count alike, and
        ``log_weight`` is the weight by which each of them was chosen.
    :param evidence: kept as attributes ``log_evidence``, ``log_evidence_standard_error``, ``log_evidence_method``
        and ``log_evidence_verdict``; weighted draws bring their own.
    :raises TypeError: for another result.

    >>> import pyro, torch, pyro.distributions as dist
    >>> from pyro_tkam.infer import MALA
    >>> def model(x):
    ...     z = pyro.sample("z", dist.Normal(0.0, 1.0))
    ...     with pyro.plate("data", len(x)):
    ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
    >>> mcmc = VectorizedMCMC(MALA(model), num_samples=8, num_chains=4, disable_progbar=True)
    >>> mcmc.run(torch.zeros(3))
    >>> dict(to_arviz(mcmc)["log_likelihood"]["x"].sizes)
    {'chain': 4, 'draw': 8, 'data': 3}
    """
    raise TypeError(
        "result must be a VectorizedMCMC, ParallelTempering, PowerPosteriors or WeightedDraws, "
        f"got {type(result).__name__}"
    )


@to_arviz.register
def _mcmc(result: VectorizedMCMC, *, evidence: Evidence | None = None) -> Container:
    groups: dict[str, Group] = {
        "posterior": result.get_samples(group_by_chain=True),
        "sample_stats": result.sample_stats,
    }
    if result.kernel.model is None:
        return _container(groups, {}, {}, evidence)
    sites = ModelSites.of(result.kernel.model, result._args, result._kwargs)
    return _with_model(groups, sites, _local_names(result), evidence)


@to_arviz.register
def _tempering(result: ParallelTempering, *, evidence: Evidence | None = None) -> Container:
    return to_arviz(result._finished(), evidence=evidence)


@to_arviz.register
def _power_posteriors(result: PowerPosteriors, *, evidence: Evidence | None = None) -> Container:
    terms = result.density.terms
    lp = result.log_prior[-1] + result.log_likelihood[-1]
    groups: dict[str, Group] = {
        "posterior": result.samples,
        "sample_stats": {"lp": lp, **result.sample_stats},
        "tempering": {
            "log_likelihood": result.log_likelihood,
            "log_prior": result.log_prior,
            "replica": result.replicas,
        },
    }
    if len(result.positions) > 1:
        groups["prior"] = result.density.constrain(result.positions[0])
    sites = ModelSites.of(terms.model, terms.args, terms.kwargs)
    local = list(result.density.local_plates)
    return _with_model(groups, sites, local, evidence, {"temperature": result.betas})


@to_arviz.register
def _weighted(result: WeightedDraws, *, evidence: Evidence | None = None) -> Container:
    proposal = result.proposal
    sites = ModelSites.of(proposal.model, proposal.args, proposal.kwargs)
    groups: dict[str, Group] = {
        "posterior": {name: value[None] for name, value in result.samples.items()},
        "sample_stats": {"log_weight": result.log_weights.gather(0, result.ancestors)[None]},
    }
    return _with_model(groups, sites, _plates_at(sites, proposal.structure.local_dims), evidence or result.evidence)


def _with_model(
    groups: dict[str, Group],
    sites: ModelSites,
    local: Sequence[str],
    evidence: Evidence | None,
    coords: Mapping[str, Tensor] | None = None,
) -> Container:
    """Add what the model says: log likelihoods, data, and the names of dimensions."""
    draws = {name: value.flatten(0, 1) for name, value in groups["posterior"].items()}
    lead = next(iter(groups["posterior"].values())).shape[:2]
    log_likelihood = sites.log_likelihood(draws)
    if log_likelihood:
        groups["log_likelihood"] = {name: each.unflatten(0, lead) for name, each in log_likelihood.items()}
    if sites.data():
        groups["observed_data"] = sites.data()
    dims: Dims = {name: sites.dims(name) for name in (*groups["posterior"], *sites.data())}
    dims |= {f"log_likelihood/{name}": sites.batch_dims(name) for name in log_likelihood}
    for group in ("sample_stats", "tempering"):
        dims |= {f"{group}/{name}": local for name in groups.get(group, {})}
    plates = {name: torch.arange(size) for name, size in sites.plate_sizes().items()}
    return _container(groups, dims, {**plates, **(coords or {})}, evidence)


def _container(
    groups: Mapping[str, Group], dims: Dims, coords: Mapping[str, Tensor], evidence: Evidence | None
) -> Container:
    arrays = {
        group: {name: value.detach().cpu().numpy() for name, value in variables.items()}
        for group, variables in groups.items()
    }
    return from_groups(
        arrays,
        dims=dims,
        coords={name: value.cpu().numpy() for name, value in coords.items()},
        attrs=_attributes(evidence),
        sample_dims={"tempering": ("temperature", "chain", "draw")},
    )


def _attributes(evidence: Evidence | None) -> dict[str, Any]:
    if evidence is None:
        return {}
    attributes = {
        "log_evidence": evidence.value,
        "log_evidence_standard_error": evidence.standard_error,
        "log_evidence_method": evidence.method,
        "log_evidence_verdict": str(evidence.verdict),
    }
    if evidence.per_datum is None or evidence.per_datum_standard_error is None:
        return attributes
    return attributes | {
        "log_evidence_per_datum": evidence.per_datum.flatten().tolist(),
        "log_evidence_per_datum_standard_error": evidence.per_datum_standard_error.flatten().tolist(),
    }


def _local_names(result: VectorizedMCMC) -> list[str]:
    return list(getattr(result._chains.density, "local_plates", {}))


def _plates_at(sites: ModelSites, dims: tuple[int, ...]) -> list[str]:
    frames = next(iter(sites.sites.values()))["cond_indep_stack"]
    return [frame.name for dim in dims for frame in frames if frame.vectorized and frame.dim == dim]
