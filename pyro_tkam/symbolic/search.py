"""The search for forms: candidates for each edge, chosen by refitting the whole network."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

import torch
from torch import Tensor

from pyro_tkam._progress import Progress
from pyro_tkam.nn import Candidate, Form
from pyro_tkam.nn.symbolic import SMALLEST_R2, by_simplicity, fit_forms
from pyro_tkam.symbolic.least_squares import Data, Fit, OutOfTimeError, refitted
from pyro_tkam.symbolic.network import FormulaNetwork, Place

#: values that an edge's candidates are fitted to, and samples that a network is refitted to
_CURVE_POINTS = 200
_SEARCH_SAMPLES = 500
#: candidates of an edge that are tried, the steps of a trial, and those of a fit that is kept
_ALTERNATIVES = 5
_TRIAL_STEPS = 12
_FIT_STEPS = 60
#: a loss below which a formula is exact, as the rounding of the data allows
EXACT = {torch.float32: 1e-12, torch.float64: 1e-20}


@dataclass
class Search:
    """
    A search for the forms of a network's edges.

    :param forms: the forms that edges may take.
    :param data: all samples.
    :param tolerance: share of the variance that a simpler formula may lose.
    :param exact: the loss of an exact formula.
    :param progress: told what is tried.
    """

    forms: Sequence[Form]
    data: Data
    tolerance: float
    exact: float
    progress: Progress

    def __post_init__(self) -> None:
        self.few = self.data.thinned(_SEARCH_SAMPLES)
        self.candidates: dict[Place, list[Candidate]] = {}
        self.is_cut = False

    def run(self, network: FormulaNetwork) -> Fit:
        """
        Choose forms starting from the inputs, then change them in turn if the whole network
        improves; what is best when the time is over is returned, and ``is_cut`` says so.
        """
        self.best = Fit(network, math.inf)
        try:
            self._from_inputs_on(network)
            self._keep(self._better(refitted(self.best.network, self.few, _FIT_STEPS), self.best))
            self._improve()
            self._simplify()
            return refitted(self.best.network, self.data, _FIT_STEPS)
        except OutOfTimeError:
            self.is_cut = True
            return Fit(self.best.network, self.data.loss(self.best.network))

    def _keep(self, fit: Fit) -> None:
        self.best = fit
        self.progress.so_far(f"misses {100 * fit.loss:.2g}% of the variance so far")

    def _better(self, new: Fit, old: Fit) -> Fit:
        return new if new.loss < old.loss and self._has_values(new) else old

    def _has_values(self, fit: Fit) -> bool:
        """Tell whether a fit to a part of the samples has a value at all of them."""
        return math.isfinite(self.data.loss(fit.network))

    def _from_inputs_on(self, network: FormulaNetwork) -> None:
        """Give every edge its simplest form within the tolerance; those without one stay curves."""
        self.progress.route("forms of each curve")
        for layer in range(len(network.terms)):
            s = self._inputs(network, layer, self.few)
            everywhere = self._inputs(network, layer, self.data)
            places = [edge.place for edge in network.edges if edge.place[0] == layer]
            values = {
                place: network.edges[network.edge_index(place)].curve(s[:, place[2]])
                for place in places
            }
            for place in places:
                if time.monotonic() > self.data.deadline:
                    raise OutOfTimeError
                self._tell(place)
                own = values[place]
                whole = sum(float(v.var()) for p, v in values.items() if p[1] == place[1])
                self.candidates[place] = self._candidates(
                    s[:, place[2]], own, whole, everywhere[:, place[2]]
                )
                best = next(iter(self.candidates[place]), None)
                if best is not None and best.r2 >= SMALLEST_R2:
                    network = network.with_form(place, best, s[:, place[2]])
                    self.best = Fit(network, math.inf)
        self._keep(Fit(network, self.few.loss(network)))

    def _tell(self, place: Place) -> None:
        number = self.best.network.edge_index(place) + 1
        self.progress.tell(f"edge {number} of {len(self.best.network.edges)}")

    def _inputs(self, network: FormulaNetwork, layer: int, data: Data) -> Tensor:
        with torch.no_grad():
            return network.layer_values(network.parameters.unsqueeze(-1), data.x)[layer]

    def _candidates(
        self, s: Tensor, values: Tensor, whole: float, everywhere: Tensor
    ) -> list[Candidate]:
        """
        Return candidates of an edge, the first to be tried first.

        :param whole: variance of all edges of the sum.
        :param everywhere: inputs of the edge at all samples, where a candidate must have values.
        """
        kept = torch.linspace(0, len(s) - 1, min(_CURVE_POINTS, len(s))).round().long()
        order = s.argsort()[kept]
        fitted = fit_forms(s[order], values[order], self.forms)
        share = float(values.var()) / whole if whole > 0 else 0.0
        # What is a small part of its sum need not be known as well.
        tolerance = self.tolerance / max(share, self.tolerance)
        chosen: list[Candidate] = []
        for candidate in by_simplicity(fitted, tolerance):
            if not any(_same(candidate, other, s, values) for other in chosen):
                chosen.append(candidate)
        is_finite = partial(_is_finite_at, everywhere)
        first = next(filter(is_finite, chosen), None)
        if first is None:
            return []
        others = [candidate for candidate in chosen if candidate is not first]
        if share < self.tolerance:
            first = Candidate(first.form, first.parameters, 1.0)
        others.sort(key=lambda candidate: (candidate.r2 < 1 - 30 * tolerance, candidate.complexity))
        return [first, *islice(filter(is_finite, others), _ALTERNATIVES)]

    def _improve(self) -> None:
        """Try other forms on one edge after the other, until none gains."""
        self.progress.route("other forms")
        gained = True
        while gained and self.best.loss > self.exact:
            gained = False
            for place, candidate in self._alternatives(self.best.network):
                self._tell(place)
                loss = self.best.loss
                trial = self._trial(self.best.network, place, candidate)
                least = 0.1 * self.tolerance * (trial.loss > 1e-3 * loss)
                if trial.loss < min(0.5 * loss, loss - least) and self._has_values(trial):
                    self._keep(trial)
                    refit = refitted(trial.network, self.few, _FIT_STEPS)
                    self._keep(self._better(refit, trial))
                    gained = True
                if self.best.loss <= self.exact:
                    break

    def _alternatives(self, network: FormulaNetwork) -> Iterator[tuple[Place, Candidate]]:
        for edge in network.edges:
            for candidate in self.candidates[edge.place]:
                if edge.form is None or candidate.form is not edge.form:
                    yield edge.place, candidate

    def _trial(self, network: FormulaNetwork, place: Place, candidate: Candidate) -> Fit:
        s = self._inputs(network, place[0], self.few)[:, place[2]]
        return refitted(network.with_form(place, candidate, s), self.few, _TRIAL_STEPS)

    def _simplify(self) -> None:
        """Try simpler forms, a constant among them, on every edge; the least important first."""
        self.progress.route("simpler forms")
        constant = next((form for form in self.forms if form.is_constant), None)
        loss = self.best.loss
        allowed = max(loss + (0.0 if loss < 1e-3 * self.tolerance else self.tolerance), self.exact)
        for edge in self.best.network.edges:
            self._tell(edge.place)
            current = edge.form
            tried = [] if constant is None else [Candidate(constant, (0.0, 1.0, 0.0, 0.0), 0.0)]
            tried += sorted(self.candidates[edge.place], key=lambda each: each.complexity)
            for candidate in tried:
                if current is not None and candidate.complexity >= current.complexity:
                    continue
                trial = self._trial(self.best.network, edge.place, candidate)
                if trial.loss <= allowed and self._has_values(trial):
                    self._keep(trial)
                    break


def _is_finite_at(s: Tensor, candidate: Candidate) -> bool:
    """Tell whether a candidate has a value at all inputs of its edge."""
    return bool(candidate(s).isfinite().all())


def _same(one: Candidate, other: Candidate, s: Tensor, values: Tensor) -> bool:
    """Whether two candidates are one function, such as sine and cosine."""
    if one.complexity != other.complexity or abs(one.r2 - other.r2) > 1e-9:
        return False
    difference = (one(s) - other(s)).abs().max()
    return bool(difference <= 1e-6 * values.std().clamp_min(math.ulp(0.0)))
