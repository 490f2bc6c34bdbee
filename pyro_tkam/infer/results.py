"""What an evidence estimate is: a value, its error, and a diagnosis in plain words."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_tkam.ops.estimators import Estimate

SAME_SUM = 1e-4
"""Relative difference of sums that precision and the order of data may make."""
SAME_DATA = "pass all models the same data, in the same units"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with an estimate.

    :param name: its short name, such as ``"missed mode"``.
    :param seen: what was measured.
    :param advice: what to change.
    """

    name: str
    seen: str
    advice: str

    def __str__(self) -> str:
        return f"{self.name}: {self.seen}; {self.advice}"


@dataclass(frozen=True)
class Verdict:
    """Whether an estimate can be trusted, and why.

    :param findings: what is wrong; empty for a healthy run.
    :param measures: the measures behind the verdict, by name.
    :param notes: what else is worth knowing.
    """

    findings: tuple[Finding, ...] = ()
    measures: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def trusted(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    @property
    def names(self) -> set[str]:
        """Short names of the findings."""
        return {finding.name for finding in self.findings}

    def __add__(self, other: Verdict) -> Verdict:
        """Join two verdicts; for measures with the same name, the last is kept."""
        findings = tuple(dict.fromkeys(self.findings + other.findings))
        notes = tuple(dict.fromkeys(self.notes + other.notes))
        return Verdict(findings, {**self.measures, **other.measures}, notes)

    def advising(self, advice: str, *, beside: Collection[str] = ()) -> Verdict:
        """Return the verdict with the same advice for all findings.

        :param advice: what to change.
        :param beside: names of findings that keep their own.
        """
        findings = tuple(
            each if each.name in beside else replace(each, advice=advice) for each in self.findings
        )
        return replace(self, findings=findings)

    def labeled(self, whose: str) -> Verdict:
        """Return the verdict with its owner's name in every line.

        :param whose: such as ``"first model"``.
        """
        findings = (
            Finding(each.name, f"{whose}: {each.seen}", each.advice) for each in self.findings
        )
        measures = {f"{whose}: {name}": value for name, value in self.measures.items()}
        return Verdict(tuple(findings), measures, tuple(f"{whose}: {note}" for note in self.notes))

    def __str__(self) -> str:
        lines = ["trusted: no problem found" if self.trusted else "not to be trusted"]
        lines += [f"  {finding}" for finding in self.findings] + [
            f"  {note}" for note in self.notes
        ]
        if self.measures:
            lines.append(
                "  " + ", ".join(f"{name} {value:.3g}" for name, value in self.measures.items())
            )
        return "\n".join(lines)


@dataclass(frozen=True)
class LogBayesFactor:
    """The difference of two log evidences.

    :param value: nats in favor of the first model.
    :param standard_error: its Monte Carlo standard error, in nats.
    :param verdict: on both evidences; each line names the model that it is about.
    """

    value: float
    standard_error: float
    verdict: Verdict

    def __str__(self) -> str:
        return (
            f"log Bayes factor = {self.value:.4f} ± {self.standard_error:.4f} nats\n{self.verdict}"
        )


class DataSeen(NamedTuple):
    """What is noted of the data of an evidence.

    :param numbers: how many numbers were observed.
    :param total: their sum.
    :param size: the sum of their absolute values.
    """

    numbers: int
    total: float
    size: float

    def agrees_with(self, other: DataSeen) -> bool:
        """Tell whether data can be the same, up to their precision."""
        most = SAME_SUM * max(self.size, other.size)
        changes = abs(self.total - other.total), abs(self.size - other.size)
        return self.numbers == other.numbers and max(changes) <= most

    def __str__(self) -> str:
        mean, size = self.total / self.numbers, self.size / self.numbers
        return f"{self.numbers} numbers of mean {mean:.6g} and mean size {size:.6g}"


@dataclass(frozen=True)
class Evidence:
    """
    A log evidence ``log p(x)`` with its Monte Carlo standard error, in nats, and a verdict on it.

    Evidences of independent data can be added (``+``, ``sum``). Their data are joined along the
    first plate if the other plates have equal sizes, and in one row otherwise. The difference
    (``-``) between the evidences of two models is a log Bayes factor.

    :param value: of all data together.
    :param standard_error: of ``value``.
    :param method: how it was estimated.
    :param verdict: whether to trust it.
    :param per_datum: ``log p(x_b)``, of the shape of the model's local plates, ``(B,)``; None if
        there are none.
    :param per_datum_standard_error: shaped alike.
    :param evaluations: number of evaluations of the likelihood or its gradient.
    :param data: how many numbers were observed, and their sums; None if that is not known.

    >>> first = Evidence(-3.0, 0.03, "bridge", Verdict())
    >>> print(first - Evidence(-5.0, 0.04, "bridge", Verdict()))
    log Bayes factor = 2.0000 ± 0.0500 nats
    trusted: no problem found
    """

    value: float
    standard_error: float
    method: str
    verdict: Verdict
    per_datum: Tensor | None = None
    per_datum_standard_error: Tensor | None = None
    evaluations: int = 0
    data: DataSeen | None = None

    @staticmethod
    def of(
        estimate: Estimate,
        method: str,
        verdict: Verdict,
        *,
        evaluations: int = 0,
        total_standard_error: float | None = None,
    ) -> Evidence:
        """Sum an estimate over its data.

        :param estimate: of shape ``(*local)``.
        :param method: how it was made.
        :param verdict: on it.
        :param evaluations: what it took.
        :param total_standard_error: of the sum; if None, the data's errors are independent.
        """
        value, error = estimate
        total = (
            math.hypot(*error.flatten().tolist())
            if total_standard_error is None
            else total_standard_error
        )
        per_datum, per_datum_error = (value, error) if value.ndim else (None, None)
        return Evidence(
            value.sum(dtype=torch.float64).item(),
            total,
            method,
            verdict,
            per_datum,
            per_datum_error,
            evaluations,
        )

    @property
    def percentage_error(self) -> float:
        """
        Coefficient of variation of the evidence itself in percent, ``100 √(exp(SE²) - 1)``, if its
        logarithm is normal.
        """
        square = self.standard_error**2
        return 100 * math.sqrt(math.expm1(square)) if square < 700 else math.inf

    def __add__(self, other: Evidence) -> Evidence:
        if not isinstance(other, Evidence):
            return NotImplemented
        seen = [each.data for each in (self, other)]
        return Evidence(
            self.value + other.value,
            math.hypot(self.standard_error, other.standard_error),
            self.method if self.method == other.method else f"{self.method} + {other.method}",
            self.verdict + other.verdict,
            _joined([self.per_datum, other.per_datum]),
            _joined([self.per_datum_standard_error, other.per_datum_standard_error]),
            self.evaluations + other.evaluations,
            None if None in seen else DataSeen(*map(sum, zip(*seen, strict=True))),
        )

    def __radd__(self, other: int) -> Evidence:
        """Let ``sum`` start from 0."""
        return self if isinstance(other, int) and other == 0 else NotImplemented

    def __sub__(self, other: Evidence) -> LogBayesFactor:
        if not isinstance(other, Evidence):
            return NotImplemented
        error = math.hypot(self.standard_error, other.standard_error)
        verdict = self.verdict.labeled("first model") + other.verdict.labeled("second model")
        if told := different_data({"first model": self, "second model": other}):
            verdict += Verdict((Finding("different data", told, SAME_DATA),))
        return LogBayesFactor(self.value - other.value, error, verdict)

    def __str__(self) -> str:
        data = "" if self.per_datum is None else f" over {self.per_datum.numel()} data"
        cost = f", {self.evaluations} evaluations" if self.evaluations else ""
        head = (
            f"log evidence = {self.value:.4f} ± {self.standard_error:.4f} nats{data} "
            f"({self.method}{cost})"
        )
        return f"{head}\n{self.verdict}"


def different_data(evidences: Mapping[str, Evidence]) -> str | None:
    """Tell of evidences whose data differ, by name; None if none are known to."""
    known = {name: each.data for name, each in evidences.items() if each.data is not None}
    if not known:
        return None
    first = next(iter(known.values()))
    if all(first.agrees_with(each) for each in known.values()):
        return None
    return ", ".join(f"{name!r} has {each}" for name, each in known.items())


def _joined(parts: Iterable[Tensor | None]) -> Tensor | None:
    """
    Join what both have per datum, flat if their shapes differ beyond the first plate; None unless
    both have it.
    """
    known = [part for part in parts if part is not None]
    if len(known) < 2:
        return None
    alike = len({part.shape[1:] for part in known}) == 1
    return torch.cat(known if alike else [part.flatten() for part in known])
