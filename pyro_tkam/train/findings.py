"""What the paper found in words, and whether our runs find it too."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pyro_tkam.train.experiments import EXPERIMENTS

__all__ = ["CLAIMS", "Claim", "Finding", "findings"]

#: results of :func:`~pyro_tkam.train.reproduce.reproduce` by the experiment's name
Results = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Claim:
    """
    A published finding and how a set of runs decides it.

    :param section: the paper's section.
    :param text: what the paper says.
    :param measure: how it is decided here.
    :param rows: names of the experiments that it is about.
    :param holds: decides it from their results.
    """

    section: str
    text: str
    measure: str
    rows: tuple[str, ...]
    holds: Callable[[Results], bool]


@dataclass(frozen=True)
class Finding:
    """
    A claim and what our runs say of it.

    :param claim: the claim.
    :param holds: whether it holds in our runs; None where some have not been made.
    """

    claim: Claim
    holds: bool | None


def findings(results: Results) -> list[Finding]:
    """
    Decide every claim.

    :param results: results by the experiment's name; all of one scale.

    >>> findings({})[0].holds is None
    True
    """
    # A run that was killed between its last update and its result has no time.
    made = {name for name, result in results.items() if result["seconds_per_update"] is not None}
    return [Finding(claim, claim.holds(results) if made.issuperset(claim.rows) else None) for claim in CLAIMS]


def _named(start: str) -> tuple[str, ...]:
    return tuple(name for name in EXPERIMENTS if name.startswith(f"{start}-"))


def _figure(results: Results, row: str, name: str) -> float:
    return float(results[row]["measured"][name])


_BASES = ("rbf", "fourier")
_REFERENCES = ("uniform", "gaussian", "lognormal")
_TRAININGS = ("mle", "se")
_PRIORS = ("mixture", "deep")


def _lognormal_collapses(results: Results) -> bool:
    def spread(reference: str, basis: str) -> float:
        return _figure(results, f"digits-{reference}-{basis}", "variance_ratio")

    return all(spread("lognormal", b) < min(spread("uniform", b), spread("gaussian", b)) / 2 for b in _BASES)


def _uniform_is_best(results: Results) -> bool:
    def distance(reference: str, basis: str) -> float:
        return _figure(results, f"digits-{reference}-{basis}", "frechet")

    return all(distance("uniform", b) < min(distance("gaussian", b), distance("lognormal", b)) for b in _BASES)


def _references_are_alike(results: Results) -> bool:
    distances = [[_figure(results, f"darcy-{r}-{b}", "frechet") for r in _REFERENCES] for b in _BASES]
    return all(max(some) < 2 * min(some) for some in distances)


def _fourier_varies_more(results: Results) -> bool:
    return all(
        _figure(results, f"darcy-{r}-rbf", "variance_ratio") < _figure(results, f"darcy-{r}-fourier", "variance_ratio")
        for r in _REFERENCES
    )


def _mixture_beats_deep(results: Results) -> bool:
    return all(
        _figure(results, f"patches-mixture-{t}", "frechet") < _figure(results, f"patches-deep-{t}", "frechet")
        for t in _TRAININGS
    )


def _tempering_does_not_pay(results: Results) -> bool:
    def seconds(prior: str, training: str) -> float:
        return float(results[f"patches-{prior}-{training}"]["seconds_per_update"])

    def distance(prior: str, training: str) -> float:
        return _figure(results, f"patches-{prior}-{training}", "frechet")

    return all(distance(p, "mle") <= distance(p, "se") and seconds(p, "mle") < seconds(p, "se") for p in _PRIORS)


#: the published findings that our runs can decide, in the order of the paper
CLAIMS = (
    Claim(
        "4.1",
        "Lognormal references collapse: samples are an average of all digits.",
        "variance of samples below half that of the other references, for both bases",
        _named("digits"),
        _lognormal_collapses,
    ),
    Claim(
        "4.1",
        "Uniform references give the sharpest digits.",
        "least Fréchet distance, for both bases",
        _named("digits"),
        _uniform_is_best,
    ),
    Claim(
        "4.2",
        "On Darcy pressures all references give similar samples.",
        "Fréchet distances within a factor of two, for both bases",
        _named("darcy"),
        _references_are_alike,
    ),
    Claim(
        "4.2",
        "On Darcy pressures RBF bases smooth too much; Fourier bases capture more of the large-scale variation.",
        "variance of samples larger with the Fourier basis, for every reference",
        _named("darcy"),
        _fourier_varies_more,
    ),
    Claim(
        "4.3",
        "The mixture prior is better than the deep one.",
        "smaller Fréchet distance, for both objectives",
        _named("patches"),
        _mixture_beats_deep,
    ),
    Claim(
        "4.3",
        "Steppingstone training is no better than plain maximum likelihood, and dearer.",
        "Fréchet distance not smaller and seconds an update larger, for both priors",
        _named("patches"),
        _tempering_does_not_pay,
    ),
)
