"""Runs that may fail: a slower way is tried for what cannot be batched, not for want of memory."""

import pytest
import torch

from pyro_tkam.infer.model.attempt import attempt, check_memory, telling_memory

TOO_MANY = 10**15


def test_what_cannot_be_batched_is_none():
    batch = torch.zeros(3)
    assert attempt(batch.sum) == 0
    assert attempt(lambda: batch.item()) is None
    assert attempt(lambda: batch + torch.zeros(2)) is None


def test_want_of_memory_is_told():
    with pytest.raises(MemoryError, match="allocate"):
        attempt(lambda: torch.empty(TOO_MANY))
    with (
        pytest.raises(MemoryError, match=f"num must be small enough .*, got {TOO_MANY}: "),
        telling_memory("num", TOO_MANY),
    ):
        torch.empty(TOO_MANY)


def test_other_errors_are_not_called_want_of_memory():
    with pytest.raises(RuntimeError, match="must match"), telling_memory("num", 3):
        torch.zeros(3) + torch.zeros(2)


def test_more_than_the_memory_is_refused_before_it_is_asked_for():
    check_memory("num", 10, 4)
    with pytest.raises(ValueError, match=rf"num must be at most \d+ for .*, got {TOO_MANY}"):
        check_memory("num", TOO_MANY, 4)
