"""The evidence of a model from draws of its posterior that the user already has."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_tkam._checks import whole_number
from pyro_tkam._threads import in_turn
from pyro_tkam.infer.diagnosis import chains_verdict, score_verdict
from pyro_tkam.infer.evidence.cross_bridge import cross_fitted_evidence
from pyro_tkam.infer.evidence.prior_sensitivity import prior_verdict
from pyro_tkam.infer.model.arguments import keywords
from pyro_tkam.infer.model.density import ModelDensity
from pyro_tkam.infer.model.layouts import one_turn
from pyro_tkam.infer.model.requirements import check_model, data_seen
from pyro_tkam.infer.model.sites import is_latent
from pyro_tkam.infer.model.values import positions_of_values
from pyro_tkam.infer.results import Evidence, Finding, Verdict
from pyro_tkam.infer.tempering.estimates import log_joint
from pyro_tkam.ops._arguments import dense
from pyro_tkam.ops.estimators import mean_standard_error

MOST_LOST = 0.1
"""Share of the draws of zero density above which they are of something else."""

LOST_LIMIT = 0.01
SCORED_DRAWS = 1000
FEWEST_PROPOSALS = 100
MODES_NOTE = "bridge sampling counts only the modes that the draws have found"


@in_turn
def bridge_evidence(
    model: Callable[..., Any],
    *args: Any,
    draws: Any,
    model_kwargs: Mapping[str, Any] | None = None,
    num_proposals: int | None = None,
) -> Evidence:
    """
    Estimate ``log p(x)`` of a Pyro model from draws of its posterior, by bridge sampling.

    A normal distribution is fitted to one half of the chains in unconstrained coordinates and
    bridged with the other half (Meng and Wong 1996, Eq. 4.1), and vice versa; see
    :func:`~pyro_tkam.ops.estimators.cross_bridge`. In ``d`` coordinates each half needs ``d² / 8``
    effective draws. If importance sampling from these normals is reliable and disagrees, its
    estimate is returned instead. Draws on the boundary of their support, such as a ``Beta`` that
    was rounded to 1, are dropped and counted; deterministic and summed-out sites are ignored.
    Angles are cut opposite to where most draws lie.

    :param model: the Pyro model that was sampled, called on ``args``.
    :param draws: a run :class:`VectorizedMCMC`, :class:`SMC` or ``pyro.infer.MCMC``; samples
        ``(chain, draw, *site shape)`` by site; ArviZ data (0.2x or 1.x); or the path of a netCDF
        file of them.
    :param model_kwargs: the model's keyword arguments.
    :param num_proposals: draws of each normal; by default as many as there are draws in a half,
        and at least 4096.
    :return: value and standard error in nats, with a verdict: on the halves' agreement, the
        bridge's overlap, the number of draws, R-hat, whether the draws are of this posterior, and
        how much the evidence depends on the prior.
    :raises TypeError: if the draws are of another type.
    :raises ValueError: if the model has no evidence, a site is missing or of another shape, there
        are too few draws, or a tenth of them have zero density.

    >>> import pyro, torch, pyro.distributions as dist
    >>> def model(x):
    ...     z = pyro.sample("z", dist.Normal(0.0, 1.0))
    ...     pyro.sample("x", dist.Normal(z, 1.0), obs=x)
    >>> pyro.set_rng_seed(0)
    >>> samples = {"z": 0.25 + 0.5**0.5 * torch.randn(4, 250)}  # exact draws
    >>> evidence = bridge_evidence(model, torch.tensor(0.5), draws=samples)
    >>> round(evidence.value, 2)  # exactly log N(0.5; 0, sqrt(2)) = -1.328
    -1.33
    """
    if num_proposals is not None:
        whole_number("num_proposals", num_proposals, FEWEST_PROPOSALS)
    checked = check_model(model, args, keywords(model_kwargs))
    nodes = checked.first.plain.nodes
    samples = _by_site(samples_of(draws), [name for name in nodes if is_latent(nodes[name])])
    turns = one_turn(nodes, _flat(samples))
    density = ModelDensity(model, checked.args, checked.kwargs, transforms=turns)
    positions = positions_of_draws(density, samples)
    positions, log_density, lost = _without_lost(density, positions)
    both = cross_fitted_evidence(
        density, positions, log_density=log_density, num_proposals=num_proposals
    )
    both = replace(both, bridge=_with_lost(both.bridge, lost))
    names = _coordinate_names(density)
    some, gradient, log_prior = _scored(density, positions)
    verdict = (
        _lost_verdict(lost)
        + chains_verdict(positions, names)
        + score_verdict(some, gradient, names)
        + prior_verdict(density, some.flatten(0, 1), log_prior, names)
        + Verdict(notes=(MODES_NOTE,))
    )
    result = both.preferred
    return replace(result, verdict=result.verdict + verdict, data=data_seen(model, checked))


def samples_of(draws: Any) -> dict[str, Tensor]:
    """
    Return samples ``(chain, draw, *site shape)`` by site, of whatever holds some.

    :param draws: see :func:`bridge_evidence`.
    :raises TypeError: if it holds none.
    :raises ValueError: if a sampler hasn't run, or samples have no dimensions of chain and draw,
        or not all the same ones.
    """
    if isinstance(draws, str | PathLike):
        from pyro_tkam._arviz import check_netcdf, load

        check_netcdf("draws", draws)
        draws = load(draws)
    if isinstance(draws, Mapping) and not hasattr(draws, "groups"):
        samples = {name: _array(name, value) for name, value in draws.items()}
    elif hasattr(draws, "get_samples"):
        if not getattr(draws, "_samples", True):
            raise ValueError("draws must come from a sampler that has run, got one that has not")
        samples = draws.get_samples(group_by_chain=True)
    else:
        samples = _arviz_samples(draws)
    leads = {tuple(value.shape[:2]) for value in samples.values()}
    if len(leads) != 1 or len(next(iter(leads))) < 2:
        raise ValueError(
            "draws must have the shape (chain, draw, *site shape) at every site, as "
            "get_samples(group_by_chain=True) gives, got "
            f"{ {name: tuple(value.shape) for name, value in samples.items()} }"
        )
    (lead,) = leads
    if 0 in lead:
        raise ValueError(f"draws must hold at least one chain and one draw, got {lead}")
    return samples


def _array(name: Any, value: Any) -> Tensor:
    """Return the draws of one site as a tensor; arrays of other libraries are converted."""
    if not isinstance(value, Tensor) and hasattr(value, "__array__"):
        value = np.asarray(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        value = torch.as_tensor(value)
    dense(f"draws[{name!r}]", value)
    if value.is_complex():
        raise TypeError(f"draws[{name!r}] must hold real numbers, got {value.dtype}")
    return torch.as_tensor(value)


def _arviz_samples(draws: Any) -> dict[str, Tensor]:
    from pyro_tkam._arviz import posterior  # slow to import: only here

    arrays = posterior(draws)
    if arrays is None:
        raise TypeError(
            "draws must be a VectorizedMCMC, SMC or pyro.infer.MCMC that has run, samples by site, "
            f"ArviZ data with a posterior or the path of such a file, got {type(draws).__name__}"
        )
    return {name: torch.as_tensor(value) for name, value in arrays.items()}


def positions_of_draws(density: ModelDensity, draws: Any) -> Tensor:
    """
    Return draws in the coordinates of a density, ``(chain, draw, *local, dim)``; NaN where they
    have none.

    Sites are also found under the names that they have in ArviZ data.

    :param density: of the model that was sampled.
    :param draws: see :func:`bridge_evidence`.
    :raises TypeError, ValueError: as :func:`samples_of` does, or if a site is missing or has
        another shape.
    """
    samples = _by_site(samples_of(draws), density.layout.sites)
    lead = next(iter(samples.values())).shape[:2]
    return positions_of_values(density.terms, _flat(samples)).unflatten(0, lead)


def _by_site(samples: dict[str, Tensor], names: Collection[str]) -> dict[str, Tensor]:
    """Give sites the names that the model has for them, where ArviZ has others."""
    if samples.keys() >= set(names):
        return samples
    from pyro_tkam._arviz import variable_name  # slow to import: only here

    renamed = {variable_name(name): name for name in names}
    return {renamed.get(name, name): value for name, value in samples.items()}


def _flat(samples: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Samples of all chains, ``(draw, *site shape)``."""
    return {name: value.flatten(0, 1) for name, value in samples.items()}


def _without_lost(density: ModelDensity, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """
    Drop the draws that have no coordinates or no density, and as many others that chains stay
    equally long.

    :return: positions, their log density, and which were dropped, ``(chain, draw, *local)``.
    """
    lead = positions.shape[:2]
    finite = positions.isfinite().all(-1, keepdim=True)
    some = positions.flatten(0, 1).nan_to_num(0.0).sum(0) / finite.flatten(0, 1).sum(0).clamp(min=1)
    known = torch.where(finite, positions, some)
    at_draws = log_joint(density, recorded=False)(known.flatten(0, 1)).unflatten(0, lead)
    if (at_draws == torch.inf).any():
        raise ValueError("model must have a bounded density, got +inf at a draw")
    lost = ~(finite.squeeze(-1) & at_draws.isfinite())
    share = lost.double().mean((0, 1)).max().item()
    if share > MOST_LOST:
        raise ValueError(
            f"draws must have a density, got {100 * share:.3g} % on the boundary of the "
            "support or with zero density: do they belong to another model or other data?"
        )
    first = lost.to(torch.uint8).argsort(dim=1, stable=True)
    fewest = int((~lost).sum(1).min())
    order = first[:, :fewest]
    spread = order.unsqueeze(-1).expand(*order.shape, positions.shape[-1])
    return known.gather(1, spread), at_draws.gather(1, order), lost


def _with_lost(evidence: Evidence, lost: Tensor) -> Evidence:
    """The evidence of what was kept is too small by the share that was not."""
    if not lost.any():
        return evidence
    kept = 1 - lost.double().mean((0, 1))
    error = mean_standard_error(lost.double()) / kept
    result = replace(
        evidence,
        value=evidence.value - kept.log().sum().item(),
        standard_error=math.hypot(evidence.standard_error, *error.flatten().tolist()),
    )
    if evidence.per_datum is None or evidence.per_datum_standard_error is None:
        return result
    return replace(
        result,
        per_datum=evidence.per_datum - kept.log(),
        per_datum_standard_error=torch.hypot(evidence.per_datum_standard_error, error),
    )


def _lost_verdict(lost: Tensor) -> Verdict:
    count = int(lost.sum())
    share = lost.double().mean((0, 1)).max().item()
    if not count:
        return Verdict()
    seen = f"{count} of {lost.numel()} draws lie on the boundary of the support and were dropped"
    if share <= LOST_LIMIT:
        return Verdict(notes=(seen,))
    return Verdict((Finding("draws on the boundary", seen, "sample in double precision"),))


def _scored(density: ModelDensity, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """
    Some of the draws ``(chain, draw, *local, dim)``, the log density's gradient there, and the log
    prior ``(chain * draw, *local)``.
    """
    step = max(1, positions.shape[0] * positions.shape[1] // SCORED_DRAWS)
    some = positions[:, ::step]
    point = some.flatten(0, 1).detach().requires_grad_()
    with torch.enable_grad():
        log_prior, log_likelihood = density.log_terms(point)
        log_density = (log_prior + log_likelihood).sum()
        (gradient,) = torch.autograd.grad(log_density, point, materialize_grads=True)
    return some, gradient.unflatten(0, some.shape[:2]), log_prior.detach()


def _coordinate_names(density: ModelDensity) -> list[str]:
    """The site of each coordinate."""
    layout = density.layout
    index = torch.arange(layout.dim).expand(*layout.local_shape, -1)
    names = [""] * layout.dim
    for name, coordinates in layout.unflatten(index).items():
        for each in coordinates.unique().tolist():
            names[each] = name
    return names
