"""One small valid call of everything public in diagnostics."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch

from pyro_tkam.diagnostics import load, save, to_arviz
from pyro_tkam.infer import Evidence, ImportanceSampling, Verdict
from tests.valid_calls.call import Call

RECORDS = ()


def model(x):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def calls() -> dict[str, Call]:
    torch.manual_seed(0)
    draws = ImportanceSampling(model, num_particles=30).run(torch.zeros(2))
    evidence = Evidence(-1.0, 0.1, "bridge", Verdict())
    container = to_arviz(draws)
    folder = Path(tempfile.mkdtemp())
    save(container, folder / "draws.nc")
    return {
        "to_arviz": Call(
            lambda **given: to_arviz(given.pop("result"), **given),
            {"result": draws, "evidence": evidence},
        ),
        "save": Call(save, {"container": container, "path": "draws.nc"}),
        "load": Call(load, {"path": str(folder / "draws.nc")}),
    }
