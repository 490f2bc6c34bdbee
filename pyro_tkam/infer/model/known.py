"""Models that are known to treat each datum alone, so that nothing has to be tried."""

from __future__ import annotations

from typing import Any

from torch import nn

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
HOOKS = ("_forward_hooks", "_forward_pre_hooks")


def treats_each_datum_alone(model: Any, guide: Any = None) -> bool:
    """
    Tell whether a model, and its guide if there is one, are of this package and consist of nothing
    but its own modules and those of :data:`ROW_BY_ROW`, as they are defined.

    A subclass, a hook, a function of a user's, or a network that mixes rows, as batch normalization
    does, can do anything: for these, and for all other models, the answer is no.

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
    if not all(_is_known(value) for value in vars(module).values()):
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


def _is_ours(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == OURS


def _is_known(value: Any) -> bool:
    """Tell whether an attribute can't be called, or is a function of torch or of this package."""
    if not callable(value) or isinstance(value, nn.Module):
        return True
    home = getattr(value, "__module__", None) or ""
    return home.partition(".")[0] in (OURS, "torch")
