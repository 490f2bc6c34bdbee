"""Laws of an objective of maximum likelihood, on a model whose evidence and gradient are known."""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import ELBO
from torch import Tensor
from torch.distributions import Normal

X = torch.tensor([2.4, 3.3, 2.8, 3.6], dtype=torch.float64)
START = {"loc": 0.2, "slope": 1.0, "noise": 1.0}


def conjugate(x: Tensor, size: int | None = None) -> None:
    """
    ``z ~ N(loc, 1)``, ``x ~ N(slope z, noise)``: evidence N(slope loc, slope² + noise²) for each
    datum.
    """
    loc, slope, noise = (
        pyro.param(name, torch.tensor(value, dtype=x.dtype)) for name, value in START.items()
    )
    with pyro.plate("data", size or len(x), subsample=torch.arange(len(x))):
        z = pyro.sample("z", dist.Normal(loc, torch.ones_like(loc)))
        pyro.sample("x", dist.Normal(slope * z, noise), obs=x)


def exact(x: Tensor = X) -> tuple[float, dict[str, Tensor]]:
    """Return the negative log evidence of the data and its gradient."""
    loc, slope, noise = torch.tensor(list(START.values()), dtype=x.dtype).requires_grad_().unbind()
    loss = -Normal(slope * loc, (slope.square() + noise.square()).sqrt()).log_prob(x).sum()
    return float(loss.detach()), dict(
        zip(START, torch.autograd.grad(loss, (loc, slope, noise)), strict=True)
    )


def gradient_of(objective: ELBO, *args: object) -> dict[str, Tensor]:
    """Return one estimate of the gradient."""
    pyro.clear_param_store()
    objective.loss_and_grads(conjugate, None, *(args or (X,)))
    return {name: parameter.grad for name, parameter in pyro.get_param_store().named_parameters()}


def check_gradient(found: dict[str, Tensor], tolerance: float = 0.05) -> None:
    """Every entry of the gradient lies within a share of the exact one."""
    for name, expected in exact()[1].items():
        assert abs(found[name] - expected) < tolerance * abs(expected), (
            f"{name}: {found[name]} for {expected}"
        )
