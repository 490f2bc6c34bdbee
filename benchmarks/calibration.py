"""Simulation-based calibration of EnsembleHMC (Talts et al. 2018, arXiv:1804.06788); prints JSON.

Parameters are drawn from the prior, and data from them, 20,000 times; the rank of a parameter among
63 posterior draws is uniform where the sampler is right. Two tests look at the ranks, chi-squared
in 16 bins and the mean squared distance from the middle; the smaller p-value counts twice. All data
sets are data of one plate, each with chains and step size of its own. The control samples the
posterior of a likelihood that is raised to the power 0.9, and must be found out.

    python -m benchmarks.calibration --threads 1 --output calibration.json
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from scipy import stats
from torch import Tensor

from benchmarks.timing import arguments, report
from pyro_tkam.infer import EnsembleHMC, VectorizedMCMC

RANKS, BINS = 63, 16
Draw = Callable[[int], dict[str, Tensor]]


def normal(num: int, power: float = 1.0, y: Tensor | None = None) -> None:
    """Twelve normal data with an unknown mean and scale."""
    with pyro.plate("data_sets", num):
        mean = pyro.sample("mean", dist.Normal(0.0, 2.0))
        scale = pyro.sample("scale", dist.LogNormal(0.0, 0.5))
        data = dist.Normal(mean.unsqueeze(-1), scale.unsqueeze(-1)).expand([num, 12]).to_event(1)
        with poutine.scale(scale=power):
            pyro.sample("y", data, obs=y)


def counts(num: int, power: float = 1.0, y: Tensor | None = None) -> None:
    """Twelve counts of one rate."""
    with pyro.plate("data_sets", num):
        rate = pyro.sample("rate", dist.Gamma(2.0, 0.5))
        with poutine.scale(scale=power):
            pyro.sample("y", dist.Poisson(rate.unsqueeze(-1)).expand([num, 12]).to_event(1), obs=y)


def trials(num: int, power: float = 1.0, y: Tensor | None = None) -> None:
    """Successes in two groups of 60 trials, whose log odds differ by an effect."""
    with pyro.plate("data_sets", num):
        base = pyro.sample("base", dist.Normal(0.0, 1.0))
        effect = pyro.sample("effect", dist.Normal(0.0, 1.0))
        logits = torch.stack([base, base + effect], -1)
        with poutine.scale(scale=power):
            pyro.sample("y", dist.Binomial(60, logits=logits).to_event(1), obs=y)


MODELS = {"normal": normal, "counts": counts, "trials": trials}


def p_values(model: Callable[..., None], num: int, power: float) -> dict[str, float]:
    """Return the p-value of the ranks of each parameter."""
    trace = poutine.trace(model).get_trace(num)
    kernel, chains = EnsembleHMC(model), RANKS + 1
    mcmc = VectorizedMCMC(kernel, 1, warmup_steps=100, num_chains=chains, disable_progbar=True)
    mcmc.run(num, power, trace.nodes["y"]["value"])
    found = {}
    for name, draws in mcmc.get_samples().items():
        ranks = (draws[:RANKS] < trace.nodes[name]["value"]).sum(0)
        found[name] = p_value(ranks)
    return found


def p_value(ranks: Tensor) -> float:
    """Return the p-value of ranks from 0 to 63 that should be uniform."""
    table = torch.bincount(ranks * BINS // (RANKS + 1), minlength=BINS)
    squares = (torch.arange(RANKS + 1) - RANKS / 2).square()
    error = squares.std(correction=0) / len(ranks) ** 0.5
    z = (squares[ranks].mean() - squares.mean()) / error
    by_bins = float(stats.chisquare(table.numpy()).pvalue)
    return min(1.0, 2 * min(by_bins, 2 * float(stats.norm.sf(abs(z.item())))))


def main() -> None:
    """Run all models, and their controls."""
    options = arguments(__doc__)
    torch.set_default_dtype(torch.float64)
    num = 500 if options.short else 20_000
    results: dict[str, Any] = {"data_sets": num}
    for name, model in MODELS.items():
        for kind, power in (("right", 1.0), ("control", 0.9)):
            pyro.set_rng_seed(0)
            begin = time.process_time()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = p_values(model, num, power)
            seconds = time.process_time() - begin
            results[f"{name}/{kind}"] = {"p_values": found, "process_seconds": seconds}
            print(name, kind, results[f"{name}/{kind}"], flush=True)
    report(results, options.output)


if __name__ == "__main__":
    main()
