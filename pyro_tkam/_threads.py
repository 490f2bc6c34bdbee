"""Threads of one process take turns: Pyro keeps one list of effect handlers for all of them."""

from collections.abc import Callable
from functools import wraps
from threading import RLock
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

PYRO = RLock()
"""Held while a model runs."""


def in_turn(function: Callable[P, R]) -> Callable[P, R]:
    """
    Let a function that runs a model wait until no other thread runs one.

    :param function: the function; it may call others of this kind.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with PYRO:
            return function(*args, **kwargs)

    return call
