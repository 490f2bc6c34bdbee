"""What 64 chains cost beside one, and beside arithmetic written by hand; memory of draws; JSON.

Times are processor seconds of a leapfrog step, or of a log density with its gradient, the least of
many repetitions taken in turn, at the rows where a tempered ensemble arrives. By hand means: the
same density as plain functions of a batch with autograd, without this package or Pyro.

    python -m benchmarks.costs --threads 1 --output costs.json
"""

from __future__ import annotations

import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pyro
import torch
from torch import Tensor

from benchmarks.posteriors import (
    POSTERIORS,
    Data,
    columns,
    data_of,
    factor_of_process,
    recursion,
)
from benchmarks.timing import arguments, best_side_by_side, report
from pyro_tkam.infer import EnsembleHMC
from pyro_tkam.infer.mcmc.metric import FramedTarget
from pyro_tkam.infer.mcmc.path import Path
from pyro_tkam.infer.mcmc.tempered_ensemble import TemperedEnsemble
from pyro_tkam.ops.hmc import trajectory

CHAINS, LEAPFROGS, CALLS = 64, 8, 10
LATENTS, DRAWS, PROCESSES = 1000, 2000, 3
Coordinates = Mapping[str, Tensor]
LogDensity = Callable[[Coordinates], Tensor]


def kidscore(data: Data) -> LogDensity:
    """Return a regression with a half-Cauchy scale."""
    design = columns(data["mom_hs"], data["mom_iq"], data["mom_hs"] * data["mom_iq"])
    return regression(design, data["kid_score"], lambda s: -torch.log1p((s / 2.5).square()))


def nes(data: Data) -> LogDensity:
    """Return a regression with a flat prior of the scale."""
    ages = ((data["age_discrete"] == group).double() for group in (2, 3, 4))
    rest = (data[name] for name in ("educ1", "gender", "income"))
    design = columns(data["real_ideo"], data["race_adj"], *ages, *rest)
    return regression(design, data["partyid7"], torch.zeros_like)


def regression(design: Tensor, y: Tensor, log_prior: Callable[[Tensor], Tensor]) -> LogDensity:
    """Return the log density of coefficients and the logarithm of a scale."""

    def log_density(z: Coordinates) -> Tensor:
        scale = z["sigma"].exp()
        error = (y - z["beta"] @ design.T) / scale[:, None]
        return -0.5 * error.square().sum(-1) + (1 - len(y)) * z["sigma"] + log_prior(scale)

    return log_density


def gauss_mix(data: Data) -> LogDensity:
    """Return a mixture of two normals with ordered means."""
    y = data["y"]

    def log_density(z: Coordinates) -> Tensor:
        low = z["mu_low"]
        high = low + z["mu_gap"].exp()
        scales = z["sigma"].exp()
        logit = z["theta"]
        log_shares = torch.nn.functional.logsigmoid(torch.stack([logit, -logit], -1))
        constants = log_shares - z["sigma"]
        error = (y - torch.stack([low, high], -1)[..., None]) / scales[..., None]
        each = constants[..., None] - 0.5 * error.square()
        priors = -0.125 * (low.square() + high.square() + scales.square().sum(-1))
        jacobian = z["mu_gap"] + z["sigma"].sum(-1)
        likelihood = torch.logaddexp(each[:, 0], each[:, 1]).sum(-1)
        return likelihood + priors + jacobian + 5 * log_shares.sum(-1)

    return log_density


def garch(data: Data) -> LogDensity:
    """Return a time series of changing variance."""
    y = data["y"]
    first = torch.tensor([data["sigma1"] ** 2])

    def log_density(z: Coordinates) -> Tensor:
        alpha0 = z["alpha0"].exp()
        alpha1 = z["alpha1"].sigmoid()
        share = z["share"].sigmoid()
        error = (y - z["mu"][:, None]).square()
        drive = alpha0[:, None] + alpha1[:, None] * error[:, :-1]
        drive = torch.cat([first.expand(len(alpha0), 1), drive], -1)
        variance = recursion((share * (1 - alpha1))[:, None], drive)
        likelihood = -0.5 * (error / variance + variance.log()).sum(-1)
        logits = torch.stack([z["alpha1"], z["share"]], -1)
        jacobian = torch.nn.functional.logsigmoid(torch.stack([logits, -logits])).sum((0, -1))
        return likelihood + z["alpha0"] + jacobian + (1 - alpha1).log()

    return log_density


def poisson_process(data: Data) -> LogDensity:
    """Return counts under a Gaussian process."""
    x, k = data["x"], data["k"]

    def log_density(z: Coordinates) -> Tensor:
        rho, alpha, standard = z["rho"].exp(), z["alpha"].exp(), z["f_tilde"]
        f = (factor_of_process(x, rho, alpha) @ standard[..., None])[..., 0]
        likelihood = (k * f - f.exp()).sum(-1)
        prior = -4 * rho - alpha.square() / 8 - standard.square().sum(-1) / 2
        return likelihood + prior + 25 * z["rho"] + z["alpha"]

    return log_density


BY_HAND: dict[str, Callable[[Data], LogDensity]] = {
    "kidiq-kidscore_interaction": kidscore,
    "nes1996-nes": nes,
    "low_dim_gauss_mix-low_dim_gauss_mix": gauss_mix,
    "garch-garch11": garch,
    "gp_pois_regr-gp_pois_regr": poisson_process,
}


def repeated(call: Callable[[], object]) -> Callable[[], None]:
    """Return many calls, as a single one is short."""

    def many() -> None:
        for _ in range(CALLS):
            call()

    return many


def measured(name: str, repeats: int) -> dict[str, float]:
    """Return milliseconds of a leapfrog step and of an evaluation, and their ratios."""
    pyro.set_rng_seed(0)
    data = data_of(name)
    kernel = EnsembleHMC(POSTERIORS[name].model)
    path = Path(kernel.density((data,), {}, None))
    ensemble = TemperedEnsemble(kernel, path, CHAINS)
    while not ensemble.done:
        ensemble.rung()
    at_end = ensemble.path.at(torch.ones((), dtype=torch.float64))
    position = ensemble.state.position
    frame = ensemble.state.metric.frame
    target = FramedTarget(at_end, frame)
    step = torch.full((), 0.01)
    scale = ensemble.state.metric.scale
    calls: dict[str, Callable[[], object]] = {}
    for rows in (1, CHAINS):
        start = target(frame.inner(position[:rows]))
        momentum = torch.randn_like(start.position)
        leapfrogs = partial(trajectory, start, momentum, step, scale, LEAPFROGS, target)
        calls[f"step of {rows}"] = repeated(leapfrogs)
    calls["evaluation"] = repeated(lambda: at_end.point(position))
    if name in BY_HAND:
        log_density = BY_HAND[name](data)
        agrees(log_density(path.layout.unflatten(position)), at_end.point(position).log_density)

        def by_hand() -> Tensor:
            z = position.detach().requires_grad_()
            value = log_density(path.layout.unflatten(z))
            return torch.autograd.grad(value.sum(), z)[0]

        calls["by hand"] = repeated(by_hand)
    best = best_side_by_side(calls, repeats, time.process_time)
    milliseconds = {key: 1e3 * each / CALLS for key, each in best.items()}
    result = {
        "one_chain_ms": milliseconds["step of 1"] / LEAPFROGS,
        "64_chains_ms": milliseconds[f"step of {CHAINS}"] / LEAPFROGS,
        "ratio": best[f"step of {CHAINS}"] / best["step of 1"],
    }
    if name in BY_HAND:
        result |= {
            "evaluation_ms": milliseconds["evaluation"],
            "by_hand_ms": milliseconds["by hand"],
            "ratio_to_by_hand": best["evaluation"] / best["by hand"],
        }
    return result


def agrees(by_hand: Tensor, ours: Tensor) -> None:
    """Check that two log densities differ by a constant."""
    torch.testing.assert_close(by_hand - by_hand[0], ours - ours[0], rtol=1e-8, atol=1e-8)


MEMORY = f"""
import pyro, torch, warnings
import pyro.distributions as dist
from benchmarks.timing import peak_memory_mib
from pyro_tkam.infer import EnsembleHMC, VectorizedMCMC
torch.set_num_threads(1)
warnings.simplefilter("ignore")
def model():
    z = pyro.sample("z", dist.Normal(torch.zeros({LATENTS}), 1.0).to_event(1))
    pyro.factor("likelihood", -0.5 * z.square().sum())
def run(draws):
    mcmc = VectorizedMCMC(EnsembleHMC(model), draws, disable_progbar=True)
    mcmc.run()
    return mcmc
run(20)
before = peak_memory_mib()
mcmc = run({DRAWS})
peak = peak_memory_mib() - before
kept = sum(each.nbytes for each in mcmc.get_samples(group_by_chain=True).values()) / 2**20
print(peak / kept)
"""


def memory() -> dict[str, Any]:
    """Return the peaks of fresh processes over the draws that they keep, after a short run."""
    call = [sys.executable, "-c", MEMORY]
    peaks = [
        float(subprocess.run(call, check=True, capture_output=True, text=True).stdout)
        for _ in range(PROCESSES)
    ]
    sizes = {"latents": LATENTS, "draws": DRAWS, "chains": CHAINS}
    return {**sizes, "peaks": peaks, "peak": max(peaks)}


def main() -> None:
    """Measure all posteriors."""
    options = arguments(__doc__)
    repeats = 5 if options.short else 20
    torch.set_default_dtype(torch.float64)
    names = ["mesquite-mesquite"] if options.short else list(POSTERIORS)
    with warnings.catch_warnings(), pyro.validation_enabled(False):
        warnings.simplefilter("ignore")
        steps = {name: measured(name, repeats) for name in names}
    peak = {} if options.short else memory()
    report({"steps": steps, "memory": peak}, options.output)


if __name__ == "__main__":
    main()
