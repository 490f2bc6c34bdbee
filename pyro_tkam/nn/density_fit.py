"""Maximum likelihood for a density on given draws, with early stopping on held-out draws."""

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pyro_tkam._threads import in_turn
from pyro_tkam.distributions import SharedCells
from pyro_tkam.nn._checks import number, whole_number
from pyro_tkam.nn._unseen import unseen
from pyro_tkam.ops._arguments import dense

RIDGE, NEWTON_STEPS = 1e-4, 15  # for the fit of the marginals
HELD_OUT = 0.1  # share of the draws that is held out
FILLED = 3.5  # where light tails end among the basis functions, which reach to 4


def fit_marginals(cells: SharedCells, samples: Tensor, shares: Tensor) -> Tensor:
    """
    Fit independent tilted densities by maximum likelihood: Newton's method on a convex function.

    :param cells: the cells of the basis.
    :param samples: draws, shape ``(N, Q)``.
    :param shares: weights of the draws that sum to one, shape ``(N,)``.
    :return: coefficients, shape ``(Q, G)``.

    >>> cells = SharedCells.over(-4.0, 4.0, like=torch.zeros(()))
    >>> fit_marginals(cells, torch.randn(100, 3), torch.full((100,), 0.01)).shape
    torch.Size([3, 16])
    """
    target = torch.stack([shares @ cells.basis(column) for column in samples.T])
    coefficients = torch.zeros_like(target)
    identity = RIDGE * torch.eye(target.shape[1], dtype=target.dtype, device=target.device)

    def objective(coefficients: Tensor) -> Tensor:
        fit = cells.log_normalizer(coefficients) - (coefficients * target).sum(-1)
        return fit + 0.5 * RIDGE * coefficients.square().sum(-1)

    for _ in range(NEWTON_STEPS):
        share = cells.log_terms(coefficients).softmax(-1)
        mean = share @ cells.functions.mT
        second = (share[:, None] * cells.functions) @ cells.functions.mT
        curvature = second - mean[:, :, None] * mean[:, None] + identity
        step = torch.linalg.solve(curvature, mean - target + RIDGE * coefficients)
        tried = [coefficients - 0.5**i * step for i in range(6)]
        values = torch.stack([objective(each) for each in (coefficients, *tried)])
        best = values.nan_to_num(torch.inf).argmin(0)[:, None, None]
        choices = torch.stack([coefficients, *tried], 1)
        coefficients = choices.gather(1, best.expand(-1, 1, target.shape[1]))[:, 0]
    return coefficients


@dataclass(frozen=True)
class DensityFit:
    """
    The result of a fit.

    :param log_density: mean log density of the draws used for the fit, in nats.
    :param held_out: the same for the held-out draws, at the step that was kept.
    """

    log_density: float
    held_out: float
    steps: int
    kept: int


@in_turn
def fit_density(
    prior: Any,
    samples: Tensor,
    weights: Tensor | None = None,
    label: Tensor | None = None,
    *,
    steps: int = 2000,
    batch_size: int = 512,
    learning_rate: float = 5e-3,
    patience: int = 8,
) -> DensityFit:
    """
    Fit a prior with ``loc`` and ``scale`` to weighted draws, with Adam and a decreasing step size.

    A tenth of the draws is held out. Every 50 steps, the parameters are kept if they have the best
    held-out score so far.

    :param prior: a module that returns its density when called, see
        :meth:`pyro_tkam.nn.AutoregressivePrior.fit`.
    :param samples: draws, shape ``(N, Q)``.
    :param weights: shape ``(N,)``, or None.
    :param label: shape ``(N,)``, or None.
    :param steps: largest number of gradient steps.
    :param batch_size: draws per step.
    :param learning_rate: highest step size of Adam.
    :param patience: in the second half of the steps, stop after this many checks without a new
        best.
    :raises ValueError: see that method.
    """
    whole_number("steps", steps, 1)
    whole_number("batch_size", batch_size, 1)
    whole_number("patience", patience, 1)
    number("learning_rate", learning_rate, 0)
    weights = _checked(prior, samples, weights)
    if label is not None:
        _check_label(label, len(samples))
    given = () if label is None else (label,)
    with torch.no_grad(), unseen(prior):
        prior(*given)  # refuses labels before anything changes
    (counted,) = (weights > 0).nonzero(as_tuple=True)  # others would leave batches without weight
    count = max(int(HELD_OUT * len(counted)), 1)
    order = counted[torch.randperm(len(counted), device=samples.device)]
    held_out = order[:count]
    own = order[count:]
    with torch.no_grad():
        share = weights / weights.sum()
        mean = share @ samples
        deviation = (share @ (samples - mean).square()).sqrt()
        reach = (samples - mean)[weights > 0].abs().amax(0) / FILLED
        prior.loc.copy_(mean)
        prior.scale.copy_(torch.minimum(deviation, reach).clamp_min(1e-6))

        prior.start_from((samples - prior.loc) / prior.scale, share)

    def score(rows: Tensor) -> Tensor:
        given = () if label is None else (label[rows],)
        log_prob = prior(*given).log_prob(samples[rows])
        return weights[rows] @ log_prob / weights[rows].sum()

    parameters = [each for each in prior.parameters() if each.requires_grad]
    optimizer = torch.optim.Adam(parameters, learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, steps + 1)
    best = -math.inf
    kept = 0
    state = copy.deepcopy(prior.state_dict())
    step = 0
    with unseen(prior), torch.enable_grad():
        while step < steps and (step - kept < 50 * patience or step <= steps / 2):
            step += 1
            rows = own[torch.randint(len(own), (batch_size,), device=own.device)]
            optimizer.zero_grad()
            (-score(rows)).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 10.0)
            optimizer.step()
            schedule.step()
            if step % 50 == 0 or step == steps:
                with torch.no_grad():
                    value = float(score(held_out))
                if value > best:
                    best = value
                    kept = step
                    state = copy.deepcopy(prior.state_dict())
        prior.load_state_dict(state)
        with torch.no_grad():
            fitted = float(score(own))
    return DensityFit(fitted, best, step, kept)


def _check_label(label: Tensor, rows: int) -> None:
    dense("label", label)
    if label.is_floating_point() or label.is_complex() or label.shape != (rows,):
        raise ValueError(
            f"label must be integers of shape ({rows},), got {label.dtype} of shape "
            f"{tuple(label.shape)}"
        )


def _checked(prior: Any, samples: Tensor, weights: Tensor | None) -> Tensor:
    loc = getattr(prior, "loc", None)
    if not isinstance(prior, nn.Module) or not isinstance(loc, Tensor):
        raise TypeError(f"prior must be a module with loc and scale, got {type(prior).__name__}")
    size = len(loc)
    dense("samples", samples)
    if samples.dim() != 2 or samples.shape[1] != size or len(samples) < 2:
        raise ValueError(
            f"samples must have shape (N, {size}) with N >= 2, got {tuple(samples.shape)}"
        )
    if samples.dtype != prior.loc.dtype:
        raise TypeError(f"samples must have dtype {prior.loc.dtype}, got {samples.dtype}")
    if not bool(samples.isfinite().all()):
        raise ValueError("samples must be finite, got NaN or infinite values")
    if weights is None:
        return samples.new_ones(len(samples))
    dense("weights", weights)
    if weights.shape != samples.shape[:1] or not bool(((weights >= 0) & weights.isfinite()).all()):
        raise ValueError(
            f"weights must have shape ({len(samples)},), none negative or infinite, got shape "
            f"{tuple(weights.shape)}"
        )
    positive = int((weights > 0).sum())
    if positive < 2:
        raise ValueError(f"weights must be positive for at least 2 samples, got {positive}")
    return weights.to(samples)
