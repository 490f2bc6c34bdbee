"""Variance of three gradients of one expectation: pathwise, score-function and contrastive.

    python -m benchmarks.gradient_variance gradient-variance.png --output gradient_variance.json

Each estimates ``∂ E_p[(z - ½)²] / ∂c_i`` for the 20 coefficients of an RBF energy, from one draw:
pathwise through the inverse CDF; score-function with the exact normalizer, ``h(z) ∇log p(z)``; and
contrastive, ``h(z) (∇f(z) - mean ∇f)`` with the mean over 10 more draws in place of the normalizer
(Raj 2025, arXiv:2506.14167, Eq. 18).
"""

import argparse
from functools import partial
from pathlib import Path

import pyro
import torch
from torch import Tensor

from benchmarks.timing import report
from pyro_tkam.distributions import ExponentiallyTilted
from pyro_tkam.ops.bases import GaussianKernels

NUM_DRAWS, NUM_NEGATIVES, NUM_COEFFICIENTS = 2000, 10, 20


def objective(z: Tensor) -> Tensor:
    """Return ``h(z) = (z - ½)²``."""
    return (z - 0.5).square()


def gradients(coefficients: Tensor, scale: float, num_draws: int = NUM_DRAWS) -> dict[str, Tensor]:
    """Return each method's estimates, shape ``(draws, coefficients)``, and the exact gradient."""
    basis = GaussianKernels.uniform(0.0, 1.0, NUM_COEFFICIENTS, 0, 1.0)

    def prior(c: Tensor) -> ExponentiallyTilted:
        return ExponentiallyTilted(
            lambda z: scale * (basis(z.float()) @ c.float()), validate_args=False
        )

    def feature(i: int, z: Tensor) -> Tensor:
        return scale * basis(z)[..., i]

    u = torch.rand(num_draws)
    pathwise = torch.func.jacrev(lambda c: objective(prior(c).icdf(u)))(coefficients)
    with torch.no_grad():
        fn = prior(coefficients)
        z = fn.icdf(u)
        features = scale * basis(z)
        expected = torch.stack(
            [fn.expectation(partial(feature, i)) for i in range(NUM_COEFFICIENTS)]
        )
        negatives = scale * basis(fn.sample((num_draws, NUM_NEGATIVES))).mean(1)
        weight = objective(z)[:, None]
    exact = torch.func.jacrev(lambda c: prior(c).expectation(objective))(coefficients)
    return {
        "pathwise": pathwise,
        "score function": weight * (features - expected),
        "contrastive": weight * (features - negatives),
        "exact": exact,
    }


def main() -> None:
    """Draw the variances against the roughness of the energy, and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figure", type=Path, nargs="?", help="PNG to write")
    parser.add_argument("--output", type=Path, help="also write the JSON to this file")
    parser.add_argument("--short", action="store_true", help="fewer draws")
    options = parser.parse_args()
    pyro.set_rng_seed(0)
    coefficients, scales = torch.randn(NUM_COEFFICIENTS), [0.1, 0.2, 0.5, 1.0, 2.0, 4.0]
    variances: dict[str, list[float]] = {"pathwise": [], "score function": [], "contrastive": []}
    for scale in scales:
        found = gradients(coefficients, scale, 200 if options.short else NUM_DRAWS)
        for name, values in variances.items():
            values.append(
                float(
                    (found[name] - found["exact"]).square().mean(0).sum()
                    / found["exact"].square().sum()
                )
            )
    report({"energy_scale": scales, "relative_variance": variances}, options.output)
    if options.figure is not None:
        draw(options.figure, scales, variances)


def draw(path: Path, scales: list[float], variances: dict[str, list[float]]) -> None:
    """Write the figure."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    figure = Figure(figsize=(6, 3.8), layout="constrained")
    axes = figure.subplots()
    for (name, values), marker in zip(variances.items(), "os^", strict=True):
        axes.loglog(scales, values, marker=marker, label=name)
    axes.set(xlabel="scale of the energy", ylabel="variance of one draw / squared gradient")
    for axis, ticks in ((axes.xaxis, scales), (axes.yaxis, [2, 5, 10, 20])):
        axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.set_minor_locator(NullLocator())
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper center")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
