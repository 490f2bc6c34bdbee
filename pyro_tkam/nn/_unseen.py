"""Work on modules that are in no model yet: Pyro attaches none that has run."""

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
    Read a module that never ran and leave it so: Pyro's store holds no name of it, and it can be
    attached.
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
    """Copy a module; the copy has not run, whatever the module did."""
    copied = copy.deepcopy(module)
    copied._pyro_context.used = False
    return copied
