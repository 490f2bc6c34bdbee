"""A finished run as an ArviZ container."""

import json
import math
from typing import Any

import numpy as np

from pyro_tkam._arviz import Container, from_groups
from pyro_tkam.infer.results import Evidence
from pyro_tkam.train.folder import RunFolder


def training_to_arviz(result: RunFolder, *, evidence: Evidence | None = None) -> Container:
    """
    Turn a run folder into a container with one group, ``training``: every metric over dimension
    ``update``.

    :param result: the folder of a finished run.
    :param evidence: not taken: the run's own evidence of held-out data, in nats a datum, is in the
        attributes, where any were held out.
    :raises FileNotFoundError: where metrics or summary are missing.
    :raises ValueError: for an evidence, or damaged metrics.
    """
    if evidence is not None:
        raise ValueError("evidence must be None for a run folder, which has its own, got one")
    if not result.summary.is_file():
        raise FileNotFoundError(f"{result.summary} is missing")
    columns = {name: np.asarray(values) for name, values in result.read_metrics().items()}
    updates = columns.pop("update").astype(int)
    held_out = json.loads(result.summary.read_text()).get("held_out")
    attrs = {} if held_out is None else _evidence_attributes(held_out)
    return from_groups(
        {"training": columns},
        sample_dims={"training": ("update",)},
        coords={"update": updates},
        attrs=attrs,
    )


def _evidence_attributes(held_out: dict[str, Any]) -> dict[str, Any]:
    error = held_out["standard_error"]
    return {
        "log_evidence": held_out["log_evidence"],
        "log_evidence_standard_error": math.nan if error is None else error,
        "log_evidence_verdict": held_out["verdict"],
    }
