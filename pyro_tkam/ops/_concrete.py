"""Whether a tensor's values may steer Python control flow."""

import torch
from torch._C import _functorch
from torch.utils._python_dispatch import _get_current_dispatch_mode


def is_concrete(tensor: torch.Tensor) -> bool:
    """
    Tell whether Python may branch on the values of a tensor.

    It may not under ``torch.func.vmap``, while a graph is traced (``make_fx``, ``torch.compile``),
    or on fake tensors.

    :param tensor: any tensor.
    :return: True where ``bool(tensor.any())`` is allowed.

    >>> is_concrete(torch.ones(2))
    True
    """
    if torch.compiler.is_compiling() or _get_current_dispatch_mode() is not None:
        return False
    while _functorch.is_functorch_wrapped_tensor(tensor):
        if _functorch.is_batchedtensor(tensor):
            return False
        tensor = _functorch.get_unwrapped(tensor)
    return True


def refuse_tracing(what: str) -> None:
    """
    Refuse ``torch.jit.trace``, which cannot record custom gradients and freezes what it reads.

    :param what: part of a model that it meets.
    :raises NotImplementedError: while ``torch.jit.trace`` runs.
    """
    if torch.jit.is_tracing():  # type: ignore[attr-defined]
        raise NotImplementedError(
            f"jit_compile must be False for a model with {what}, got a run traced by "
            "TorchScript; Trace_ELBO and NUTS work without it, and VectorizedMCMC is faster"
        )
