"""One small valid call of everything public in paper.findings."""

from __future__ import annotations

from pyro_tkam.paper.findings import findings
from tests.valid_calls.call import Call

#: Made by the package, and a table.
RECORDS = ("CLAIMS", "Claim", "Comparison", "Finding")


def calls() -> dict[str, Call]:
    run = {"digits-uniform-rbf": {"seconds_per_update": 1.0, "measured": {"frechet": 1.0}}}
    return {"findings": Call(findings, {"runs": [run, run]})}
