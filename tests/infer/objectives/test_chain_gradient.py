"""
The gradient of the chain objectives on small real models, beside that of their evidence by
quadrature.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import pyro
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from pyro_tkam.infer import MALA, LangevinMLE, SteppingstoneMLE
from pyro_tkam.models import TKAM

NOISE, REPEATS = 0.2, 12
SMALL = {"grid_size": 5, "widths": [6], "noise_scale": NOISE}
X = torch.tensor([[0.1, 0.6, 0.4], [0.7, 0.2, 0.5], [0.45, 0.5, 0.8]], dtype=torch.float64)


def _log_likelihood(model: TKAM, z: Tensor) -> Tensor:
    return Normal(model.generator(z).unsqueeze(-2), NOISE).log_prob(X).sum(-1)


def _shared_evidence(model: TKAM) -> Tensor:
    """``log ∫ p(x | F^{-1}(u)) du`` over the one uniform, by the midpoints of 2,000 cells."""
    u = (torch.arange(2000, dtype=X.dtype) + 0.5) / 2000
    return (
        _log_likelihood(model, model.prior().icdf(u[:, None, None])).logsumexp(0) - np.log(2000)
    ).sum()


def _mixture_evidence(model: TKAM) -> Tensor:
    """
    ``log ∫∫ p(x | z) p(z_1) p(z_2) dz`` by Gauss-Legendre nodes, with the densities and no inverse
    CDF.
    """
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(64))
    z = torch.cartesian_prod((nodes + 1) / 2, (nodes + 1) / 2)
    log_weights = torch.cartesian_prod(weights / 2, weights / 2).log().sum(-1)
    log_prior = model.prior().log_prob(z).sum(-1) + log_weights
    return (_log_likelihood(model, z) + log_prior.unsqueeze(-1)).logsumexp(0).sum()


MODELS: dict[str, tuple[Callable[[], TKAM], Callable[[TKAM], Tensor], float]] = {
    "shared": (partial(TKAM.kart, 3, 1, coupling="shared", **SMALL), _shared_evidence, 0.5),
    "mixture": (partial(TKAM.mixture, 3, 2, 2, **SMALL), _mixture_evidence, 0.2),
}
"""
Model, its evidence, and how far its parameters are moved, which decides how far posteriors are from
priors.
"""

Gradient = dict[str, Tensor]


def _model(kind: str) -> TKAM:
    """Make a model whose posteriors are far from its priors."""
    pyro.set_rng_seed(0)
    make, _, spread = MODELS[kind]
    model = make().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += spread * torch.randn_like(parameter)
    return model


def _estimates(model: TKAM, objective: LangevinMLE | SteppingstoneMLE) -> Gradient:
    """Return independent estimates of the gradient by parameter, each ``(repeats, *shape)``."""
    loss, found = objective(model, None), []
    for _ in range(REPEATS):
        model.zero_grad()
        loss(X).backward()
        found.append([parameter.grad.clone() for parameter in model.parameters()])
    names = (name for name, _ in model.named_parameters())
    return {
        name: torch.stack(each) for name, each in zip(names, zip(*found, strict=True), strict=True)
    }


def _exact(kind: str, model: TKAM) -> Gradient:
    model.zero_grad()
    (-MODELS[kind][1](model)).backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def _check(found: Gradient, exact: Gradient, factor: float = 1.0) -> None:
    """
    Every parameter's mean gradient lies within 6 standard errors (with 12 repeats: missed once in
    10,000 times).
    """
    for name, each in found.items():
        error = (each.var(0) / REPEATS).sum().sqrt()
        assert (factor * each.mean(0) - exact[name]).norm() < 6 * error, name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "objective"),
    [
        ("shared", LangevinMLE(MALA, step_size=0.15, num_steps=50, num_chains=300)),
        (
            "shared",
            SteppingstoneMLE(
                MALA, step_size=0.15, num_steps=30, num_chains=250, num_temperatures=3
            ),
        ),
        ("mixture", LangevinMLE(MALA, step_size=0.15, num_steps=50, num_chains=300)),
    ],
    ids=["shared-langevin", "shared-steppingstone", "mixture-langevin"],
)
def test_the_gradient_is_that_of_the_evidence_by_quadrature(
    kind: str, objective: LangevinMLE | SteppingstoneMLE
) -> None:
    model = _model(kind)
    found, exact = _estimates(model, objective), _exact(kind, model)
    _check(found, exact)
    for factor in (0.8, 1.2):
        with pytest.raises(AssertionError):
            _check(found, exact, factor)
    from_prior = _estimates(model, LangevinMLE(MALA, step_size=1e-9, num_steps=1, num_chains=300))
    with pytest.raises(AssertionError):
        _check(from_prior, exact)
