"""Checks of options that several packages share, in the one grammar of errors."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any


def whole_number(name: str, value: Any, least: int) -> int:
    """
    Return a whole number.

    :param name: of the argument.
    :param value: its value, an int or what is one, such as NumPy's.
    :param least: the smallest that is allowed.
    :raises ValueError: for another value.

    >>> whole_number("num_chains", 4, 1)
    4
    """
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return int(value)


def one_of(name: str, value: Any, known: Collection[str]) -> None:
    """
    Refuse what is none of some names.

    :param name: of the argument.
    :param value: its value.
    :param known: the names.
    :raises ValueError: lists them.
    """
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name} must be one of {sorted(known)}, got {value!r}")


def share(name: str, value: Any) -> None:
    """
    Refuse what is no number from 0 to 1.

    :param name: of the argument.
    :param value: its value.
    :raises ValueError: for another value.
    """
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{name} must be a share from 0 to 1, got {value!r}")
