"""
Runs of users' code that may fail: with errors that name their cause, or to try a faster way.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")

RAISED_BY_CODE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What torch, Pyro and a model's own lines raise where they cannot take what they are given."""


def attempt(run: Callable[[], T]) -> T | None:
    """
    Run a model in a batch; return None if this is not possible, so that the caller can use a slower
    way.

    Lack of memory raises an error; a slower way would hide the problem.

    :param run: the function to try.
    :raises MemoryError: if there is no memory for it.
    """
    try:
        return run()
    except RAISED_BY_CODE as error:
        if is_out_of_memory(error):
            raise MemoryError(_first_line(error)) from error
        return None


def check_memory(name: str, number: int, bytes_each: int) -> None:
    """
    Refuse a number of items that this machine's memory cannot hold.

    :param name: name of the argument.
    :param number: number of items.
    :param bytes_each: smallest memory per item.
    :raises ValueError: if there is too little memory, as far as the system reports it.
    """
    names = {"SC_PHYS_PAGES", "SC_PAGE_SIZE"}
    if not names <= getattr(os, "sysconf_names", {}).keys():
        return
    most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // bytes_each
    if number > most:
        raise ValueError(f"{name} must be at most {most} for this machine's memory, got {number}")


@contextmanager
def telling_memory(name: str, number: int) -> Iterator[None]:
    """
    Turn out-of-memory errors inside into one that names the argument.

    :param name: name of the argument that determines the memory.
    :param number: its value.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise MemoryError(
            f"{name} must be small enough to fit in memory, got {number}: {_first_line(error)}"
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that memory ran out."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    words = ("can't allocate memory", "not enough memory", "Storage size calculation overflowed")
    return isinstance(error, RuntimeError) and any(each in str(error) for each in words)


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
