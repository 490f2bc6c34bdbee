"""Checks of options that several packages share, in the one grammar of errors."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from inspect import Parameter, signature
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from typing import Any

LARGEST = 2**63 - 1
"""The largest size of a tensor."""

LARGEST_FLOAT = 3.4e38
"""About the largest number of single precision."""


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
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
    if int(value) > LARGEST:
        raise ValueError(f"{name} must fit in a 64-bit integer, got {value!r}")
    return int(value)


def number(
    name: str,
    value: Any,
    above: float = -math.inf,
    *,
    at_least: float = -math.inf,
    at_most: float = math.inf,
) -> float:
    """
    Return a finite number.

    :param name: of the argument.
    :param value: its value, a float or what is one, such as NumPy's.
    :param above: what it must be greater than.
    :param at_least: the smallest that is allowed.
    :param at_most: the largest that is allowed.
    :raises TypeError: for what is no number.
    :raises ValueError: for another number.

    >>> number("step_size", 0.1, 0)
    0.1
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if isinstance(value, Integral) and abs(int(value)) > LARGEST:
        raise ValueError(f"{name} must fit in a 64-bit integer, got {value!r}")
    given = float(value)
    if not math.isfinite(given) or given <= above:
        bound = "" if above == -math.inf else f" greater than {above:g}"
        raise ValueError(f"{name} must be a finite number{bound}, got {value!r}")
    if given < at_least:
        raise ValueError(f"{name} must be at least {at_least:g}, got {value!r}")
    if given > at_most:
        raise ValueError(f"{name} must be at most {at_most:g}, got {value!r}")
    return given


def within(name: str, value: Any, low: float, high: float) -> float:
    """
    Return a number between two others.

    :param name: of the argument.
    :param value: its value, a float or what is one, such as NumPy's.
    :param low: what it must be greater than.
    :param high: what it must be less than.
    :raises ValueError: for another value.

    >>> within("target_accept_prob", 0.8, 0, 1)
    0.8
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not low < float(value) < high:
        raise ValueError(f"{name} must lie in ({low:g}, {high:g}), got {value!r}")
    return float(value)


def length(name: str, value: Any) -> float:
    """
    Return a step size or another length: a positive number that single precision holds.

    :param name: of the argument.
    :param value: its value.
    :raises ValueError: for another value.

    >>> length("step_size", 0.1)
    0.1
    """
    known = isinstance(value, Real) and not isinstance(value, bool)
    if not known or not 0 < value < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {value!r}")
    if value > LARGEST_FLOAT:
        raise ValueError(f"{name} must be at most {LARGEST_FLOAT:g}, got {value!r}")
    return float(value)


def function(name: str, value: Any, of: str) -> None:
    """
    Refuse what cannot be called.

    :param name: of the argument.
    :param value: its value.
    :param of: what it is called with.
    :raises TypeError: for what cannot be called.
    """
    if not callable(value):
        raise TypeError(f"{name} must be a callable that takes {of}, got {type(value).__name__}")


def instance(name: str, value: Any, kind: type | tuple[type, ...], of: str) -> None:
    """
    Refuse what is of another type.

    :param name: of the argument.
    :param value: its value.
    :param kind: a type, or several.
    :param of: what it must be, with its article.
    :raises TypeError: for another type.

    >>> instance("x", {1}, (list, tuple), "a list")
    Traceback (most recent call last):
    TypeError: x must be a list, got set
    """
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {of}, got {type(value).__name__}")


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


def words(name: str, value: Any, of: str) -> None:
    """
    Refuse what holds no words.

    :param name: of the argument.
    :param value: a sequence of texts.
    :param of: what they are.
    :raises TypeError: for another type.
    """
    sequence(name, value, of)
    if not all(isinstance(each, str) for each in value):
        raise TypeError(f"{name} must be a sequence of {of} as strings, got {value!r}")


def file_path(name: str, value: Any) -> Path:
    """
    Return a path.

    :param name: of the argument.
    :param value: its value, a text or a path.
    :raises TypeError: for another type.
    :raises ValueError: for text that names no file.
    """
    if not isinstance(value, str | PathLike):
        raise TypeError(f"{name} must be a path, got {value!r}")
    if not os.fspath(value):
        raise ValueError(f"{name} must be a path, got an empty string")
    return Path(value)


def existing_file(name: str, value: Any) -> Path:
    """
    Return the path of a file.

    :param name: of the argument.
    :param value: its value, a text or a path.
    :raises TypeError: for another type.
    :raises FileNotFoundError: for a missing file.
    """
    path = file_path(name, value)
    if not path.is_file():
        raise FileNotFoundError(f"{name} must be an existing file, got {path}")
    return path


def place(name: str, value: Any, size: int) -> int:
    """
    Return a place in a row of things, from 0.

    :param name: of the argument.
    :param value: its value.
    :param size: how many things there are.
    :raises ValueError: for another value.

    >>> place("chain", 1, 4)
    1
    """
    if whole_number(name, value, 0) >= size:
        raise ValueError(f"{name} must be below {size}, got {value!r}")
    return int(value)


def text(name: str, value: Any) -> None:
    """
    Refuse what is no text; it may be empty.

    :param name: of the argument.
    :param value: its value.
    :raises TypeError: for another type.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, got {value!r}")


def iterable(name: str, value: Any, of: str) -> None:
    """
    Refuse what has no items to go through.

    :param name: of the argument.
    :param value: its value.
    :param of: what its items are.
    :raises TypeError: for another type, also for text and a tensor without dimensions.
    """
    scalar = getattr(value, "ndim", 1) == 0
    if scalar or not isinstance(value, Iterable) or isinstance(value, str | bytes):
        raise TypeError(f"{name} must be an iterable of {of}, got {value!r}")


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
    sequence(name, value, "integers")
    return tuple(whole_number(f"every element of {name}", each, least) for each in value)


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


def options(caller: str, given: Iterable[str], *takers: Callable[..., Any]) -> None:
    """
    Refuse names that none of some callables takes, and suggest the closest one.

    :param caller: what a user has called.
    :param given: names of its further options.
    :param takers: itself, then those that its options are passed on to, of which only those with
        defaults count.
    :raises TypeError: names the first unknown one.

    >>> def outer(size, **more): ...
    >>> def inner(data, *, width=1): ...
    >>> options("outer", ["widht"], outer, inner)
    Traceback (most recent call last):
    TypeError: options of outer must be among ['size', 'width'], got 'widht'; did you mean 'width'?
    """
    known: set[str] = set()
    for number, taker in enumerate(takers):
        for each in signature(taker).parameters.values():
            named = each.kind in (Parameter.KEYWORD_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
            if named and (number == 0 or each.default is not Parameter.empty):
                known.add(each.name)
    known.discard("self")
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise TypeError(
                f"options of {caller} must be among {sorted(known)}, got {name!r}{hint}"
            )


def share(name: str, value: Any) -> None:
    """
    Refuse what is no number from 0 to 1.

    :param name: of the argument.
    :param value: its value.
    :raises ValueError: for another value.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) <= 1:
        raise ValueError(f"{name} must be a number from 0 to 1, got {value!r}")
