"""
What a model, its data and its guide must be: the one check of evidences, samplers and objectives.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.autoguide.initialization import init_to_sample
from torch import Tensor
from torch.distributions import biject_to
from torch.distributions.constraints import Constraint

from pyro_tkam.infer.model.arguments import (
    check_callable,
    described,
    hold_arrays,
    told_of,
    with_tensors,
)
from pyro_tkam.infer.model.sites import (
    FirstRun,
    Model,
    Site,
    check_guided,
    first_run,
    is_improper,
    is_latent,
    is_partly_masked,
    is_prior,
    masks,
    refuse_subsampling,
    sample_sites,
    unwrapped,
)
from pyro_tkam.infer.results import DataSeen
from pyro_tkam.ops._concrete import is_concrete

_GUIDE_TRIALS = 100
"""Prior draws to find in a guide's support: one that lacks 5 % of the prior passes in 0.6 %."""
_LEFT_BY_OBS_MASK = (
    "; obs_mask= leaves values without a prior where data are observed: pass the observed data "
    "only, or mask the missing ones with poutine.mask"
)
_HALF = (torch.float16, torch.bfloat16)
_OF_FLOATS = torch.distributions.Bernoulli.log_prob
"""A density that torch computes of floating-point data only; a mask makes data such."""


@dataclass(frozen=True)
class Checked:
    """A model's arguments after the check, and the run that was checked.

    :param args: arguments, NumPy arrays replaced by tensors where the model needs that.
    :param kwargs: keyword arguments, likewise.
    :param first: a run with these arguments, with latent sites drawn from the prior.
    :param drawn: state of torch's generator after that run.
    :param converted: whether arrays were replaced with tensors.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    first: FirstRun
    drawn: Tensor
    converted: bool = False

    @property
    def trace(self) -> poutine.Trace:
        """That run, in which discrete sites are enumerated."""
        return self.first.trace


def check_data(model: Model, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Checked:
    """Refuse a model that does not run on its arguments, or whose data have a problem.

    Torch's generator stays where it is.

    :raises TypeError: if the model is not callable.
    :raises NotImplementedError: if a plate subsamples.
    :raises ValueError: if the model does not run, draws a ``Delta``, or has a datum that is not
        finite, is outside its distribution's support or is of half precision, no data in a plate,
        or data and a distribution that spread each other. What a mask hides may be anything.
    """
    check_callable(model)
    checked = _run(model, args, dict(kwargs))
    refuse_subsampling(checked.trace)
    sites = list(sample_sites(checked.trace))
    hidden = [(name, site) for name, site in sites if not site["is_observed"]]
    for name, site in hidden:
        if isinstance(unwrapped(site["fn"]), dist.Delta):
            raise ValueError(
                f"model must have Delta sites that are observed, got {name!r} without obs; "
                "use pyro.deterministic for a value that is computed"
            )
    # enumeration broadcasts distributions on purpose
    drawn = dict(sample_sites(checked.first.plain))
    for name, site in sites:
        if not is_prior(site):
            _refuse_data(name, drawn[name])
            _refuse_outside(model, checked, name, site)
    return checked


def check_model(model: Model, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Checked:
    """Refuse a model that has no evidence.

    :raises TypeError: if the model is not callable.
    :raises NotImplementedError: if a plate subsamples.
    :raises ValueError: for what :func:`check_data` refuses, and if the model has no likelihood, no
        data in it, or an improper or scaled prior.
    """
    checked = check_data(model, args, kwargs)
    sites = list(sample_sites(checked.trace))
    hidden = [(name, site) for name, site in sites if not site["is_observed"]]
    _refuse_without_normalizer(hidden)
    observed = [(name, site) for name, site in sites if not is_prior(site)]
    if not observed:
        raise ValueError(
            "model must have an observed site, got none: without data there is no evidence"
        )
    if all(_is_empty(site) for _, site in observed):
        raise ValueError(
            f"model must have data, got observed sites {[name for name, _ in observed]} that are "
            "empty or all masked"
        )
    return checked


def data_seen(model: Model, checked: Checked) -> DataSeen | None:
    """
    Note how many numbers a checked model observes where no mask hides them, and their sums.

    None if it observes none, if they depend on its latents, or if a mask is inside an event.
    """
    sites = _observed(checked)
    if any(_masks_inside(site["fn"]) for site in sites.values()):
        return None
    shown = {name: _shown(site) for name, site in sites.items()}
    again = _observed(_run(model, checked.args, checked.kwargs, again=True))
    if again.keys() != shown.keys() or not all(
        torch.equal(value, _shown(again[name])[0]) for name, (value, _) in shown.items()
    ):
        return None
    numbers = sum(count for _, count in shown.values())
    total, size = (
        sum(call(value).sum(dtype=torch.float64).item() for value, _ in shown.values())
        for call in (torch.clone, torch.abs)
    )
    return DataSeen(numbers, total, size) if numbers else None


def _observed(checked: Checked) -> dict[str, Site]:
    """Return the sites with data; a factor has none."""
    return {
        name: site
        for name, site in sample_sites(checked.first.plain)
        if not is_prior(site) and torch.as_tensor(site["value"]).numel()
    }


def _shown(site: Site) -> tuple[Tensor, int]:
    """Return observed numbers, 0 where a mask hides them, and how many are not hidden."""
    fn = site["fn"]
    value = torch.as_tensor(site["value"]).detach()
    mask = _mask(site).to(value.device)
    batch = torch.broadcast_shapes(fn.batch_shape, mask.shape)
    mask = mask.expand(batch)
    count = int(mask.sum()) * fn.event_shape.numel()
    if bool(mask.all()):
        whole = torch.broadcast_shapes(value.shape, batch + fn.event_shape)
        return value.expand(whole), count
    kept = mask.reshape(mask.shape + (1,) * fn.event_dim)
    return torch.where(kept, value, torch.zeros_like(value)), count


def _masks_inside(fn: Any) -> bool:
    """Tell whether a mask lies inside an event, so that it hides parts of it."""
    while (inside := getattr(fn, "base_dist", None)) is not None:
        masked = getattr(inside, "_mask", None) is not None
        if masked and isinstance(fn, torch.distributions.Independent):
            return True
        fn = inside
    return False


def check_batch(model: Model, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Checked:
    """Refuse what :func:`check_data` refuses, and NumPy arrays: they would be copied each step.

    :raises TypeError: if the model is not callable or cannot take NumPy arrays that it is given.
    """
    checked = check_data(model, args, kwargs)
    if checked.converted:
        raise TypeError(
            "model must be given tensors (use torch.as_tensor), got "
            f"{described(model, args, kwargs)}"
        )
    return checked


def check_guide(guide: Any, model: Model, checked: Checked) -> None:
    """Refuse a guide whose weights would be wrong.

    Torch's generator stays where it is.

    :param guide: a Pyro guide.
    :param model: a Pyro model.
    :param checked: what :func:`check_model` returned for the model.
    :raises TypeError: if the guide is not callable.
    :raises ValueError: if it does not run, lacks a latent site, draws others, or never draws a part
        of the prior in which the model has a density.
    """
    if not callable(guide):
        raise TypeError(f"guide must be callable or None, got {type(guide).__name__}")
    args = checked.args
    kwargs = checked.kwargs
    with torch.random.fork_rng(devices=[]), torch.no_grad(), poutine.block():
        run = poutine.trace(guide).get_trace
        drawn = told_of(lambda: run(*args, **kwargs), "guide", guide, args, kwargs)
        own = {name: site for name, site in sample_sites(drawn) if not site["is_observed"]}
        latent = {n: site for n, site in sample_sites(checked.trace) if not site["is_observed"]}
        check_guided(drawn, checked.trace)
        _refuse_without_density(own, list(latent))
        for name, site in latent.items():
            _refuse_narrow(model, checked, name, site, own[name])


def _run(
    model: Model, args: tuple[Any, ...], kwargs: dict[str, Any], *, again: bool = False
) -> Checked:
    """
    Run a model as it is called; with tensors for NumPy arrays where it cannot take these.

    :param again: draw other values than the first time.
    """

    def run(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Checked:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.rand(int(again))
            found = first_run(model, args, kwargs, _drawn, None)
            return Checked(args, kwargs, found, torch.get_rng_state())

    def told() -> Checked:
        return told_of(lambda: run(args, kwargs), "model", model, args, kwargs)

    def converted() -> Checked:
        given = with_tensors(args)
        named = with_tensors(kwargs)
        checked = told_of(lambda: run(given, named), "model", model, given, named)
        return replace(checked, converted=True)

    if not hold_arrays((args, kwargs)):
        return told()
    try:
        # A trial with arrays; what NumPy says of arithmetic with tensors is void once they are.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            checked = told()
    except ValueError:  # it stays the context of what tensors raise
        return converted()
    values = [site["value"] for _, site in sample_sites(checked.trace)]
    return checked if all(isinstance(value, Tensor) for value in values) else converted()


def _drawn(site: Site) -> Tensor:
    """Draw from the prior; for an improper prior, take the middle of its support."""
    fn = site["fn"]
    if not isinstance(unwrapped(fn), dist.ImproperUniform):
        return init_to_sample(site)
    transform = biject_to(fn.support)
    value: Tensor = transform(torch.zeros(transform.inverse_shape(fn.shape())))
    return value


def _refuse_data(name: str, site: Site) -> None:
    """Refuse the data of a site by themselves."""
    value = site["value"]
    if isinstance(value, int | float):
        value = torch.as_tensor(value)
    if not isinstance(value, Tensor):
        raise TypeError(f"model must have tensors as data, got {type(value).__name__} at {name!r}")
    _refuse_kind(name, site, value)
    _refuse_spread(name, site, value)
    if _holds(site, ~value.isfinite()):
        raise ValueError(
            f"model must have finite data, got a NaN or an infinity at the observed site {name!r}"
        )
    if value.dtype in _HALF:
        raise ValueError(
            "model must have data in single or double precision, got "
            f"{str(value.dtype).removeprefix('torch.')} at the observed site {name!r}"
        )


def _refuse_kind(name: str, site: Site, value: Tensor) -> None:
    """Refuse data for which no density can be computed."""
    if value.layout != torch.strided or (value.is_meta and is_concrete(value)):
        raise ValueError(
            "model must have dense data with values, got the layout "
            f"{value.layout} on the device {value.device} at site {name!r}"
        )
    truth = value.dtype == torch.bool and not site["fn"].support.is_discrete
    if value.is_complex() or truth:
        raise ValueError(
            f"model must have data that are real numbers, got {value.dtype} at site {name!r}"
        )
    takes_floats_only = type(unwrapped(site["fn"])).log_prob is _OF_FLOATS
    if takes_floats_only and not value.is_floating_point() and not masks(site):
        raise ValueError(
            "model must have floating-point data for a Bernoulli distribution, got "
            f"{value.dtype} at site {name!r}; convert them with .float()"
        )


def _refuse_spread(name: str, site: Site, value: Tensor) -> None:
    """
    Refuse a value and a distribution that broadcast each other, as ``(n, 1)`` and ``(n,)`` do to
    ``(n, n)``.

    A plate may already have broadcast the distribution to ``(n, n)``, so data may repeat only along
    plates.
    """
    fn = site["fn"]
    batch = value.shape[: value.dim() - fn.event_dim]
    grammar = (
        "model must have data with the batch shape of their distribution, "
        f"{tuple(fn.batch_shape)}, got {tuple(batch)} at site {name!r}"
    )
    try:
        together = torch.broadcast_shapes(batch, fn.batch_shape)
    except RuntimeError as error:
        raise ValueError(grammar) from error
    plates = {frame.dim for frame in site["cond_indep_stack"] if frame.vectorized}
    sizes = (1,) * (len(together) - len(batch)) + batch
    repeated = {dim for dim in range(-len(together), 0) if sizes[dim] == 1 < together[dim]}
    if together not in (batch, fn.batch_shape) or not repeated <= plates:
        raise ValueError(f"{grammar}: they would broadcast to {tuple(together)} data")


def _refuse_outside(model: Model, checked: Checked, name: str, site: Site) -> None:
    """Refuse a datum outside the support, unless that moves with the latents."""
    fn = site["fn"]
    if not getattr(unwrapped(fn), "_validate_args", False):  # the model allows such data
        return
    inside = _inside(fn, torch.as_tensor(site["value"]))
    if inside is None or not _holds(site, ~inside, reduced=True):
        return
    again = _run(model, checked.args, checked.kwargs, again=True).trace.nodes.get(name)
    if again is not None and _are_equal(fn.support, again["fn"].support):
        raise ValueError(
            f"model must have data in the support of their distribution, {fn.support}, got a "
            f"datum outside it at the observed site {name!r}"
        )


def _refuse_without_density(own: dict[str, Site], latent: list[str]) -> None:
    """Refuse a guide whose sites have no density, or another one than they are drawn from.

    Pyro's autoguides draw one auxiliary site and compute the latent ones from it: these are
    ``Delta`` then, and have the density of that site.
    """
    point = [name for name in latent if isinstance(unwrapped(own[name]["fn"]), dist.Delta)]
    source = [
        name
        for name, site in own.items()
        if name not in latent and not isinstance(unwrapped(site["fn"]), dist.Delta)
    ]
    if point and not source:
        raise ValueError(
            f"guide must draw its sites from densities, got point masses (Delta) at {point}"
        )
    if source and not point:
        raise ValueError(
            "guide must have auxiliary sites only where its latent sites are computed from them, "
            f"got {source} beside latent sites that are drawn: their densities would count too"
        )
    if changed := [name for name, site in own.items() if not _has_own_density(site)]:
        raise ValueError(
            f"guide must have neither scale nor mask, got one at {changed}: its density would "
            "differ from that of its draws"
        )


def _has_own_density(site: Site) -> bool:
    return bool((torch.as_tensor(site["scale"]) == 1).all()) and not is_partly_masked(site)


def _refuse_narrow(model: Model, checked: Checked, name: str, site: Site, own: Site) -> None:
    """Refuse a guide that never draws values that have a density."""
    fn = site["fn"]
    proposal = own["fn"]
    if isinstance(unwrapped(proposal), dist.Delta) or _are_equal(fn.support, proposal.support):
        return
    values = fn.sample((_GUIDE_TRIALS,))
    inside = _inside(proposal, values)
    if inside is None:
        return
    missed = values[~inside.reshape(_GUIDE_TRIALS, -1).all(1)]
    nodes = {n: each["value"] for n, each in sample_sites(checked.trace)}
    with pyro.validation_enabled(False):
        for value in missed[:10]:
            data = {n: v for n, v in nodes.items() if not checked.trace.nodes[n]["is_observed"]}
            at_value = poutine.condition(model, data=data | {name: value})
            joint = poutine.trace(at_value).get_trace(*checked.args, **checked.kwargs)
            if joint.log_prob_sum() > -torch.inf:
                raise ValueError(
                    f"guide must be able to draw every value of {name!r} that has a density, "
                    f"in {fn.support}, got {proposal.support}, which misses {len(missed)} of "
                    f"{_GUIDE_TRIALS} prior draws"
                )


def _inside(fn: Any, value: Tensor) -> Tensor | None:
    """Return which elements of a batch are in a support; None where it cannot tell."""
    try:
        inside: Tensor = fn.support.check(value)
    except NotImplementedError:
        return None
    return inside


def _are_equal(one: Any, other: Any) -> bool:
    """Tell whether supports, or what they are made of, are the same."""
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return bool(torch.equal(torch.as_tensor(one), torch.as_tensor(other)))
    if isinstance(one, Constraint):
        return type(one) is type(other) and _are_equal(vars(one), vars(other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_are_equal(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_are_equal, one, other))
    return bool(one == other)


def _refuse_without_normalizer(hidden: list[tuple[str, Site]]) -> None:
    if improper := [name for name, site in hidden if is_improper(site)]:
        raise ValueError(
            f"model must have proper priors, got improper ones at {improper}, so its evidence is "
            f"undefined{_LEFT_BY_OBS_MASK if _are_of_obs_mask(improper) else ''}"
        )
    refuse_scaled([name for name, site in hidden if _is_scaled(site)])


def _are_of_obs_mask(names: list[str]) -> bool:
    return all(name.endswith("_unobserved") for name in names)


def scaled_priors(trace: poutine.Trace) -> list[str]:
    """Return the latent sites whose density is scaled, so that it is not normalized."""
    return [name for name, site in sample_sites(trace) if is_latent(site) and _is_scaled(site)]


def _is_scaled(site: Site) -> bool:
    return bool((torch.as_tensor(site["scale"]) != 1).any())


def refuse_scaled(scaled: list[str]) -> None:
    """Refuse the evidence of a model with scaled priors."""
    if scaled:
        raise ValueError(
            f"model must have priors without scale, got sites {scaled} scaled by a mini-batch "
            "(or by poutine.scale): they are not normalized, so the evidence is undefined; "
            "pass all data, or leave out size"
        )


def _holds(site: Site, bad: Tensor, *, reduced: bool = False) -> bool:
    """
    Tell whether any of the bad data is not masked.

    :param bad: of the shape of the value, or of its batch if ``reduced``.
    """
    event_dim = 0 if reduced else site["fn"].event_dim
    bad = bad.flatten(bad.ndim - event_dim).any(-1) if event_dim else bad
    return bool((bad & _mask(site)).any())


def _is_empty(site: Site) -> bool:
    return 0 in site["fn"].batch_shape or not _mask(site).any()


def _mask(site: Site) -> Tensor:
    """Return which data count."""
    masks = [site["mask"], getattr(site["fn"], "_mask", None)]
    given = [torch.as_tensor(mask, dtype=torch.bool) for mask in masks if mask is not None]
    return reduce(torch.logical_and, given, torch.tensor(True))
