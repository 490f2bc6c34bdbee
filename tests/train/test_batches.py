"""The order of the data."""

import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from pyro_tkam.train.batches import SeededBatches

ROWS = TensorDataset(torch.arange(10.0), torch.arange(10))


def drawn(batches):
    return [batch.tolist() for batch in batches]


class Items(Dataset):
    """Like ``ROWS``, an item at a time."""

    def __len__(self):
        return 10

    def __getitem__(self, index):
        return ROWS[index]


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
    head = [batch.tolist() for batch, _ in zip(stopped, range(stop), strict=False)] if stop else []
    state = {"next": stop}
    if stop:
        assert stopped.state_dict()["next"] in (stop, stop + 1)  # zip takes one more
    resumed.load_state_dict(state)
    assert head[:stop] + drawn(resumed) == whole


@pytest.mark.parametrize("size", [0, 11])
def test_batches_that_the_data_cannot_fill_are_named(size):
    with pytest.raises(ValueError, match=f"batch_size: got {size}, takes 1 to 10"):
        SeededBatches(ROWS, size, updates=1)
