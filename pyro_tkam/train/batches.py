"""The order of the data, which depends only on the seed and the update."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, distributed
from torch.utils.data import Dataset, TensorDataset, default_collate

from pyro_tkam.datasets import RowsOf


class SeededBatches:
    """
    Mini-batches of a run, in an order that depends only on ``(seed, epoch)``.

    Every epoch is a permutation of the data; an incomplete last batch of an epoch is dropped. Its
    state is the number of batches returned so far, so iteration can resume in the middle of an
    epoch. If several processes train together, each gets an equal share of every batch.

    :param dataset: a map-style data set. Batches have the structure of the items: a tensor, or a
        tuple or dictionary of tensors. A tuple of one tensor becomes that tensor.
    :param batch_size: rows per batch, of all processes together; at most the number of rows.
    :param updates: total number of batches.
    :param seed: seed of the permutations; the global generator is neither read nor changed.
    :raises ValueError: for a batch larger than the data.

    >>> batches = SeededBatches(TensorDataset(torch.arange(4.0)), batch_size=2, updates=3)
    >>> [batch.shape for batch in batches]
    [torch.Size([2]), torch.Size([2]), torch.Size([2])]
    """

    def __init__(self, dataset: Dataset[Any], batch_size: int, updates: int, seed: int = 0) -> None:
        self.size = len(dataset)  # type: ignore[arg-type]
        if not 1 <= batch_size <= self.size:
            raise ValueError(
                f"batch_size must be from 1 to {self.size}, the number of rows, got {batch_size}"
            )
        self.dataset = dataset
        self.batch_size = batch_size
        self.updates = updates
        self.seed = seed
        self._next = 0

    def __len__(self) -> int:
        return self.updates

    def __iter__(self) -> Iterator[Any]:
        while self._next < self.updates:
            batch = self._fetch(_own_share(self.rows(self._next)))
            self._next += 1
            yield batch

    def first(self) -> Any:
        """Return the first batch of the run, for all processes."""
        return self._fetch(self.rows(0))

    def rows(self, update: int) -> Tensor:
        """
        Return the indices of a batch.

        :param update: number of the update, from 0.
        :return: shape ``(batch_size,)``.
        """
        epoch, batch = divmod(update, self.size // self.batch_size)
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + epoch)
        order = torch.randperm(self.size, generator=generator)
        return order[batch * self.batch_size :][: self.batch_size]

    def _fetch(self, rows: Tensor) -> Any:
        whole = isinstance(self.dataset, TensorDataset | RowsOf)
        batch = (
            self.dataset[rows]
            if whole
            else default_collate([self.dataset[int(row)] for row in rows])
        )
        if not isinstance(batch, list | tuple):
            return batch
        return batch[0] if len(batch) == 1 else tuple(batch)

    def state_dict(self) -> dict[str, int]:
        """Return the position of the iteration."""
        return {"next": self._next}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """
        Resume from a saved state.

        :param state: the result of :meth:`state_dict`.
        """
        self._next = state["next"]


def tensors(batch: Any) -> Iterator[Tensor]:
    """
    Iterate over the tensors of a batch.

    :param batch: a tensor, or tuples, lists and dictionaries of them.
    """
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for part in batch.values():
            yield from tensors(part)
    elif isinstance(batch, list | tuple):
        for part in batch:
            yield from tensors(part)


def _own_share(rows: Tensor) -> Tensor:
    """
    Return this process's share of the rows: every n-th row for n processes, starting at its rank.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return rows
    return rows[distributed.get_rank() :: distributed.get_world_size()]
