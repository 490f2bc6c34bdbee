"""Work on modules that are not part of a model yet: Pyro can't attach a module that has run."""

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
    Read a module that has never run without changing that: Pyro's store has no names from it, and
    it can still be attached.
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
    """Copy a module; the copy has not run, whether or not the module has."""
    copied = copy.deepcopy(module)
    copied._pyro_context.used = False
    return copied
