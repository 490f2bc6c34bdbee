"""
Grid updates: knots move to where the arguments are, and the functions change as little as possible.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pyro_tkam.nn import _checks
from pyro_tkam.nn.constraints import refuse_constrained
from pyro_tkam.ops.bases import BasisFunctions
from pyro_tkam.ops.bases.regrid import Refit, quadratic, quantile_knots, refined_knots, refit

if TYPE_CHECKING:
    from pyro_tkam.nn.functions import BoundFunctions
    from pyro_tkam.nn.univariate import UnivariateFunctions


@dataclass(frozen=True, eq=False)
class GridUpdate:
    """
    The result of updating a bank's grid.

    :param error: root mean square change of each function at the points of the fit; shape
        ``batch_shape``.
    :param change: the same over all functions, relative to their root mean square.
    :param accepted: whether the bank is on the new grid.
    :param outside: share of the samples outside the old grid.
    :param parameter: the parameter that holds the coefficients.
    :param moved: whether the update changed what the entries of the parameter mean: it was
        accepted, and the new grid differs from the old one.
    """

    error: Tensor
    change: float
    accepted: bool
    outside: float
    parameter: nn.Parameter
    moved: bool


class EqualSamplesError(ValueError):
    """The samples are all equal and can't determine a grid."""


def check_learned(module: nn.Module, names: Iterable[str], purpose: str) -> None:
    """
    Refuse to change parameters that have been replaced by something random, because a change would
    have no effect.
    """
    for name in names:
        if not isinstance(module._parameters.get(name), nn.Parameter):
            raise TypeError(f"{name} must be a parameter for {purpose}, got random values")


@torch.no_grad()
def update_grid(
    bank: UnivariateFunctions,
    samples: Tensor | None,
    grid_size: int | None,
    uniform_share: float,
    widen: bool,
    shrink: bool,
    max_change: float,
) -> GridUpdate:
    """Update a bank's grid; the arguments are those of :meth:`UnivariateFunctions.update_grid`."""
    functions = _checked(bank, samples, uniform_share, max_change, widen, shrink)
    dtype = functions.coefficients.dtype
    old = functions.basis.cast(torch.float64)
    size = (
        old.grid_size
        if grid_size is None
        else _checks.integer("grid_size", grid_size, old.smallest_grid_size)
    )
    if samples is None:
        knots = refined_knots(old.placed, old.num_knots(size))
        outside = 0.0
    else:
        outside = share_outside(old, samples)
        samples = samples.double()
        ends = _new_ends(old, samples, widen, shrink, torch.finfo(dtype).eps)
        knots = quantile_knots(samples, *ends, old.num_knots(size), uniform_share)
    if not bool((knots.to(dtype).diff(dim=-1) > 0).all()):
        raise ValueError(
            f"uniform_share must be large enough to keep knots apart, got {uniform_share}"
        )
    if size == old.grid_size and _equal(knots, old.placed):
        # a grid that functions share stays shared: its basis is evaluated once for all of them
        none = torch.zeros(bank.batch_shape, dtype=dtype, device=knots.device)
        return GridUpdate(none, 0.0, True, outside, bank.coefficients, moved=False)
    new = old.moved(knots, size)
    fit = refit(old, new, samples)
    error, change = _errors(functions, fit)
    accepted = change <= max_change
    if accepted:
        bank.basis.place(new)
        coefficients = bank._in_bank_order(bank.coefficients)  # including those of masked functions
        bank.replace_coefficients(fit.coefficients(coefficients.double()))
    return GridUpdate(error.to(dtype), change, accepted, outside, bank.coefficients, accepted)


def _equal(knots: Tensor, old: Tensor) -> bool:
    """Tell whether all functions keep their knots, of which there may be another number."""
    return knots.shape[-1] == old.shape[-1] and bool((knots == old).all())


def share_outside(basis: BasisFunctions, samples: Tensor) -> float:
    """Return the share of samples, ``(N, *grid_batch)``, that lie outside a grid."""
    low = basis.placed[..., 0]
    high = basis.placed[..., -1]
    return float(((samples < low) | (samples > high)).double().mean())


def _checked(
    bank: UnivariateFunctions,
    samples: Tensor | None,
    uniform_share: float,
    max_change: float,
    widen: bool,
    shrink: bool,
) -> BoundFunctions:
    """Check everything before anything changes, and read the parameters."""
    check_learned(bank, ("coefficients",), "a grid update")
    refuse_constrained(bank, "a grid update")
    _checks.share("uniform_share", uniform_share)
    _checks.flag("widen", widen)
    _checks.flag("shrink", shrink)
    if not isinstance(max_change, float) or max_change != math.inf:
        _checks.number("max_change", max_change, 0)
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
        raise ValueError("samples must be finite, got NaN or infinite values")
    if bool((samples == samples[0]).all()):
        raise EqualSamplesError(
            f"samples must differ to place a grid, got {len(samples)} equal values for every "
            "function"
        )
    return functions


def _new_ends(
    old: BasisFunctions, samples: Tensor, widen: bool, shrink: bool, precision: float
) -> tuple[Tensor, Tensor]:
    """Return the ends of the new intervals; samples that are all equal don't shrink an interval."""
    low, high = _hull(old.placed[..., 0], old.placed[..., -1], samples.shape[1:])
    smallest = samples.amin(0)
    largest = samples.amax(0)
    if widen:
        low = torch.minimum(low, smallest)
        high = torch.maximum(high, largest)
    if shrink:
        inner = torch.maximum(low, smallest), torch.minimum(high, largest)
        # Knots must stay apart in the bank's own precision.
        least = 1e4 * precision * torch.maximum(inner[0].abs(), inner[1].abs())
        spread = inner[1] - inner[0] > least
        low, high = (torch.where(spread, *ends) for ends in zip(inner, (low, high), strict=True))
    return low, high


def _hull(low: Tensor, high: Tensor, batch: torch.Size) -> tuple[Tensor, Tensor]:
    """
    Return the ends of intervals; functions that will share a grid get the smallest interval that
    contains all of theirs.
    """
    lost = tuple(range(low.dim() - len(batch)))
    if lost:
        low = low.amin(lost)
        high = high.amax(lost)
    shared = tuple(i for i in range(-low.dim(), 0) if batch[i] == 1)
    return (low.amin(shared, True), high.amax(shared, True)) if shared else (low, high)


def _errors(functions: BoundFunctions, fit: Refit) -> tuple[Tensor, float]:
    """
    Return each function's change, and the overall change relative to the size of the functions,
    both as root mean squares.
    """
    values = functions.features(fit.points).movedim(0, -2)
    weights = functions.weights.double()
    size = quadratic(values.mT @ values / values.shape[-2], weights)
    error = fit.mean_square(weights[..., : functions.basis.num_functions])
    total = error.sum()
    change = float((total / size.sum()).sqrt()) if total > 0 else 0.0
    return error.sqrt(), change
