"""Threads of one process that run models take turns, and get right results."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_tkam.infer import (
    MALA,
    SMC,
    EnsembleHMC,
    ImportanceMLE,
    ImportanceSampling,
    ParallelTempering,
    VectorizedMCMC,
    bridge_evidence,
    fitted_guide,
    log_evidence,
    log_evidences,
)
from pyro_tkam.models import TKAM
from pyro_tkam.nn import KAN, fit
from pyro_tkam.symbolic import find_formula

X = torch.tensor([0.5, 1.0])
#: of two data around a latent, all of variance 1
EXACT = float(dist.MultivariateNormal(torch.zeros(2), torch.ones(2, 2) + torch.eye(2)).log_prob(X))
DRAWS = {"z": torch.randn(2, 100, generator=torch.Generator().manual_seed(0)) / 3**0.5 + 0.5}


def model(x):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def chains():
    run = VectorizedMCMC(MALA(model), 16, 8, num_chains=20, disable_progbar=True)
    run.run(X)
    return float(run.get_samples()["z"].mean())


def ensemble():
    run = VectorizedMCMC(EnsembleHMC(model), 16, 16, num_chains=20, disable_progbar=True)
    run.run(X)
    return float(run.get_samples()["z"].mean())


def tempered():
    run = ParallelTempering(
        MALA(model),
        num_temperatures=3,
        num_samples=16,
        warmup_steps=8,
        num_chains=8,
        disable_progbar=True,
    )
    return run.run(X).log_evidence("bar").value


def particles():
    run = SMC(model, num_particles=64, num_runs=4, disable_progbar=True)
    run.run(X)
    return run.log_evidence.value


def formula():
    x = torch.rand(20, 1, dtype=torch.double)
    net = KAN([1, 1]).double()
    fit(net, x, 2 * x, steps=3)
    return float(find_formula(net, x, library=["x"])(torch.ones(1, 1)))


def generated():
    return float(TKAM.kart(8, 2).generate(50).isfinite().all())


#: what runs a model, what it gives, and how far it may be off
RUNS = {
    "VectorizedMCMC": (chains, 0.5, 0.3),
    "EnsembleHMC": (ensemble, 0.5, 0.3),
    "ParallelTempering": (tempered, EXACT, 1.0),
    "SMC": (particles, EXACT, 1.0),
    "log_evidence": (
        lambda: log_evidence(model, X, method="importance", num_particles=1000).value,
        EXACT,
        0.3,
    ),
    "log_evidences": (
        lambda: log_evidences(model, [X], method="importance", num_particles=1000)[0].value,
        EXACT,
        0.3,
    ),
    "ImportanceSampling": (
        lambda: ImportanceSampling(model, num_particles=1000).run(X).evidence.value,
        EXACT,
        0.3,
    ),
    "bridge_evidence": (lambda: bridge_evidence(model, X, draws=DRAWS).value, EXACT, 0.5),
    "fitted_guide": (lambda: float(callable(fitted_guide(model, X, draws=DRAWS))), 1.0, 0.0),
    "ImportanceMLE": (lambda: -ImportanceMLE(1000).loss(model, None, X), EXACT, 0.3),
    "find_formula": (formula, 2.0, 1e-3),
    "generate": (generated, 1.0, 0.0),
}


@pytest.mark.filterwarnings("ignore:.*not to be trusted")  # of runs that are short on purpose
@pytest.mark.parametrize("name", RUNS)
def test_threads_take_turns(name):
    """Each thread runs it, and then another thing that runs a model."""
    run, right, error = RUNS[name]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda i: run() if i % 2 else generated(), range(4)))
    assert found[::2] == [1.0] * 2
    assert found[1::2] == pytest.approx([right] * 2, abs=error)


@pytest.mark.filterwarnings("ignore:.*not to be trusted")
def test_workers_that_are_threads_do_not_wait_for_each_other():
    """Executors of threads within threads end, and so do runs beside them."""

    def spread(_):
        with ThreadPoolExecutor(2) as workers:
            many = log_evidences(
                model, [X, X], executor=workers, method="importance", num_particles=1000
            )
        return [each.value for each in many]

    def alone(_):
        return [particles()]

    with ThreadPoolExecutor(4) as threads:
        futures = [threads.submit(each, 0) for each in (spread, alone, spread, alone)]
        found = [value for future in futures for value in future.result(timeout=60)]
    assert found == pytest.approx([EXACT] * len(found), abs=1.0)


def far_particles():
    SMC(model, num_particles=64, num_runs=4, disable_progbar=True).run(100 * X)


@pytest.mark.parametrize("run", [chains, tempered, far_particles])
def test_warnings_point_at_the_caller(run):
    """Not at the wrapper that makes threads take turns."""
    with pytest.warns(UserWarning, match="not to be trusted") as caught:
        run()
    assert {each.filename for each in caught} == {__file__}
