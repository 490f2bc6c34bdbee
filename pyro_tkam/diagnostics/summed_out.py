"""Log likelihoods of data whose discrete latent sites are summed out."""

from __future__ import annotations

from collections.abc import Collection

from pyro import poutine
from torch import Tensor

from pyro_tkam.infer.model.enumeration import marginal
from pyro_tkam.infer.model.sites import Site


class SharedSiteError(ValueError):
    """
    Raised if data share a summed-out site, so that a datum has no separate log likelihood.
    """


def summed_out(
    trace: poutine.Trace, terms: dict[str, Tensor], observed: Collection[str], nesting: int
) -> None:
    """
    Replace the terms of observed sites by ``log p(x_b|z) = log Σ_k p(x_b, k|z) - log Σ_k p(k|z)``.

    :param trace: an enumerated run of a model.
    :param terms: log density of each site in the run; enumerated dimensions lie left of the plates.
    :param observed: names of the likelihood's sites.
    :param nesting: number of plate dimensions.
    :raises SharedSiteError: if data or several observed sites share a summed-out site.
    """
    discrete = [
        name
        for name, term in terms.items()
        if any(size > 1 for size in term.shape[: term.ndim - nesting])
    ]
    prior = [name for name in discrete if name not in observed]
    dependent = [name for name in discrete if name in observed]
    if len(dependent) > 1:
        raise SharedSiteError(
            f"the observed sites {dependent} share sites that are summed out, {prior}"
        )
    for name in dependent:
        plates = _plates(trace.nodes[name])
        if shared := [
            each for each in prior if not plates.items() <= _plates(trace.nodes[each]).items()
        ]:
            raise SharedSiteError(f"the data of {name!r} share sites that are summed out, {shared}")
        dims = tuple(plates.values())
        terms[name] = marginal(trace, terms, [*prior, name], dims) - marginal(
            trace, terms, prior, dims
        )


def _plates(site: Site) -> dict[str, int]:
    return {frame.name: frame.dim for frame in site["cond_indep_stack"] if frame.vectorized}
