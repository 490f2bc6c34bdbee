"""The same results from one process or from many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any, TypeVar

import pyro
import torch
from pyro.util import get_rng_state, set_rng_state

from pyro_tkam._checks import function as called
from pyro_tkam._checks import iterable
from pyro_tkam._threads import PYRO

T = TypeVar("T")
R = TypeVar("R")

NUM_CHUNKS = 32
"""Tasks are sent in about so many parcels: enough to keep workers busy, few enough to be cheap."""


def map_seeded(
    function: Callable[[T], R], items: Iterable[T], *, executor: Executor | None = None
) -> list[R]:
    """
    Apply a function that draws random numbers to many items, here or on an executor's workers.

    Each item has its own seed, derived from one draw of torch's global generator, so results are
    the same to the bit wherever they run. A worker uses one thread and the caller's Pyro
    parameters.

    :param function: function of one item; workers in other processes must be able to unpickle it.
    :param items: arguments, one for each call.
    :param executor: such as a ``ProcessPoolExecutor``, Dask's ``Client.get_executor()`` or MPI's
        ``MPIPoolExecutor``; None runs here. Threads of one process take turns.
    :return: the results, in the items' order.
    :raises TypeError: if ``executor`` is not an executor.

    >>> import pyro, torch
    >>> pyro.set_rng_seed(0)
    >>> here = map_seeded(torch.randn, [1, 2])
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> pyro.set_rng_seed(0)
    >>> with ThreadPoolExecutor() as executor:
    ...     there = map_seeded(torch.randn, [1, 2], executor=executor)
    >>> all(torch.equal(a, b) for a, b in zip(here, there))
    True
    """
    called("function", function, "an item")
    iterable("items", items, "arguments of the function")
    check_executor(executor)
    items = list(items)
    first = int(torch.randint(2**31, ()))
    tasks = [(item, (first + index) % 2**31) for index, item in enumerate(items)]
    return list(run_seeded(function, tasks, executor, max(1, len(tasks) // NUM_CHUNKS)))


def check_executor(executor: Any) -> None:
    """Raise a TypeError for what is neither an executor nor None."""
    if executor is not None and not isinstance(executor, Executor):
        raise TypeError(
            f"executor must be a concurrent.futures.Executor, got {type(executor).__name__}"
        )


def run_seeded(
    function: Callable[[T], R],
    tasks: Sequence[tuple[T, int]],
    executor: Executor | None,
    parcel: int = 1,
) -> Iterator[R]:
    """Yield a function's results for items with their own seeds, in the order of the items.

    Closing the iterator cancels the remaining work.

    :param function: see :func:`map_seeded`.
    :param tasks: items and their seeds.
    :param executor: see :func:`map_seeded`; None runs each item when it is asked for.
    :param parcel: number of tasks that a worker takes at once.
    """
    parameters = pyro.get_param_store().get_state()
    parcels = [tasks[start : start + parcel] for start in range(0, len(tasks), parcel)]
    if executor is None:
        for each in parcels:
            yield from _run(function, each, parameters)
        return
    futures = [executor.submit(_run, function, each, parameters) for each in parcels]
    try:
        for future in futures:
            yield from future.result()
    finally:
        for future in futures:
            future.cancel()


def _run(function: Callable[[T], R], tasks: Sequence[tuple[T, int]], parameters: Any) -> list[R]:
    results = []
    with PYRO, _own_state(parameters):
        for item, seed in tasks:
            pyro.set_rng_seed(seed)
            results.append(function(item))
    return results


@contextmanager
def _own_state(parameters: Any) -> Iterator[None]:
    """Work with one thread and given parameters, and leave everything as it was."""
    threads = torch.get_num_threads()
    random = get_rng_state()
    store = pyro.get_param_store()
    torch.set_num_threads(1)
    try:
        with store.scope(state=parameters):
            yield
    finally:
        torch.set_num_threads(threads)
        set_rng_state(random)
