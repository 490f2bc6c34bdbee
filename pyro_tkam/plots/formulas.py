"""Plots of formulas."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pyro_tkam._checks import function
from pyro_tkam.ops._arguments import finite
from pyro_tkam.plots.axes import Axes, axes_or_new


def formula_parity(
    formula: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, axes: Axes | None = None
) -> Axes:
    """
    Plot a formula's values against the targets; an exact formula lies on the diagonal.

    :param formula: from :func:`pyro_tkam.symbolic.find_formula`, or any function of inputs.
    :param x: inputs, shape ``(N, in)``.
    :param y: targets, shape ``(N, out)``, or ``(N,)`` for one output.
    :param axes: axes, or None for a new figure.
    :return: the axes, whose title states the root mean squared error.
    :raises TypeError: for what is no tensor of numbers, and a formula that returns something else.
    :raises ValueError: for targets whose shape differs from the formula's, NaN and infinities.
    """
    function("formula", formula, "inputs")
    finite("x", x)
    finite("y", y)
    if x.dim() != 2 or x.numel() == 0:
        raise ValueError(f"x must have shape (N, in), got {tuple(x.shape)}")
    with torch.no_grad():
        said = formula(x)
    if not isinstance(said, Tensor) or said.dim() != 2:
        got = tuple(said.shape) if isinstance(said, Tensor) else type(said).__name__
        raise TypeError(f"formula must return a tensor of shape (N, out), got {got}")
    y = y.unsqueeze(-1) if y.dim() == 1 else y
    if said.shape != y.shape:
        raise ValueError(f"y must have shape {tuple(said.shape)}, got {tuple(y.shape)}")
    axes = axes_or_new(axes, 4.0, 4.0)
    y = y.detach().cpu()
    said = said.cpu()
    for number, (target, value) in enumerate(zip(y.unbind(-1), said.unbind(-1), strict=True)):
        axes.plot(target, value, ".", markersize=3, alpha=0.5, label=f"output {number + 1}")
    ends = [float(y.min()), float(y.max())]
    axes.plot(ends, ends, color="black", linewidth=0.8)
    axes.set_xlabel("target")
    axes.set_ylabel("formula")
    axes.set_title(f"rmse {float((said - y).square().mean().sqrt()):.2g}", fontsize="medium")
    axes.spines[["top", "right"]].set_visible(False)
    if y.shape[-1] > 1:
        axes.legend(frameon=False)
    return axes
