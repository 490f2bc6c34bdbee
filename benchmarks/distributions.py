"""Tables, draws and scores of the tilted prior and of mixtures, beside the published inversion.

    python -m benchmarks.distributions

The published inversion cumulates 100 Gauss-Legendre weights and interpolates linearly between nodes
(Raj 2025, arXiv:2506.14167, Eq. 21-25); here it is vectorized in torch. It is biased: the largest
error of its CDF is reported.
"""

import pyro
import torch
from torch import Tensor

from benchmarks.timing import arguments, best_of, best_side_by_side, report
from pyro_tkam.distributions import ExponentiallyTilted, TiltedMixture
from pyro_tkam.nn import BoundFunctions, UnivariateFunctions
from pyro_tkam.ops.quadrature import gauss_legendre

NUM_NODES = 100


def energies(*shape: int, rough: bool = False) -> BoundFunctions:
    """
    Return RBF energies (grid 20, on [0, 1]) as training starts them, or with coefficients of size
    one.
    """
    pyro.set_rng_seed(0)
    bank = UnivariateFunctions(shape, "rbf", 0.0, 1.0, 20)
    if rough:
        torch.nn.init.normal_(bank.coefficients)
    return bank.bound()


def published_draws(energy: BoundFunctions, u: Tensor) -> Tensor:
    """Invert as published: search the cumulated node weights, interpolate between nodes."""
    nodes = torch.tensor(gauss_legendre(NUM_NODES).nodes)
    weights = nodes.diff(prepend=nodes[:1] * 0)
    nodes_first = (-1, *[1] * (u.dim() - 1))
    density = energy(nodes.reshape(nodes_first)).exp() * weights.reshape(nodes_first)
    cumulated = (density.cumsum(0) / density.sum(0)).flatten(1).mT.contiguous()
    index = torch.searchsorted(cumulated, u.flatten(1).mT.contiguous()).clamp(1, NUM_NODES - 1)
    below, above = cumulated.gather(1, index - 1), cumulated.gather(1, index)
    fraction = (u.flatten(1).mT - below) / (above - below)
    z = nodes[index - 1] + (nodes[index] - nodes[index - 1]) * fraction
    return z.mT.reshape(u.shape)


def draws(repeats: int, num: int, *batch: int, rough: bool = False) -> dict[str, float]:
    """Time the table and some draws of each density of a batch, exact against published."""
    energy, u = energies(*batch, rough=rough), torch.rand(num, *batch)
    with torch.no_grad():
        seconds = best_side_by_side(
            {
                "exact": lambda: ExponentiallyTilted(energy, validate_args=False).icdf(u),
                "published": lambda: published_draws(energy, u),
            },
            repeats,
        )
        prior = ExponentiallyTilted(energy, validate_args=False)
        miss = {
            "exact": prior.cdf(prior.icdf(u)) - u,
            "published": prior.cdf(published_draws(energy, u).clamp(0, 1)) - u,
        }
    return {
        "exact_seconds": seconds["exact"],
        "published_seconds": seconds["published"],
        "ratio": seconds["exact"] / seconds["published"],
        "exact_cdf_error": float(miss["exact"].abs().max()),
        "published_cdf_error": float(miss["published"].abs().max()),
    }


def mixture(num_components: int, repeats: int) -> dict[str, float]:
    """Time table, 100 draws, and their log-prob with its gradient, for 201 latents."""
    energy = energies(201, num_components)
    logits = torch.zeros(201, num_components, requires_grad=True)
    with torch.no_grad():
        table = best_of(
            lambda: TiltedMixture(
                logits, ExponentiallyTilted(energy, validate_args=False), validate_args=False
            ),
            repeats,
        )
    prior = TiltedMixture(
        logits, ExponentiallyTilted(energy, validate_args=False), validate_args=False
    )
    z = prior.sample((100,))

    def draw() -> None:
        with torch.no_grad():
            prior.sample((100,))

    def score() -> None:
        prior.log_prob(z).sum().backward(retain_graph=True)

    return {
        "num_components": num_components,
        "table_seconds": table,
        "draw_seconds": best_of(draw, repeats),
        "log_prob_and_gradient_seconds": best_of(score, repeats),
    }


def main() -> None:
    """Time priors and mixtures."""
    options = arguments(__doc__)
    repeats = 10 if options.short else 40
    results = {
        "independent": draws(repeats, 100, 81, 40),
        "independent_rough": draws(repeats, 100, 81, 40, rough=True),
        "many": draws(repeats, 10_000, 81),
        "many_rough": draws(repeats, 10_000, 81, rough=True),
        "mixture": [mixture(count, repeats) for count in (1, 10, 100)],
    }
    report(results, options.output)


if __name__ == "__main__":
    main()
