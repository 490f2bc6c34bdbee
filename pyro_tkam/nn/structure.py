"""
Smaller, wider and deeper networks that compute the same function, or nearly the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_tkam.nn import _checks
from pyro_tkam.nn._unseen import unseen, unseen_copy
from pyro_tkam.nn.constraints import refuse_constrained
from pyro_tkam.nn.grids import check_learned
from pyro_tkam.nn.layers import KANLayer
from pyro_tkam.ops.bases import BSplines

if TYPE_CHECKING:
    from pyro_tkam.nn.kan import KAN, Nodes


@torch.no_grad()
def pruned(network: KAN, samples: Tensor, nodes: float, edges: float, inputs: bool) -> KAN:
    """
    Remove edges and nodes that contribute little; the arguments are those of :meth:`KAN.prune`.
    """
    _checks.flag("inputs", inputs)
    nodes = _checks.number("nodes", nodes, at_least=0)
    edges = _checks.number("edges", edges, at_least=0)
    for layer in network.layers:
        check_learned(layer, layer.weight_names, "pruning")
    kept = _kept_edges(network, samples, nodes, edges)
    smaller = unseen_copy(network)
    with unseen(smaller):
        for (layer, arguments), each in zip(smaller.layer_inputs(samples), kept, strict=True):
            layer.keep(each, arguments)
    if network.has_independent_nodes:
        for number in range(len(smaller.layers) - 1):
            _select_nodes(smaller, number + 1, smaller.layers[number + 1].mask.any(0))
    if inputs:
        _select_inputs(smaller, smaller.layers[0].mask.any(0))
    return smaller


def _kept_edges(network: KAN, samples: Tensor, nodes: float, edges: float) -> list[Tensor]:
    """Choose the edges that stay, working backward from the outputs; return one mask per layer."""
    attributions = network.sizes(samples, "attribution")
    kept: list[Tensor] = []
    alive = torch.ones_like(attributions[-1][:, 0], dtype=torch.bool)
    for number in reversed(range(len(attributions))):
        shares = attributions[number]
        largest = (shares == shares.amax(1, keepdim=True)) & (shares > 0)
        chosen = ((shares >= edges) | largest) & network.layers[number].mask & alive.unsqueeze(-1)
        if number and network.has_independent_nodes:
            chosen &= shares.norm(dim=0) >= nodes
        kept.append(chosen)
        if not bool(chosen.any()):
            raise ValueError(
                f"nodes, edges must leave an edge in layer {number}, whose largest attribution is "
                f"{float(shares.max()):g}, got {nodes:g} and {edges:g}"
            )
        alive = torch.ones_like(chosen[0])
        if network.has_independent_nodes:
            alive = chosen.any(0)
        if number:
            alive = network.nodes[number].to_terms(alive)
    return kept[::-1]


def _select_nodes(network: KAN, number: int, alive: Tensor) -> None:
    """Keep some nodes of a hidden layer, in place."""
    nodes = network.nodes[number]
    writer = network.layers[number - 1]
    reader = network.layers[number]
    device = alive.device
    terms = nodes.to_terms(alive).nonzero().squeeze(-1)
    writer.select(terms.unsqueeze(-1), torch.arange(writer.in_features, device=device))
    every = torch.arange(reader.out_features, device=device).unsqueeze(-1)
    reader.select(every, alive.nonzero().squeeze(-1))
    sums = int(alive[: nodes.sums].sum())
    network.nodes[number] = replace(nodes, sums=sums, products=int(alive.sum()) - sums)


def _select_inputs(network: KAN, used: Tensor) -> None:
    """Keep some inputs, in place."""
    layer = network.layers[0]
    every = torch.arange(layer.out_features, device=used.device).unsqueeze(-1)
    chosen = used.nonzero().squeeze(-1)
    layer.select(every, chosen)
    network.nodes[0] = replace(network.nodes[0], sums=len(chosen))
    network.inputs = [network.inputs[i] for i in chosen.tolist()]


@torch.no_grad()
def expanded(network: KAN, nodes: list[Nodes]) -> KAN:
    """Add nodes that nothing reads yet; the arguments are those of :meth:`KAN.expand`."""
    old = network.nodes
    grows = len(nodes) == len(old) and all(
        new.sums >= each.sums and new.products >= each.products
        for new, each in zip(nodes, old, strict=True)
    )
    if not grows or (nodes[0], nodes[-1]) != (old[0], old[-1]):
        raise ValueError(
            f"widths must be at least {network.widths} with the same inputs and outputs, got "
            f"{[each.width for each in nodes]}"
        )
    if not network.has_independent_nodes:
        raise ValueError(
            "layer_norm, hidden_range must keep nodes independent in a network to expand, got "
            f"{network.widths} with nodes that affect each other"
        )
    for layer in network.layers:
        refuse_constrained(layer, "more nodes")
    wider = unseen_copy(network)
    for number in range(1, len(nodes) - 1):
        _add_nodes(wider, number, nodes[number])
    return wider


def _add_nodes(network: KAN, number: int, nodes: Nodes) -> None:
    """Add nodes to a hidden layer, in place."""
    old = network.nodes[number]
    writer = network.layers[number - 1]
    reader = network.layers[number]
    device = writer.coefficients.device
    more = (nodes.sums - old.sums, nodes.products - old.products)
    # New nodes start as copies of the first; their parameters are replaced below.
    source = [*range(old.sums), *[0] * more[0], *range(old.sums, old.count), *[0] * more[1]]
    terms = [*range(old.sums), *[0] * more[0], *range(old.sums, old.terms), *[0] * 2 * more[1]]
    is_new = torch.ones(nodes.count, dtype=torch.bool, device=device)
    is_new[: old.sums] = False
    is_new[nodes.sums : nodes.sums + old.products] = False
    every = torch.arange(writer.in_features, device=device)
    writer.select(torch.tensor(terms, device=device).unsqueeze(-1), every)
    every = torch.arange(reader.out_features, device=device).unsqueeze(-1)
    reader.select(every, torch.tensor(source, device=device))
    network.nodes[number] = nodes
    _start_rows(writer, nodes.to_terms(is_new))
    reader._in_bank_order(reader.coefficients)[:, is_new] = 0.0
    if reader.base_weight is not None:
        reader.base_weight[:, is_new] = 0.0
    reader.mask[:, is_new] = True


def _start_rows(layer: KANLayer, rows: Tensor) -> None:
    """Reinitialize some outputs of a layer, in place."""
    shape = (int(rows.sum()), layer.in_features)
    functions = layer.basis.num_functions
    noise = 0.1 / functions * (torch.rand(*shape, functions) - 0.5)
    layer._in_bank_order(layer.coefficients)[rows] = noise.to(layer.coefficients)
    if layer.base_weight is not None:
        unit = 1 / math.sqrt(layer.in_features)
        layer.base_weight[rows] = unit * (2 * torch.rand(shape) - 1).to(layer.base_weight)
    if layer.bias is not None:
        layer.bias[rows] = 0.0
    layer.mask[rows] = True


@torch.no_grad()
def with_sparse_start(network: KAN, samples: Tensor) -> KAN:
    """Restart a network with few edges; the argument is that of :meth:`KAN.sparse_start`."""
    if not bool((samples.amax(0) > samples.amin(0)).any()):
        raise ValueError("samples must differ in some column, got equal rows")
    for layer in network.layers:
        check_learned(layer, layer.weight_names, "a start")
        refuse_constrained(layer, "a start")
    started = unseen_copy(network)
    with unseen(started):
        for layer, inputs in started.layer_inputs(samples):
            layer.update_grid(inputs, widen=True, shrink=True)
            _start_with_lines(layer, inputs)
    return started


def _start_with_lines(layer: KANLayer, inputs: Tensor) -> None:
    """Make few edges lines with unit spread and the others zero, in place."""
    varies = inputs.amax(0) > inputs.amin(0)
    values = layer.bound().basis(inputs).movedim(0, 1)
    lines = (inputs - inputs.mean(0)) / torch.where(varies, inputs.std(0), 1)
    fitted = torch.linalg.lstsq(values, lines.mT.unsqueeze(-1)).solution.squeeze(-1)
    coefficients = torch.zeros_like(layer._in_bank_order(layer.coefficients))
    live = layer.mask & varies
    if layer.fixed is not None:
        live &= ~layer.fixed.where(layer.batch_shape)
    for output, source in _pairs(live.cpu()):
        coefficients[output, source] = fitted[source]
    if layer.base_weight is not None and layer.scale is not None:
        layer.base_weight.zero_()
        coefficients /= layer.scale.unsqueeze(-1)
    if layer.bias is not None:
        layer.bias.zero_()
    layer.replace_coefficients(coefficients)


def _pairs(live: Tensor) -> Iterator[tuple[int, int]]:
    """
    Pair outputs and inputs at random along edges, until each that has an edge is in a pair.

    :param live: the edges there are, shape ``(out, in)``.
    """
    outputs, sources = (torch.randperm(size).tolist() for size in live.shape)
    edges = live.tolist()
    outputs = [output for output in outputs if any(edges[output])]
    sources = [source for source in sources if any(edges[output][source] for output in outputs)]
    for number in range(max(len(outputs), len(sources))):
        output = outputs[number % len(outputs)]
        source = sources[number % len(sources)]
        if edges[output][source]:
            yield output, source
        else:
            yield output, next(each for each in sources if edges[output][each])
            yield next(each for each in outputs if edges[each][source]), source


@torch.no_grad()
def deepened(network: KAN, samples: Tensor | None) -> KAN:
    """Append an identity; the arguments are those of :meth:`KAN.deepen`."""
    if not network.is_plain:
        raise ValueError(
            "layer_norm, hidden_range must be off in a network to deepen, got one with either "
            "of them"
        )
    for layer in network.layers:
        refuse_constrained(layer, "another layer")
    deeper = unseen_copy(network)
    last = deeper.layers[-1]
    functions = last.basis.placed
    if not isinstance(functions, BSplines) or not functions.linear:
        raise ValueError(
            "basis must be B-splines that continue as lines in a network to deepen, got "
            f"{type(functions).__name__}"
        )
    width = deeper.nodes[-1].count
    options: dict[str, Any] = {"grid_size": functions.grid_size, "degree": functions.degree}
    # base functions start at zero, but train
    if "activation" in network._options:
        options["activation"] = network._options["activation"]
    layer = KANLayer(width, width, "bspline", *deeper._hidden_interval, base_spread=0.0, **options)
    layer.to(last.coefficients)
    lines = cast("BSplines", layer.basis.placed).greville
    identity = torch.eye(width).to(last.coefficients).unsqueeze(-1) * lines
    assert layer.scale is not None
    layer.replace_coefficients(identity / layer.scale.unsqueeze(-1))
    deeper.layers.append(layer)
    deeper.norms.append(PyroModule[nn.Identity]())
    deeper.nodes.append(replace(deeper.nodes[-1], sums=width, products=0))
    if samples is not None:
        with unseen(deeper):
            *_, (layer, inputs) = deeper.layer_inputs(samples)
            layer.update_grid(inputs, widen=True, shrink=True)
    return deeper
