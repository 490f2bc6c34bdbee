"""Names and numbers stored as tensors, so a state dict contains only tensors."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor


def as_tensor(value: Any) -> Tensor:
    """
    Write names, numbers, lists and dictionaries of them as the bytes of their JSON.

    >>> from_tensor(as_tensor({"widths": [2, 5, 1]}))
    {'widths': [2, 5, 1]}
    """
    return torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8)


def from_tensor(saved: Tensor) -> Any:
    """Undo :func:`as_tensor`."""
    return json.loads(bytes(saved.tolist()))
