"""How the sites of a model lie in its plates, and which of these hold independent data."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NoReturn

import torch
from pyro import poutine
from torch import nn

from pyro_tkam.infer.model.draws import PlateStructure, plate_scale
from pyro_tkam.infer.model.plates import (
    common_plates,
    independent_plates,
    shares_a_prior,
    trial_terms,
)
from pyro_tkam.infer.model.sites import batch_nesting, is_latent, plate_nesting, sample_sites
from pyro_tkam.infer.model.trials import FULL, Effort


def plate_structure(
    model: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    trace: poutine.Trace | None = None,
    effort: Effort = FULL,
) -> PlateStructure:
    """
    Run a model to find its local plates.

    :param model: a Pyro model.
    :param args: its arguments.
    :param kwargs: its keyword arguments.
    :param trace: a run of it on these, if there is one.
    :param effort: how many trials look for coupled data.
    :raises ValueError: for a model without latent or without observed sites, and for one that
        couples its data by batch normalization or in a mini-batch.
    """
    if trace is None:
        with torch.no_grad(), poutine.block():
            trace = poutine.trace(model).get_trace(*args, **kwargs)
    sites = [site for _, site in sample_sites(trace)]
    latent = [site for site in sites if is_latent(site)]
    for kind, some in (("latent", latent), ("observed", len(sites) > len(latent))):
        if not some:
            raise ValueError(f"model must have latent and observed sites, got no {kind} site")
    nesting = max(plate_nesting(trace), *map(batch_nesting, sites))
    plates = common_plates(trace)
    terms = trial_terms(model, args, kwargs, trace, nesting)
    local = independent_plates(terms, plates, effort=effort)
    coupled = tuple(name for name in plates if name not in local)
    local_dims = tuple(sorted(dim for dim, _ in local.values()))
    coupled_dims = tuple(plates[name][0] for name in coupled)
    if coupled and (_batch_norms(model) or plate_scale(latent[0], coupled_dims) != 1):
        refuse_coupled(model, coupled)
    exchangeable = all(shares_a_prior(site, local_dims) for site in latent)
    return PlateStructure(local_dims, -1 - nesting, exchangeable, local, coupled, trace)


def refuse_coupled(model: Any, names: Sequence[str]) -> NoReturn:
    """Raise for plates that couple their data; name batch normalization, if it does."""
    norms = _batch_norms(model)
    cause = (
        f"by batch normalization in {norms[0]!r}; call eval() or pass batch_norm=False"
        if norms
        else "so that no datum has its own evidence or chains"
    )
    raise ValueError(
        f"model must have independent data in its plates, got {list(names)}, which couples its "
        f"data, {cause}"
    )


def _batch_norms(model: Any) -> list[str]:
    """Return the names of a model's parts that normalize over the batch."""
    parts = model.named_modules() if isinstance(model, nn.Module) else ()
    kinds = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm
    return [name for name, part in parts if isinstance(part, kinds) and part.training]


def with_guide(
    structure: PlateStructure, guide: Any, /, *args: Any, **kwargs: Any
) -> PlateStructure:
    """
    Return the structure of a model with a guide; no plates are local if a site of the guide is
    outside them.

    Torch's generator stays where it is.

    :param structure: what :func:`plate_structure` found for the model.
    :param guide: a Pyro guide, or None; ``args`` and ``kwargs`` are passed to it.
    """
    if guide is None or not structure.local_dims:
        return structure
    with torch.random.fork_rng(devices=[]), torch.no_grad(), poutine.block():
        trace = poutine.trace(guide).get_trace(*args, **kwargs)
    local = set(structure.local_dims)
    frames = [
        {f.dim for f in site["cond_indep_stack"] if f.vectorized} for _, site in sample_sites(trace)
    ]
    if all(local <= each for each in frames):
        return structure
    return replace(structure, local_dims=(), plates={})
