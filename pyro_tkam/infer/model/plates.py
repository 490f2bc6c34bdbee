"""
Which data are independent: one decision, that evidences, samplers and objectives share.

A plate is local if every site with a density lies in it and no datum's terms depend on the latents
of another datum. Random bipartitions tell: a random half of the data take their latents from one
draw, the others from another. No term of either half may be other than in the draw it comes from.
Where datum ``i`` depends on datum ``j`` at the values tried, a trial sees it with probability 1/2,
so that 17 of them miss a given pair with probability 1e-5. Since a dependence may show only in a
region, further trials lie several standard deviations away from the prior, and runs look again at
their own draws (:func:`check_draws`). Data that share a prior also share its draws, which may cost
more than the terms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from pyro import poutine
from torch import Tensor, nn

from pyro_tkam.infer.model.attempt import attempt
from pyro_tkam.infer.model.batching import (
    LoopRunner,
    PlateRunner,
    Runner,
    VmapRunner,
    agrees,
    first_prior_draws,
)
from pyro_tkam.infer.model.coordinates import AsDrawn, Layout, SiteLayout, Unconstrained
from pyro_tkam.infer.model.evaluate import ModelTerms
from pyro_tkam.infer.model.layouts import unconstrained
from pyro_tkam.infer.model.sites import Site, Structure, is_improper, is_latent, sample_sites
from pyro_tkam.infer.model.trials import FULL, Effort, Trials, draws_needed, mix

Plates = dict[str, tuple[int, int]]
"""Dimension (negative) and size of plates by name."""

CHECKED_DRAWS = 40
"""Draws of a run at which it looks again."""
BATCH_ELEMENTS = 2**17
"""Most numbers, of all sites' values, that are evaluated in one batch."""
ROUNDING = 100
"""Smallest change of a term that counts, in units of its precision."""


class CoupledDataError(ValueError):
    """A plate whose data were taken as independent couples them.

    :param names: of such plates.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(
            f"model: its plates {list(names)} couple their data, which showed only at draws of "
            "this run; pass batch_plates=() to the kernel to sample all data jointly"
        )
        self.names = list(names)


def common_plates(trace: poutine.Trace) -> Plates:
    """Return the vectorized plates that hold every site with a density."""
    stacks = [site["cond_indep_stack"] for _, site in sample_sites(trace)]
    found = [
        {frame.name: (frame.dim, frame.size) for frame in stack if frame.vectorized}
        for stack in stacks
    ]
    common = set.intersection(*[set(each) for each in found]) if found else set()
    return {name: plate for name, plate in found[0].items() if name in common} if found else {}


def trial_terms(
    model: Any, args: tuple[Any, ...], kwargs: dict[str, Any], plain: poutine.Trace, nesting: int
) -> ModelTerms:
    """
    Return a model with all its latent sites, discrete ones among them, as coordinates to try.

    :param model: a Pyro model.
    :param args: its arguments.
    :param kwargs: its keyword arguments.
    :param plain: a run of it without enumeration.
    :param nesting: number of plate dimensions.
    """
    latent = [name for name, site in sample_sites(plain) if is_latent(site)]
    sites = {name: _trial_site(name, plain.nodes[name]) for name in latent}
    structure = Structure(plain, plain, nesting, tuple(latent), ())
    return ModelTerms(model, args, kwargs, structure, Layout(sites, (), ()))


def _trial_site(name: str, site: Site) -> SiteLayout:
    if not site["fn"].support.is_discrete:
        return unconstrained(name, site, Unconstrained())
    value = site["value"]
    return SiteLayout(tuple(value.shape), site["fn"].event_dim, AsDrawn(value.dtype))


def independent_plates(
    terms: ModelTerms,
    plates: Plates,
    runner: type[Runner] | None = None,
    effort: Effort = FULL,
) -> Plates:
    """Return those of some plates whose data no trial shows to depend on each other.

    Neither torch's generator nor buffers of the model, such as running means, are moved.

    :param terms: what :func:`trial_terms` returned.
    :param plates: that hold every site.
    :param runner: how to run the model at many positions; found here if None.
    :param effort: how many trials there are.
    """
    several = {name: plate for name, plate in plates.items() if plate[1] > 1}
    if not several:
        return plates
    with torch.random.fork_rng(devices=[]), torch.no_grad(), _buffers_kept(terms.model):
        run = _trial_runner(terms) if runner is None else runner(terms)
        shared = _sharing_plate(terms, several)
        drawn = _draws(run, draws_needed(shared, effort))
        trials = Trials(terms.layout, drawn, shared, effort)
        coupled = [name for name in several if _couples(run, trials, *several[name])]
    return {name: plate for name, plate in plates.items() if name not in coupled}


def _trial_runner(terms: ModelTerms) -> Runner:
    """Return a plate, ``vmap``, or a loop where these give other terms."""
    position = terms.positions_to_compare()
    expected = terms.first_terms(position[0])
    ways = (PlateRunner(terms), VmapRunner(terms))
    return next((way for way in ways if agrees(way, position, expected)), LoopRunner(terms))


def _couples(runner: Runner, trials: Trials, dim: int, size: int) -> bool:
    """
    Tell whether a plate's data depend on each other at some positions, or can't be evaluated there.
    """
    num = trials.effort.drawn
    rows = torch.arange(len(trials))
    for few in (*_parts(runner, rows[:num]), *_parts(runner, rows[num:])):
        position = trials.at(few)
        found = _couples_at(runner, position, dim, size)
        if found is None and few[0] >= num:  # far from the prior a model may break
            continue
        if found is None or found:
            return True
    return False


def _couples_at(runner: Runner, position: Tensor, dim: int, size: int) -> bool | None:
    """
    Tell whether mixing each position with the next one changes a term; None if a model can't be
    evaluated at the positions themselves.
    """
    run = partial(_terms, runner, seed=torch.get_rng_state())
    other = position.roll(-1, 0)
    half = (torch.rand(len(position), size) < 0.5).to(position.device)
    one = attempt(partial(run, position))
    if one is None:
        return None
    # Each in the same row as in the mixture: rows have random numbers and rounding of their own.
    two = attempt(partial(run, other))
    mixed = attempt(partial(run, mix(runner.terms.layout, position, other, half, dim)))
    if two is None or mixed is None:
        return True
    return any(
        _changes(one[name], term, half, dim) or _changes(two[name], term, ~half, dim)
        for name, term in mixed.items()
    )


def _parts(runner: Runner, rows: Tensor) -> tuple[Tensor, ...]:
    """Split trials into as many as are run at once, at least two, of which each meets the next."""
    return rows.tensor_split(max(1, len(rows) // max(2, _rows_at_once(runner))))


def _rows_at_once(runner: Runner) -> int:
    """Return at how many positions a model is run at once."""
    elements = sum(site["value"].numel() for _, site in runner.terms.structure.sites())
    return max(1, BATCH_ELEMENTS // max(1, elements))


def _draws(runner: Runner, num: int) -> Tensor:
    """Return draws of the prior ``(num, dim)``; of a normal, where it has none."""
    nodes = runner.terms.structure.trace.nodes
    normal = torch.randn_like(
        runner.terms.coordinates(runner.terms.structure.trace).expand(num, -1)
    )
    if any(is_improper(nodes[name]) for name in runner.terms.layout.sites):
        return normal
    parts = normal.split(_rows_at_once(runner))
    return torch.cat([first_prior_draws(runner, each)[1] for each in parts])


def _sharing_plate(terms: ModelTerms, plates: Plates) -> tuple[int, int] | None:
    """Return the dimension and size of the only plate whose data share a prior, None otherwise."""
    if len(plates) != 1:
        return None
    ((dim, size),) = plates.values()
    nodes = terms.structure.trace.nodes
    sites = terms.layout.sites
    whole = all(site.shape[dim - site.event_dim] == size for site in sites.values())
    return (dim, size) if whole and all(shares_a_prior(nodes[n], (dim,)) for n in sites) else None


def shares_a_prior(site: Site, dims: tuple[int, ...]) -> bool:
    """Tell whether the first datum's draw has the same density under all data's distributions."""
    value: Tensor = site["value"]
    for dim in dims:
        value = value.narrow(dim - site["fn"].event_dim, 0, 1)
    try:
        return same_along(site["fn"].log_prob(value), dims)
    except ValueError:  # it is outside the support of another
        return False


def same_along(log_prob: Tensor, dims: tuple[int, ...]) -> bool:
    """
    Tell whether draws that all data share have the same log density under every datum's
    distribution.
    """
    first = log_prob
    for dim in dims:
        first = first.narrow(dim, 0, 1)
    return bool((log_prob == first).all())


def _terms(runner: Runner, position: Tensor, seed: Tensor) -> dict[str, Tensor]:
    """Return each site's terms ``(trial, *batch)``, evaluated with the same random numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(seed)
        return runner.site_terms(position)


def _changes(before: Tensor, after: Tensor, kept: Tensor, dim: int) -> bool:
    """Tell whether the terms ``(trial, *batch)`` of a datum that was kept have changed."""
    precision = ROUNDING * torch.finfo(before.dtype).eps
    changed = ~torch.isclose(before, after, rtol=precision, atol=precision, equal_nan=True)
    shape = [len(kept)] + [1] * (changed.ndim - 1)
    shape[dim] = kept.shape[1]
    return bool((changed & kept.reshape(shape)).any())


def check_draws(
    log_density: Callable[[Any], Tensor],
    base: Any,
    mix: Callable[[Tensor, int], Any],
    plates: Plates,
) -> None:
    """Look again, at draws that a run has made, whether the data of local plates are independent.

    :param log_density: from draws to ``(rows, *local)``.
    :param base: some draws.
    :param mix: given which data of each row to keep, ``(rows, datum)``, and the dimension of their
        plate, returns the base with other draws of the other data.
    :param plates: the local plates.
    :raises CoupledDataError: if they are not; it names the plates.
    """
    names = sorted(plates, key=lambda name: plates[name][0])
    with torch.random.fork_rng(devices=[]):
        before = log_density(base)
        coupled = []
        for axis, name in enumerate(names, 1):
            dim, size = plates[name]
            kept = torch.rand(len(before), size, device=before.device) < 0.5
            if _changes(before, log_density(mix(kept, dim)), kept, axis):
                coupled.append(name)
    if coupled:
        raise CoupledDataError(coupled)


@contextmanager
def _buffers_kept(model: Any) -> Iterator[None]:
    """Leave the buffers of a module as they are, such as running means."""
    buffers = list(model.buffers()) if isinstance(model, nn.Module) else []
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(buffers, before, strict=True):
                if not torch.equal(buffer, value):  # graphs that wait for backward hold it
                    buffer.copy_(value)
