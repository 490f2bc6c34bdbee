"""
Makes long dimensions contiguous in memory: a loop over two numbers costs more than its arithmetic.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx

from pyro_tkam.infer.model.expansion import is_pointwise, reads_memory

aten = torch.ops.aten
_REDUCE = (aten.sum.dim_IntList, aten.logsumexp.default)
"""Operations that read values as they lie, and return others."""
_VIEWS = (
    aten.expand.default,
    aten.permute.default,
    aten.select.int,
    aten.slice.Tensor,
    aten.transpose.int,
    aten.unsqueeze.default,
)
_SHORT, _TIMES = 8, 4
"""Largest length of the short dimension, and smallest ratio of the long dimension to it."""


def lengthen_inner_loops(graph: fx.Graph) -> None:
    """Compute ``x + y`` as ``(x.mT + y.mT).mT`` if the result has many short rows.

    Pointwise operations keep the memory layout of their arguments, so all subsequent ones run along
    the long dimension. Values stay the same, but sums of them may round differently.

    :param graph: of ATen operations that are pure, each node with its value; it is changed in
        place.

    >>> from torch.fx.experimental.proxy_tensor import make_fx
    >>> data = torch.linspace(0, 1, 100)[:, None]
    >>> traced = make_fx(lambda x: (data - x).exp().sum(1))(torch.ones(3, 1, 2))
    >>> lengthen_inner_loops(traced.graph)
    >>> [tuple(node.meta["val"].shape) for node in traced.graph.nodes if "sub" in node.name]
    [(3, 2, 100)]
    """
    if reads_memory(graph):
        return
    for node in list(graph.nodes):
        if _makes_short_rows(node) and _all_take_any_strides(node):
            _turn(graph, node)


def _makes_short_rows(node: fx.Node) -> bool:
    """Tell whether a node broadcasts columns against rows to an array with many short rows."""
    if not is_pointwise(node):
        return False
    values = [each.meta.get("val") for each in (node, *node.all_input_nodes)]
    shapes = [value.shape for value in values if isinstance(value, Tensor)]
    if len(shapes) < len(values) or len(shapes[0]) < 3:
        return False
    result, *inputs = shapes
    return (
        1 < result[-1] <= _SHORT
        and result[-2] >= _TIMES * result[-1]
        and result == torch.broadcast_shapes(*inputs)
        and all(len(shape) < 2 or 1 in shape[-2:] for shape in inputs)
    )


def _all_take_any_strides(node: fx.Node) -> bool:
    """Tell whether all users of an array, and of results with its strides, accept any strides."""
    keep = [node]
    for each in keep:
        for user in each.users:
            if user in keep or user.target in _REDUCE:
                continue
            if not is_pointwise(user) and user.target not in _VIEWS:
                return False
            keep.append(user)
    return True


def _turn(graph: fx.Graph, node: fx.Node) -> None:
    """Replace a node with its copy on the transposed inputs, transposed back."""
    value = node.meta["val"]
    with graph.inserting_before(node):
        inputs = {each: _turned(graph, each) for each in node.all_input_nodes}
        turned = graph.node_copy(node, inputs.__getitem__)
        turned.meta["val"] = value.mT
        back = graph.call_function(aten.transpose.int, (turned, -2, -1))
        back.meta["val"] = value
    node.replace_all_uses_with(back)
    graph.erase_node(node)


def _turned(graph: fx.Graph, node: fx.Node) -> fx.Node:
    """Return a view of a node with its last two dimensions swapped, if it has both."""
    value = node.meta["val"]
    if value.shape[-2:].numel() == 1:
        return node
    if value.ndim == 1:
        turned = graph.call_function(aten.unsqueeze.default, (node, -1))
        turned.meta["val"] = value[:, None]
    else:
        turned = graph.call_function(aten.transpose.int, (node, -2, -1))
        turned.meta["val"] = value.mT
    return turned
