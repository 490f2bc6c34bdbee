"""Conversion of results to ArviZ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import singledispatch
from typing import Any

import torch
from pyro.infer import MCMC
from torch import Tensor

from pyro_tkam._arviz import Container, from_groups
from pyro_tkam._checks import instance
from pyro_tkam._threads import in_turn
from pyro_tkam.diagnostics.sites import ModelSites
from pyro_tkam.infer.evidence.importance import WeightedDraws
from pyro_tkam.infer.mcmc.smc import SMC
from pyro_tkam.infer.mcmc.vectorized import VectorizedMCMC
from pyro_tkam.infer.results import Evidence
from pyro_tkam.infer.tempering.parallel_tempering import ParallelTempering, PowerPosteriors

Group = Mapping[str, Tensor]
Dims = dict[str, Sequence[str]]


@in_turn
def to_arviz(result: Any, *, evidence: Evidence | None = None) -> Container:
    """
    Convert a result to an ArviZ container: ``InferenceData`` under ArviZ 0.2x, ``DataTree`` under
    1.x.

    Groups: ``posterior``, ``sample_stats`` (``lp, acceptance_rate, step_size, diverging, energy,
    reversible``, or ``log_weight``), ``log_likelihood`` of every datum, ``observed_data``, and for
    a tempered run ``tempering`` with dimensions ``(temperature, chain, draw)`` and, if the draws at
    all temperatures were kept, ``prior``. Plates are dimensions. The container can be saved as
    netCDF (:func:`save`, :func:`load`).

    ``arviz.loo`` and ``arviz.compare`` read ``log_likelihood``. Discrete sites that were summed out
    of the model are summed out of it too. If data share such a site, or if a latent site has no
    draws, the group is left out, with a warning.

    :param result: a run :class:`VectorizedMCMC`, :class:`ParallelTempering` or ``pyro.infer.MCMC``
        (any kernel; ``sample_stats`` has only ``diverging``, because Pyro keeps nothing else); a
        run :class:`SMC`, whose runs are chains, all rows of a run weighing the same: ``log_weight``
        is that of the run by its evidence, which ArviZ's own means leave out;
        :class:`PowerPosteriors`; :class:`WeightedDraws`, whose posterior is resampled into one
        chain (all its draws count equally, and ``log_weight`` is the weight with which each was
        chosen); an :class:`Evidence`, with a group ``evidence`` if it is per datum; or a
        :class:`~pyro_tkam.train.RunFolder` (see ``training_to_arviz``).
    :param evidence: kept as attributes ``log_evidence``, ``log_evidence_standard_error``,
        ``log_evidence_method`` and ``log_evidence_verdict``; weighted draws and SMC have their own.
    :raises TypeError: for another result, and for what is no evidence.
    :raises RuntimeError: if a sampler hasn't run.
    :raises ValueError: for an evidence of an evidence.

    >>> import pyro, torch, pyro.distributions as dist
    >>> from pyro_tkam.infer import MALA
    >>> def model(x):
    ...     z = pyro.sample("z", dist.Normal(0.0, 1.0))
    ...     with pyro.plate("data", len(x)):
    ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
    >>> mcmc = VectorizedMCMC(MALA(model), num_samples=100, num_chains=32, disable_progbar=True)
    >>> mcmc.run(torch.zeros(3))
    >>> dict(to_arviz(mcmc)["log_likelihood"]["x"].sizes)
    {'chain': 32, 'draw': 100, 'data': 3}
    """
    if evidence is not None:
        instance("evidence", evidence, Evidence, "an Evidence, as log_evidence returns")
    return _convert(result, evidence=evidence)


@singledispatch
def _convert(result: Any, *, evidence: Evidence | None = None) -> Container:
    # A run folder belongs to a package that imports this one, so it converts itself.
    convert: Callable[..., Container] | None = getattr(result, "__to_arviz__", None)
    if convert is not None:
        return convert(evidence=evidence)
    raise TypeError(
        "result must be a VectorizedMCMC, ParallelTempering, pyro.infer.MCMC, SMC, "
        "PowerPosteriors, WeightedDraws, Evidence "
        f"or RunFolder, got {type(result).__name__}"
    )


@_convert.register
def _vectorized(result: VectorizedMCMC, *, evidence: Evidence | None = None) -> Container:
    local = _in_order(getattr(result._density, "local_plates", {})) if result._samples else []
    return _chains(result, result.sample_stats, local, evidence)


@_convert.register
def _pyro_mcmc(result: MCMC, *, evidence: Evidence | None = None) -> Container:
    diverging = torch.zeros(result.num_chains, result.num_samples, dtype=torch.bool)
    for chain, diagnostics in enumerate(result._diagnostics):
        diverging[chain, (diagnostics or {}).get("divergences", [])] = True
    return _chains(result, {"diverging": diverging}, [], evidence)


@_convert.register
def _smc(result: SMC, *, evidence: Evidence | None = None) -> Container:
    stats = {"log_weight": result.log_weights}  # raises if there is nothing
    local = _in_order(result._density.local_plates)
    return _chains(result, stats, local, evidence or result.log_evidence)


def _chains(
    result: VectorizedMCMC | SMC | MCMC,
    sample_stats: Group,
    local: Sequence[str],
    evidence: Evidence | None,
) -> Container:
    if not result._samples:
        raise RuntimeError("run() must be called first: there are no results yet")
    groups: dict[str, Group] = {
        "posterior": result.get_samples(group_by_chain=True),
        "sample_stats": sample_stats,
    }
    model = getattr(result.kernel, "model", None)
    if model is None:
        return _container(groups, {}, {}, evidence)
    return _with_model(groups, ModelSites.of(model, result._args, result._kwargs), local, evidence)


@_convert.register
def _evidence(result: Evidence, *, evidence: Evidence | None = None) -> Container:
    if evidence is not None:
        raise ValueError("evidence must be None for a result that is itself an Evidence, got one")
    if result.per_datum is None or result.per_datum_standard_error is None:
        return from_groups({}, attrs=_attributes(result))
    groups = {
        "evidence": {
            "log_evidence": result.per_datum,
            "standard_error": result.per_datum_standard_error,
        }
    }
    arrays = {
        name: {key: each.detach().cpu().numpy() for key, each in group.items()}
        for name, group in groups.items()
    }
    dims = (
        ["data"]
        if result.per_datum.ndim == 1
        else [f"data_{i}" for i in range(result.per_datum.ndim)]
    )
    return from_groups(arrays, attrs=_attributes(result), sample_dims={"evidence": dims})


@_convert.register
def _tempering(result: ParallelTempering, *, evidence: Evidence | None = None) -> Container:
    return to_arviz(result._finished(), evidence=evidence)


@_convert.register
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
    local = _in_order(result.density.local_plates)
    return _with_model(groups, sites, local, evidence, {"temperature": result.betas})


@_convert.register
def _weighted(result: WeightedDraws, *, evidence: Evidence | None = None) -> Container:
    proposal = result.proposal
    sites = ModelSites.of(proposal.model, proposal.args, proposal.kwargs)
    groups: dict[str, Group] = {
        "posterior": {name: value[None] for name, value in result.samples.items()},
        "sample_stats": {"log_weight": result.log_weights.gather(0, result.ancestors)[None]},
    }
    return _with_model(
        groups, sites, _plates_at(sites, proposal.structure.local_dims), evidence or result.evidence
    )


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
        groups["log_likelihood"] = {
            name: each.unflatten(0, lead) for name, each in log_likelihood.items()
        }
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
    errors = evidence.per_datum_standard_error.flatten().tolist()
    return attributes | {
        "log_evidence_per_datum": evidence.per_datum.flatten().tolist(),
        "log_evidence_per_datum_standard_error": errors,
    }


def _in_order(plates: Mapping[str, tuple[int, int]]) -> list[str]:
    """Names of plates in the order of their dimensions, as statistics have them."""
    return sorted(plates, key=lambda name: plates[name][0])


def _plates_at(sites: ModelSites, dims: tuple[int, ...]) -> list[str]:
    frames = next(iter(sites.sites.values()))["cond_indep_stack"]
    return [frame.name for dim in dims for frame in frames if frame.vectorized and frame.dim == dim]
