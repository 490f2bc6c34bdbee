"""The usual kinds of wrong values, made from a right one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Odd:
    """Made from anything, and good for nothing."""

    def __init__(self, *_: object, **__: object) -> None:
        pass


#: Of any argument.
VALUES: dict[str, Any] = {
    "None": None,
    "a word": "many",
    "no word": "",
    "bytes": b"many",
    "True": True,
    "zero": 0,
    "minus one": -1,
    "one and a half": 1.5,
    "minus one and a half": -1.5,
    "NaN": math.nan,
    "infinity": math.inf,
    "minus infinity": -math.inf,
    "a huge integer": 10**30,
    "a huge number": 1e300,
    "a complex number": 1j,
    "an empty tuple": (),
    "an empty list": [],
    "an empty dict": {},
    "a tuple": (3,),
    "a tuple with zero": (0, -2),
    "a list of two types": [1.0, "a"],
    "a dict": {"a": 1},
    "a set": {1},
    "an object": object(),
    "a class": Odd,
    "a function that returns None": lambda *_: None,
    "an array": np.ones(3),
    "an array of strings": np.array(["a", "b"]),
    "a scalar tensor": torch.tensor(0.5),
    "an empty tensor": torch.zeros(0),
    "a tensor of NaN": torch.full((3,), math.nan),
}

#: Of an argument that is a tensor.
OF_TENSORS: dict[str, Callable[[Tensor], Any]] = {
    "all NaN": lambda x: torch.full(x.shape, math.nan),
    "one NaN": lambda x: torch.where(torch.arange(x.numel()).view(x.shape) == 0, math.nan, x),
    "one infinity": lambda x: torch.where(torch.arange(x.numel()).view(x.shape) == 0, math.inf, x),
    "minus infinities": lambda x: torch.full(x.shape, -math.inf),
    "huge values": lambda x: torch.full(x.shape, 1e38),
    "negative values": lambda x: -1 - x.abs(),
    "integers": lambda x: x.long() if x.is_floating_point() else x.float(),
    "booleans": lambda x: x > 0,
    "half precision": lambda x: x.half(),
    "another precision": lambda x: x.double(),
    "complex values": lambda x: x + 1j,
    "the meta device": lambda x: x.to("meta"),
    "one dimension more": lambda x: x[None],
    "another last dimension": lambda x: x[..., None],
    "one dimension fewer": lambda x: x[0] if x.dim() else x[None, None],
    "one row fewer": lambda x: x[1:] if x.dim() else x[None, None],
    "no rows": lambda x: x[:0] if x.dim() else x[None, None],
    "one column fewer": lambda x: x[..., 1:] if x.dim() else x[None, None],
    "no columns": lambda x: x[..., :0] if x.dim() else x[None, None],
    "an array for a tensor": lambda x: x.detach().numpy(),
    "lists": lambda x: x.tolist(),
    "a sparse tensor": lambda x: x.detach().to_sparse(),
}


def wrong_values(right: Any) -> Iterator[tuple[str, Any]]:
    """
    Yield what is usually given in place of a right value.

    :param right: a value that the argument takes.
    """
    yield from VALUES.items()
    if isinstance(right, Tensor):
        for name, change in OF_TENSORS.items():
            yield name, change(right.detach())
