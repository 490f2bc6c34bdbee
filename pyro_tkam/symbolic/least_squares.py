"""Least squares for a whole network of forms: the Levenberg-Marquardt method in float64."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pyro_tkam.symbolic.network import FormulaNetwork

_SMALLEST_DAMPING = 1e-12
_LARGEST_DAMPING = 1e8


class OutOfTimeError(Exception):
    """The search has used up its time."""


@dataclass(frozen=True)
class Data:
    """
    The data that a network of forms is fitted to.

    :param x: inputs, shape ``(N, in)``, float64.
    :param y: targets, shape ``(N, out)``.
    :param deadline: end of a search, on the monotonic clock.
    """

    x: Tensor
    y: Tensor
    deadline: float = math.inf

    @property
    def scale(self) -> Tensor:
        """Standard deviation of each target; 1 if it is constant."""
        spread = self.y.std(0, correction=0)
        return torch.where(spread > 0, spread, 1.0)

    def thinned(self, most: int) -> Data:
        """Keep at most this many samples."""
        if len(self.x) <= most:
            return self
        kept = torch.linspace(0, len(self.x) - 1, most).round().long()
        return replace(self, x=self.x[kept], y=self.y[kept])

    def loss(self, network: FormulaNetwork) -> float:
        """
        Mean squared error divided by the targets' variance; infinite where a form has no value.
        """
        with torch.no_grad():
            error = ((network(self.x) - self.y) / self.scale).square().mean()
        return float(error) if bool(error.isfinite()) else math.inf


@dataclass(frozen=True)
class Fit:
    """A network with its loss on the data it was fitted to."""

    network: FormulaNetwork
    loss: float


def linearized(network: FormulaNetwork, data: Data) -> tuple[Tensor, Tensor]:
    """
    Return residuals ``(N out,)`` and their derivatives in the free parameters ``(N out, free)``,
    in units of the targets' standard deviations.

    Each sample has its own copy of the parameters, so one backward pass gives all derivatives. They
    are zero where a form ends with an infinite slope, such as the arcsine at one.
    """
    with torch.enable_grad():
        own = network.parameters.unsqueeze(-1).repeat(1, len(data.x)).requires_grad_()
        outputs = network.layer_values(own, data.x)[-1]
        rows = [
            torch.autograd.grad(output.sum(), own, retain_graph=True)[0][network.free].mT
            for output in outputs.unbind(-1)
        ]
    jacobian = torch.stack(rows, 1) / data.scale.unsqueeze(-1)
    jacobian = torch.where(jacobian.isfinite().all(-1, keepdim=True), jacobian, 0.0)
    residuals = (data.y - outputs.detach()) / data.scale
    return residuals.flatten(), jacobian.flatten(0, 1)


def refitted(network: FormulaNetwork, data: Data, steps: int) -> Fit:
    """
    Fit the free parameters; steps to places where a form has no value at some sample are not taken.

    :raises OutOfTimeError: if the deadline has passed.
    """
    fit = Fit(network, data.loss(network))
    if not math.isfinite(fit.loss) or not bool(network.free.any()):
        return fit
    damping = 1e-3
    system: tuple[Tensor, Tensor, Tensor] | None = None
    for _ in range(steps):
        if time.monotonic() > data.deadline:
            raise OutOfTimeError
        if system is None:
            residuals, jacobian = linearized(fit.network, data)
            units = jacobian.norm(dim=0).clamp_min(1e-300)
            jacobian = jacobian / units
            system = jacobian.mT @ jacobian, jacobian.mT @ residuals, units
        normal, gradient, units = system
        damped = normal + damping * torch.eye(len(normal), dtype=normal.dtype)
        step = torch.linalg.solve_ex(damped, gradient).result / units
        moved = fit.network.parameters.clone()
        moved[fit.network.free] += step
        new = fit.network.with_parameters(moved)
        loss = data.loss(new) if bool(step.isfinite().all()) else math.inf
        if loss < fit.loss:
            settled = loss > (1 - 1e-9) * fit.loss
            fit = Fit(new, loss)
            system = None
            damping = max(damping / 10, _SMALLEST_DAMPING)
            if settled:
                break
        else:
            damping *= 6
            if damping > _LARGEST_DAMPING or fit.loss < 1e-30:
                break
    return fit


def standard_errors(network: FormulaNetwork, data: Data) -> Tensor:
    """
    Return standard errors of the free parameters, for independent errors of equal variance in each
    target; infinite for redundant parameters.
    """
    residuals, jacobian = linearized(network, data)
    units = jacobian.norm(dim=0).clamp_min(1e-300)
    jacobian = jacobian / units
    left = len(residuals) - jacobian.shape[1]
    if left <= 0:
        return torch.full_like(units, math.inf)
    values, vectors = torch.linalg.eigh(jacobian.mT @ jacobian)
    variance = residuals.square().sum() / left
    usable = values > 1e-13 * values.max()
    inverse = torch.where(usable, 1 / values, math.inf)
    weights = vectors.square()
    covariance = torch.where(weights > 1e-16, weights * inverse, 0.0).sum(-1)
    return (variance * covariance).sqrt() / units
