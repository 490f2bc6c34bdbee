"""
A second device that needs no hardware: tensors that hold their values on the CPU, but are on
another device for whoever asks, and refuse to be mixed with tensors of the CPU as CUDA's do.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

DEVICE = torch.device("meta")
"""Its backward pass needs no driver; real tensors of this device have no values, ours have."""
aten = torch.ops.aten
ANY_DEVICE = {
    aten.copy_.default,
    aten._to_copy.default,
    aten.set_.source_Tensor,
    aten.index.Tensor,  # indices may be on the CPU
    aten._index_put_impl_.default,
    aten.index_put.default,
    aten.index_put_.default,
}


class Elsewhere(torch.Tensor):
    """A tensor on the second device."""

    values: torch.Tensor

    @staticmethod
    def __new__(cls, values: torch.Tensor) -> "Elsewhere":
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            values.size(),
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=DEVICE,
        )
        made.values = values
        return made

    def __repr__(self) -> str:
        return f"Elsewhere({self.values})"

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


def mapped(change: Callable[[torch.Tensor], Any], value: Any) -> Any:
    """Change every tensor, as ``tree_map_only`` does, which takes longer than most operators."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if type(value) in (list, tuple):
        return type(value)([mapped(change, each) for each in value])
    if isinstance(value, (list, tuple, dict)):
        return tree_map_only(torch.Tensor, change, value)
    return value


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operator where its tensors are, or where its argument ``device`` says."""
    tensors: list[torch.Tensor] = []

    def its_values(each: torch.Tensor) -> torch.Tensor:
        tensors.append(each)
        return each.values if isinstance(each, Elsewhere) else each

    own = mapped(its_values, args), {name: mapped(its_values, kwargs[name]) for name in kwargs}
    here = [each for each in tensors if not isinstance(each, Elsewhere)]
    if len(here) < len(tensors) and func not in ANY_DEVICE:
        strays = [each for each in here if each.dim() > 0]
        if strays:
            raise RuntimeError(
                f"Expected all tensors to be on the same device, got {tuple(strays[0].shape)} on "
                f"the CPU in {func}"
            )
    there = len(here) < len(tensors)
    if "device" in kwargs and kwargs["device"] is not None:
        there = torch.device(kwargs["device"]) == DEVICE
        own[1]["device"] = torch.device("cpu")
    elif not tensors:
        there = False
    result = func(*own[0], **own[1])
    if func is aten._local_scalar_dense.default or not there:
        return result
    if func is aten.copy_.default and not isinstance(args[0], Elsewhere):
        return args[0]
    known = {id(each.values): each for each in tensors if isinstance(each, Elsewhere)}
    return mapped(lambda each: known[id(each)] if id(each) in known else Elsewhere(each), result)


class _Values(TorchFunctionMode):
    """Python's numbers and arrays become values here before they go there."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.Tensor.tolist, torch.Tensor.__format__) and isinstance(
            args[0], Elsewhere
        ):
            return func(args[0].values, *args[1:])
        if func not in (torch.tensor, torch.as_tensor, torch.asarray, torch.Tensor.new_tensor):
            return func(*args, **kwargs)
        data = args[1] if func is torch.Tensor.new_tensor else args[0]
        device = kwargs.get("device")
        if func is torch.Tensor.new_tensor:
            device = device or args[0].device
            kwargs = {"dtype": args[0].dtype} | kwargs
        if isinstance(data, torch.Tensor) or device is None or torch.device(device) != DEVICE:
            return func(*args, **kwargs)
        numbers = tree_map_only(torch.Tensor, torch.Tensor.item, data)
        return torch.tensor(numbers, **kwargs | {"device": "cpu"}).to(DEVICE)


class _Factories(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


@contextmanager
def second_device() -> Iterator[torch.device]:
    """Make the device in a block."""
    with _Factories(), _Values():
        yield DEVICE
