"""EnsembleHMC at default settings on targets that vary in scale, correlation and shape; JSON.

64 chains of 500 draws from the prior. R-hat is that between the four populations of chains
(nested); gradients are those of one chain, the tempered start, warm-up and draws together.

    python -m benchmarks.targets --threads 1 --output targets.json
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch

from benchmarks.timing import arguments, earlier, environment, report
from pyro_tkam.infer import EnsembleHMC, VectorizedMCMC
from pyro_tkam.ops.langevin import Point, StepInfo, Target, Tuning

Model = Callable[[], None]


def log_scaled_gaussian() -> Model:
    """Return 50 independent normals with standard deviations from 1e-3 to 1e3."""
    scales = torch.logspace(-3, 3, 50)

    def model() -> None:
        pyro.sample("z", dist.Normal(torch.zeros(50), scales).to_event(1))
        pyro.factor("none", torch.zeros(()))

    return model


def correlated_gaussian() -> Model:
    """Return a normal likelihood in 100 rotated dimensions whose covariance has condition 100."""
    rotation, _ = torch.linalg.qr(torch.randn(100, 100))
    precision = rotation * torch.logspace(0, 2, 100) @ rotation.T

    def model() -> None:
        z = pyro.sample("z", dist.Normal(torch.zeros(100), 10.0).to_event(1))
        pyro.factor("likelihood", -0.5 * z @ precision @ z)

    return model


def regression() -> Model:
    """Return a linear regression with 100 coefficients, 300 data and an unknown noise."""
    x = torch.randn(300, 100)
    y = x @ torch.randn(100) + torch.randn(300)

    def model() -> None:
        w = pyro.sample("w", dist.Normal(torch.zeros(100), 3.0).to_event(1))
        sigma = pyro.sample("sigma", dist.HalfNormal(3.0))
        with pyro.plate("data", 300):
            pyro.sample("y", dist.Normal(x @ w, sigma), obs=y)

    return model


def hierarchical(groups: int, each: int, centered: bool) -> Model:
    """Return groups with intercepts and slopes: five latents, and two for each group."""
    x = torch.randn(groups, each)
    effects = torch.randn(2, groups) * torch.tensor([[1.0], [0.5]])
    y = effects[0, :, None] + (1 + effects[1, :, None]) * x + torch.randn(groups, each)

    def model() -> None:
        mu = pyro.sample("mu", dist.Normal(torch.zeros(2), 5.0).to_event(1))
        tau = pyro.sample("tau", dist.HalfNormal(torch.full((2,), 2.0)).to_event(1))
        sigma = pyro.sample("sigma", dist.HalfNormal(3.0))
        with pyro.plate("groups", groups):
            if centered:
                prior = dist.Normal(mu, tau).to_event(1)
                effect = pyro.sample("effect", prior)
            else:
                standard = dist.Normal(torch.zeros(2), 1.0).to_event(1)
                effect = mu + tau * pyro.sample("effect", standard)
            mean = effect[..., :1] + effect[..., 1:] * x
            pyro.sample("y", dist.Normal(mean, sigma).to_event(1), obs=y)

    return model


def horseshoe() -> Model:
    """Return 20 means under a horseshoe, non-centered: 41 latents."""
    y = torch.randn(20)
    y[:3] += torch.tensor([8.0, -6.0, 5.0])

    def model() -> None:
        tau = pyro.sample("tau", dist.HalfCauchy(1.0))
        widths = pyro.sample("widths", dist.HalfCauchy(torch.ones(20)).to_event(1))
        z = pyro.sample("z", dist.Normal(torch.zeros(20), 1.0).to_event(1))
        pyro.sample("y", dist.Normal(tau * widths * z, 1.0).to_event(1), obs=y)

    return model


def eight_schools() -> Model:
    """Return Rubin's eight schools, centered: a funnel, as the data hardly tell the scale."""
    effects = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    errors = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])

    def model() -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
        tau = pyro.sample("tau", dist.HalfCauchy(5.0))
        with pyro.plate("schools", 8):
            theta = pyro.sample("theta", dist.Normal(mu, tau))
            pyro.sample("y", dist.Normal(theta, errors), obs=effects)

    return model


TARGETS: dict[str, Callable[[], Model]] = {
    "Gaussian, 50 scales of 0.001 to 1,000": log_scaled_gaussian,
    "Gaussian, 100-d, condition 100": correlated_gaussian,
    "regression, 101-d": regression,
    "hierarchical, 65-d": lambda: hierarchical(30, 20, False),
    "hierarchical, 65-d, centered": lambda: hierarchical(30, 20, True),
    "hierarchical, 205-d": lambda: hierarchical(100, 20, False),
    "hierarchical, 205-d, centered": lambda: hierarchical(100, 20, True),
    "horseshoe, 41-d": horseshoe,
    "eight schools, centered": eight_schools,
    "eight schools, centered, coordinates kept": eight_schools,
}


class CountedHMC(EnsembleHMC):
    """Counts the gradients of a chain."""

    gradients = 0

    def step(
        self, point: Point, target: Target, tuning: Tuning, adjusted: bool
    ) -> tuple[Point, StepInfo]:
        """Make a trajectory."""
        point, info = super().step(point, target, tuning, adjusted)
        self.gradients += int(info.row_evaluations.max())
        return point, info


def measured(make: Callable[[], Model], seed: int, standard_normal: bool | None) -> dict[str, Any]:
    """Run chains, which may change coordinates if that is None; return what they gave and took."""
    pyro.set_rng_seed(100)
    model = make()
    pyro.set_rng_seed(seed)
    kernel = CountedHMC(model)
    begin = time.process_time()
    mcmc = VectorizedMCMC(kernel, 500, disable_progbar=True, standard_normal=standard_normal)
    mcmc.run()
    seconds = time.process_time() - begin
    return {
        "rhat": mcmc.verdict.measures["largest R-hat between groups"],
        "effective_draws": mcmc.verdict.measures["smallest effective sample size"],
        "gradients": kernel.gradients,
        "process_seconds": seconds,
        "findings": sorted(mcmc.verdict.names),
    }


def main() -> None:
    """Run all targets, several seeds each."""
    options = arguments(__doc__)
    torch.set_default_dtype(torch.float64)
    output: Path | None = options.output
    known = earlier(output).get("runs", {})
    for name, make in list(TARGETS.items())[: 1 if options.short else None]:
        for seed in range(1 if options.short else 3):
            key = f"{name}/{seed}"
            if key in known:
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                kept = False if name.endswith("coordinates kept") else None
                known[key] = measured(make, seed, kept)
            print(key, json.dumps(known[key]), flush=True)
            if output is not None:
                text = json.dumps({"environment": environment(), "runs": known}, indent=2)
                output.write_text(text + "\n")
    report({"runs": known}, output)


if __name__ == "__main__":
    main()
