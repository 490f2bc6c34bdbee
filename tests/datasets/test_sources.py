"""Tensors, arrays, Datasets and files as data to train on."""

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from pyro_tkam.datasets import RowsOf, as_dataset, digits, load_rows, split


class Squares(Dataset):
    def __init__(self, num):
        self.num = num

    def __len__(self):
        return self.num

    def __getitem__(self, index):
        return torch.full((2,), float(index) ** 2), index


class Stream(IterableDataset):
    def __iter__(self):
        return iter([torch.zeros(2)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tensors_and_arrays_keep_their_values_and_dtype(dtype):
    rows = torch.rand(5, 2, 3, dtype=dtype)
    for data in (rows, rows.numpy()):
        dataset = as_dataset(data)
        assert len(dataset) == 5
        torch.testing.assert_close(dataset[3][0], rows[3], rtol=0, atol=0)


def test_a_dataset_is_taken_as_it_is():
    dataset = Squares(3)
    assert as_dataset(dataset) is dataset


def test_symbols_labels_and_masks_keep_their_values():
    symbols = torch.arange(6).reshape(3, 2)
    assert torch.equal(as_dataset(symbols)[1][0], symbols[1])
    dataset = as_dataset(({"image": np.zeros((3, 2)), "label": symbols[:, 0]}, symbols[:, 1] > 1))
    assert isinstance(dataset, RowsOf)
    assert len(dataset) == 3
    data, mask = dataset[torch.tensor([2, 0])]
    assert data["image"].dtype == torch.float64
    assert data["label"].tolist() == [4, 0]
    assert mask.tolist() == [True, False]


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (
            (),
            ValueError,
            r"data must be at least one tensor, all with the same number of rows, got \{\} rows",
        ),
        (
            (torch.zeros(3, 2), torch.zeros(2)),
            ValueError,
            r"data must be at least one tensor,.*, got \{'data\[0\]'",
        ),
        (
            {"image": torch.full((2, 2), torch.nan)},
            ValueError,
            r"data\['image'\] must be finite, got NaN or infinite elements",
        ),
        (
            {"image": torch.zeros(2, 2, dtype=torch.uint8)},
            TypeError,
            r"data\['image'\] must hold floating.*, got torch\.uint8",
        ),
        (
            ({"label": "a"},),
            TypeError,
            r"data\[0\]\['label'\] must be a tensor, a NumPy array or a Dataset, got str",
        ),
        ([[1.0]], TypeError, "data must be a tensor, a NumPy array or a Dataset, got list"),
        (
            torch.zeros(3, 2, dtype=torch.uint8),
            TypeError,
            r"data must hold floating point.*, got torch\.uint8",
        ),
        (
            np.array([["a"]]),
            TypeError,
            "data must hold floating point numbers, got an array of <U1",
        ),
        (
            torch.zeros(3),
            ValueError,
            r"data must have shape \(num, \*event\), all dimensions at least 1, got \(3,\)",
        ),
        (
            torch.zeros(0, 2),
            ValueError,
            r"data must have shape \(num, \*event\), all dimensions at least 1, got \(0, 2\)",
        ),
        (
            torch.tensor([[0.0, float("nan")]]),
            ValueError,
            "data must be finite, got NaN or infinite elements",
        ),
        (np.array([[np.inf]]), ValueError, "data must be finite, got NaN or infinite elements"),
        (Squares(0), ValueError, "data must have at least one item, got an empty Dataset"),
        (Stream(), TypeError, "data must be a map-style Dataset, got Stream without a length"),
    ],
)
def test_what_is_no_data_is_named(data, error, message):
    with pytest.raises(error, match=message):
        as_dataset(data)


def test_split_is_a_division_that_repeats_and_leaves_the_generator_alone():
    before = torch.get_rng_state()
    train, held_out = split(100, 30, seed=4)
    assert torch.equal(before, torch.get_rng_state())
    assert len(held_out) == 30
    assert sorted([*train.tolist(), *held_out.tolist()]) == list(range(100))
    assert torch.equal(split(100, 30, seed=4)[0], train)
    assert not torch.equal(split(100, 30, seed=5)[0], train)


@pytest.mark.parametrize("held_out", [-1, 10, 11])
def test_split_leaves_something_to_train_on(held_out):
    with pytest.raises(ValueError, match=rf"held_out must be .* 0.*, got {held_out}"):
        split(10, held_out)


def test_rows_from_names_and_files(tmp_path):
    assert torch.equal(load_rows("digits"), digits().images)
    rows = np.random.default_rng(0).random((4, 3))
    np.save(tmp_path / "rows.npy", rows)
    torch.save(torch.as_tensor(rows), tmp_path / "rows.pt")
    for name in ("rows.npy", "rows.pt"):
        loaded = load_rows(str(tmp_path / name))
        assert loaded.dtype == torch.get_default_dtype()
        torch.testing.assert_close(loaded, torch.as_tensor(rows).float())


def test_files_that_are_no_data_are_named(tmp_path):
    with pytest.raises(
        ValueError,
        match=r"data must be one of \['darcy',.*, got 'mnist6k'",
    ):
        load_rows("mnist6k")
    with pytest.raises(
        FileNotFoundError, match=r"data must be an existing file, got .*absent\.npy"
    ):
        load_rows(str(tmp_path / "absent.npy"))
    for name in ("broken.npy", "broken.pt"):
        (tmp_path / name).write_bytes(b"not data")
        with pytest.raises(
            ValueError, match=rf"data must be a file that can be read as an array, got .*{name}"
        ):
            load_rows(str(tmp_path / name))
    torch.save({"x": torch.zeros(2, 2)}, tmp_path / "other.pt")
    with pytest.raises(
        TypeError, match="data must be a tensor, a NumPy array or a Dataset, got dict"
    ):
        load_rows(str(tmp_path / "other.pt"))
    assert isinstance(as_dataset(torch.zeros(2, 2)), TensorDataset)
