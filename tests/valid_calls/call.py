"""A valid call, of which one argument at a time is replaced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Call:
    """
    A call that works.

    :param function: what is called, by name of its arguments.
    :param arguments: right ones.
    :param also: other names by which its errors may call an argument.
    :param expensive: whether to try a few of the wrong values only.
    :param late: arguments of which some errors show only when a model has run, which draws.
    """

    function: Callable[..., Any]
    arguments: dict[str, Any]
    also: tuple[str, ...] = ()
    expensive: bool = False
    late: tuple[str, ...] = ()


def calls_of(
    owner: object,
    *,
    also: tuple[str, ...] = (),
    expensive: tuple[str, ...] = (),
    late: tuple[str, ...] = (),
    **methods: dict[str, Any],
) -> dict[str, Call]:
    """Return calls of methods, by the names of the class and the method."""
    return {
        f"{type(owner).__name__}.{name}": Call(
            getattr(owner, name), arguments, also, name in expensive, late
        )
        for name, arguments in methods.items()
    }
