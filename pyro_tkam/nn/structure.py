"""Networks of another structure that compute the same, or nearly: smaller, wider, deeper."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyro_tkam.nn import _checks
from pyro_tkam.nn._unseen import unseen, unseen_copy
from pyro_tkam.nn.grids import check_learned

if TYPE_CHECKING:
    from pyro_tkam.nn.kan import KAN


@torch.no_grad()
def pruned(network: KAN, samples: Tensor, nodes: float, edges: float, inputs: bool) -> KAN:
    """Leave out what accounts for little; the arguments are those of :meth:`KAN.prune`."""
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
    """Choose the edges that stay, from the outputs to the inputs; one mask for each layer."""
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
    """Keep some hidden nodes of a layer of nodes, in place."""
    nodes = network.nodes[number]
    writer, reader = network.layers[number - 1], network.layers[number]
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
