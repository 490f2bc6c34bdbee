"""Sums taken before what is the same along them: gradients of what plates share are such sums."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten
_LINEAR = (
    aten.neg.default,
    aten.mul.Tensor,
    aten.mul.Scalar,
    aten.div.Tensor,
    aten.div.Scalar,
    aten._log_softmax_backward_data.default,
)
"""Operations that are linear in the first argument, given the others."""
_ALONG_DIM = aten._log_softmax_backward_data.default


def sum_first(graph: fx.Graph) -> None:
    """Compute ``(g * x).sum(d)`` as ``g.sum(d) * x`` where ``x`` is the same along ``d``.

    :param graph: of ATen operations that are pure, each node with its value; it is changed in
        place.

    >>> from torch.fx.experimental.proxy_tensor import make_fx
    >>> def model(x):
    ...     return (x.exp() / x[:, :1]).sum(1)
    >>> traced = make_fx(model)(torch.ones(3, 2))
    >>> sum_first(traced.graph)
    >>> [node.name for node in traced.graph.nodes if "div" in node.name or "sum" in node.name]
    ['sum_dim_int_list', 'div_1']
    """
    for total in reversed(list(graph.nodes)):
        while total.target is aten.sum.dim_IntList and _can_swap(total):
            total = _swap(graph, total)


def _can_swap(total: fx.Node) -> bool:
    """Tell whether a sum is the only user of what can as well be computed after it."""
    node: Any = total.args[0]
    if node.target not in _LINEAR or len(node.users) > 1 or total.kwargs or node.kwargs:
        return False
    first, *others = node.all_input_nodes
    values = [each.meta.get("val") for each in (total, node, *node.all_input_nodes)]
    if node.args[0] is not first or first in node.args[1:]:
        return False
    if not all(isinstance(value, Tensor) for value in values):
        return False
    value = node.meta["val"]
    dims = {dim % value.ndim for dim in total.args[1]}  # type: ignore[union-attr]
    if node.target is _ALONG_DIM and node.args[2] % value.ndim in dims:
        return False
    return (
        first.meta["val"].shape == value.shape
        and all(each.meta["val"].dtype == value.dtype for each in (first, total))
        and all(_is_same_along(dims, _source(each).meta["val"], value.ndim) for each in others)
        and value.ndim > len(dims)
    )


def _is_same_along(dims: set[int], value: Any, ndim: int) -> bool:
    if not isinstance(value, Tensor):
        return False
    missing = ndim - value.ndim
    return all(dim < missing or value.shape[dim - missing] == 1 for dim in dims)


def _source(node: fx.Node) -> fx.Node:
    """Return what an expansion repeats, where a node is one."""
    source = node.args[0] if node.target is aten.expand.default else node
    assert isinstance(source, fx.Node)
    return source


def _swap(graph: fx.Graph, total: fx.Node) -> fx.Node:
    """Put a sum before the operation whose result it sums; return the new sum."""
    node: Any = total.args[0]
    first, *others = node.all_input_nodes
    dims, kept = total.args[1], len(total.args) > 2 and bool(total.args[2])
    keep = kept or bool(others)  # what it is combined with has these dimensions
    with graph.inserting_before(total):
        before = graph.call_function(aten.sum.dim_IntList, (first, dims, keep))
        before.meta["val"] = first.meta["val"].sum(dims, keep)
        after = graph.node_copy(node, lambda each: before if each is first else _source(each))
        after.meta["val"] = before.meta["val"].new_empty(before.meta["val"].shape)
        if keep and not kept:
            shape = list(total.meta["val"].shape)
            after = graph.call_function(aten.reshape.default, (after, shape))
            after.meta["val"] = total.meta["val"]
    total.replace_all_uses_with(after)
    graph.erase_node(total)
    graph.erase_node(node)
    return before
