"""Evaluate modules before they join a model: Pyro can't attach a module that has already run."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import pyro
from pyro.nn import PyroModule

Module = TypeVar("Module", bound=PyroModule)


@contextmanager
def unseen(module: PyroModule) -> Iterator[None]:
    """
    Evaluate a module that has never run and leave no trace: Pyro's parameter store gets no names
    from it, and it can still be attached to a model.
    """
    context = module._pyro_context
    if context.used:
        yield
        return
    with pyro.get_param_store().scope():
        try:
            yield
        finally:
            context.used = False


def unseen_copy(module: Module) -> Module:
    """Copy a module; Pyro treats the copy as not yet run, whether or not the module has run."""
    copied = copy.deepcopy(module)
    copied._pyro_context.used = False
    return copied
