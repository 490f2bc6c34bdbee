"""
The cost of operations on a batch, estimated from their sizes. It is the same on every machine and
in every run, so results that depend on it are reproducible.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

_OpOverload = type(torch.ops.aten.add.Tensor)

OPERATION = 3e-6
NUMBER = 0.7e-9
"""Seconds of an ordinary core for an operation, and for each number of its result."""

SLOW_NAMES = {
    **dict.fromkeys(("exp", "log", "log1p", "expm1", "sigmoid", "tanh", "pow", "erf"), 4.0),
    **dict.fromkeys(("logsumexp", "_softmax", "_log_softmax", "log_sigmoid_forward"), 6.0),
    **dict.fromkeys(("sin", "cos", "atan2", "index", "gather", "cumsum"), 6.0),
    **dict.fromkeys(("lgamma", "digamma", "polygamma", "erfinv", "special_ndtri"), 15.0),
}
"""Numbers' costs of operations that are not as fast as a sum."""

MULTIPLIED = 0.2
"""That of a term of a matrix product."""

FACTORIZED = 2.0
"""That of a row of a matrix that is factorized or solved, for each number of the result."""


class Cost(NamedTuple):
    """Seconds per batch, and additional seconds per row."""

    batch: float
    row: float

    def seconds(self, rows: int) -> float:
        """Return the seconds for this many rows in one batch."""
        return self.batch + rows * self.row


def seconds_of(cost: Cost | None, rows: int, begin: float) -> float:
    """
    Return the seconds that a batch takes: its known cost, or else the processor time since
    ``begin``.
    """
    return time.process_time() - begin if cost is None else cost.seconds(rows)


def cost_of(nodes: Iterable[fx.Node], rows: int) -> Cost:
    """Return the cost of a graph's operations.

    :param nodes: of a graph of ATen operations, each with its value's shape.
    :param rows: number of recorded rows; with one row, rows are evaluated one after another.
    """
    run = [node for node in nodes if node.op == "call_function"]
    numbers = sum(map(_numbers, run)) * NUMBER
    operations = len(run) * OPERATION
    return Cost(operations, numbers / rows) if rows > 1 else Cost(0.0, operations + numbers)


def _numbers(node: fx.Node) -> float:
    """Return how many numbers a node computes, times the cost of one of them."""
    value = node.meta.get("val")
    results = value if isinstance(value, tuple | list) else (value,)
    number = sum(each.numel() for each in results if isinstance(each, Tensor))
    target: Any = node.target
    if not isinstance(target, _OpOverload) or target.is_view:
        return 0.0
    name = target.overloadpacket.__name__
    if name in {"mm", "bmm", "addmm", "baddbmm"}:
        return MULTIPLIED * number * _shape(node.args[-2])[-1]
    if "linalg" in name or "cholesky" in name or "triangular" in name:
        return FACTORIZED * number * _shape(node.args[0])[-1]
    return number * SLOW_NAMES.get(name, 1.0)


def _shape(node: Any) -> torch.Size:
    shape: torch.Size = node.meta["val"].shape
    return shape
