"""
State of optimizers for coefficients that a grid update changes.
"""

from collections.abc import Iterable
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from pyro.optim import PyroOptim
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

_RESHAPED: WeakKeyDictionary[nn.Module, WeakSet[torch.optim.Optimizer]] = WeakKeyDictionary()
"""Banks whose parameter changed its shape, each with the optimizers that have heard of it."""


def forget_moments(optimizer: Any, parameters: Iterable[nn.Parameter]) -> None:
    """
    Reset an optimizer's state for parameters whose entries have a new meaning.

    The history of L-BFGS mixes all parameters, so all of it is dropped.

    :param optimizer: an optimizer of ``torch.optim`` or ``pyro.optim``.
    :param parameters: the changed parameters.
    :raises TypeError: for any other object.
    """
    parameters = list(parameters)
    if isinstance(optimizer, PyroOptim):
        for parameter in parameters:
            if parameter in optimizer.optim_objs:
                forget_moments(optimizer.optim_objs[parameter], [parameter])
        return
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(
            f"optimizer must be one of torch.optim or pyro.optim, got {type(optimizer).__name__}"
        )
    if isinstance(optimizer, torch.optim.LBFGS):
        optimizer.state.clear()
        optimizer._numel_cache = None
    for parameter in parameters:
        optimizer.state.pop(parameter, None)


def reshaped(bank: nn.Module) -> None:
    """
    Let each optimizer of a bank's coefficients forget what it holds in their old shape, before its
    next step.
    """
    _listen()
    _RESHAPED[bank] = WeakSet()


@cache
def _listen() -> None:
    """Hear of the steps of all optimizers."""
    register_optimizer_step_pre_hook(_before_a_step)


def _before_a_step(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    """Reset an optimizer's state of the old shapes, unless it has heard of the change."""
    for bank, heard in list(_RESHAPED.items()):
        if optimizer not in heard:
            heard.add(optimizer)
            parameter = bank._parameters.get("coefficients")  # a user may have put a prior there
            if parameter is not None and _has_old_shape(optimizer, parameter):
                forget_moments(optimizer, [parameter])


def _has_old_shape(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> bool:
    """Whether an optimizer has a state of a parameter in another shape."""
    if isinstance(optimizer, torch.optim.LBFGS):
        return any(
            parameter is each for group in optimizer.param_groups for each in group["params"]
        )
    held = optimizer.state.get(parameter, {}).values()
    return any(
        isinstance(each, Tensor) and each.ndim > 0 and each.shape != parameter.shape
        for each in held
    )
