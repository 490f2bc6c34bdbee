"""Checks of a configuration's fields against their annotations."""

import math
from collections.abc import Callable, Collection
from dataclasses import fields
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

from pyro_tkam._checks import flag, instance, mapping, number, sizes, text, whole_number


def check_fields(config: Any, infinite: Collection[str] = ()) -> None:
    """
    Refuse a field whose value does not match its annotation.

    :param config: a dataclass of Booleans, numbers, strings, lists of integers, mappings and
        dataclasses; fields may be None if their annotation allows it.
    :param infinite: fields that may be infinity.
    :raises TypeError: for a value of another type; names the field.
    :raises ValueError: for numbers that are not finite, and integers below 0.
    """
    for entry in fields(config):
        kinds = get_args(entry.type) if isinstance(entry.type, UnionType) else (entry.type,)
        value = getattr(config, entry.name)
        if value is None and NoneType in kinds:
            continue
        if entry.name in infinite and isinstance(value, float) and value == math.inf:
            continue
        _check(entry.name, value, kinds[0])


def _check(name: str, value: Any, kind: Any) -> None:
    if get_origin(kind) is list:
        sizes(name, value, 0)
    elif get_origin(kind) is dict:
        mapping(name, value, "names to values")
    elif kind in _OF_PLAIN:
        _OF_PLAIN[kind](name, value)
    else:
        instance(name, value, kind, f"a {kind.__name__}")


_OF_PLAIN: dict[Any, Callable[[str, Any], Any]] = {
    bool: flag,
    int: lambda name, value: whole_number(name, value, 0),
    float: number,
    str: text,
}
