"""Plots of a tempered run and of importance weights."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_tkam.infer.evidence.importance import WeightedDraws
from pyro_tkam.infer.tempering.parallel_tempering import PowerPosteriors
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
    for k in range(len(betas) - 1):
        axes.fill_between(
            betas[k : k + 2], means[k : k + 2], color=f"C{k % 2}", alpha=0.25, linewidth=0
        )
    axes.plot(betas, means, "o-", color="black", markersize=3, linewidth=1)
    if exact_mean is not None:
        t = torch.linspace(
            float(betas[0]), 1.0, 400, dtype=draws.betas.dtype, device=draws.betas.device
        )
        curve = _array(exact_mean(t))
        axes.fill_between(
            _array(t), curve, np.interp(_array(t), betas, means), color="C3", alpha=0.4, linewidth=0
        )
        axes.plot(_array(t), curve, color="C3", linewidth=1.5, label="exact mean")
        axes.legend(frameon=False)
    margin = 0.15 * float(means.max() - means.min())
    if margin > 0:
        axes.set_ylim(float(means.min()) - margin, float(means.max()) + margin)
    area = torch.trapezoid(averages[known], draws.betas[known]).item()
    lacking = "" if known.all() else f" from t = {betas[0]:.2g}, as the mean at 0 is -inf"
    truth = "" if exact is None else f", exactly {exact:.2f}"
    axes.set_title(f"area {area:.2f} nats{lacking}{truth}", fontsize="medium")
    return _labeled(axes, "t", "mean log likelihood (nats)")


def ladders(num_temperatures: int, exponents: Sequence[float], axes: Axes | None = None) -> Axes:
    """
    Plot the power-law ladders ``t_k = (k / K)^r`` for several exponents (Raj 2025, Fig. 6).

    :param num_temperatures: rungs of each ladder.
    :param exponents: the values of ``r``.
    :param axes: where to draw; None makes a figure.
    :return: the axes.
    """
    axes = axes_or_new(axes)
    for exponent in exponents:
        axes.plot(
            range(num_temperatures),
            _array(power_law(num_temperatures, exponent)),
            "o-",
            label=f"r = {exponent:g}",
        )
    axes.legend(frameon=False)
    return _labeled(axes, "k", "t")


def swap_rates(draws: PowerPosteriors, axes: Axes | None = None) -> Axes:
    """
    Plot the mean swap acceptance of neighbors against the midpoint of their interval.

    :param draws: a tempered run.
    :param axes: where to draw; None makes a figure.
    :return: the axes.
    """
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
    """
    axes = axes_or_new(axes)
    rungs = (
        draws.replicas[:, chain].flatten(2)[..., datum]
        if draws.replicas.ndim > 3
        else draws.replicas[:, chain]
    )
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
    :raises ValueError: for other shapes.
    """
    if values.ndim != 3 or len(values) != len(betas):
        raise ValueError(
            f"values must have shape ({len(betas)}, chain, draw), got {tuple(values.shape)}"
        )
    axes = axes_or_new(axes)
    span = (values.min().item(), values.max().item())
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
    """
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
