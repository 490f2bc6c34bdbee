"""Models side by side: evidences, Bayes factors and posterior probabilities."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from pyro_tkam._checks import mapping, number
from pyro_tkam.infer.evidence.prior_sensitivity import SENSITIVITY, VAGUE_WIDTH, WIDTH
from pyro_tkam.infer.results import SAME_DATA, Evidence, different_data

SUM_TOLERANCE = 1e-6


def compare(
    evidences: Mapping[str, Evidence], prior_probabilities: Mapping[str, float] | None = None
) -> Any:
    """
    Return a table of models of the same data, best first, with posterior model probabilities.

    ``p(M_i|x) = π_i Z_i / Σ_j π_j Z_j``; its standard error comes from the delta method,
    ``p_i √(Σ_j (δ_ij - p_j)² SE_j²)``. A warning names the models whose evidence is not trusted,
    and those with a prior a hundred times as wide as the posterior, whose evidence is inversely
    proportional to that width (Kass and Raftery 1995, Section 5.1). Another warning names models
    whose data differ in number or in sum, if these are known: :func:`log_evidence` notes them.

    :param evidences: the evidence of each model, by name.
    :param prior_probabilities: ``π`` by name, summing to 1; all equal if None.
    :return: a ``pandas.DataFrame`` with a row for each model where pandas is installed, else a
        dictionary of its rows: ``log_evidence``, ``standard_error``, ``percentage_error``; the
        ``bayes_factor`` against the best model and its logarithm with a standard error;
        ``prior_probability``, ``posterior_probability`` and the latter's standard error;
        ``trusted``; and, if an evidence is of :func:`bridge_evidence`, which alone finds it,
        ``prior_sensitivity``: the change of the log evidence with the logarithm of the power to
        which the prior is raised, NaN for other evidences.
    :raises TypeError: if ``evidences`` is not a mapping of evidences.
    :raises ValueError: if there are fewer than two models, they have different numbers of data, or
        the prior probabilities have other names or do not sum to 1.

    >>> from pyro_tkam.infer import Evidence, Verdict
    >>> first = Evidence(-10.0, 0.03, "bridge", Verdict())
    >>> second = Evidence(-11.0, 0.04, "bridge", Verdict())
    >>> table = compare({"first": first, "second": second})
    >>> round(table.loc["first", "posterior_probability"], 3)  # 1 / (1 + exp(-1))
    np.float64(0.731)
    """
    _check(evidences)
    prior = _prior(evidences, prior_probabilities)
    names = sorted(evidences, key=lambda name: evidences[name].value, reverse=True)
    best = evidences[names[0]]
    posterior = _posterior(evidences, prior)
    found = {name: evidences[name].verdict.measures.get(SENSITIVITY, math.nan) for name in names}
    no_sensitivity = all(map(math.isnan, found.values()))
    rows = {}
    for name in names:
        evidence = evidences[name]
        factor = evidence.value - best.value
        apart = (
            0.0 if name == names[0] else math.hypot(evidence.standard_error, best.standard_error)
        )
        rows[name] = {
            "log_evidence": evidence.value,
            "standard_error": evidence.standard_error,
            "percentage_error": evidence.percentage_error,
            "log_bayes_factor": factor,
            "log_bayes_factor_error": apart,
            "bayes_factor": math.exp(factor),
            "prior_probability": prior[name],
            "posterior_probability": posterior[name][0],
            "posterior_probability_error": posterior[name][1],
            "trusted": evidence.verdict.trusted,
            **({} if no_sensitivity else {"prior_sensitivity": found[name]}),
        }
    _warn(evidences)
    if find_spec("pandas") is None:
        return rows
    import pandas

    return pandas.DataFrame.from_dict(rows, orient="index")


def _posterior(
    evidences: Mapping[str, Evidence], prior: Mapping[str, float]
) -> dict[str, tuple[float, float]]:
    """Posterior probability of each model, and its standard error."""
    largest = max(each.value for each in evidences.values())
    weights = {
        name: prior[name] * math.exp(evidence.value - largest)
        for name, evidence in evidences.items()
    }
    total = sum(weights.values())
    shares = {name: weight / total for name, weight in weights.items()}
    result = {}
    for name, share in shares.items():
        slopes = [
            ((name == other) - shares[other]) * evidence.standard_error
            for other, evidence in evidences.items()
        ]
        result[name] = share, share * math.hypot(*slopes)
    return result


def _prior(
    evidences: Mapping[str, Evidence], given: Mapping[str, float] | None
) -> Mapping[str, float]:
    if given is None:
        return dict.fromkeys(evidences, 1 / len(evidences))
    mapping("prior_probabilities", given, "names to probabilities")
    for name, value in given.items():
        number(f"prior_probabilities[{name!r}]", value)
    if set(given) != set(evidences):
        raise ValueError(
            f"prior_probabilities must have the names {sorted(evidences)}, got {sorted(given)}"
        )
    proper = all(value >= 0 for value in given.values())
    if not proper or not abs(sum(given.values()) - 1) <= SUM_TOLERANCE:
        raise ValueError(f"prior_probabilities must be nonnegative and sum to 1, got {dict(given)}")
    return given


def _warn(evidences: Mapping[str, Evidence]) -> None:
    if doubtful := [name for name, each in evidences.items() if not each.verdict.trusted]:
        warnings.warn(
            f"the evidences of {doubtful} are not to be trusted: print them to see why",
            stacklevel=3,
        )
    if told := different_data(evidences):
        warnings.warn(
            f"the evidences are of different data, {told}: {SAME_DATA}", UserWarning, stacklevel=3
        )
    widths = {name: each.verdict.measures.get(WIDTH, 0.0) for name, each in evidences.items()}
    vague = {name: f"{width:.0f}" for name, width in widths.items() if width > VAGUE_WIDTH}
    if vague:
        wide = ", ".join(f"{name!r} ({width} times)" for name, width in vague.items())
        warnings.warn(
            f"at least one prior is far wider than its posterior in {wide}: a Bayes factor is "
            "inversely proportional to this width, so choose it deliberately or compare "
            "predictions",
            stacklevel=3,
        )


def _check(evidences: Mapping[str, Evidence]) -> None:
    if not isinstance(evidences, Mapping):
        raise TypeError(
            f"evidences must be a mapping from names to evidences, got {type(evidences).__name__}"
        )
    for name, evidence in evidences.items():
        if not isinstance(evidence, Evidence):
            raise TypeError(
                f"evidences must hold an Evidence for every name, got {type(evidence).__name__} "
                f"for {name!r}"
            )
    if len(evidences) < 2:
        raise ValueError(f"evidences must be for at least two models, got {len(evidences)}")
    data = {
        name: evidence.per_datum.numel()
        for name, evidence in evidences.items()
        if evidence.per_datum is not None
    }
    if len(set(data.values())) > 1:
        raise ValueError(
            f"evidences must be for the same data, got different numbers of data: {data}"
        )
