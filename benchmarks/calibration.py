"""Calibration of the samplers: ranks among the draws of chains, and means of SMC's evidences; JSON.

Ranks (Talts et al. 2018, arXiv:1804.06788): parameters are drawn from the prior, and data from
them, 10,000 times; the rank of a parameter among
63 posterior draws is uniform where the sampler is right. Two tests look at the ranks, chi-squared
in 16 bins and the mean squared distance from the middle; the smaller p-value counts twice. All data
sets are data of one plate, each with chains and step size of its own. The control samples the
posterior of a likelihood that is raised to the power 0.9, and must be found out: 10,000 data sets
put its squares 6 standard errors off.

Means: estimates of the evidence of ten normal means from 1,000 ensembles of 32 rows, over the exact
value. Ensembles whose temperatures, metrics and step sizes are fixed by a run before have the mean
1; the control, ensembles that tune themselves, has not.

    python -m benchmarks.calibration --threads 1 --output calibration.json
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path as FilePath
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from scipy import stats
from torch import Tensor

from benchmarks.timing import arguments, earlier, environment, report
from pyro_tkam.infer import EnsembleHMC, VectorizedMCMC
from pyro_tkam.infer.mcmc.path import Path
from pyro_tkam.infer.mcmc.tempered_ensemble import Rung, TemperedEnsemble
from pyro_tkam.infer.model.density import ModelDensity

RANKS, BINS = 63, 16
ROWS = 32


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


MODELS = {"counts": counts, "trials": trials, "normal": normal}
KINDS = {"right": 1.0, "control": 0.9}
"""Powers of the likelihood that is sampled."""


def p_values(model: Callable[..., None], num: int, power: float) -> dict[str, Any]:
    """Return the p-value of the ranks of each parameter."""
    trace = poutine.trace(model).get_trace(num)
    kernel, chains = EnsembleHMC(model), RANKS + 1
    mcmc = VectorizedMCMC(kernel, 1, warmup_steps=100, num_chains=chains, disable_progbar=True)
    mcmc.run(num, power, trace.nodes["y"]["value"])
    found = {}
    for name, draws in mcmc.get_samples().items():
        ranks = (draws[:RANKS] < trace.nodes[name]["value"]).sum(0)
        found[name] = p_value(ranks)
    return {"p_values": found}


def p_value(ranks: Tensor) -> float:
    """Return the p-value of ranks from 0 to 63 that should be uniform."""
    table = torch.bincount(ranks * BINS // (RANKS + 1), minlength=BINS)
    squares = (torch.arange(RANKS + 1) - RANKS / 2).square()
    error = squares.std(correction=0) / len(ranks) ** 0.5
    z = (squares[ranks].mean() - squares.mean()) / error
    by_bins = float(stats.chisquare(table.numpy()).pvalue)
    return min(1.0, 2 * min(by_bins, 2 * float(stats.norm.sf(abs(z.item())))))


def means(x: Tensor) -> None:
    """Ten normal means with a datum each."""
    z = pyro.sample("z", dist.Normal(torch.zeros(10), 1.0).to_event(1))
    pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=x)


def evidence(num: int, tuned_before: bool) -> dict[str, float]:
    """Return mean and standard error of the evidence over the exact one.

    :param num: of ensembles.
    :param tuned_before: whether a run before fixes temperatures, metrics and step sizes.
    """
    x = torch.ones(10)
    exact = dist.Normal(0.0, 1.25**0.5).log_prob(x).sum()
    mover, path = EnsembleHMC(means), Path(ModelDensity(means, (x,)))
    schedule: list[Rung] | None = None
    if tuned_before:
        pilot, schedule = TemperedEnsemble(mover, path, ROWS), []
        while not pilot.done:
            pilot.rung()
            schedule.append(pilot.found)
    found = []
    for _ in range(num):
        run = TemperedEnsemble(mover, path, ROWS, schedule=schedule)
        while not run.done:
            run.rung()
        found.append(run.log_evidence - exact)
    each = torch.stack(found).exp()
    mean, error = each.mean().item(), (each.std() / num**0.5).item()
    return {"mean": mean, "standard_error": error, "errors_from_1": (mean - 1) / error}


def runs(short: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return the measurements to make, by name."""
    num, ensembles = (500, 50) if short else (10_000, 1000)
    made: dict[str, Callable[[], dict[str, Any]]] = {}
    for kind in KINDS:
        made[f"evidence/{kind}/{ensembles}"] = partial(evidence, ensembles, kind == "right")
    for name, model in MODELS.items():
        for kind, power in KINDS.items():
            made[f"{name}/{kind}/{num}"] = partial(p_values, model, num, power)
    return made


def main() -> None:
    """Make the measurements that are missing."""
    options = arguments(__doc__)
    torch.set_default_dtype(torch.float64)
    output: FilePath | None = options.output
    known = earlier(output).get("runs", {})
    for key, run in runs(options.short).items():
        if key in known:
            continue
        pyro.set_rng_seed(0)
        begin = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            known[key] = run()
        known[key]["process_seconds"] = time.process_time() - begin
        print(key, json.dumps(known[key]), flush=True)
        if output is not None:
            text = json.dumps({"environment": environment(), "runs": known}, indent=2)
            output.write_text(text + "\n")
    report({"runs": known}, output)


if __name__ == "__main__":
    main()
