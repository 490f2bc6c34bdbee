"""Recorded operations called as functions of torch, which parse their arguments faster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten

_ONE_ARGUMENT = [
    *["abs", "bitwise_not", "ceil", "cos", "digamma", "erf", "exp", "expm1", "lgamma", "log"],
    *["log1p", "logical_not", "neg", "reciprocal", "relu", "rsqrt", "sgn", "sigmoid", "sin"],
    *["sqrt", "tanh"],
]
_TWO_ARGUMENTS = ["add", "div", "eq", "ge", "gt", "le", "lt", "mul", "ne", "sub"]

FUNCTIONS: dict[Any, tuple[Callable[..., Any], int]] = {
    aten.addcmul.default: (torch.addcmul, 3),
    aten.addmm.default: (torch.addmm, 3),
    aten.amax.default: (torch.amax, 3),
    aten.bitwise_and.Tensor: (torch.bitwise_and, 2),
    aten.bmm.default: (torch.bmm, 2),
    aten.cat.default: (torch.cat, 2),
    aten.clamp.default: (torch.clamp, 3),
    aten.cumprod.default: (torch.cumprod, 2),
    aten.cumsum.default: (torch.cumsum, 2),
    aten.expand.default: (torch.broadcast_to, 2),
    aten.flip.default: (torch.flip, 2),
    aten.gather.default: (torch.gather, 3),
    aten.logical_and.default: (torch.logical_and, 2),
    aten.logsumexp.default: (torch.logsumexp, 3),
    aten.masked_fill.Scalar: (torch.masked_fill, 3),
    aten.mm.default: (torch.mm, 2),
    aten.permute.default: (torch.permute, 2),
    aten.pow.Tensor_Scalar: (torch.pow, 2),
    aten.pow.Tensor_Tensor: (torch.pow, 2),
    aten.reshape.default: (torch.reshape, 2),
    aten.rsub.Scalar: (torch.rsub, 2),
    aten.select.int: (torch.select, 3),
    aten.squeeze.dims: (torch.squeeze, 2),
    aten.sum.dim_IntList: (torch.sum, 3),
    aten.t.default: (torch.t, 1),
    aten.transpose.int: (torch.transpose, 3),
    aten.unsqueeze.default: (torch.unsqueeze, 2),
    aten.where.self: (torch.where, 3),
    aten.xlogy.Tensor: (torch.xlogy, 2),
    **{getattr(aten, name).default: (getattr(torch, name), 1) for name in _ONE_ARGUMENT},
    **{
        getattr(getattr(aten, name), overload): (getattr(torch, name), 2)
        for name in _TWO_ARGUMENTS
        for overload in ("Tensor", "Scalar")
    },
}
"""Functions by operation, and the most arguments that both take alike."""


def direct(module: fx.GraphModule) -> fx.GraphModule:
    """Return a module with the same operations, called as functions of torch where such functions
    exist.

    ``torch.ops.aten.mul.Tensor(a, b)`` boxes its arguments, which takes longer than to multiply a
    few hundred numbers; ``torch.mul(a, b)`` does not.

    :param module: whose targets are overloads of ``torch.ops.aten``.
    """
    graph = fx.Graph()
    graph.output(graph.graph_copy(module.graph, {}))
    for node in graph.nodes:
        if node.op != "call_function" or node.kwargs or node.target not in FUNCTIONS:
            continue
        function, most = FUNCTIONS[node.target]
        if len(node.args) <= most:
            node.target = function
    made = fx.GraphModule(module, graph)
    # Plain attributes are found at once; a buffer takes three lookups.
    vars(made).update(vars(made)["_buffers"])
    vars(made)["_buffers"].clear()
    return made
