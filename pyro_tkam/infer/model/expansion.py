"""Computes operations on repeated values only once: plates repeat parameters for each datum."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten
_OpOverload = type(aten.add.Tensor)
_TAKE_ANY_STRIDES = (
    aten.sum.dim_IntList,
    aten.logsumexp.default,
    aten._log_softmax.default,
    aten._log_softmax_backward_data.default,
)
"""Operations, in addition to pointwise ones, that accept repeated values like any others."""
_READ_MEMORY = (aten.as_strided.default, aten.as_strided_scatter.default)
"""Operations whose result depends on how values lie in memory."""


def hoist_expansions(graph: fx.Graph) -> None:
    """Compute ``f(x.expand(n))`` as ``f(x).expand(n)``, in a graph whose operations are pure.

    :param graph: of ATen operations, each node with its value's shape; it is changed in place.

    >>> from torch.fx.experimental.proxy_tensor import make_fx
    >>> traced = make_fx(lambda x: x.expand(1000, 2).log().sum(0))(torch.ones(1, 2))
    >>> hoist_expansions(traced.graph)
    >>> [node.meta["val"].shape[0] for node in traced.graph.nodes if "log" in node.name]
    [1]
    """
    if reads_memory(graph):
        return
    for node in list(graph.nodes):
        if _can_hoist(node):
            _hoist(graph, node)


def drop_expansions(graph: fx.Graph) -> None:
    """Remove expansions before pointwise operations that broadcast their inputs anyway.

    :param graph: of ATen operations, each node with its value; it is changed in place.

    >>> from torch.fx.experimental.proxy_tensor import make_fx
    >>> def model(x):
    ...     return x * x[:, :1].expand(3, 2)
    >>> traced = make_fx(model)(torch.ones(3, 2))
    >>> drop_expansions(traced.graph)
    >>> [node.name for node in traced.graph.nodes if "expand" in node.name]
    []
    """
    if reads_memory(graph):
        return
    for node in list(graph.nodes):
        if node.target is not aten.expand.default:
            continue
        for user in list(node.users):
            if _repeats_itself(user, node):
                user.replace_input_with(node, _source(node))
    graph.eliminate_dead_code()


def _repeats_itself(user: fx.Node, expanded: fx.Node) -> bool:
    """Tell whether the result of an operation is the same without an expansion before it."""
    if not is_pointwise(user):
        return False
    inputs = [_source(each) if each is expanded else each for each in user.all_input_nodes]
    values = [each.meta.get("val") for each in (*inputs, expanded, user)]
    if not all(isinstance(value, Tensor) for value in values):
        return False
    source = _source(expanded).meta["val"]
    shape = torch.broadcast_shapes(*(each.meta["val"].shape for each in inputs))
    return bool(shape == user.meta["val"].shape and source.dtype == expanded.meta["val"].dtype)


def reads_memory(graph: fx.Graph) -> bool:
    """Tell whether results depend on the memory layout of values."""
    return any(node.target in _READ_MEMORY for node in graph.nodes)


def _can_hoist(node: fx.Node) -> bool:
    """Tell whether a node does the same to each copy, and its users accept any strides."""
    inputs = node.all_input_nodes
    if not inputs or not all(each.target is aten.expand.default for each in inputs):
        return False
    if not (is_pointwise(node) or _is_along_own(node)):
        return False
    if not all(is_pointwise(user) or user.target in _TAKE_ANY_STRIDES for user in node.users):
        return False
    values = [each.meta.get("val") for each in (node, *inputs, *map(_source, inputs))]
    if not all(isinstance(value, Tensor) for value in values):
        return False
    shape = inputs[0].meta["val"].shape
    dtype = inputs[0].meta["val"].dtype
    return bool(node.meta["val"].shape == shape) and all(
        each.meta["val"].shape == shape and each.meta["val"].dtype == dtype for each in inputs
    )


def _hoist(graph: fx.Graph, node: fx.Node) -> None:
    """Replace a node with an expansion of its copy on the unexpanded inputs; results may have other
    strides.
    """
    sources = [_source(each) for each in node.all_input_nodes]
    shape = torch.broadcast_shapes(*(each.meta["val"].shape for each in sources))
    value = node.meta["val"]
    if shape.numel() == value.numel():
        return
    with graph.inserting_before(node):
        small = graph.node_copy(
            node, lambda each: _source(each) if each in node.all_input_nodes else each
        )
        small.meta["val"] = value.new_empty(shape)
        large = graph.call_function(aten.expand.default, (small, list(value.shape)))
        large.meta["val"] = value
    node.replace_all_uses_with(large)
    graph.erase_node(node)


def _source(node: fx.Node) -> fx.Node:
    source = node.args[0]
    assert isinstance(source, fx.Node)
    return source


def is_pointwise(node: fx.Node) -> bool:
    """Tell whether an operation acts on each number separately, after broadcasting."""
    target: Any = node.target
    return isinstance(target, _OpOverload) and torch.Tag.pointwise in target.tags


def _is_along_own(node: fx.Node) -> bool:
    """Tell whether a node normalizes along a dimension that was not expanded."""
    if node.target is not aten._log_softmax.default:
        return False
    (expanded,) = node.all_input_nodes
    dim = node.args[1]
    before, after = (each.meta.get("val") for each in (_source(expanded), expanded))
    return (
        isinstance(before, Tensor)
        and isinstance(after, Tensor)
        and isinstance(dim, int)
        and before.ndim == after.ndim
        and before.shape[dim] == after.shape[dim]
    )
