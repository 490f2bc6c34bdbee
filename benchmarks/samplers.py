"""EnsembleHMC and Pyro's NUTS on posteriors with reference draws; prints JSON.

All at default settings and in double precision: 64 chains of 500 draws, and one chain of 500 + 1000
of NUTS, with and without its compiler, cut after 120 processor seconds. Effective draws are the
smallest bulk effective sample size of all parameters; processor seconds count everything, warm-up
and start too. Results are written after each run, and runs that the output holds are not repeated.

    python -m benchmarks.samplers --threads 1 --output samplers.json
"""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import arviz
import numpy as np
import pyro
import torch
from pyro.infer import MCMC, NUTS

from benchmarks.posteriors import POSTERIORS, Data, data_of, reference_of, scalars
from benchmarks.timing import arguments, earlier, environment, report
from pyro_tkam.infer import EnsembleHMC, VectorizedMCMC

SEEDS = (0, 1, 2)
LIMIT = 120.0
"""Processor seconds after which NUTS is cut."""


def quality(name: str, draws: dict[str, torch.Tensor], data: Data) -> dict[str, float]:
    """
    Return effective draws, R-hat between four groups, and the largest error of a mean or a spread
    in standard errors.
    """
    got, reference = scalars(name, draws, data), reference_of(name)
    rhat, effective, worst = 1.0, math.inf, 0.0
    for key, known in reference.items():
        x = got[key]
        effective = min(effective, float(arviz.ess(x, method="bulk")))
        groups = x.reshape(4, -1) if len(x) % 4 == 0 else x.reshape(2, -1)
        rhat = max(rhat, float(arviz.rhat(groups)))
        spread = (x - known["mean"]) ** 2
        errors = (
            _error(x, known["mean"], known["sd"], known["ess_mean"]),
            _error(spread, known["sd"] ** 2, known["sd_of_spread"], known["ess_spread"]),
        )
        worst = max(worst, *errors)
    return {"effective_draws": effective, "rhat": rhat, "largest_error": worst}


def _error(x: np.ndarray, mean: float, sd: float, known_draws: float) -> float:
    own_draws = float(arviz.ess(x, method="mean"))
    return float(abs(x.mean() - mean) / (sd * math.sqrt(1 / own_draws + 1 / known_draws)))


def chains(name: str, seed: int) -> dict[str, Any]:
    """Run 64 chains."""
    data = data_of(name)
    pyro.set_rng_seed(seed)
    begin = time.process_time()
    mcmc = VectorizedMCMC(EnsembleHMC(POSTERIORS[name].model), 500, disable_progbar=True)
    mcmc.run(data)
    seconds = time.process_time() - begin
    found = quality(name, mcmc.get_samples(group_by_chain=True), data)
    gradients = int(mcmc.sample_stats["n_steps"].sum())
    return {
        **found,
        "process_seconds": seconds,
        "gradients": gradients,
        "per_gradient": found["effective_draws"] / gradients,
        "per_second": found["effective_draws"] / seconds,
        "findings": sorted(mcmc.verdict.names),
    }


class CutError(Exception):
    """The time is up."""


def nuts(name: str, seed: int, jit: bool) -> dict[str, Any]:
    """Run one chain of NUTS; gradients are counted where its compiler is off."""
    data, calls = data_of(name), [0]
    pyro.set_rng_seed(seed)
    begin = time.process_time()

    def model(data: Data) -> None:
        calls[0] += 1
        POSTERIORS[name].model(data)

    def cut(kernel: NUTS, draws: Any, stage: str, index: int) -> None:
        if time.process_time() - begin > LIMIT:
            raise CutError(f"{stage} {index}")
        if stage == "Sample" and index == 0:
            calls[0] = 0

    kernel = NUTS(model, jit_compile=jit, ignore_jit_warnings=True)
    mcmc = MCMC(kernel, 1000, warmup_steps=500, disable_progbar=True, hook_fn=cut)
    try:
        mcmc.run(data)
    except CutError as error:
        return {"cut_at": str(error), "process_seconds": time.process_time() - begin}
    seconds = time.process_time() - begin
    found = quality(name, mcmc.get_samples(group_by_chain=True), data)
    result = {
        **found,
        "process_seconds": seconds,
        "per_second": found["effective_draws"] / seconds,
    }
    if not jit:
        result["gradients"] = calls[0]
        result["per_gradient"] = found["effective_draws"] / calls[0]
    return result


def runs(short: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return the runs to make, by name."""
    made: dict[str, Callable[[], dict[str, Any]]] = {}
    for name in ["arma-arma11"] if short else POSTERIORS:
        for seed in SEEDS[: 1 if short else None]:
            made[f"{name}/chains/{seed}"] = partial(chains, name, seed)
    if not short:
        for name in POSTERIORS:
            for jit in (False, True):
                key = f"{name}/nuts{' compiled' if jit else ''}/0"
                made[key] = partial(nuts, name, 0, jit)
    return made


def main() -> None:
    """Make the runs that are missing."""
    options = arguments(__doc__)
    torch.set_default_dtype(torch.float64)
    output: Path | None = options.output
    known = earlier(output).get("runs", {})
    for key, run in runs(options.short).items():
        if key in known:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            known[key] = run()
        print(key, json.dumps(known[key]), flush=True)
        if output is not None:
            text = json.dumps({"environment": environment(), "runs": known}, indent=2)
            output.write_text(text + "\n")
    report({"runs": known}, output)


if __name__ == "__main__":
    main()
