"""
Prior knowledge: tilted densities that are fitted to samples, a density or a formula before
training.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from pyro_tkam.distributions.references import Reference
from pyro_tkam.nn import UnivariateFunctions
from pyro_tkam.nn.constraints import refuse_constrained
from pyro_tkam.nn.grids import check_learned
from pyro_tkam.nn.regularizers import quadrature_points
from pyro_tkam.nn.symbolic import formula_function
from pyro_tkam.ops._points import aligned

LogDensity = Callable[[Tensor], Tensor]
Features = Callable[[Tensor], Tensor]
#: from the features, nodes ``(n, *batch)`` and weights to expectations of the features under a
#: target, ``(*batch, F)``
Moments = Callable[[Features, Tensor, Tensor], Tensor]

_NEWTON_STEPS = 60
_STEP_SIZES = (1.0, 0.5, 0.2, 0.05, 0.01)


def of_samples(samples: Tensor) -> Moments:
    """Average the features over samples, shape ``(N, *batch)``."""

    def moments(features: Features, nodes: Tensor, weights: Tensor) -> Tensor:
        return features(aligned(samples, nodes.dim() - 1).to(nodes)).mean(0)

    return moments


def of_density(density: Distribution | LogDensity) -> Moments:
    """Integrate the features against a distribution, or a log density up to a constant."""
    log_density: LogDensity = density.log_prob if isinstance(density, Distribution) else density

    def moments(features: Features, nodes: Tensor, weights: Tensor) -> Tensor:
        values = log_density(nodes)
        if not isinstance(values, Tensor):
            raise TypeError(f"density must return a tensor, got {type(values).__name__}")
        logits = values + weights.log()
        if bool(logits.isnan().any() | logits.isposinf().any()) or bool(
            logits.isneginf().all(0).any()
        ):
            raise ValueError(
                "density must be finite with mass on the prior's interval, got one that is not"
            )
        return torch.einsum("n...,n...f->...f", logits.softmax(0), features(nodes))

    return moments


def of_formula(formula: Any) -> Moments:
    """Integrate the features against a density given by a formula, up to a factor."""
    function = formula_function(formula)

    def log_density(z: Tensor) -> Tensor:
        values = function(z)
        faults = {
            "negative": (values < 0).any(),
            "not finite": ~values.isfinite().all(),
            "zero": (values == 0).all(),
        }
        for fault, found in faults.items():
            if bool(found):
                raise ValueError(
                    f"formula must be a density on the prior's interval, got {formula}, which is "
                    f"{fault} there"
                )
        return values.log()

    return of_density(log_density)


#: expectations under a target, by the name of the argument that specifies it
MOMENTS: dict[str, Callable[[Any], Moments]] = {
    "samples": of_samples,
    "density": of_density,
    "formula": of_formula,
}


def fit_tilt(
    energies: UnivariateFunctions, reference: Reference, moments: Moments, ridge: float
) -> None:
    r"""
    Fit a bank of energies so that the densities ``exp(f) π0 / Z`` are closest to a target.

    With the energy :math:`f = θ · B`, the densities form an exponential family. The member with the
    smallest Kullback-Leibler divergence from the target (for samples: the largest likelihood)
    solves a concave problem,

    .. math:: \max_θ\; θ · E_{\text{target}}[B] - \log \int e^{θ · B} π_0 - \tfrac12 λ |θ|^2.

    Newton's method solves it in float64, with quadrature for the integrals and the normalizer.

    :param energies: the bank, changed in place: base functions become zero, scales one.
    :param reference: :math:`π_0`.
    :param moments: the features' expectations under the target.
    :param ridge: :math:`λ`, positive.
    :raises ValueError: for a ridge that is not positive and finite, a bank with a constraint, and
        whatever ``moments`` raises.
    :raises TypeError: for a bank whose coefficients, scales or weights are random.
    """
    check_learned(energies, energies.weight_names, "a fit")
    refuse_constrained(energies, "a fit")
    if not 0 < ridge < math.inf:
        raise ValueError(f"ridge must be a positive finite number, got {ridge}")
    functions = energies.bound()
    basis = functions.basis.cast(torch.float64)
    batch = functions.batch_shape
    nodes, weights = (aligned(part, len(batch)) for part in quadrature_points(basis))
    target = moments(basis, nodes, weights).expand(*batch, -1)
    offset = reference.log_density(nodes.to(functions.coefficients)).double() + weights.log()
    energies.replace_coefficients(_maximize(basis(nodes), offset, target, ridge))
    if energies.scale is not None and energies.base_weight is not None:
        energies.scale.data.fill_(1.0)
        energies.base_weight.data.fill_(0.0)


def _maximize(features: Tensor, offset: Tensor, target: Tensor, ridge: float) -> Tensor:
    """
    Run Newton's method for all densities at once, and return ``θ`` with the shape of ``target``.

    :param features: features at the nodes, shape ``(n, *grid_batch, F)``.
    :param offset: log of the reference density times the quadrature weight, shape ``(n,
        *reference_batch)``.
    """
    products = (features.unsqueeze(-1) * features.unsqueeze(-2)).flatten(-2)
    diagonal = ridge * torch.eye(target.shape[-1], dtype=target.dtype, device=target.device)

    def logits(theta: Tensor) -> Tensor:
        return offset + torch.einsum("n...f,...f->n...", features, theta)

    def objective(theta: Tensor) -> Tensor:
        return (
            (theta * target).sum(-1)
            - logits(theta).logsumexp(0)
            - 0.5 * ridge * theta.square().sum(-1)
        )

    theta = torch.zeros_like(target)
    for _ in range(_NEWTON_STEPS):
        density = logits(theta).softmax(0)
        mean = torch.einsum("n...,n...f->...f", density, features)
        second = torch.einsum("n...,n...f->...f", density, products).unflatten(-1, diagonal.shape)
        covariance = second - mean.unsqueeze(-1) * mean.unsqueeze(-2)
        step = torch.linalg.solve(
            covariance + diagonal, (target - mean - ridge * theta).unsqueeze(-1)
        ).squeeze(-1)
        # The best of several step lengths, including 0.
        steps = torch.stack([theta + length * step for length in (*_STEP_SIZES, 0.0)])
        best = torch.stack([objective(each) for each in steps]).argmax(0)
        theta = steps.gather(0, best[None, ..., None].expand(1, *theta.shape)).squeeze(0)
        if bool((best == len(_STEP_SIZES)).all()):
            break
    return theta
