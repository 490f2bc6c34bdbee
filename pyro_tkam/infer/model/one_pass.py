"""
Operations in one pass over memory, or without any: time series are chains of short operations.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from pyro_tkam.infer.model.expansion import reads_memory

aten = torch.ops.aten
_SIGNS = {aten.add.Tensor: 1, aten.sub.Tensor: -1}
_TO_THE_END = 2**63 - 1
"""Of a slice, as torch writes it."""


def join_products(graph: fx.Graph) -> None:
    """Compute ``x + a * b`` and ``x - a * b`` in one pass, as ``addcmul``.

    :param graph: of ATen operations that are pure, each node with its value; it is changed in
        place.

    >>> from torch.fx.experimental.proxy_tensor import make_fx
    >>> traced = make_fx(lambda x: x + x[:1] * x)(torch.ones(3, 2))
    >>> join_products(traced.graph)
    >>> [node.name for node in traced.graph.nodes if "mul" in node.name]
    ['addcmul_default']
    """
    for node in list(graph.nodes):
        if node.target in _SIGNS and len(node.args) == 2 and not node.kwargs:
            first, second = node.args
            if _can_join(node, second, first):
                _join(graph, node, second, first, _SIGNS[node.target])
            elif node.target is aten.add.Tensor and _can_join(node, first, second):
                _join(graph, node, first, second, 1)


def _can_join(total: fx.Node, product: Any, addend: Any) -> bool:
    """Tell whether a sum is the only user of a product, and all have one shape and one type."""
    if not isinstance(product, fx.Node) or not isinstance(addend, fx.Node):
        return False
    if product.target is not aten.mul.Tensor or product is addend or len(product.users) > 1:
        return False
    nodes = [total, product, addend, *product.args]
    values: list[Any] = [each.meta.get("val") for each in nodes if isinstance(each, fx.Node)]
    if len(values) < len(nodes) or not all(isinstance(value, Tensor) for value in values):
        return False
    first = values[0]
    return bool(
        first.dtype.is_floating_point
        and first.shape == values[1].shape
        and all(each.dtype == first.dtype and each.device == first.device for each in values)
    )


def _join(graph: fx.Graph, total: fx.Node, product: fx.Node, addend: fx.Node, sign: int) -> None:
    kwargs: dict[str, Any] = {} if sign == 1 else {"value": sign}
    with graph.inserting_before(total):
        joined = graph.call_function(aten.addcmul.default, (addend, *product.args), kwargs)
    joined.meta["val"] = total.meta["val"]
    total.replace_all_uses_with(joined)
    graph.erase_node(total)
    graph.erase_node(product)


def slice_instead_of_padding(graph: fx.Graph) -> None:
    """Replace ``constant_pad_nd``, which copies, with slices, which are views, if it only cuts.

    :param graph: of ATen operations that are pure, each node with its value; it is changed in
        place.

    >>> from torch.fx.experimental.proxy_tensor import make_fx
    >>> traced = make_fx(lambda x: torch.constant_pad_nd(x, [-2, 0]).exp())(torch.ones(3, 5))
    >>> slice_instead_of_padding(traced.graph)
    >>> [node.name for node in traced.graph.nodes if node.op == "call_function"]
    ['slice_tensor', 'exp']
    """
    if reads_memory(graph):
        return
    for node in list(graph.nodes):
        if node.target is not aten.constant_pad_nd.default:
            continue
        pads: Any = node.args[1]
        if all(isinstance(pad, int) and pad <= 0 for pad in pads):
            _slice(graph, node, pads)


def _slice(graph: fx.Graph, node: fx.Node, pads: list[int]) -> None:
    cut: Any = node.args[0]
    value = cut.meta["val"]
    with graph.inserting_before(node):
        for place, (before, after) in enumerate(zip(pads[::2], pads[1::2], strict=True)):
            if before or after:
                dim = value.ndim - 1 - place
                at = (dim, -before, after or _TO_THE_END)
                cut = graph.call_function(aten.slice.Tensor, (cut, *at))
                value = aten.slice.Tensor(value, *at)
                cut.meta["val"] = value
    node.replace_all_uses_with(cut)
    graph.erase_node(node)
