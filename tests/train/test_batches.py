"""The order of the data."""

import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from pyro_tkam.datasets import RowsOf
from pyro_tkam.train import batches
from pyro_tkam.train.batches import SeededBatches

ROWS = TensorDataset(torch.arange(10.0), torch.arange(10))


def drawn(batches):
    """The first entries, beside which the second are the same."""
    found = []
    for first, second in batches:
        assert torch.equal(first.long(), second)
        found.append(first.tolist())
    return found


class Items(Dataset):
    """Like ``ROWS``, an item at a time."""

    def __len__(self):
        return 10

    def __getitem__(self, index):
        return ROWS[index]


class Named(Dataset):
    """Dictionaries beside a mask, an item at a time."""

    def __len__(self):
        return 10

    def __getitem__(self, index):
        return {"x": torch.full((2,), float(index)), "y": index}, index % 2 == 0


NUMBERS = torch.arange(10)


@pytest.mark.parametrize(
    "dataset",
    [
        Named(),
        RowsOf(({"x": NUMBERS[:, None].expand(10, 2).float(), "y": NUMBERS}, NUMBERS % 2 == 0)),
    ],
)
def test_batches_have_the_structure_of_the_items(dataset):
    for data, even in SeededBatches(dataset, 5, updates=2):
        assert data["x"].shape == (5, 2)
        assert torch.equal(data["x"][:, 0].long(), data["y"])
        assert torch.equal(data["y"] % 2 == 0, even)


def test_a_tuple_of_one_is_that_one():
    assert SeededBatches(TensorDataset(torch.zeros(4, 3)), 2, updates=1).first().shape == (2, 3)


@pytest.mark.parametrize("dataset", [ROWS, Items()])
def test_an_epoch_is_a_permutation(dataset):
    batches = drawn(SeededBatches(dataset, 5, updates=4))
    first, second = batches[0] + batches[1], batches[2] + batches[3]
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


def test_incomplete_batches_are_left_out():
    batches = drawn(SeededBatches(ROWS, 4, updates=4))
    assert [len(batch) for batch in batches] == [4] * 4
    assert len(set(batches[0] + batches[1])) == 8


def test_the_order_depends_on_the_seed_alone():
    before = torch.get_rng_state()
    one = drawn(SeededBatches(ROWS, 3, updates=7, seed=1))
    torch.manual_seed(5)
    assert drawn(SeededBatches(ROWS, 3, updates=7, seed=1)) == one
    assert drawn(SeededBatches(ROWS, 3, updates=7, seed=2)) != one
    torch.set_rng_state(before)


@pytest.mark.parametrize("stop", range(7))
def test_a_state_goes_on_in_the_middle_of_an_epoch(stop):
    whole = drawn(SeededBatches(ROWS, 3, updates=7))
    stopped, resumed = SeededBatches(ROWS, 3, updates=7), SeededBatches(ROWS, 3, updates=7)
    head = (
        [batch[0].tolist() for batch, _ in zip(stopped, range(stop), strict=False)] if stop else []
    )
    state = {"next": stop}
    if stop:
        assert stopped.state_dict()["next"] in (stop, stop + 1)  # zip takes one more
    resumed.load_state_dict(state)
    assert head[:stop] + drawn(resumed) == whole


@pytest.mark.parametrize("size", [0, 11])
def test_batches_that_the_data_cannot_fill_are_named(size):
    with pytest.raises(
        ValueError, match=f"batch_size must be from 1 to 10, the number of rows, got {size}"
    ):
        SeededBatches(ROWS, size, updates=1)


def test_processes_take_equal_shares_of_every_tensor(monkeypatch):
    dataset = RowsOf(({"x": NUMBERS[:, None], "y": NUMBERS}, NUMBERS))
    whole = SeededBatches(dataset, 4, updates=1).first()
    monkeypatch.setattr(batches.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(batches.distributed, "get_world_size", lambda: 2)
    shares = []
    for rank in range(2):
        monkeypatch.setattr(batches.distributed, "get_rank", lambda rank=rank: rank)
        shares.append(next(iter(SeededBatches(dataset, 4, updates=1))))
    for rank, (data, number) in enumerate(shares):
        assert torch.equal(number, whole[1][rank::2])
        assert torch.equal(data["x"][:, 0], number)
        assert torch.equal(data["y"], number)
