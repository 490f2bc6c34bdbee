"""
Sums before operations on inputs that are constant along the sum: faster gradients of shared values.
"""

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
_ADD = (aten.add.Tensor, aten.sub.Tensor)
_LOGARITHMS = (aten.log.default, aten.log1p.default, aten._log_softmax.default)
_SAME_NUMBERS = (aten.neg.default, aten.reshape.default, aten.view.default, aten.expand.default)
_SMALL = 10.0
"""Constants up to which, as for logarithms, ``n x`` instead of a sum cancels no leading digits."""


def sum_first(graph: fx.Graph) -> None:
    """Compute ``(g * x).sum(d)`` as ``g.sum(d) * x`` where ``x`` is the same along ``d``.

    Likewise, compute ``(g + x).sum(d)`` as ``g.sum(d) + n x``, but only if ``x`` is a logarithm or
    a small constant: otherwise, as in ``(y - mean).sum()``, leading digits would cancel.

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
    """
    Tell whether a sum is the only user of an operation that can also be applied after the sum.
    """
    node: Any = total.args[0]
    if len(node.users) > 1 or total.kwargs or node.kwargs:
        return False
    if node.target not in _LINEAR and not _adds_little(node):
        return False
    first, others = _summed_and_others(node)
    values = [each.meta.get("val") for each in (total, node, *node.all_input_nodes)]
    if list(node.args).count(first) != 1 or (node.args[0] is not first and not _commutes(node)):
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
        # Rows lie along the first dimension, and there may be others.
        and (node.target in _LINEAR or 0 not in dims)
    )


def _commutes(node: Any) -> bool:
    return node.target is aten.mul.Tensor


def _summed_and_others(node: Any) -> tuple[fx.Node, list[fx.Node]]:
    """Return the input of a node that has its shape, the first if not another alone, and others."""
    inputs = node.all_input_nodes
    shapes = [getattr(each.meta.get("val"), "shape", None) for each in inputs]
    first = inputs[0]
    if _commutes(node) and (shapes[0] != node.meta["val"].shape or _is_expanded(first)):
        first = inputs[-1]
    return first, [each for each in inputs if each is not first]


def _is_expanded(node: fx.Node) -> bool:
    return node.target is aten.expand.default


def _adds_little(node: Any) -> bool:
    """Tell whether a sum over data adds the same logarithm, or small constant, to each."""
    if node.target not in _ADD or len(node.args) != 2:
        return False
    value = node.args[0].meta.get("val") if isinstance(node.args[0], fx.Node) else None
    if not isinstance(value, Tensor) or not value.dtype.is_floating_point:
        return False
    term = node.args[1]
    if not isinstance(term, fx.Node):
        return abs(term) <= _SMALL
    while term.target in _SAME_NUMBERS:
        term = term.args[0]
    return term.target in _LOGARITHMS


def _is_same_along(dims: set[int], value: Any, ndim: int) -> bool:
    if not isinstance(value, Tensor):
        return False
    missing = ndim - value.ndim
    return all(dim < missing or value.shape[dim - missing] == 1 for dim in dims)


def _source(node: fx.Node) -> fx.Node:
    """Return the input of an expansion; any other node is returned itself."""
    source = node.args[0] if node.target is aten.expand.default else node
    assert isinstance(source, fx.Node)
    return source


def _swap(graph: fx.Graph, total: fx.Node) -> fx.Node:
    """Put a sum before the operation whose result it sums; return the new sum."""
    node: Any = total.args[0]
    first, others = _summed_and_others(node)
    dims, kept = total.args[1], len(total.args) > 2 and bool(total.args[2])
    keep = kept or bool(others)  # the other inputs have these dimensions
    with graph.inserting_before(total):
        before = graph.call_function(aten.sum.dim_IntList, (first, dims, keep))
        before.meta["val"] = first.meta["val"].sum(dims, keep)
        if node.target in _ADD:
            number = first.meta["val"].numel() // before.meta["val"].numel()
            after = graph.call_function(node.target, (before, _times(graph, node.args[1], number)))
        else:
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


def _times(graph: fx.Graph, term: Any, number: int) -> Any:
    """Return a multiple of a number, or of the input of an expansion."""
    if not isinstance(term, fx.Node):
        return number * term
    source = _source(term)
    product = graph.call_function(aten.mul.Tensor, (source, number))
    product.meta["val"] = source.meta["val"]
    return product
