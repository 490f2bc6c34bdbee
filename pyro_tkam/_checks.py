"""Checks of options that several packages share, in the one grammar of errors."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

LARGEST = 2**63 - 1
"""The largest size of a tensor."""


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
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    if int(value) > LARGEST:
        raise ValueError(f"{name} must be a whole number of 64 bits, got {value!r}")
    return int(value)


def number(
    name: str, value: Any, above: float = -math.inf, *, at_least: float = -math.inf
) -> float:
    """
    Return a finite number.

    :param name: of the argument.
    :param value: its value, a float or what is one, such as NumPy's.
    :param above: what it must be greater than.
    :param at_least: the smallest that is allowed.
    :raises TypeError: for what is no number.
    :raises ValueError: for another number.

    >>> number("step_size", 0.1, 0)
    0.1
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if isinstance(value, Integral) and abs(int(value)) > LARGEST:
        raise ValueError(f"{name} must be a whole number of 64 bits, got {value!r}")
    given = float(value)
    if not math.isfinite(given) or given <= above:
        bound = "" if above == -math.inf else f" greater than {above:g}"
        raise ValueError(f"{name} must be a finite number{bound}, got {value!r}")
    if given < at_least:
        raise ValueError(f"{name} must be at least {at_least:g}, got {value!r}")
    return given


def function(name: str, value: Any, of: str) -> None:
    """
    Refuse what cannot be called.

    :param name: of the argument.
    :param value: its value.
    :param of: what it is called with.
    :raises TypeError: for what cannot be called.
    """
    if not callable(value):
        raise TypeError(f"{name} must be a callable of {of}, got {type(value).__name__}")


def flag(name: str, value: Any) -> bool:
    """
    Return True or False.

    :param name: of the argument.
    :param value: its value.
    :raises TypeError: for another type.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return value


def sequence(name: str, value: Any, of: str) -> None:
    """
    Refuse what is no sequence.

    :param name: of the argument.
    :param value: its value.
    :param of: what it holds.
    :raises TypeError: for another type, also for text.
    """
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise TypeError(f"{name} must be a sequence of {of}, got {value!r}")


def sizes(name: str, value: Any, least: int = 1) -> tuple[int, ...]:
    """
    Return whole numbers.

    :param name: of the argument.
    :param value: a sequence of them.
    :param least: the smallest that is allowed.
    :raises TypeError: for what is no sequence.
    :raises ValueError: for another number.

    >>> sizes("hidden", [300, 300])
    (300, 300)
    """
    sequence(name, value, "whole numbers")
    return tuple(whole_number(f"every number of {name}", each, least) for each in value)


def mapping(name: str, value: Any, of: str) -> None:
    """
    Refuse what is no mapping.

    :param name: of the argument.
    :param value: its value.
    :param of: what it maps, and to what.
    :raises TypeError: for another type.
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a mapping from {of}, got {value!r}")


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
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) <= 1:
        raise ValueError(f"{name} must be a share from 0 to 1, got {value!r}")
