"""The evidence of each datum in a data set, and a summary."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from pyro_tkam._arviz import from_groups, save
from pyro_tkam._files import replacing
from pyro_tkam.train.folder import RunFolder, write_results

AGREEMENT_SIGMAS = 4.0
FALSE_DISAGREEMENT = 0.001
"""
Probability that the two estimates of a sound datum differ by this much, with a margin for errors of
the standard errors.
"""

BEYOND_CHANCE = 0.01
"""Probability below which the number of disagreements is not due to chance."""

METHOD_WORDS = {
    "prior": "draws from the prior",
    "fitted": "draws from a mixture fitted to each datum",
    "tempering": "tempering",
}
METHODS = tuple(METHOD_WORDS)


@dataclass(frozen=True)
class PerDatum:
    """Log evidence of each datum, in nats.

    :param value: ``log p(x_b)``, ``(num,)``.
    :param standard_error: standard errors of the values, of the same shape.
    :param khat: Pareto k̂ of the importance weights; NaN if there are no weights.
    :param method: index of each datum's method in ``METHODS``.
    :param trusted: whether the verdict on the estimate has no findings.
    """

    value: Tensor
    standard_error: Tensor
    khat: Tensor
    method: Tensor
    trusted: Tensor

    def replaced(self, rows: Tensor, other: PerDatum) -> PerDatum:
        """Return a copy with some rows replaced by those of another."""
        return PerDatum(
            *(
                old.index_copy(0, rows, new)
                for old, new in zip(_fields(self), _fields(other), strict=True)
            )
        )

    def take(self, rows: Tensor) -> PerDatum:
        """Select some rows."""
        return PerDatum(*(each[rows] for each in _fields(self)))


@dataclass(frozen=True)
class EvidenceReport:
    """Evidence of held-out data, with a cross-check by tempering; see :meth:`of`.

    :param data: for each datum; data on which the cross-check disagrees are not trusted.
    :param checked: the rows that were also estimated by tempering.
    :param tempered: the tempered estimates for them.
    """

    data: PerDatum
    checked: Tensor
    tempered: PerDatum

    @staticmethod
    def of(data: PerDatum, checked: Tensor, tempered: PerDatum) -> EvidenceReport:
        """Compare both estimates, and mark data on which they disagree as not trusted."""
        report = EvidenceReport(data, checked, tempered)
        trusted = data.trusted.index_copy(0, checked, data.trusted[checked] & report.agrees)
        return replace(report, data=replace(data, trusted=trusted))

    @property
    def difference(self) -> Tensor:
        """Tempering minus the cheaper method, at the checked rows, in nats."""
        return self.tempered.value - self.data.value[self.checked]

    @property
    def agrees(self) -> Tensor:
        """Whether both estimates agree within four standard errors, at the checked rows."""
        own = self.data.standard_error[self.checked]
        error = (own.square() + self.tempered.standard_error.square()).sqrt()
        return self.difference.abs() <= AGREEMENT_SIGMAS * error

    @property
    def confirmed(self) -> bool | None:
        """Whether the number of disagreements is compatible with chance; None without checks."""
        num = len(self.checked)
        disagreeing = int((~self.agrees).sum())
        return _chance_of_as_many(disagreeing, num) > BEYOND_CHANCE if num else None

    def summary(self) -> dict[str, Any]:
        """Return a summary as numbers by name."""
        data = self.data
        num = len(data.value)
        return {
            "num": num,
            "log_evidence": data.value.mean().item(),
            "standard_error": math.hypot(*data.standard_error.tolist()) / num,
            "spread_over_data": data.value.std().item() / num**0.5 if num > 1 else None,
            "trusted": int(data.trusted.sum()),
            "methods": {
                name: int((data.method == index).sum()) for index, name in enumerate(METHODS)
            },
            "checked": len(self.checked),
            "agreeing": int(self.agrees.sum()),
            "confirmed": self.confirmed,
            "mean_difference": self.difference.mean().item() if len(self.checked) else None,
        }

    def __str__(self) -> str:
        numbers = self.summary()
        ways = ", ".join(
            f"{count} by {METHOD_WORDS[name]}"
            for name, count in numbers["methods"].items()
            if count
        )
        error = numbers["standard_error"]
        lines = [
            f"log evidence: {numbers['log_evidence']:.3f} ± {error:.2g} nats per datum (Monte "
            "Carlo error)",
            f"estimated for {numbers['num']} held-out data: {ways}",
        ]
        if numbers["checked"]:
            found = (
                f"{numbers['agreeing']} of {numbers['checked']} agree within "
                f"{AGREEMENT_SIGMAS:.0f} standard errors"
            )
            lines.append(
                f"cross-check by tempering: {found}, mean difference "
                f"{numbers['mean_difference']:+.3f} nats"
            )
        untrusted = numbers["num"] - numbers["trusted"]
        lines.append(f"trusted: {numbers['trusted']} of {numbers['num']}")
        if numbers["confirmed"] is False:
            lines.append(
                "NOT to be trusted: the cross-check disagrees by more than chance, so all data are "
                "in doubt"
            )
        elif untrusted:
            lines.append(
                f"NOT to be trusted as a whole: the other {untrusted} are most likely too low"
            )
        return "\n".join(lines)

    def write(self, files: RunFolder) -> None:
        """Write ``evidence.json`` and ``evidence.nc`` into a run folder."""
        columns = dict(zip(PerDatum.__dataclass_fields__, _fields(self.data), strict=True))
        rows = {name: column.tolist() for name, column in columns.items()}
        rows["method"] = [METHODS[index] for index in rows["method"]]
        rows["khat"] = [None if math.isnan(khat) else khat for khat in rows["khat"]]
        check = {"rows": self.checked.tolist(), "tempering": self.tempered.value.tolist()}
        content = {**self.summary(), "per_datum": rows, "cross_check": check}
        write_results(files.path / "evidence.json", content)
        groups = {
            "evidence": {f"log_evidence_{name}": each.numpy() for name, each in columns.items()}
        }
        attributes = {"log_evidence": self.summary()["log_evidence"], "methods": ", ".join(METHODS)}
        container = from_groups(groups, sample_dims={"evidence": ("data",)}, attrs=attributes)
        with replacing(files.path / "evidence.nc") as aside:
            save(container, aside)


def _chance_of_as_many(disagreeing: int, num: int) -> float:
    """
    Return the probability that at least this many of ``num`` sound data disagree: a binomial tail.
    """
    p = FALSE_DISAGREEMENT
    return 1 - sum(math.comb(num, k) * p**k * (1 - p) ** (num - k) for k in range(disagreeing))


def _fields(data: PerDatum) -> tuple[Tensor, ...]:
    return (data.value, data.standard_error, data.khat, data.method, data.trusted)
