"""Calls that raise an error have no effects, not even on random numbers."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def undone_by_errors() -> Iterator[None]:
    """
    Restore torch's CPU generator if an error is raised inside.

    >>> before = torch.get_rng_state()
    >>> with undone_by_errors():
    ...     torch.rand(3).reshape(2, 2)
    Traceback (most recent call last):
    RuntimeError: shape '[2, 2]' is invalid for input of size 3
    >>> torch.equal(torch.get_rng_state(), before)
    True
    """
    state = torch.get_rng_state()
    try:
        yield
    except BaseException:
        torch.set_rng_state(state)
        raise
