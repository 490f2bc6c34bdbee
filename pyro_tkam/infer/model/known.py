"""Models of this package's own parts, whose data would only be coupled through their shapes."""

from __future__ import annotations

from collections.abc import Mapping
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

OURS = "pyro_tkam"
"""Package whose modules treat each row alone, as tests see to."""
ROW_BY_ROW = frozenset(
    {
        *(nn.Linear, nn.Embedding, nn.LayerNorm, nn.Identity),
        *(nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.GELU, nn.Tanh, nn.Sigmoid, nn.Softplus),
        *(nn.ConvTranspose2d, nn.Flatten, nn.Sequential, nn.ModuleList, nn.ModuleDict),
    }
)
"""Modules of torch that act on each element, on the last dimension, or on each image."""
ELEMENTWISE: frozenset[Any] = frozenset(
    {torch.sigmoid, torch.clone, torch.tanh, torch.exp, nn.functional.silu, nn.functional.gelu}
)
"""Functions of torch that this package's modules hold."""
PLAIN = (bool, int, float, str, slice, torch.Size, torch.dtype, torch.device, type(None))
HOOKS = ("_forward_hooks", "_forward_pre_hooks")
REGISTERED = "_modules"


def treats_each_datum_alone(model: Any, guide: Any = None) -> bool:
    """
    Tell whether a model, and its guide if there is one, are of this package and consist of nothing
    but its own modules and those of :data:`ROW_BY_ROW`, as they are defined.

    A subclass, a hook, a function of a user's, or a network that mixes rows, as batch normalization
    does, can do anything: for these, and for all other models, the answer is no. What is left is
    that a module takes the data for its last dimension, which shows at any draws.

    :param model: a Pyro model.
    :param guide: a guide, or None.
    """
    return all(
        isinstance(each, nn.Module)
        and _is_ours(_defined(each))
        and all(_acts_on_rows(module) for module in each.modules())
        for each in ((model,) if guide is None else (model, guide))
    )


def _acts_on_rows(module: nn.Module) -> bool:
    if any(len(getattr(module, hooks)) for hooks in HOOKS):
        return False
    held = {name: value for name, value in vars(module).items() if name != REGISTERED}
    if getattr(module, "_pyro_samples", None) or not _is_plain(held, set()):
        return False
    kind = _defined(module)
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) > 1:
        return False  # it may reach over rows
    if isinstance(module, nn.Flatten) and module.start_dim < 1:
        return False
    return kind in ROW_BY_ROW or _is_ours(kind)


def _defined(module: nn.Module) -> type:
    """Return the class of a module; of ``PyroModule[...]``, that which it was made of."""
    return next(each for each in type(module).__mro__ if each.__module__ != "pyro.nn.module")


def _is_ours(kind: Any) -> bool:
    return str(kind.__module__).partition(".")[0] == OURS


def _is_plain(value: Any, seen: set[int]) -> bool:
    """Tell whether a value holds only data, this package's objects and known functions."""
    if id(value) in seen or isinstance(value, PLAIN) or type(value) in (Tensor, nn.Parameter):
        return True
    seen.add(id(value))
    if isinstance(value, Mapping):
        return all(_is_plain(each, seen) for each in value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return all(_is_plain(each, seen) for each in value)
    if isinstance(value, FunctionType):
        inside = [cell.cell_contents for cell in value.__closure__ or ()]
        return value in ELEMENTWISE or (_is_ours(value) and _is_plain(inside, seen))
    if isinstance(value, type | MethodType | nn.Module):
        return isinstance(value, type) and _is_ours(value)
    home = str(type(value).__module__)
    if isinstance(value, Distribution):
        return home.partition(".")[0] in (OURS, "torch", "pyro")
    if _is_ours(type(value)):
        return hasattr(value, "__dict__") and _is_plain(vars(value), seen)
    return home == "pyro.nn.module" or (callable(value) and value in ELEMENTWISE)
