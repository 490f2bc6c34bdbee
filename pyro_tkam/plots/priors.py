"""Learned univariate priors next to their references."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal

from pyro_tkam._checks import instance, text, whole_number
from pyro_tkam.distributions import AutoregressiveTilted, ExponentiallyTilted, TiltedMixture
from pyro_tkam.ops._arguments import dense, finite
from pyro_tkam.plots.axes import Axes, axes_or_new, panels_or_new


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
    Plot the learned densities that differ most from the reference (in color) over the reference
    (dashed).

    :param prior: a bank of univariate densities, of any batch shape, on one reference.
    :param axes: where to draw; None makes a figure.
    :param num: number of densities.
    :param points: points per curve.
    :param title: a line above.
    :return: the axes.
    :raises ValueError: for fewer than one density or two points.
    """
    _check_bank(prior, num, points)
    text("title", title)
    axes = axes_or_new(axes, 5.0, 3.2)
    positions, bank, reference = _curves(prior, prior.reference, points)
    chosen = (bank - reference).abs().mean(0).topk(min(num, bank.shape[1])).indices
    axes.plot(positions, bank[:, chosen], linewidth=0.9, alpha=0.8)
    axes.plot(
        positions, reference[:, :1], color="black", linestyle="--", linewidth=1.5, label="reference"
    )
    axes.set_title(title, fontsize="medium")
    axes.legend(frameon=False)
    return _dressed(axes, positions)


@torch.no_grad()
def prior_components(
    prior: ExponentiallyTilted | TiltedMixture,
    axes: Sequence[Axes] | None = None,
    *,
    num: int = 3,
    points: int = 200,
) -> Sequence[Axes]:
    """
    Plot the first learned densities of a bank, one per panel, with their reference (Raj 2025, Sec.
    A.9).

    :param prior: a bank of univariate densities, or of mixtures of them, of any batch shape, on one
        reference.
    :param axes: one for each density; None makes a figure.
    :param num: number of densities, the first of the bank's flattened batch.
    :param points: points per curve.
    :return: the axes.
    :raises ValueError: for fewer than two points, and if the number of axes differs from the number
        of densities.
    """
    _check_bank(prior, num, points)
    source = prior.components if isinstance(prior, TiltedMixture) else prior
    positions, bank, reference = _curves(prior, source.reference, points)
    panels = _panels(axes, min(num, bank.shape[1]))
    for index, panel in enumerate(panels):
        panel.fill_between(positions, bank[:, index], alpha=0.3)
        panel.plot(positions, bank[:, index], label="learned")
        panel.plot(
            positions,
            reference[:, 0],
            color="black",
            linestyle="--",
            linewidth=1.2,
            label="reference",
        )
        panel.set_title(f"component {index + 1}", fontsize="medium")
        _dressed(panel, positions)
    panels[0].legend(frameon=False)
    return panels


@torch.no_grad()
def prior_marginals(
    draws: Tensor,
    reference: Distribution,
    axes: Sequence[Axes] | None = None,
    *,
    num: int = 3,
    bins: int = 40,
) -> Sequence[Axes]:
    """
    Plot the first marginals of a joint prior, whose densities are unknown, as histograms with its
    reference.

    :param draws: of the prior, shape ``(N, Q)``.
    :param reference: univariate reference of every latent.
    :param axes: one for each marginal; None makes a figure.
    :param num: number of marginals (the first ones).
    :param bins: bars of a histogram.
    :return: the axes.
    :raises ValueError: for draws of the wrong shape, numbers below one, and if the number of axes
        differs from the number of marginals.
    """
    whole_number("num", num, 1)
    whole_number("bins", bins, 1)
    instance("reference", reference, Distribution, "a distribution")
    if reference.batch_shape or reference.event_shape:
        shape = tuple(reference.batch_shape + reference.event_shape)
        raise ValueError(f"reference must be one univariate distribution, got shape {shape}")
    dense("draws", draws)
    if draws.dim() != 2 or draws.numel() == 0:
        raise ValueError(
            f"draws must have shape (N, Q), all dimensions at least 1, got {tuple(draws.shape)}"
        )
    finite("draws", draws)
    panels = _panels(axes, min(num, draws.shape[1]))
    shown = draws[:, : len(panels)].detach().cpu().double()
    reach = max(4.0, float(shown.abs().max()))
    positions = torch.linspace(-reach, reach, 200, dtype=shown.dtype)
    plain = reference.log_prob(positions.to(draws.device)).exp().cpu()
    for index, panel in enumerate(panels):
        panel.hist(
            shown[:, index].numpy(),
            bins,
            range=(-reach, reach),
            density=True,
            alpha=0.5,
            label="draws",
        )
        panel.plot(
            positions, plain, color="black", linestyle="--", linewidth=1.2, label="reference"
        )
        panel.set_title(f"latent {index + 1}", fontsize="medium")
        _dressed(panel, positions)
    panels[0].legend(frameon=False, fontsize="small", handlelength=1.2, loc="upper left")
    return panels


@torch.no_grad()
def conditional_densities(
    prior: AutoregressiveTilted,
    axes: Axes | None = None,
    *,
    latent: int = -1,
    num: int = 8,
    points: int = 200,
    title: str = "",
) -> Axes:
    """
    Plot the density of one latent in several contexts, over the reference (dashed). Each context is
    a draw of the earlier latents.

    :param prior: a joint density without batch shape.
    :param axes: where to draw; None makes a figure.
    :param latent: which latent; those of the first block have no context and one curve.
    :param num: number of contexts.
    :param points: points per curve, from -4 to 4.
    :param title: a line above.
    :return: the axes.
    :raises ValueError: for a prior with a batch shape, a latent that it does not have, less than
        one context, and fewer than two points.
    """
    instance("prior", prior, AutoregressiveTilted, "an AutoregressiveTilted")
    whole_number("num", num, 1)
    whole_number("points", points, 2)
    text("title", title)
    (size,) = prior.event_shape
    if prior.batch_shape:
        raise ValueError(f"prior must have batch shape (), got {tuple(prior.batch_shape)}")
    if whole_number("latent", latent, -size) >= size:
        raise ValueError(f"latent must be from {-size} to {size - 1}, got {latent}")
    axes = axes_or_new(axes, 5.0, 3.2)
    chosen = slice(latent % size, latent % size + 1)
    conditionals = prior.conditionals(prior.sample((num,))).latents(chosen)
    z = torch.linspace(-4.0, 4.0, points, dtype=prior.edges.dtype, device=prior.edges.device)
    densities = conditionals.log_prob(prior.cells, z.reshape(-1, 1, 1).expand(-1, num, 1)).exp()
    positions = z.cpu()
    axes.plot(positions, densities.squeeze(-1).cpu(), linewidth=0.9, alpha=0.8)
    reference = Normal(0.0, 1.0).log_prob(positions).exp()
    axes.plot(positions, reference, color="black", linestyle="--", linewidth=1.5, label="reference")
    axes.set_title(title, fontsize="medium")
    axes.legend(frameon=False)
    return _dressed(axes, positions)


def dependence(matrix: Tensor, axes: Axes | None = None, *, title: str = "") -> Axes:
    """
    Plot which latent depends on which.

    :param matrix: divergences in nats, shape ``(Q, Q)``, of
        :meth:`AutoregressiveTilted.dependence
        <pyro_tkam.distributions.AutoregressiveTilted.dependence>`.
    :param axes: where to draw; None makes a figure.
    :param title: a line above.
    :return: the axes.
    :raises TypeError: for what is no tensor of numbers.
    :raises ValueError: for another shape, NaN and infinities.
    """
    text("title", title)
    dense("matrix", matrix)
    if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1] or matrix.numel() == 0:
        raise ValueError(f"matrix must have shape (Q, Q), got {tuple(matrix.shape)}")
    finite("matrix", matrix)
    axes = axes_or_new(axes, 4.4, 3.6)
    nats = matrix.detach().cpu().double().clamp_min(0.0).numpy()
    shown = axes.imshow(nats, cmap="Greys", interpolation="nearest")
    axes.figure.colorbar(shown, ax=axes, label="nats")
    axes.set(xlabel="on latent", ylabel="density of latent")
    axes.set_title(title, fontsize="medium")
    return axes


def _panels(axes: Sequence[Axes] | None, num: int) -> Sequence[Axes]:
    return panels_or_new(axes, num, "density", 3.2, 2.6)


def _check_bank(prior: Any, num: int, points: int) -> None:
    kinds = (ExponentiallyTilted, TiltedMixture)
    what = "an ExponentiallyTilted or a TiltedMixture (call a module: prior())"
    instance("prior", prior, kinds, what)
    whole_number("num", num, 1)
    whole_number("points", points, 2)


def _curves(prior: Any, reference: Any, points: int) -> tuple[Any, Any, Any]:
    """
    Return positions ``(points,)``, densities and their normalized references, ``(points,
    densities)``.
    """
    low = float(prior.low.min())
    high = float(prior.high.max())
    margin = (high - low) * 1e-6
    z = torch.linspace(
        low + margin, high - margin, points, dtype=prior.low.dtype, device=prior.low.device
    )
    column = z.reshape(-1, *(1,) * len(prior.batch_shape))
    plain = reference.log_density(column).exp().reshape(points, -1)
    plain = plain / torch.trapezoid(plain, z, dim=0)
    bank = prior.log_prob(column).exp().reshape(points, -1)
    return z.cpu(), bank.cpu(), plain.cpu()


def _dressed(axes: Axes, positions: Any) -> Axes:
    axes.set(
        xlabel="z",
        ylabel="density",
        xlim=(float(positions[0]), float(positions[-1])),
        ylim=(0, None),
    )
    axes.spines[["top", "right"]].set_visible(False)
    return axes
