"""Faster log-sum-exp of few terms, two terms at a time: frequent in mixtures of few components."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from pyro_tkam.infer.model.expansion import reads_memory

aten = torch.ops.aten
_FEW = range(2, 5)


def add_few_logs(graph: fx.Graph) -> None:
    """Compute ``x.logsumexp(-1)`` as ``logaddexp(x[..., 0], x[..., 1])`` if there are only two
    terms.

    Three and four terms are added one after the other.

    :param graph: of ATen operations that are pure, each node with its value; it is changed in
        place.

    >>> from torch.fx.experimental.proxy_tensor import make_fx
    >>> traced = make_fx(lambda x: x.logsumexp(-1))(torch.ones(5, 2))
    >>> add_few_logs(traced.graph)
    >>> [node.name for node in traced.graph.nodes if "log" in node.name]
    ['logaddexp_default']
    """
    if reads_memory(graph):
        return
    for node in list(graph.nodes):
        if node.target is aten.logsumexp.default and _has_few_terms(node):
            _add(graph, node)


def _has_few_terms(node: fx.Node) -> bool:
    value, dims = _summed(node).meta.get("val"), node.args[1]
    return (
        isinstance(value, Tensor)
        and isinstance(dims, list)
        and len(dims) == 1
        and value.ndim > 0
        and value.dtype == node.meta["val"].dtype
        and value.shape[dims[0]] in _FEW
    )


def _add(graph: fx.Graph, node: fx.Node) -> None:
    summed, value = _summed(node), _summed(node).meta["val"]
    dim = node.args[1][0]  # type: ignore[index]
    with graph.inserting_before(node):
        terms = []
        for place in range(value.shape[dim]):
            terms.append(graph.call_function(aten.select.int, (summed, dim, place)))
            terms[-1].meta["val"] = value.select(dim, place)
        total, *others = terms
        for term in others:
            total = graph.call_function(aten.logaddexp.default, (total, term))
            total.meta["val"] = term.meta["val"]
        if len(node.args) > 2 and node.args[2]:
            total = graph.call_function(aten.unsqueeze.default, (total, dim))
            total.meta["val"] = node.meta["val"]
    node.replace_all_uses_with(total)
    graph.erase_node(node)


def _summed(node: fx.Node) -> fx.Node:
    summed = node.args[0]
    assert isinstance(summed, fx.Node)
    return summed
