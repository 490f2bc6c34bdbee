"""The findings of the paper in words, and whether our runs agree with them."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from pyro_tkam._checks import mapping, sequence

__all__ = ["CLAIMS", "Claim", "Comparison", "Finding", "findings"]

#: results of :func:`~pyro_tkam.paper.reproduce.reproduce` by the experiment's name
Results = Mapping[str, Mapping[str, Any]]


#: if a difference is at most this many standard errors, no difference was found (mean ± error)
LEAST_ERRORS = 2.0


@dataclass(frozen=True)
class Comparison:
    """
    Two figures of our runs, paired by seed. A claim says that the first is below the second.

    :param about: what the figures describe, such as ``"rbf"``.
    :param low: the figure that the claim says is smaller, for each seed.
    :param high: the figure that the claim says is larger, for each seed.

    >>> apart = Comparison("rbf", (1.0, 1.2, 0.9), (2.0, 2.1, 2.0))
    >>> round(apart.difference, 3), round(apart.standard_error, 3), apart.holds
    (1.0, 0.058, True)
    """

    about: str
    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def difference(self) -> float:
        """Mean over seeds of the second figure minus the first."""
        return fmean(self._differences)

    @property
    def standard_error(self) -> float:
        """Standard error of that mean; infinite for a single seed."""
        seeds = len(self._differences)
        return stdev(self._differences) / math.sqrt(seeds) if seeds > 1 else math.inf

    @property
    def holds(self) -> bool | None:
        """
        Whether the first is below the second; None if the mean difference is at most two standard
        errors, so that no difference was found.
        """
        told = abs(self.difference) > LEAST_ERRORS * self.standard_error
        return self.difference > 0 if told else None

    @property
    def _differences(self) -> list[float]:
        return [high - low for low, high in zip(self.low, self.high, strict=True)]


#: what a pair of figures describes, the figure that a claim says is smaller, and the other one
Pair = tuple[str, float, float]


@dataclass(frozen=True)
class Claim:
    """
    A published finding, and how a set of runs tests it.

    :param section: the paper's section.
    :param text: what the paper says.
    :param measure: which figure must be below which.
    :param cases: what it is claimed of, such as each basis.
    :param compare: takes the figures to compare from the results, for the cases that were run.
    """

    section: str
    text: str
    measure: str
    cases: tuple[str, ...]
    compare: Callable[[Results], Iterator[Pair]]


@dataclass(frozen=True)
class Finding:
    """
    A claim, and what our runs say about it.

    :param claim: the claim.
    :param comparisons: figures of our runs, for the cases that every seed has.
    """

    claim: Claim
    comparisons: tuple[Comparison, ...]

    @property
    def holds(self) -> bool | None:
        """
        Whether all comparisons agree with the claim: False if one contradicts it, None if one finds
        no difference or was not made.
        """
        found = [each.holds for each in self.comparisons]
        if False in found:
            return False
        return None if None in found or not self.complete else True

    @property
    def complete(self) -> bool:
        """Whether every case was compared."""
        return len(self.comparisons) == len(self.claim.cases)


def findings(runs: Sequence[Results]) -> list[Finding]:
    """
    Test every claim by differences paired over seeds.

    :param runs: results by the name of the experiment, at one scale, one mapping for each seed.

    :raises TypeError: for what is no sequence of mappings.
    :raises ValueError: for results without figures.

    >>> findings([{}])[0].holds is None
    True
    """
    sequence("runs", runs, "mappings from names to results")
    for results in runs:
        check_results("every mapping of runs", results)
    return [Finding(claim, _compared(claim, runs)) for claim in CLAIMS]


def check_results(name: str, results: Any) -> None:
    """
    Refuse what is no results of :func:`~pyro_tkam.paper.reproduce.reproduce` by name.

    :param name: of the argument.
    :param results: its value.
    :raises TypeError: for what is no mapping.
    :raises ValueError: for results without figures.
    """
    mapping(name, results, "names to results")
    for each in results.values():
        if not isinstance(each, Mapping) or not {"seconds_per_update", "measured"} <= each.keys():
            raise ValueError(f"{name} must hold what `reproduce` returned, got {each!r}")


def _compared(claim: Claim, runs: Sequence[Results]) -> tuple[Comparison, ...]:
    """Return the comparisons of a claim, for the cases that every seed has run."""
    names = set.intersection(*map(_made, runs)) if runs else set()
    by_seed = [list(claim.compare({name: run[name] for name in names})) for run in runs]
    return tuple(
        Comparison(
            pairs[0][0], tuple(low for _, low, _ in pairs), tuple(high for _, _, high in pairs)
        )
        for pairs in zip(*by_seed, strict=True)
    )


def _made(results: Results) -> set[str]:
    """Return the finished runs; a run killed between its last update and its result has no time."""
    return {name for name, result in results.items() if result["seconds_per_update"] is not None}


def _figure(results: Results, row: str, name: str) -> float:
    return float(
        results[row]["seconds_per_update"] if name == "seconds" else results[row]["measured"][name]
    )


_BASES = ("rbf", "fourier")
_REFERENCES = ("uniform", "gaussian", "lognormal")
_TRAININGS = ("mle", "se")
_PRIORS = ("mixture", "deep")


def _figures(results: Results, rows: Sequence[str], name: str) -> list[float] | None:
    """Return a figure of each row, or None if one was not run."""
    if not results.keys() >= set(rows):
        return None
    return [_figure(results, row, name) for row in rows]


def _of_references(results: Results, data: str, basis: str, name: str) -> list[float] | None:
    return _figures(results, [f"{data}-{each}-{basis}" for each in _REFERENCES], name)


def _against_others(
    data: str, reference: str, name: str, factor: float
) -> Callable[[Results], Iterator[Pair]]:
    """Compare a reference with the best of the others, times a factor, for each basis."""

    def compare(results: Results) -> Iterator[Pair]:
        for basis in _BASES:
            if found := _of_references(results, data, basis, name):
                own = found.pop(_REFERENCES.index(reference))
                yield basis, own, factor * min(found)

    return compare


def _references_are_alike(results: Results) -> Iterator[Pair]:
    for basis in _BASES:
        if distances := _of_references(results, "darcy", basis, "frechet"):
            yield basis, max(distances), 2 * min(distances)


def _pairs(
    low: str, high: str, name: str, others: tuple[str, ...]
) -> Callable[[Results], Iterator[Pair]]:
    """
    Compare two rows that differ in one word; ``{}`` in their names stands for each of the others.
    """

    def compare(results: Results) -> Iterator[Pair]:
        for each in others:
            if found := _figures(results, [low.format(each), high.format(each)], name):
                smaller, larger = found
                yield each, smaller, larger

    return compare


def _lognormal_collapses(data: str, images: str) -> Claim:
    return Claim(
        "4.1",
        f"Lognormal references collapse: samples are an average of all {images}.",
        "variance ratio of lognormal below half the least of the other references, for both bases",
        _BASES,
        _against_others(data, "lognormal", "variance_ratio", 0.5),
    )


def _sharpest(data: str, reference: str, images: str) -> Claim:
    return Claim(
        "4.1",
        f"{reference.capitalize()} references give the sharpest {images}.",
        f"Fréchet distance of {reference} below the least of the other references, for both bases",
        _BASES,
        _against_others(data, reference, "frechet", 1.0),
    )


#: the published findings that our runs can decide, in the order of the paper
CLAIMS = (
    _lognormal_collapses("digits", "digits"),
    _sharpest("digits", "uniform", "digits"),
    _lognormal_collapses("fashion", "articles of Fashion-MNIST"),
    _sharpest("fashion", "gaussian", "articles of Fashion-MNIST"),
    Claim(
        "4.2",
        "On Darcy pressures all references give similar samples.",
        "largest Fréchet distance below twice the least, for both bases",
        _BASES,
        _references_are_alike,
    ),
    Claim(
        "4.2",
        "On Darcy pressures RBF bases smooth too much; Fourier bases capture more of the "
        "large-scale variation.",
        "variance ratio of RBF below that of Fourier, for every reference",
        _REFERENCES,
        _pairs("darcy-{}-rbf", "darcy-{}-fourier", "variance_ratio", _REFERENCES),
    ),
    Claim(
        "4.3",
        "The mixture prior is better than the deep one.",
        "Fréchet distance of the mixture below that of the deep prior, for both objectives",
        _TRAININGS,
        _pairs("patches-mixture-{}", "patches-deep-{}", "frechet", _TRAININGS),
    ),
    Claim(
        "4.3",
        "Steppingstone training is no better than plain maximum likelihood.",
        "Fréchet distance of maximum likelihood below that of steppingstone training, for both "
        "priors",
        _PRIORS,
        _pairs("patches-{}-mle", "patches-{}-se", "frechet", _PRIORS),
    ),
    Claim(
        "4.3",
        "Steppingstone training takes longer than plain maximum likelihood.",
        "seconds per update of maximum likelihood below those of steppingstone training, for both "
        "priors",
        _PRIORS,
        _pairs("patches-{}-mle", "patches-{}-se", "seconds", _PRIORS),
    ),
)
