"""What must not be rounded to half precision under autocast."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")

_DEVICES = tuple(
    name for name in ("cpu", "cuda", "mps", "xpu") if torch.amp.is_autocast_available(name)
)


def in_full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """
    Make a function compute outside of autocast, and take tensors in half precision as single ones
    there.

    :param function: any; without autocast nothing changes.

    >>> product = in_full_precision(torch.matmul)
    >>> with torch.autocast("cpu", dtype=torch.bfloat16):
    ...     torch.eye(2).matmul(torch.eye(2)).dtype, product(torch.eye(2), torch.eye(2)).dtype
    (torch.bfloat16, torch.float32)
    """

    @wraps(function)
    def outside(*args: P.args, **kwargs: P.kwargs) -> R:
        devices = _autocast_devices()
        if not devices:
            return function(*args, **kwargs)
        full: Any = [_widened(arg) for arg in args]
        options: Any = {name: _widened(arg) for name, arg in kwargs.items()}
        with ExitStack() as stack:
            for device in devices:
                stack.enter_context(torch.autocast(device, enabled=False))
            return function(*full, **options)

    return outside


def at_least_single(tensor: Tensor) -> Tensor:
    """
    Bring what autocast left in half precision back to single.

    :param tensor: any; without autocast it stays as it is.
    """
    return _widened(tensor) if _autocast_devices() else tensor


def under_autocast() -> bool:
    """Tell whether operations may change the precision of what they are given."""
    return bool(_autocast_devices())


def _autocast_devices() -> list[str]:
    return [device for device in _DEVICES if torch.is_autocast_enabled(device)]


def _widened(value: Any) -> Any:
    return (
        value.float()
        if isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16)
        else value
    )
