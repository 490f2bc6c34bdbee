"""
Which data are independent: one decision, that evidences, samplers and objectives share.

A plate is local if every site with a density lies in it and no datum's terms depend on the latents
of another datum. Random mixtures tell: each datum takes its latents from one of twelve draws,
chosen at random. No term may be other than in the draw that its datum's latents come from. If a
dependence of datum ``i`` on datum ``j`` shows between any two of the draws, a mixture sees it with
probability 11/12, so that twelve of them miss a given pair with probability 1e-13; if one draw
alone shows it, they miss it with probability 0.14. So further trials lie several standard
deviations away from the prior, and runs look again at their own draws (:func:`check_draws`). Where
terms take much memory, fewer draws are mixed at a time. Data that share a prior also share its
draws, which may cost more than the terms. Models that are known to couple their data by their
shapes or not at all are tried little, or not where their shapes cannot couple any
(:func:`treats_each_datum_alone`).
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
from pyro_tkam.infer.model.known import treats_each_datum_alone
from pyro_tkam.infer.model.layouts import unconstrained
from pyro_tkam.infer.model.sites import (
    Plates,
    Site,
    Structure,
    is_improper,
    is_latent,
    same_along,
    sample_sites,
)
from pyro_tkam.infer.model.trials import FULL, KNOWN, Effort, Trials, draws_needed, mix

CHECKED_DRAWS = 40
"""Draws of a run at which it looks again."""
BATCH_ELEMENTS = 2**18
"""Most numbers, of all sites' values, that are evaluated in one batch."""
MIXED_ELEMENTS = 2**25
"""Most such numbers of positions that are mixed, if these are more than three."""
ROUNDING = 100
"""Smallest change of a term that counts, in units of its precision."""


class CoupledDataError(ValueError):
    """A plate whose data were taken as independent couples them.

    :param names: of such plates.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(
            f"model: its plates {list(names)} couple their data, which showed only during this "
            "run; pass batch_plates=() to the kernel to sample all data jointly"
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

    Models of this package, whose modules treat each datum alone, are tried at few draws.
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
        if treats_each_datum_alone(terms.model) and _has_events(terms):
            if effort != FULL or _shapes_keep_apart(terms, several):
                return plates
            if not _known_couples(terms, several):
                return plates
        run = _trial_runner(terms) if runner is None else runner(terms)
        shared = _sharing_plate(terms, several)
        drawn = _draws(run, draws_needed(shared, effort))
        coupled = _coupled(run, Trials(terms.layout, drawn, shared, effort), several)
    return {name: plate for name, plate in plates.items() if name not in coupled}


def _shapes_keep_apart(terms: ModelTerms, plates: Plates) -> bool:
    """
    Tell whether a model whose parts are known says for which dimensions of its latents no shape
    can couple data, and these are its latents'.
    """
    dims = getattr(terms.model, "dims_apart", None)
    sites = terms.layout.sites.values()
    return all(site.event_dim == dims for site in sites) and all(
        len(site["fn"].batch_shape) == len(plates)
        for _, site in sample_sites(terms.structure.trace)
    )


def _known_couples(terms: ModelTerms, plates: Plates) -> bool:
    """Tell whether a model whose parts are known seems to couple data, at a few draws."""
    run = PlateRunner(terms)
    normal = torch.randn_like(terms.coordinates(terms.structure.trace).expand(KNOWN.total, -1))
    return bool(_coupled(run, Trials(terms.layout, normal, None, KNOWN), plates))


def _trial_runner(terms: ModelTerms) -> Runner:
    """Return a plate, ``vmap``, or a loop where these give other terms."""
    position = terms.positions_to_compare()
    expected = terms.first_terms(position[0])
    ways = (PlateRunner(terms), VmapRunner(terms))
    return next((way for way in ways if agrees(way, position, expected)), LoopRunner(terms))


def _coupled(runner: Runner, trials: Trials, plates: Plates) -> set[str]:
    """
    Return the plates whose data depend on each other at some positions, or can't be evaluated
    there.
    """
    found: set[str] = set()
    for rows in trials.groups(max(3, MIXED_ELEMENTS // _num_elements(runner))):
        left = {name: plate for name, plate in plates.items() if name not in found}
        if not left:
            break
        position = trials.at(rows)
        run = partial(_terms, runner, seed=torch.get_rng_state())
        terms = attempt(partial(run, position))
        if terms is not None:
            mixing = (runner, run, position, terms)
            found |= {name for name, plate in left.items() if _couples(*mixing, *plate)}
        elif rows[0] < trials.effort.drawn:  # far from the prior a model may break
            found |= set(left)
    return found


def _couples(
    runner: Runner,
    run: Callable[[Tensor], dict[str, Tensor]],
    position: Tensor,
    terms: dict[str, Tensor],
    dim: int,
    size: int,
) -> bool:
    """Tell whether mixing positions, whose terms are known, changes the terms of a datum."""
    num = len(position)
    chosen = torch.randint(num, (num, size)).to(position.device)
    rows = torch.arange(num, device=position.device)
    for few in rows.split(_rows_at_once(runner)):
        mixture = mix(runner.terms.layout, position, chosen[few], dim)
        mixed = attempt(partial(run, mixture))
        if mixed is None:
            return True
        for turn in range(num):
            own = (few + turn) % num
            kept = chosen[few] == own.unsqueeze(1)
            known = {name: term[own] for name, term in terms.items()}
            if not _any_changes(known, mixed, kept, dim):
                continue
            # Rows have random numbers and rounding of their own: that of the mixture counts.
            again = attempt(partial(run, position[own])) if turn else known
            if again is None or _any_changes(again, mixed, kept, dim):
                return True
    return False


def _num_elements(runner: Runner) -> int:
    """Return how many numbers the values of all sites are."""
    sites = runner.terms.structure.sites()
    return max(1, sum(site["value"].numel() for _, site in sites))


def _rows_at_once(runner: Runner) -> int:
    """Return at how many positions a model is run at once."""
    return max(1, BATCH_ELEMENTS // _num_elements(runner))


def _draws(runner: Runner, num: int) -> Tensor:
    """Return draws of the prior ``(num, dim)``; of a normal, where it has none."""
    nodes = runner.terms.structure.trace.nodes
    normal = torch.randn_like(
        runner.terms.coordinates(runner.terms.structure.trace).expand(num, -1)
    )
    if any(is_improper(nodes[name]) for name in runner.terms.layout.sites):
        return normal
    # Draws end at the last latent site: what is observed takes no memory.
    parts = normal.split(max(1, BATCH_ELEMENTS // max(1, normal.shape[1])))
    return torch.cat([first_prior_draws(runner, each)[1] for each in parts])


def _has_events(terms: ModelTerms) -> bool:
    """Tell whether each datum's latents are vectors: a network could take data for their like."""
    return all(site.event_dim for site in terms.layout.sites.values())


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


def _terms(runner: Runner, position: Tensor, seed: Tensor) -> dict[str, Tensor]:
    """Return each site's terms ``(trial, *batch)``, evaluated with the same random numbers."""
    parts = []
    for few in position.split(_rows_at_once(runner)):
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(seed)
            parts.append(runner.site_terms(few))
    return {name: torch.cat([each[name] for each in parts]) for name in parts[0]}


def _any_changes(
    before: dict[str, Tensor], after: dict[str, Tensor], kept: Tensor, dim: int
) -> bool:
    """Tell whether the terms of any site have changed, for a datum that was kept."""
    return any(_changes(before[name], term, kept, dim) for name, term in after.items())


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
