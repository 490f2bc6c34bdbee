"""
Evidences by other packages at their default settings, where they are installed:
``pip install nautilus-sampler pymc``.
"""

import importlib.metadata
import importlib.util
import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyro
import torch

from benchmarks.problems import Problem
from pyro_tkam.infer import ModelDensity

Run = Callable[[Problem], dict[str, Any]]

LIMIT = 600
"""Most processor seconds of one run."""


class UnitCube:
    """
    A problem as nested samplers want it: a map from the unit cube to the prior, and a log
    likelihood.
    """

    def __init__(self, problem: Problem) -> None:
        self.density = ModelDensity(problem.model, standard_normal=True)
        assert self.density.prior_is_standard_normal
        self.dim, self.evaluations = self.density.layout.dim, 0

    def transform(self, cube: np.ndarray) -> np.ndarray:
        """Map points of the cube, ``(num, dim)``, to standard normal ones."""
        return torch.special.ndtri(torch.as_tensor(cube)).numpy()

    def log_likelihood(self, points: np.ndarray) -> np.ndarray:
        """Log likelihood of points ``(num, dim)``."""
        batch = torch.as_tensor(points, dtype=torch.get_default_dtype())
        self.evaluations += len(batch)
        with torch.no_grad():
            return self.density.log_terms(batch)[1].double().numpy()


def _nautilus(problem: Problem) -> dict[str, Any]:
    """Nested sampling with neural networks as bounds."""
    import nautilus

    cube = UnitCube(problem)
    sampler = nautilus.Sampler(
        cube.transform,
        cube.log_likelihood,
        n_dim=cube.dim,
        vectorized=True,
        pass_dict=False,
        seed=torch.initial_seed() % 2**32,
    )
    sampler.run(verbose=False)
    return {
        "error": float(sampler.log_z - problem.exact),
        "standard_error": float(sampler.n_eff**-0.5),
        "evaluations": cube.evaluations,
    }


def _pymc(problem: Problem) -> dict[str, Any]:
    """``sample_smc``: the mean of its chains' evidences."""
    import pymc

    assert problem.in_pymc is not None
    logging.getLogger("pymc").setLevel(logging.WARNING)
    with problem.in_pymc():
        trace = pymc.sample_smc(
            cores=1,
            random_seed=torch.initial_seed() % 2**32,
            progressbar=False,
            compute_convergence_checks=False,
            return_inferencedata=False,
        )
    logs = torch.tensor([chain[-1] for chain in trace.report.log_marginal_likelihood])
    log_mean = logs.logsumexp(0) - np.log(len(logs))
    spread = (logs - log_mean).exp().std() / len(logs) ** 0.5
    return {"error": log_mean.item() - problem.exact, "standard_error": spread.item()}


def require_same_in_pymc(problem: Problem) -> None:
    """Require Pyro and PyMC to give one log joint at a draw of the prior, up to rounding."""
    trace = pyro.poutine.trace(problem.model).get_trace()
    assert problem.in_pymc is not None
    other = problem.in_pymc()
    point = {}
    for site in other.free_RVs:
        value, transform = trace.nodes[site.name]["value"].numpy(), other.rvs_to_transforms[site]
        if transform is not None:
            value = transform.forward(value, *site.owner.inputs).eval()
        point[other.rvs_to_values[site].name] = value
    torch.testing.assert_close(
        float(trace.log_prob_sum()),
        float(other.compile_logp(jacobian=False)(point)),
        rtol=1e-5,
        atol=1e-3,
    )


@contextmanager
def processor_seconds(limit: float) -> Iterator[None]:
    """Stop what runs inside after processor seconds (not on Windows): ``TimeoutError``."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"{limit} processor seconds are over")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, limit)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _limited(run: Run) -> Run:
    """Say that a run has not ended within its limit instead of what it would have found."""

    def limited(problem: Problem) -> dict[str, Any]:
        try:
            with processor_seconds(LIMIT):
                return run(problem)
        except TimeoutError:
            return {"not_ended_in_process_seconds": LIMIT}

    return limited


PEERS: dict[str, Run] = {
    name: _limited(run)
    for name, run in {"nautilus": _nautilus, "pymc": _pymc}.items()
    if importlib.util.find_spec(name)
}
PACKAGES = {"nautilus": "nautilus-sampler", "pymc": "pymc"}


def versions() -> dict[str, str]:
    """Return the versions of the peers that are installed."""
    return {name: importlib.metadata.version(PACKAGES[name]) for name in PEERS}
