"""Problems with known log evidence for the accuracy of ``log_evidence``."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

Model = Callable[[], None]


@dataclass(frozen=True)
class Problem:
    """
    A model and its log evidence, in nats, exact or by quadrature; where ``in_pymc`` is given, it
    makes the same model of PyMC, with the same names.
    """

    model: Model
    exact: float
    in_pymc: Callable[[], Any] | None = None


def regression() -> Problem:
    """Conjugate linear regression with 10 coefficients and 50 data."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(50, 10, generator=generator)
    targets = inputs @ torch.randn(10, generator=generator) + 0.5 * torch.randn(
        50, generator=generator
    )

    def model() -> None:
        weights = pyro.sample("weights", dist.Normal(torch.zeros(10), 1.0).to_event(1))
        with pyro.plate("data", 50):
            pyro.sample("y", dist.Normal(inputs @ weights, 0.5), obs=targets)

    def in_pymc() -> Any:
        import pymc as pm

        with pm.Model() as other:
            weights = pm.Normal("weights", shape=10)
            pm.Normal("y", inputs.numpy() @ weights, 0.5, observed=targets.numpy())
        return other

    wide = inputs.double()
    covariance = wide @ wide.T + 0.25 * torch.eye(50, dtype=torch.float64)
    exact = torch.distributions.MultivariateNormal(torch.zeros(50).double(), covariance).log_prob(
        targets.double()
    )
    return Problem(model, exact.item(), in_pymc)


def two_gaussians() -> Problem:
    """Two well separated modes of unequal width in a box."""

    def model() -> None:
        z = pyro.sample("z", dist.Uniform(-10 * torch.ones(2), 10.0).to_event(1))
        modes = [
            dist.Normal(loc, scale).log_prob(z).sum(-1) for loc, scale in ((-5.0, 0.5), (5.0, 0.3))
        ]
        pyro.factor("likelihood", torch.logaddexp(*modes) - math.log(2))

    def in_pymc() -> Any:
        import pymc as pm

        with pm.Model() as other:
            z = pm.Uniform("z", -10, 10, shape=2)
            modes = [
                pm.logp(pm.Normal.dist(loc, scale), z).sum()
                for loc, scale in ((-5.0, 0.5), (5.0, 0.3))
            ]
            pm.Potential("likelihood", pm.math.logaddexp(*modes) - math.log(2))
        return other

    return Problem(model, -2 * math.log(20), in_pymc)


def latent_variable() -> Problem:
    """One datum ``x = W sigmoid(z) + noise`` with ``z`` in R²; the integral by a fine grid."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(20, 2, generator=generator)
    datum = weight @ torch.sigmoid(torch.tensor([1.0, -0.5])) + 0.1 * torch.randn(
        20, generator=generator
    )

    def model() -> None:
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(weight @ torch.sigmoid(z), 0.1).to_event(1), obs=datum)

    def in_pymc() -> Any:
        import pymc as pm

        with pm.Model() as other:
            z = pm.Normal("z", shape=2)
            mean = weight.numpy() @ pm.math.sigmoid(z)
            pm.Normal("x", mean, 0.1, observed=datum.numpy())
        return other

    def log_joint(z: Tensor) -> Tensor:
        mean = torch.sigmoid(z) @ weight.double().T
        prior = dist.Normal(0.0, 1.0).log_prob(z).sum(-1)
        return prior + dist.Normal(mean, 0.1).log_prob(datum.double()).sum(-1)

    return Problem(model, on_grid(log_joint, (-7, 7), (-7, 7)), in_pymc)


def eight_schools() -> Problem:
    """Eight schools, non-centered; effects are integrated exactly, location and scale on a grid."""
    effects = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    errors = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])

    def model() -> None:
        location = pyro.sample("location", dist.Normal(0.0, 5.0))
        scale = pyro.sample("scale", dist.HalfCauchy(5.0))
        with pyro.plate("schools", 8):
            deviation = pyro.sample("deviation", dist.Normal(0.0, 1.0))
            pyro.sample("effect", dist.Normal(location + scale * deviation, errors), obs=effects)

    def in_pymc() -> Any:
        import pymc as pm

        with pm.Model() as other:
            location, scale = pm.Normal("location", 0, 5), pm.HalfCauchy("scale", 5)
            deviation = pm.Normal("deviation", shape=8)
            means = location + scale * deviation
            pm.Normal("effect", means, errors.numpy(), observed=effects.numpy())
        return other

    def log_joint(point: Tensor) -> Tensor:
        location, log_scale = point.unbind(-1)
        scale = log_scale.exp()
        spread = (scale[..., None].square() + errors.double().square()).sqrt()
        likelihood = dist.Normal(location[..., None], spread).log_prob(effects.double()).sum(-1)
        return (
            likelihood
            + dist.Normal(0.0, 5.0).log_prob(location)
            + dist.HalfCauchy(5.0).log_prob(scale)
            + log_scale
        )

    return Problem(model, on_grid(log_joint, (-40, 40), (-16, 14)), in_pymc)


def banana() -> Problem:
    """A curved ridge: ``y - x²`` and ``x`` are observed with noise; the integral by a fine grid."""

    def model() -> None:
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 3.0).to_event(1))
        pyro.sample("x", dist.Normal(z[..., 0], 1.0), obs=torch.tensor(0.5))
        pyro.sample(
            "ridge", dist.Normal(z[..., 1] - z[..., 0].square(), 0.1), obs=torch.tensor(0.0)
        )

    def in_pymc() -> Any:
        import pymc as pm

        with pm.Model() as other:
            z = pm.Normal("z", 0, 3, shape=2)
            pm.Normal("x", z[0], 1, observed=0.5)
            pm.Normal("ridge", z[1] - z[0] ** 2, 0.1, observed=0.0)
        return other

    def log_joint(z: Tensor) -> Tensor:
        prior = dist.Normal(0.0, 3.0).log_prob(z).sum(-1)
        x, y = z.unbind(-1)
        return (
            prior
            + dist.Normal(x, 1.0).log_prob(torch.tensor(0.5))
            + dist.Normal(y - x**2, 0.1).log_prob(x * 0)
        )

    return Problem(model, on_grid(log_joint, (-6, 6), (-12, 20)), in_pymc)


def suppressed_mode() -> Problem:
    """
    Two modes in 8 dimensions with equal mass, one of them narrow, so that it has no mass while hot.
    """
    wide, narrow = dist.Normal(-1.0, 1.0), dist.Normal(1.5, 0.4)

    def model() -> None:
        z = pyro.sample("z", dist.Normal(torch.zeros(8), 2.0).to_event(1))
        pyro.factor(
            "likelihood", torch.logaddexp(wide.log_prob(z).sum(-1), narrow.log_prob(z).sum(-1))
        )

    def in_pymc() -> Any:
        import pymc as pm

        with pm.Model() as other:
            z = pm.Normal("z", 0, 2, shape=8)
            modes = [
                pm.logp(pm.Normal.dist(each.loc.item(), each.scale.item()), z).sum()
                for each in (wide, narrow)
            ]
            pm.Potential("likelihood", pm.math.logaddexp(*modes))
        return other

    masses = [
        8 * dist.Normal(0.0, math.hypot(2.0, each.scale)).log_prob(each.loc.double())
        for each in (wide, narrow)
    ]
    return Problem(model, torch.logaddexp(*masses).item(), in_pymc)


PROBLEMS = (regression, two_gaussians, latent_variable, eight_schools, banana, suppressed_mode)


def on_grid(
    log_joint: Callable[[Tensor], Tensor],
    first: tuple[int, int],
    second: tuple[int, int],
    num: int = 3001,
) -> float:
    """
    Integrate in two dimensions by the trapezium rule, whose error vanishes fast for integrands that
    do.
    """
    axes = [torch.linspace(*span, num, dtype=torch.float64) for span in (first, second)]
    cell = (axes[0][1] - axes[0][0]) * (axes[1][1] - axes[1][0])
    rows = [
        log_joint(torch.cartesian_prod(chunk, axes[1])).logsumexp(0) for chunk in axes[0].split(300)
    ]
    return (torch.stack(rows).logsumexp(0) + cell.log()).item()
