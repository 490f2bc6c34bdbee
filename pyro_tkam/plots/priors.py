"""Learned univariate priors beside their references."""

import torch

from pyro_tkam.distributions import ExponentiallyTilted, TiltedMixture
from pyro_tkam.plots.axes import Axes, axes_or_new


@torch.no_grad()
def prior_densities(
    prior: ExponentiallyTilted | TiltedMixture,
    axes: Axes | None = None,
    *,
    num: int = 12,
    points: int = 200,
    title: str = "",
) -> Axes:
    """
    Draw the learned densities that differ most from the reference, in colour, over the reference, dashed.

    :param prior: a bank of univariate densities, of any batch shape, on one reference.
    :param axes: where to draw; None makes a figure.
    :param num: number of densities.
    :param points: points a curve.
    :param title: a line above.
    :return: the axes.
    :raises ValueError: for fewer than one density or two points.
    """
    if num < 1 or points < 2:
        raise ValueError(f"num, points: got {num} and {points}, takes at least 1 and 2")
    axes = axes_or_new(axes, 5.0, 3.2)
    low, high = float(prior.low.min()), float(prior.high.max())
    margin = (high - low) * 1e-6
    z = torch.linspace(low + margin, high - margin, points, dtype=prior.low.dtype, device=prior.low.device)
    column = z.reshape(-1, *(1,) * len(prior.batch_shape))
    reference = prior.reference.log_density(column).exp().reshape(points, -1)
    reference = reference / torch.trapezoid(reference, z, dim=0)
    bank = prior.log_prob(column).exp().reshape(points, -1)
    distance = (bank - reference).abs().mean(0)
    chosen = distance.topk(min(num, len(distance))).indices
    positions = z.cpu().numpy()
    axes.plot(positions, bank[:, chosen].cpu().numpy(), linewidth=0.9, alpha=0.8)
    plain = reference[:, :1].cpu().numpy()
    axes.plot(positions, plain, color="black", linestyle="--", linewidth=1.5, label="reference")
    axes.set(xlabel="z", ylabel="density", xlim=(low, high), ylim=(0, None))
    axes.set_title(title, fontsize="medium")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return axes
