"""Langevin kernels side by side with Pyro's NUTS, and their cost by number of chains; prints JSON.

Every ratio compares two things timed in turn within one run: as the minimum of several repetitions,
or for effective draws as their total. An evaluation is one of the density, with or without its
gradient.

    python -m benchmarks.langevin --output langevin.json
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import arviz
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS
from pyro.infer.reparam import LocScaleReparam
from torch import Tensor

from benchmarks.timing import arguments, report
from pyro_tkam.infer import MALA, ULA, AutoMALA, ParallelTempering, VectorizedMCMC
from pyro_tkam.infer.mcmc.chains import Chains
from pyro_tkam.infer.mcmc.initialization import find_start
from pyro_tkam.ops.langevin import Point, StepInfo, Target, Tuning

KERNELS = {"ULA": ULA, "MALA": MALA, "AutoMALA": AutoMALA}
WARMUP_STEPS = 500
UNITS = ("gradient", "evaluation", "wall_second", "process_second")
EFFECTS = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def eight_schools_centered() -> None:
    """Rubin's eight schools."""
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", 8):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("y", dist.Normal(theta, ERRORS), obs=EFFECTS)


def logistic_regression() -> Callable[[], None]:
    """Return a logistic regression with 20 coefficients and 500 data."""
    x = torch.randn(500, 20)
    y = torch.distributions.Bernoulli(logits=x @ torch.randn(20) * 0.5).sample()

    def model() -> None:
        w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([20]).to_event(1))
        with pyro.plate("data", 500):
            pyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)

    return model


def gaussian_regression() -> Callable[[], None]:
    """Return a linear regression with 10 coefficients and 50 data."""
    x = torch.randn(50, 10)
    y = x @ torch.randn(10) + 0.3 * torch.randn(50)

    def model() -> None:
        w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([10]).to_event(1))
        with pyro.plate("data", 50):
            pyro.sample("y", dist.Normal(x @ w, 0.3), obs=y)

    return model


def seconds(function: Callable[[], Any], calls: int) -> float:
    """Return seconds a call."""
    begin = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - begin) / calls


def chain_cost(model: Callable[[], None], kernel: type, repetitions: int) -> dict[str, float]:
    """Return the cost of a step of 64 chains over that of one chain, after warm-up."""
    runs = {}
    for chains in (1, 64):
        made = kernel(model, step_size=0.01)
        density = made.density((), {}, None)
        with pyro.validation_enabled(False):
            runs[chains] = Chains.begin(made, density, find_start(density, chains), 300)
            seconds(runs[chains].step, 400)
    best = dict.fromkeys(runs, float("inf"))
    with pyro.validation_enabled(False):
        for _ in range(repetitions):
            for chains, run in runs.items():
                best[chains] = min(best[chains], seconds(run.step, 100))
    return {
        "one_chain_ms": 1e3 * best[1],
        "64_chains_ms": 1e3 * best[64],
        "ratio": best[64] / best[1],
    }


class CountedModel:
    """A model that counts its runs, hence NUTS's gradients."""

    def __init__(self, model: Callable[[], None]) -> None:
        self.model, self.gradients, self.screenings = model, 0, 0

    def __call__(self) -> None:
        """Run the model."""
        self.gradients += 1
        self.model()


class CountedAutoMALA(AutoMALA):
    """AutoMALA that counts what its searches need: gradients, and densities without a gradient."""

    gradients, screenings = 0, 0

    def step(
        self, point: Point, target: Target, tuning: Tuning, adjusted: bool
    ) -> tuple[Point, StepInfo]:
        """Make a step and count."""
        moved, info = super().step(point, target, tuning, adjusted)
        self.gradients += int(info.evaluations.sum())
        self.screenings += int(info.screenings.sum())
        return moved, info


def least_ess(samples: dict[str, Tensor]) -> float:
    """Return the smallest bulk effective sample size of draws ``(chain, draw, ...)``."""
    columns = [value.reshape(*value.shape[:2], -1).unbind(-1) for value in samples.values()]
    return min(
        float(arviz.ess(column.numpy(), method="bulk")) for each in columns for column in each
    )


def spent(make: Callable[..., Any], counted: CountedModel | CountedAutoMALA) -> dict[str, float]:
    """Run what is made with a hook; return effective draws after warm-up and what they took."""
    marks: list[dict[str, float]] = []

    def mark(kernel: Any, params: Any, stage: str, i: int) -> None:
        if stage == "Warmup" and i == WARMUP_STEPS - 1:
            marks.append(so_far())

    def so_far() -> dict[str, float]:
        calls = {
            "gradient": counted.gradients,
            "evaluation": counted.gradients + counted.screenings,
        }
        return {**calls, "wall_second": time.perf_counter(), "process_second": time.process_time()}

    mcmc = make(hook_fn=mark)
    mcmc.run()
    result = {unit: amount - marks[0][unit] for unit, amount in so_far().items()}
    return result | {"effective_draw": least_ess(mcmc.get_samples(group_by_chain=True))}


def against_nuts(
    model: Callable[[], None], draws: int, repetitions: int
) -> dict[str, dict[str, float]]:
    """
    Return effective draws of one NUTS chain and of 64 AutoMALA chains, run in turn, by what they
    took.
    """
    runs: dict[str, list[dict[str, float]]] = {"nuts": [], "automala": []}
    for _ in range(repetitions):
        counted = CountedModel(model)
        nuts = partial(MCMC, NUTS(counted), draws, WARMUP_STEPS, disable_progbar=True)
        runs["nuts"].append(spent(nuts, counted))
        kernel = CountedAutoMALA(model)
        auto = partial(
            VectorizedMCMC, kernel, draws, WARMUP_STEPS, num_chains=64, disable_progbar=True
        )
        runs["automala"].append(spent(auto, kernel))

    def total(own: list[dict[str, float]], unit: str) -> float:
        return sum(run[unit] for run in own)

    rates = {
        name: {f"ess_per_{unit}": total(own, "effective_draw") / total(own, unit) for unit in UNITS}
        for name, own in runs.items()
    }
    ratio = {unit: rates["automala"][unit] / rates["nuts"][unit] for unit in rates["nuts"]}
    return rates | {"ratio": ratio}


def tempering_rate(model: Callable[[], None], kernel: type, repetitions: int) -> dict[str, float]:
    """
    Return evaluations per second, with or without gradient, of 16 temperatures with 16 chains,
    after warm-up.
    """
    tempering = ParallelTempering(
        kernel(model, step_size=0.001),
        num_temperatures=16,
        num_chains=16,
        num_samples=200,
        disable_progbar=True,
    )
    tempering.run()
    chains, best = tempering._chains, {"evaluations": 0.0, "gradients": 0.0}
    with pyro.validation_enabled(False):
        for _ in range(repetitions):
            before, begin = int(chains.evaluations), time.perf_counter()
            screenings = sum(int(chains.step().screenings.sum()) for _ in range(100))
            elapsed, evaluations = time.perf_counter() - begin, int(chains.evaluations) - before
            rates = {
                "evaluations": evaluations / elapsed,
                "gradients": (evaluations - screenings) / elapsed,
            }
            best = max(best, rates, key=lambda each: each["evaluations"])
    return best


def run(repetitions: int, runs: int, draws: int) -> dict[str, Any]:
    """Run all benchmarks."""
    pyro.set_rng_seed(0)
    schools = poutine.reparam(eight_schools_centered, {"theta": LocScaleReparam(0.0)})
    logistic, gaussian = logistic_regression(), gaussian_regression()
    return {
        "cost_of_64_chains": {
            name: chain_cost(schools, kernel, repetitions) for name, kernel in KERNELS.items()
        },
        "against_nuts": {
            "eight_schools": against_nuts(schools, draws, runs),
            "logistic_20d": against_nuts(logistic, draws, runs),
        },
        "tempering_per_second": {
            name: tempering_rate(gaussian, kernel, repetitions) for name, kernel in KERNELS.items()
        },
    }


def main() -> None:
    """Run everything and report it."""
    options = arguments(__doc__)
    repetitions, runs, draws = (3, 3, 300) if options.short else (6, 18, 1000)
    report(run(repetitions, runs, draws), options.output)


if __name__ == "__main__":
    main()
