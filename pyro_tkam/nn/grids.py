"""
Grid updates: knots where the arguments are, and the same functions on them as nearly as they go.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pyro_tkam.nn import _checks
from pyro_tkam.ops.bases import BasisFunctions
from pyro_tkam.ops.bases.regrid import Refit, quadratic, quantile_knots, refined_knots, refit

if TYPE_CHECKING:
    from pyro_tkam.nn.univariate import BoundFunctions, UnivariateFunctions


@dataclass(frozen=True, eq=False)
class GridUpdate:
    """
    What an update of a bank's grid did.

    :param error: root mean square by which each function changed, over the points of the fit; shape
        ``batch_shape``.
    :param change: the same over all functions, relative to their root mean square.
    :param accepted: whether the update was made.
    :param parameter: the coefficients, whose entries now have another meaning if it was.
    """

    error: Tensor
    change: float
    accepted: bool
    parameter: nn.Parameter


class EqualSamplesError(ValueError):
    """Samples that are all equal, which cannot place a grid."""


def check_learned(module: nn.Module, names: Iterable[str], purpose: str) -> None:
    """
    Refuse to change parameters in whose place there is something random, which no change would
    reach.
    """
    for name in names:
        if not isinstance(module._parameters.get(name), nn.Parameter):
            raise TypeError(f"{name} must be a parameter for {purpose}, got random ones")


@torch.no_grad()
def update_grid(
    bank: UnivariateFunctions,
    samples: Tensor | None,
    grid_size: int | None,
    uniform_share: float,
    widen: bool,
    max_change: float,
) -> GridUpdate:
    """Update a bank's grid; the arguments are those of :meth:`UnivariateFunctions.update_grid`."""
    functions = _checked(bank, samples, uniform_share, max_change)
    dtype = functions.coefficients.dtype
    old = functions.basis.cast(torch.float64)
    size = old.grid_size if grid_size is None else _checks.integer("grid_size", grid_size, 2)
    samples = None if samples is None else samples.double()
    knots = _new_knots(old, samples, old.num_knots(size), uniform_share, widen)
    if not bool((knots.to(dtype).diff(dim=-1) > 0).all()):
        raise ValueError(
            f"uniform_share must be large enough to keep knots apart, got {uniform_share}"
        )
    new = old.moved(knots, size)
    fit = refit(old, new, samples)
    error, change = _errors(functions, fit)
    accepted = change <= max_change
    if accepted:
        bank.basis.place(new)
        bank.replace_coefficients(fit.coefficients(functions.coefficients.double()))
    return GridUpdate(error.to(dtype), change, accepted, bank.coefficients)


def _checked(
    bank: UnivariateFunctions, samples: Tensor | None, uniform_share: float, max_change: float
) -> BoundFunctions:
    """Check everything before anything changes, and read the parameters."""
    check_learned(bank, ("coefficients",), "a grid update")
    if not 0 <= uniform_share <= 1:
        raise ValueError(f"uniform_share must be a number from 0 to 1, got {uniform_share}")
    if not max_change > 0:
        raise ValueError(f"max_change must be a number greater than 0, got {max_change}")
    functions: BoundFunctions = bank.bound()
    if samples is None:
        return functions
    _checks.same_dtype("samples", samples, functions.coefficients, "the coefficients")
    batch = bank.batch_shape
    if samples.dim() == 0 or len(samples) == 0 or samples.dim() > len(batch) + 1:
        raise ValueError(f"samples must have shape (N, *grid_batch), got {tuple(samples.shape)}")
    _checks.broadcastable("samples[0]", samples[0], batch)
    if torch.broadcast_shapes(samples.shape[1:], batch) != batch:
        raise ValueError(
            f"samples must have shape (N, *grid_batch) within {tuple(batch)}, got "
            f"{tuple(samples.shape)}"
        )
    if not bool(samples.isfinite().all()):
        raise ValueError("samples must be finite, got NaN or infinite ones")
    if bool((samples == samples[0]).all()):
        raise EqualSamplesError(
            f"samples must differ to place a grid, got {len(samples)} equal ones for every function"
        )
    return functions


def _new_knots(
    old: BasisFunctions, samples: Tensor | None, num: int, uniform_share: float, widen: bool
) -> Tensor:
    if samples is None:
        return refined_knots(old.placed, num)
    low, high = _hull(old.placed[..., 0], old.placed[..., -1], samples.shape[1:])
    if widen:
        low, high = torch.minimum(low, samples.amin(0)), torch.maximum(high, samples.amax(0))
    return quantile_knots(samples, low, high, num, uniform_share)


def _hull(low: Tensor, high: Tensor, batch: torch.Size) -> tuple[Tensor, Tensor]:
    """
    Return the ends of intervals that functions have in common when they share a grid from now on.
    """
    lost = tuple(range(low.dim() - len(batch)))
    if lost:
        low, high = low.amin(lost), high.amax(lost)
    shared = tuple(i for i in range(-low.dim(), 0) if batch[i] == 1)
    return (low.amin(shared, True), high.amax(shared, True)) if shared else (low, high)


def _errors(functions: BoundFunctions, fit: Refit) -> tuple[Tensor, float]:
    """Return each function's change, and that of all relative to their size (root mean squares)."""
    values, weights = functions.features(fit.points).movedim(0, -2), functions.weights.double()
    size = quadratic(values.mT @ values / values.shape[-2], weights)
    error = fit.mean_square(weights[..., : functions.basis.num_functions])
    total = error.sum()
    change = float((total / size.sum()).sqrt()) if total > 0 else 0.0
    return error.sqrt(), change
