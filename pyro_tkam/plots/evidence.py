"""Plots of a tempered run and of importance weights."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_tkam import _checks
from pyro_tkam.infer.evidence.importance import WeightedDraws
from pyro_tkam.infer.tempering.parallel_tempering import PowerPosteriors
from pyro_tkam.ops._arguments import finite
from pyro_tkam.ops.schedules import power_law
from pyro_tkam.plots.axes import Axes, axes_or_new


def evidence_curve(
    draws: PowerPosteriors,
    axes: Axes | None = None,
    *,
    exact: float | None = None,
    exact_mean: Callable[[Tensor], Tensor] | None = None,
) -> Axes:
    """
    Plot the mean log likelihood over ``t`` with the trapezoids whose area is the log evidence (Raj
    2025, Fig. 5).

    :param draws: a tempered run; if it is per datum, the curve is the sum over data. If the
        likelihood is zero on a part of the prior, the mean at ``t = 0`` is ``-inf``; the curve then
        starts at the next rung, and the title says so.
    :param axes: where to draw; None makes a figure.
    :param exact: the log evidence in nats, if known.
    :param exact_mean: the mean log likelihood at inverse temperatures ``(N,)`` in nats, if known:
        the curve whose area the trapezoids estimate. The area between the curve and the trapezoids,
        the error of the estimate, is shaded.
    :return: the axes.
    """
    _check_run(draws)
    if exact is not None:
        exact = _checks.number("exact", exact)
    if exact_mean is not None:
        _checks.function("exact_mean", exact_mean, "inverse temperatures")
    axes = axes_or_new(axes)
    total = (
        draws.log_likelihood.flatten(3).sum(-1)
        if draws.log_likelihood.ndim > 3
        else draws.log_likelihood
    )
    averages = total.mean((1, 2))
    known = averages.isfinite()
    betas = _array(draws.betas[known])
    means = _array(averages[known])
    curve = None
    if exact_mean is not None:
        t = torch.linspace(
            float(betas[0]), 1.0, 400, dtype=draws.betas.dtype, device=draws.betas.device
        )
        curve = _curve(exact_mean, t)
    for k in range(len(betas) - 1):
        axes.fill_between(
            betas[k : k + 2], means[k : k + 2], color=f"C{k % 2}", alpha=0.25, linewidth=0
        )
    axes.plot(betas, means, "o-", color="black", markersize=3, linewidth=1)
    if curve is not None:
        axes.fill_between(
            _array(t), curve, np.interp(_array(t), betas, means), color="C3", alpha=0.4, linewidth=0
        )
        axes.plot(_array(t), curve, color="C3", linewidth=1.5, label="exact mean")
        axes.legend(frameon=False)
    margin = 0.15 * float(means.max() - means.min())
    if margin > 0:
        axes.set_ylim(float(means.min()) - margin, float(means.max()) + margin)
    area = torch.trapezoid(averages[known], draws.betas[known]).item()
    lacking = "" if known.all() else f" from t = {betas[0]:.2g}, because the mean at 0 is -inf"
    truth = "" if exact is None else f", exactly {exact:.2f}"
    axes.set_title(f"area {area:.2f} nats{lacking}{truth}", fontsize="medium")
    return _labeled(axes, "t", "mean log likelihood (nats)")


def _curve(exact_mean: Callable[[Tensor], Tensor], t: Tensor) -> NDArray[Any]:
    """Evaluate the exact mean at inverse temperatures."""
    values = exact_mean(t)
    if not isinstance(values, Tensor) or values.shape != t.shape:
        got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise TypeError(f"exact_mean must return a tensor of shape {tuple(t.shape)}, got {got}")
    return _array(values)


def _check_run(draws: PowerPosteriors) -> None:
    _checks.instance("draws", draws, PowerPosteriors, "PowerPosteriors, as a tempered run returns")


def ladders(num_temperatures: int, exponents: Sequence[float], axes: Axes | None = None) -> Axes:
    """
    Plot the power-law ladders ``t_k = (k / K)^r`` for several exponents (Raj 2025, Fig. 6).

    :param num_temperatures: rungs of each ladder.
    :param exponents: the values of ``r``.
    :param axes: where to draw; None makes a figure.
    :return: the axes.
    :raises ValueError: for fewer than two rungs, and exponents that are not positive.
    """
    num_temperatures = _checks.whole_number("num_temperatures", num_temperatures, 2)
    _checks.sequence("exponents", exponents, "numbers")
    for exponent in exponents:
        _checks.length("every element of exponents", exponent)
    curves = {exponent: _array(power_law(num_temperatures, exponent)) for exponent in exponents}
    axes = axes_or_new(axes)
    for exponent, curve in curves.items():
        axes.plot(range(num_temperatures), curve, "o-", label=f"r = {exponent:g}")
    axes.legend(frameon=False)
    return _labeled(axes, "k", "t")


def swap_rates(draws: PowerPosteriors, axes: Axes | None = None) -> Axes:
    """
    Plot the mean swap acceptance of neighbors against the midpoint of their interval.

    :param draws: a tempered run.
    :param axes: where to draw; None makes a figure.
    :return: the axes.
    """
    _check_run(draws)
    axes = axes_or_new(axes)
    betas = _array(draws.betas)
    axes.bar(
        betas[:-1],
        _array(draws.swap_acceptance),
        width=betas[1:] - betas[:-1],
        align="edge",
        edgecolor="white",
    )
    axes.set_ylim(0, 1)
    return _labeled(axes, "t", "swap acceptance")


def index_process(
    draws: PowerPosteriors, axes: Axes | None = None, *, chain: int = 0, datum: int = 0
) -> Axes:
    """
    Plot the rung of each replica, draw by draw.

    :param draws: a tempered run.
    :param axes: where to draw; None makes a figure.
    :param chain: which chain.
    :param datum: which datum, if the run is per datum.
    :return: the axes.
    :raises ValueError: for a chain or a datum that the run does not have.
    """
    _check_run(draws)
    chain = _checks.place("chain", chain, draws.replicas.shape[1])
    replicas = draws.replicas[:, chain].flatten(2) if draws.replicas.ndim > 3 else None
    datum = _checks.place("datum", datum, 1 if replicas is None else replicas.shape[-1])
    rungs = draws.replicas[:, chain] if replicas is None else replicas[..., datum]
    axes = axes_or_new(axes)
    for path in _array(rungs.argsort(0)):
        axes.plot(path, linewidth=0.7)
    return _labeled(axes, "draw", "rung")


def power_posteriors(
    values: Tensor, betas: Tensor, axes: Axes | None = None, *, bins: int = 60, label: str = "z"
) -> Axes:
    """
    Plot the densities of a scalar latent at all temperatures, as histograms (Raj 2025, Fig. 4).

    :param values: draws of the latent, ``(temperature, chain, draw)``; see ``keep_all`` of a
        tempered run.
    :param betas: inverse temperatures, ``(temperature,)``.
    :param axes: where to draw; None makes a figure.
    :param bins: bars of each histogram.
    :param label: name of the latent.
    :return: the axes.
    :raises TypeError: for what is no tensor of numbers.
    :raises ValueError: for other shapes, values that are not finite, and inverse temperatures
        outside [0, 1].
    """
    finite("betas", betas)
    if betas.ndim != 1 or len(betas) == 0 or betas.min() < 0 or betas.max() > 1:
        raise ValueError(
            f"betas must be numbers from 0 to 1 of shape (temperature,), got {betas.tolist()}"
        )
    finite("values", values)
    if values.ndim != 3 or len(values) != len(betas) or values.numel() == 0:
        raise ValueError(
            f"values must have shape ({len(betas)}, chain, draw), got {tuple(values.shape)}"
        )
    bins = _checks.whole_number("bins", bins, 1)
    _checks.text("label", label)
    axes = axes_or_new(axes)
    values = values.double()
    low = values.min().item()
    high = values.max().item()
    margin = 0.0 if low < high else max(0.5, abs(low) / 2)
    span = (low - margin, high + margin)
    for beta, each in zip(betas.tolist(), values, strict=True):
        color = (beta**0.5, 0.2, 1 - beta**0.5)
        style = {"histtype": "step", "color": color, "label": f"{beta:.2g}"}
        axes.hist(_array(each.flatten()), bins, range=span, density=True, **style)
    axes.legend(title="t", frameon=False, fontsize="x-small")
    return _labeled(axes, label, "density")


def importance_weights(
    draws: WeightedDraws, axes: Axes | None = None, *, data: Sequence[int] = (0,)
) -> Axes:
    """
    Plot normalized importance weights, largest first, with the effective sample size and k-hat.

    :param draws: weighted draws.
    :param axes: where to draw; None makes a figure.
    :param data: which data, if the weights are per datum.
    :return: the axes.
    :raises ValueError: for a datum that the draws do not have.
    """
    _checks.instance("draws", draws, WeightedDraws, "WeightedDraws, as ImportanceSampling returns")
    _checks.sequence("data", data, "integers")
    data = [_checks.place("every element of data", each, draws.khat.numel()) for each in data]
    axes = axes_or_new(axes)
    weights = draws.log_weights.softmax(0).reshape(draws.num_particles, -1)
    sizes = draws.effective_sample_size.reshape(-1)
    khats = draws.khat.reshape(-1)
    rank = range(1, draws.num_particles + 1)
    for datum in data:
        label = f"datum {datum}: {sizes[datum]:.0f} effective draws, k-hat {khats[datum]:.2f}"
        axes.loglog(rank, _array(weights[:, datum].sort(descending=True).values), label=label)
    axes.legend(frameon=False, fontsize="small")
    return _labeled(axes, "rank", "weight")


def _array(values: Tensor) -> NDArray[Any]:
    return values.detach().cpu().numpy()


def _labeled(axes: Axes, x: str, y: str) -> Axes:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    return axes
