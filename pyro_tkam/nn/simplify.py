"""Simpler networks that fit the same data: few nodes and edges, and lines among these."""

from __future__ import annotations

from itertools import islice
from typing import Any

import torch
from torch import Tensor

from pyro_tkam._threads import in_turn
from pyro_tkam.nn import _checks
from pyro_tkam.nn._unseen import unseen, unseen_copy
from pyro_tkam.nn.fitting import checked_batch, fit
from pyro_tkam.nn.kan import KAN

#: steps of a trial, the share of the allowed loss at which it ends before, and the share of a loss
#: that is left after two steps if it has settled
_STEPS = 15
_GOOD = 0.5
_SETTLED = 0.8

#: an edge of a network: layer, output and input
Place = tuple[int, int, int]


@in_turn
def simplify(net: KAN, x: Any, y: Any, *, tolerance: float = 1e-6) -> KAN:
    """
    Return a simpler network that fits the data nearly as well.

    In turn, every hidden node and then every edge is removed, from the smallest attribution on, and
    the others are fitted again with a few steps of the Levenberg-Marquardt method; the node or edge
    stays away if the loss allows it. Then every edge becomes a line where the loss allows it, from
    the outputs back to the inputs. Otherwise, a curve and its inverse in the next layer could have
    any shape. Both are repeated as long as lines make more edges superfluous.

    While :meth:`KAN.prune` measures how much an edge contributes, this function asks whether the
    others can take its place, which costs two short fits for each edge and one for each node.

    :param net: a network that has been fitted to the data.
    :param x: inputs, shape ``(N, widths[0])``.
    :param y: targets, shape ``(N, widths[-1])``, or ``(N,)`` for one output.
    :param tolerance: share of the targets' variance that the mean squared error may grow by in
        total.
    :return: the network with a mask for the edges that are left and forms ``linear`` for lines.
    :raises ValueError: as :func:`fit` does.
    :raises TypeError: likewise.

    >>> x = 2 * torch.rand(200, 2, dtype=torch.double) - 1
    >>> net = KAN([2, (0, 1), 1], grid_size=3).double().sparse_start(x)
    >>> y = x.prod(-1, keepdim=True)
    >>> _ = fit(net, x, y, optimizer="lm", steps=10)
    >>> len(simplify(net, x, y).fixed)
    3
    """
    _checks.instance("net", net, KAN, "a KAN")
    tolerance = _checks.number("tolerance", tolerance, at_least=0)
    x, y = checked_batch(net, x, y)
    with torch.no_grad(), unseen(net):
        loss = float((net(x) - y).square().mean())
    allowed = loss + tolerance * float(y.var(0, correction=0).mean())
    net = _without_nodes(net, x, y, allowed)
    net = _with_lines(_without_edges(net, x, y, allowed), x, y, allowed)
    while _count(fewer := _without_edges(net, x, y, allowed)) < _count(net):
        net = _with_lines(fewer, x, y, allowed)
    return net


def _count(net: KAN) -> int:
    """Return the number of edges."""
    return sum(int(layer.mask.sum()) for layer in net.layers)


def _without_nodes(net: KAN, x: Tensor, y: Tensor, allowed: float) -> KAN:
    while True:
        for edges in _readers_by_size(net, x):
            smaller = _without(net, edges, x)
            if _fits(smaller, x, y, allowed):
                net = smaller.prune(x, nodes=0.0, edges=0.0)
                break
        else:
            return net


def _without_edges(net: KAN, x: Tensor, y: Tensor, allowed: float) -> KAN:
    tried: set[Place] = set()
    while left := [place for place in _by_size(net, x) if place not in tried]:
        tried.add(left[0])
        smaller = _without(net, [left[0]], x)
        net = smaller if _fits(smaller, x, y, allowed) else net
    return net.prune(x, nodes=0.0, edges=0.0)


def _with_lines(net: KAN, x: Tensor, y: Tensor, allowed: float) -> KAN:
    for number in reversed(range(len(net.layers))):
        for output, source in net.layers[number].mask.nonzero().tolist():
            place = number, output, source
            if place not in net.fixed:
                straight = net.fix({place: ("linear", _line(net, place, x))})
                net = straight if _fits(straight, x, y, allowed) else net
    return net


def _line(net: KAN, place: Place, x: Tensor) -> tuple[float, float, float, float]:
    """Return the line nearest to an edge, as affine parameters of the form ``linear``."""
    number, output, source = place
    with torch.no_grad(), unseen(net):
        layer, inputs = next(islice(net.layer_inputs(x), number, None))
        values = layer.edges(inputs)[:, source, output]
    s = inputs[:, source]
    spread = float(s.var(correction=0))
    slope = float((s - s.mean()) @ (values - values.mean())) / len(s) / spread if spread else 0.0
    return 1.0, 0.0, slope, float(values.mean() - slope * s.mean())


def _by_size(net: KAN, x: Tensor) -> list[Place]:
    """Return the edges, the one with the smallest attribution first."""
    sizes = [
        (float(size[output, source]), (number, output, source))
        for number, (layer, size) in enumerate(
            zip(net.layers, net.sizes(x, "attribution"), strict=True)
        )
        for output, source in layer.mask.nonzero().tolist()
        if int(layer.mask.sum()) > 1  # the last edge of a layer stays
    ]
    return [place for _, place in sorted(sizes)]


def _readers_by_size(net: KAN, x: Tensor) -> list[list[Place]]:
    """Return the edges that read each hidden node, those of the least important node first."""
    nodes: list[tuple[float, list[Place]]] = []
    for number, size in enumerate(net.sizes(x, "attribution")):
        read = net.layers[number].mask.any(0)
        if number and int(read.sum()) > 1:  # the last node of a layer stays
            for source in read.nonzero().flatten().tolist():
                outputs = net.layers[number].mask[:, source].nonzero().flatten().tolist()
                edges = [(number, output, source) for output in outputs]
                nodes.append((float(size[:, source].norm()), edges))
    return [edges for _, edges in sorted(nodes)]


def _without(net: KAN, edges: list[Place], x: Tensor) -> KAN:
    """Return a copy without some edges of a layer, whose means move into the biases."""
    smaller = unseen_copy(net)
    with torch.no_grad(), unseen(smaller):
        for number, (layer, inputs) in enumerate(smaller.layer_inputs(x)):
            if number == edges[0][0]:
                kept = layer.mask.clone()
                for edge in edges:
                    kept[edge[1:]] = False
                layer.keep(kept, inputs)
                layer.fix({edge[1:]: None for edge in edges})
                break
    return smaller


def _fits(net: KAN, x: Tensor, y: Tensor, allowed: float) -> bool:
    """Fit a network in place until it is good or settles; tell whether its loss is allowed."""
    losses: list[float] = []

    def is_over(_: int, loss: float) -> bool:
        losses.append(loss)
        return loss < _GOOD * allowed or (len(losses) > 2 and loss > _SETTLED * losses[-3])

    try:
        found = fit(net, x, y, optimizer="lm", steps=_STEPS, grid_updates=0, callback=is_over)
    except FloatingPointError:
        return False
    return found.loss <= allowed
