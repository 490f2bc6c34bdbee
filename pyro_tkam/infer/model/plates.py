"""
Which data are independent: one decision, that evidences, samplers and objectives share.

A plate is local if every site with a density lies in it and no datum's terms depend on the latents
of another datum. Random bipartitions tell: the latents of a random half of the data are kept, and
those of the others are replaced by other draws; no term of the half may change. Where datum ``i``
depends on datum ``j`` at the values tried, a trial sees it with probability 1/4, so that 40 of them
miss a given pair with probability 1e-5. Since a dependence may show only in a region, further
trials lie several standard deviations away from the prior, and runs look again at their own draws
(:func:`check_draws`). Data that share a prior also share its draws, which may cost more than the
terms: every trial gives each datum two different ones of many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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

Plates = dict[str, tuple[int, int]]
"""Dimension (negative) and size of plates by name."""

NUM_TRIALS = 40
"""Trials at draws of the prior."""
MOVES = (2.0, 4.0, 8.0)
"""Standard deviations of the prior by which further trials move draws."""
NUM_MOVED = 8 * len(MOVES)
SHARED_DRAWS = 1024
"""Least number of a prior's draws that data share."""
BATCH_ELEMENTS = 2**22
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
    terms: ModelTerms, plates: Plates, runner: type[Runner] | None = None
) -> Plates:
    """Return those of some plates whose data no trial shows to depend on each other.

    Neither torch's generator nor buffers of the model, such as running means, are moved.

    :param terms: what :func:`trial_terms` returned.
    :param plates: that hold every site.
    :param runner: how to run the model at many positions; found here if None.
    """
    several = {name: plate for name, plate in plates.items() if plate[1] > 1}
    if not several:
        return plates
    with torch.random.fork_rng(devices=[]), torch.no_grad(), _buffers_kept(terms.model):
        run = _trial_runner(terms) if runner is None else runner(terms)
        base, other = _positions(run, several)
        coupled = [name for name in several if _couples(run, base, other, *several[name])]
    return {name: plate for name, plate in plates.items() if name not in coupled}


def _trial_runner(terms: ModelTerms) -> Runner:
    """Return a plate, ``vmap``, or a loop where these give other terms."""
    position = terms.positions_to_compare()
    expected = terms.first_terms(position[0])
    ways = (PlateRunner(terms), VmapRunner(terms))
    return next((way for way in ways if agrees(way, position, expected)), LoopRunner(terms))


def _couples(runner: Runner, base: Tensor, other: Tensor, dim: int, size: int) -> bool:
    """
    Tell whether a plate's data depend on each other at some positions, or can't be evaluated there.
    """
    kept = torch.rand(len(base), size, device=base.device) < 0.5
    mixed = _mixed(runner.terms.layout, base, other, kept, dim)
    seed = torch.get_rng_state()
    before = attempt(lambda: _terms(runner, base, seed))
    if before is None:  # far from the prior a model may break
        base = base[:NUM_TRIALS]
        mixed = mixed[:NUM_TRIALS]
        kept = kept[:NUM_TRIALS]
        before = attempt(lambda: _terms(runner, base, seed))
    after = attempt(lambda: _terms(runner, mixed, seed))
    if before is None or after is None:
        return True
    return any(_changes(term, after[name], kept, dim) for name, term in before.items())


def _positions(runner: Runner, plates: Plates) -> tuple[Tensor, Tensor]:
    """Return two sets of positions ``(trial, dim)``: draws of the prior, the last ones moved."""
    terms = runner.terms
    nodes = terms.structure.trace.nodes
    first = terms.coordinates(terms.structure.trace)
    num = NUM_TRIALS + NUM_MOVED
    shared = _sharing_plate(terms, plates)
    rows = 2 * num if shared is None else min(2 * num, -(-SHARED_DRAWS // shared[1]) + 1)
    normal = torch.randn_like(first.expand(rows, -1))
    if any(is_improper(nodes[name]) for name in terms.layout.sites):
        drawn = normal
    else:
        _, drawn = first_prior_draws(runner, normal)
    drawn = torch.where(drawn.isfinite(), drawn, 0.0)
    if shared is not None and rows < 2 * num:
        base, other = _shared_out(terms.layout, drawn, *shared, num)
    else:
        base, other = drawn.chunk(2)
    spread = base.std(0) * _moves(terms.layout).to(drawn)
    for each in (base, other):  # in place, as positions of many data are large
        each[NUM_TRIALS:].addcmul_(_shifts(each[NUM_TRIALS:]), spread)
    return base, other


def _sharing_plate(terms: ModelTerms, plates: Plates) -> tuple[int, int] | None:
    """Return the dimension and size of the only plate whose data share a prior, None otherwise."""
    if len(plates) != 1:
        return None
    ((dim, size),) = plates.values()
    nodes = terms.structure.trace.nodes
    sites = terms.layout.sites
    whole = all(site.shape[dim - site.event_dim] == size for site in sites.values())
    return (dim, size) if whole and all(shares_a_prior(nodes[n], (dim,)) for n in sites) else None


def _shared_out(
    layout: Layout, drawn: Tensor, dim: int, size: int, num: int
) -> tuple[Tensor, Tensor]:
    """
    Give each datum, in each of ``num`` trials, two different draws of all data's.

    :param drawn: positions ``(rows, dim)``.
    :return: the first and the second draws, each ``(num, dim)``.
    """
    draws = len(drawn) * size
    one = torch.randint(draws, (num, size), device=drawn.device)
    other = (one + torch.randint(1, draws, one.shape, device=drawn.device)) % draws
    values = layout.unflatten(drawn)

    def given(chosen: Tensor) -> Tensor:
        mixed = {}
        for name, value in values.items():
            axis = dim - layout.sites[name].event_dim
            mixed[name] = value.movedim(axis, 1).flatten(0, 1)[chosen].movedim(1, axis)
        return layout.flatten(mixed, 1)

    return given(one), given(other)


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


def _moves(layout: Layout) -> Tensor:
    """Return 1 for coordinates that may be moved, and 0 for discrete values, ``(dim,)``."""
    kinds = {
        name: torch.full(site.shape, float(not isinstance(site.coordinate, AsDrawn)))
        for name, site in layout.sites.items()
    }
    return layout.flatten(kinds)


def _shifts(moved: Tensor) -> Tensor:
    """Return by how many standard deviations to move: all coordinates alike, or each its own."""
    sizes = moved.new_tensor(MOVES).repeat_interleave(NUM_MOVED // len(MOVES))[:, None]
    direction = torch.randn_like(moved)
    direction[0::4] = 1.0
    direction[1::4] = -1.0
    return direction[torch.randperm(NUM_MOVED)].mul_(sizes)


def _mixed(layout: Layout, base: Tensor, other: Tensor, kept: Tensor, dim: int) -> Tensor:
    """Return positions with the base's latents of the data that are kept, ``(trial, datum)``."""
    one = layout.unflatten(base)
    two = layout.unflatten(other)
    mixed = {}
    for name, site in layout.sites.items():
        shape = [len(kept)] + [1] * len(site.shape)
        shape[dim - site.event_dim] = kept.shape[1]
        mixed[name] = torch.where(kept.reshape(shape), one[name], two[name])
    return layout.flatten(mixed, 1)


def _terms(runner: Runner, position: Tensor, seed: Tensor) -> dict[str, Tensor]:
    """Return each site's terms ``(trial, *batch)``, evaluated with the same random numbers."""
    torch.set_rng_state(seed)
    elements = sum(site["value"].numel() for _, site in runner.terms.structure.sites())
    rows = max(1, BATCH_ELEMENTS // max(1, elements))
    parts = [runner.site_terms(each) for each in position.split(rows)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


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
