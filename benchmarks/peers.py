"""Evidences by other packages, where they are installed."""

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.problems import Problem
from pyro_tkam.infer import ModelDensity

Run = Callable[[Problem], dict[str, Any]]


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
        """Map points of the cube, ``(..., dim)``, to standard normal ones."""
        return torch.special.ndtri(torch.as_tensor(cube)).numpy()

    def log_likelihood(self, points: np.ndarray) -> np.ndarray:
        """Log likelihood of points ``(dim,)`` or ``(num, dim)``."""
        batch = torch.as_tensor(np.atleast_2d(points), dtype=torch.get_default_dtype())
        self.evaluations += len(batch)
        with torch.no_grad():
            values = self.density.log_terms(batch)[1].double().numpy()
        return values[0] if np.ndim(points) == 1 else values


def _dynesty(problem: Problem) -> dict[str, Any]:
    import dynesty

    cube = UnitCube(problem)
    generator = np.random.default_rng(torch.initial_seed())
    sampler = dynesty.NestedSampler(
        lambda point: float(cube.log_likelihood(point)), cube.transform, cube.dim, rstate=generator
    )
    sampler.run_nested(print_progress=False)
    error = sampler.results.logz[-1] - problem.exact
    return _result("dynesty", error, sampler.results.logzerr[-1], cube)


def _nautilus(problem: Problem) -> dict[str, Any]:
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
    return _result("nautilus", sampler.log_z - problem.exact, sampler.n_eff**-0.5, cube)


def _ultranest(problem: Problem) -> dict[str, Any]:
    import ultranest

    cube = UnitCube(problem)
    np.random.seed(torch.initial_seed() % 2**32)  # noqa: NPY002 - the only generator that it takes
    names = [f"z{i}" for i in range(cube.dim)]
    sampler = ultranest.ReactiveNestedSampler(
        names, cube.log_likelihood, cube.transform, vectorized=True
    )
    result = sampler.run(show_status=False, viz_callback=False)
    return _result("ultranest", result["logz"] - problem.exact, result["logzerr"], cube)


def _result(method: str, error: float, standard_error: float, cube: UnitCube) -> dict[str, Any]:
    return {
        "method": method,
        "error": float(error),
        "standard_error": float(standard_error),
        "evaluations": cube.evaluations,
    }


PEERS: dict[str, Run] = {
    name: run
    for name, run in {"dynesty": _dynesty, "nautilus": _nautilus, "ultranest": _ultranest}.items()
    if importlib.util.find_spec(name)
}
