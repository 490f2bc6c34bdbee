"""Kolmogorov-Arnold networks: their curves, the importance of each curve, and their fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyro_tkam import _checks
from pyro_tkam.nn import KAN, FitResult
from pyro_tkam.nn._unseen import unseen
from pyro_tkam.plots.axes import Axes, axes_or_new, check_panels, new_figure
from pyro_tkam.symbolic import Formula

_POINTS = 50
#: attributions below this are drawn as faintly
_FAINTEST = 0.06
_LEARNED = "black"
_FORMULA = "tab:red"
_MASKED = "0.8"


class _EdgeCurve(NamedTuple):
    """The curve of one edge over the range of its arguments."""

    place: tuple[int, int, int]
    x: Any
    y: Any
    share: float
    is_masked: bool


@torch.no_grad()
def _curves(net: KAN, samples: Tensor) -> Iterator[_EdgeCurve]:
    """Evaluate every edge, by layers, inputs and outputs."""
    shares = net.sizes(samples, "attribution")
    with unseen(net):
        for number, (layer, inputs) in enumerate(net.layer_inputs(samples)):
            steps = torch.linspace(0, 1, _POINTS).to(inputs).unsqueeze(-1)
            x = torch.lerp(inputs.amin(0), inputs.amax(0), steps)
            y = layer.bound()(x.unsqueeze(1))
            for i in range(layer.in_features):
                for o in range(layer.out_features):
                    yield _EdgeCurve(
                        (number, o, i),
                        x[:, i].double().numpy(force=True),
                        y[:, o, i].double().numpy(force=True),
                        float(shares[number][o, i]),
                        not bool(layer.mask[o, i]),
                    )


def _names(net: KAN, input_names: Sequence[str] | None) -> list[str]:
    _checks.instance("net", net, KAN, "a KAN")
    count = net.nodes[0].count
    if input_names is not None:
        _checks.words("input_names", input_names, "names")
    names = [f"$x_{{{i + 1}}}$" for i in range(count)] if input_names is None else [*input_names]
    if len(names) != count:
        raise ValueError(
            f"input_names must hold {count} names, one for each input, got {len(names)}"
        )
    return names


def _explained(net: KAN, formula: Formula | None) -> set[tuple[int, int, int]]:
    """Return the edges that are closed forms, in the network or in a formula of it."""
    found = set(net.fixed)
    if formula is not None:
        _checks.instance("formula", formula, Formula, "a Formula, as find_formula returns")
        found |= {place for place, edge in formula.edges.items() if edge.form is not None}
    return found


def kan_network(
    net: KAN,
    samples: Tensor,
    axes: Axes | None = None,
    *,
    input_names: Sequence[str] | None = None,
    formula: Formula | None = None,
) -> Axes:
    """
    Plot a network: its nodes and, on every edge, the curve over the range of its arguments.

    The opacity of an edge is its attribution, see :meth:`pyro_tkam.nn.KAN.sizes`. Closed forms are
    red, masked edges are gray, and products are crosses.

    :param net: the network.
    :param samples: inputs of the network, shape ``(N, in)``.
    :param axes: where to draw; None makes a figure.
    :param input_names: names of the inputs.
    :param formula: of :func:`pyro_tkam.symbolic.find_formula`; its edges that are forms are red.
    :return: the axes.
    :raises TypeError: for what is no KAN, no formula and no names.
    :raises ValueError: for samples of another shape, and if the number of names differs from the
        number of inputs.
    """
    names = _names(net, input_names)
    explained = _explained(net, formula)
    curves = list(_curves(net, samples))
    widest = max(layer.mask.numel() for layer in net.layers)
    axes = axes_or_new(axes, min(12.0, 2.0 + 0.5 * widest), 2.0 * len(net.layers) + 0.5)
    nodes = [_spread(each.count) for each in net.nodes]
    terms = [_of_terms(each, x) for each, x in zip(net.nodes, nodes, strict=True)]
    boxes = [_spread(layer.mask.numel()) for layer in net.layers]
    size = 0.32 / widest
    for edge in curves:
        number, o, i = edge.place
        center = boxes[number][i * net.layers[number].out_features + o]
        color = _MASKED if edge.is_masked else _FORMULA if edge.place in explained else _LEARNED
        alpha = 1.0 if edge.is_masked else min(1.0, max(_FAINTEST, edge.share))
        path = {
            "x": (nodes[number][i], center, center, terms[number + 1][o]),
            "y": (number, number + 0.35, number + 0.65, number + 1.0),
        }
        for part in (slice(0, 2), slice(2, 4)):
            axes.plot(path["x"][part], path["y"][part], color=color, alpha=alpha, linewidth=0.8)
        if not edge.is_masked:
            x, y = (_into_unit(values) for values in (edge.x, edge.y))
            axes.plot(center + size * x, number + 0.5 + 0.12 * y, color=color, alpha=alpha)
    for number, (each, x) in enumerate(zip(net.nodes, nodes, strict=True)):
        axes.plot(x[: each.sums], [number] * each.sums, "o", color=_LEARNED, markersize=5)
        axes.plot(x[each.sums :], [number] * each.products, "X", color=_LEARNED, markersize=7)
    for x, name in zip(nodes[0], names, strict=True):
        axes.annotate(name, (x, -0.08), ha="center", va="top")
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.3, len(net.layers) + 0.1)
    axes.set_axis_off()
    return axes


def _spread(count: int) -> Any:
    return (np.arange(count) + 0.5) / count


def _of_terms(nodes: Any, x: Any) -> Any:
    """Return the node of each term."""
    return np.concatenate((x[: nodes.sums], np.repeat(x[nodes.sums :], 2)))


def _into_unit(values: Any) -> Any:
    """Bring values to [-1, 1]; equal ones to 0."""
    low = values.min()
    high = values.max()
    return (2 * values - low - high) / (high - low) if high > low else np.zeros_like(values)


def kan_edges(
    net: KAN,
    samples: Tensor,
    layer: int = 0,
    axes: Sequence[Axes] | None = None,
    *,
    input_names: Sequence[str] | None = None,
    formula: Formula | None = None,
) -> Sequence[Axes]:
    """
    Plot the curves of one layer with their axes, one panel for each edge that is not masked.

    :param net: the network.
    :param samples: inputs of the network, shape ``(N, in)``.
    :param layer: which layer, from 0.
    :param axes: one for each panel; None makes a figure.
    :param input_names: names of the network's inputs, for the first layer.
    :param formula: as for :func:`kan_network`.
    :return: the axes.
    :raises ValueError: for a layer that the network does not have, and if the number of axes
        differs from the number of edges or the number of names from the number of inputs.
    """
    names = _names(net, input_names)
    layer = _checks.place("layer", layer, len(net.layers))
    explained = _explained(net, formula)
    edges = [e for e in _curves(net, samples) if e.place[0] == layer and not e.is_masked]
    if axes is None:
        columns = min(4, max(1, len(edges)))
        rows = max(1, -(-len(edges) // columns))
        grid = new_figure(2.6 * columns, 2.2 * rows).subplots(rows, columns, squeeze=False)
        axes = list(grid.flatten())
        for unused in axes[len(edges) :]:
            unused.set_axis_off()
        axes = axes[: len(edges)]
    check_panels(axes, len(edges), "edge")
    for edge, panel in zip(edges, axes, strict=True):
        _, o, i = edge.place
        panel.plot(edge.x, edge.y, color=_FORMULA if edge.place in explained else _LEARNED)
        panel.set_xlabel(names[i] if layer == 0 else f"node {i}")
        panel.set_title(f"to {o}: {edge.share:.2g} of the output", fontsize="small")
        panel.spines[["top", "right"]].set_visible(False)
    return axes


def fit_history(result: FitResult, axes: Axes | None = None) -> Axes:
    """
    Plot the losses of a fit, with ticks where the grids moved.

    :param result: of :func:`pyro_tkam.nn.fit`.
    :param axes: where to draw; None makes a figure.
    :return: the axes.
    :raises TypeError: for another result.
    """
    _checks.instance("result", result, FitResult, "a FitResult, as fit returns")
    axes = axes_or_new(axes)
    axes.plot(result.losses.numpy(), label="data")
    if result.validation_losses is not None:
        axes.plot(result.validation_losses.numpy(), label="validation")
    if bool(result.penalties.any()):
        axes.plot(result.penalties.numpy(), label="penalty, unweighted", linestyle=":")
    if result.grid_updates:
        bottom = axes.get_xaxis_transform()
        ticks = [0.02] * len(result.grid_updates)
        axes.plot(
            result.grid_updates, ticks, "|", color="gray", transform=bottom, label="grids moved"
        )
    axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return axes
