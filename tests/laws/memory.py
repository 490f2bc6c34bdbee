"""A measure of the memory that operations ask for."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class LargestTensor(TorchDispatchMode):
    """
    Remember the number of elements of the largest tensor that any operation returns, views of one
    tensor aside.
    """

    def __init__(self, beside: torch.Tensor | None = None) -> None:
        super().__init__()
        self.numel = 0
        self._beside = None if beside is None else beside.untyped_storage().data_ptr()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for part in result if isinstance(result, (tuple, list)) else (result,):
            if not isinstance(part, torch.Tensor):
                continue
            storage = part.untyped_storage()
            if storage.data_ptr() != self._beside:
                self.numel = max(self.numel, storage.nbytes() // part.element_size())
        return result
