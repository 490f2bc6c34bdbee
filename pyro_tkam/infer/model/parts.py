"""
Sums over parts of arrays instead of arrays padded with zeros, as in time series with lags.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from pyro_tkam.infer.model.expansion import reads_memory

aten = torch.ops.aten
_TO_THE_END = 2**63 - 1
"""Of a slice, as torch writes it."""


class _Part(NamedTuple):
    """Numbers from ``start`` to ``end`` along a dimension."""

    dim: int
    start: int
    end: int


def add_to_part(x: Tensor, y: Tensor, dim: int, start: int, end: int) -> Tensor:
    """Return a copy of ``x`` with ``y`` added to a part of it."""
    result = x.clone(memory_format=torch.contiguous_format)
    aten.slice.Tensor(result, dim, start, end).add_(y)
    return result


def add_product_to_part(
    x: Tensor, a: Tensor, b: Tensor, dim: int, start: int, end: int, value: float = 1
) -> Tensor:
    """Return a copy of ``x`` with ``value a b`` added to a part of it."""
    result = x.clone(memory_format=torch.contiguous_format)
    aten.slice.Tensor(result, dim, start, end).addcmul_(a, b, value=value)
    return result


def work_on_parts(graph: fx.Graph) -> None:
    """Replace adding or summing an array padded with zeros by adding to a part or summing a part.

    Infinite numbers are no longer multiplied by the zeros of the padding, which would give NaN.

    :param graph: of ATen operations that are pure, each node with its value; it is changed in
        place.

    >>> from torch.fx.experimental.proxy_tensor import make_fx
    >>> def back(x, a):
    ...     return torch.addcmul(x, a, torch.constant_pad_nd(x[:, :-2], [2, 0]))
    >>> traced = make_fx(back)(torch.ones(3, 5), torch.ones(3, 1))
    >>> work_on_parts(traced.graph)
    >>> [node.name for node in traced.graph.nodes if node.op == "call_function"]
    ['slice_1', 'add_product_to_part']
    """
    if reads_memory(graph):
        return
    for node in list(graph.nodes):
        if node.target is aten.add.Tensor and len(node.args) == 2 and not node.kwargs:
            for x, y in (node.args, node.args[::-1]):
                if _is(y, aten.slice_backward.default) and _is_one_type(node, x, y):
                    _add_to_part(graph, node, x, y)
                    break
        elif node.target is aten.addcmul.default:
            x, *factors = node.args
            for a, b in (factors, factors[::-1]):
                if _padded(b) and _is_one_type(node, x, b):
                    _add_padded(graph, node, x, a, b)
                    break
        elif node.target is aten.sum.dim_IntList and _is(node.args[0], aten.mul.Tensor):
            product: Any = node.args[0]
            for a, b in (product.args, product.args[::-1]):
                if _padded(b) and _sums_all(node, a, b):
                    _sum_part(graph, node, a, b)
                    break
    graph.eliminate_dead_code()


def _is(node: Any, target: Any) -> bool:
    """Tell whether something is the result of an operation and has a single user."""
    return isinstance(node, fx.Node) and node.target is target and len(node.users) == 1


def _shape(node: Any) -> Any:
    return node.meta["val"].shape if isinstance(node, fx.Node) else None


def _is_one_type(total: fx.Node, *terms: Any) -> bool:
    """Tell whether terms have shape and type of their sum."""
    values: list[Any] = [
        each.meta.get("val") for each in (total, *terms) if isinstance(each, fx.Node)
    ]
    if len(values) < 1 + len(terms) or not all(isinstance(value, Tensor) for value in values):
        return False
    whole, *others = values
    return bool(whole.dtype.is_floating_point) and all(
        value.shape == whole.shape and value.dtype == whole.dtype for value in others
    )


def _padded(node: Any) -> _Part | None:
    """
    Return the place of an array that a node pads with zeros along one dimension; None otherwise.
    """
    if not isinstance(node, fx.Node) or node.target is not aten.constant_pad_nd.default:
        return None
    pads: Any = node.args[1]
    sides = [(place, *pair) for place, pair in enumerate(zip(pads[::2], pads[1::2], strict=True))]
    padded = [side for side in sides if side[1:] != (0, 0)]
    if any(node.args[2:]) or len(padded) != 1 or not all(_is_size(pad) for pad in pads):
        return None
    place, before, after = padded[0]
    return _Part(node.meta["val"].ndim - 1 - place, before, -after or _TO_THE_END)


def _is_size(pad: Any) -> bool:
    return isinstance(pad, int) and pad >= 0


def _cut(graph: fx.Graph, node: fx.Node, part: _Part, ndim: int) -> fx.Node:
    """Return a part of an array, if it does not have one number for all of them."""
    value = node.meta["val"]
    dim = part.dim - ndim + value.ndim
    if dim < 0 or value.shape[dim] == 1:
        return node
    cut = graph.call_function(aten.slice.Tensor, (node, dim, part.start, part.end))
    cut.meta["val"] = aten.slice.Tensor(value, dim, part.start, part.end)
    return cut


def _replace(graph: fx.Graph, old: fx.Node, new: fx.Node) -> None:
    new.meta["val"] = old.meta["val"]
    old.replace_all_uses_with(new)
    graph.erase_node(old)


def _add_to_part(graph: fx.Graph, total: fx.Node, x: fx.Node, padded: fx.Node) -> None:
    """Add the gradient of a slice; where it is cut from a product, add only the part's products."""
    y, _, dim, start, end, *step = padded.args
    if step not in ([], [1]):
        return
    assert isinstance(y, fx.Node)
    with graph.inserting_before(total):
        if (factors := _factors_of_part(graph, y)) is None:
            made = graph.call_function(add_to_part, (x, y, dim, start, end))
        else:
            made = graph.call_function(add_product_to_part, (x, *factors, dim, start, end))
    _replace(graph, total, made)


def _factors_of_part(graph: fx.Graph, y: fx.Node) -> list[fx.Node] | None:
    """Return the parts of the factors where ``y`` is a part of a product."""
    product = y.args[0]
    if not _is(y, aten.slice.Tensor) or len(y.args) != 4 or not _is(product, aten.mul.Tensor):
        return None
    assert isinstance(product, fx.Node)
    if not all(isinstance(each, fx.Node) for each in product.args):
        return None
    if any(each.meta["val"].dtype != y.meta["val"].dtype for each in product.all_input_nodes):
        return None
    part = _Part(*y.args[1:])  # type: ignore[arg-type]
    ndim = product.meta["val"].ndim
    return [_cut(graph, each, part, ndim) for each in product.args]  # type: ignore[arg-type]


def _add_padded(graph: fx.Graph, total: fx.Node, x: fx.Node, a: fx.Node, padded: fx.Node) -> None:
    """Add a product with a padded array."""
    part = _padded(padded)
    assert part is not None
    with graph.inserting_before(total):
        factor = _cut(graph, a, part, total.meta["val"].ndim)
        made = graph.call_function(
            add_product_to_part, (x, factor, padded.args[0], *part), dict(total.kwargs)
        )
    _replace(graph, total, made)


def _sums_all(total: fx.Node, a: Any, padded: fx.Node) -> bool:
    """Tell whether a product with a padded array is summed where it is padded."""
    part = _padded(padded)
    dims: Any = total.args[1]
    shape = _shape(padded)
    return (
        part is not None
        and isinstance(a, fx.Node)
        and a is not padded
        and not total.kwargs
        and _shape(a) == shape
        and a.meta["val"].dtype == padded.meta["val"].dtype
        and any(dim % len(shape) == part.dim for dim in dims)
    )


def _sum_part(graph: fx.Graph, total: fx.Node, a: fx.Node, padded: fx.Node) -> None:
    """Sum a product with what was padded."""
    part = _padded(padded)
    assert part is not None
    with graph.inserting_before(total):
        cut = _cut(graph, a, part, a.meta["val"].ndim)
        unpadded: Any = padded.args[0]
        product = graph.call_function(aten.mul.Tensor, (cut, unpadded))
        product.meta["val"] = unpadded.meta["val"]
        made = graph.call_function(aten.sum.dim_IntList, (product, *total.args[1:]))
    _replace(graph, total, made)
