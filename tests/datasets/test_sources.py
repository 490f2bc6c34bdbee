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
        ((), ValueError, r"data: got rows \{\}, takes at least one tensor"),
        (
            (torch.zeros(3, 2), torch.zeros(2)),
            ValueError,
            r"data: got rows {'data\[0\]': 3, 'data\[1\]': 2}",
        ),
        ({"image": torch.full((2, 2), torch.nan)}, ValueError, r"data\['image'\]: got NaN"),
        (
            {"image": torch.zeros(2, 2, dtype=torch.uint8)},
            TypeError,
            r"data\['image'\]: got torch.uint8",
        ),
        (({"label": "a"},), TypeError, r"data\[0\]\['label'\]: got str"),
        ([[1.0]], TypeError, "data: got list, takes a tensor"),
        (
            torch.zeros(3, 2, dtype=torch.uint8),
            TypeError,
            r"data: got torch.uint8, takes floating .*divide bytes by 255",
        ),
        (np.array([["a"]]), TypeError, "data: got an array of <U1"),
        (torch.zeros(3), ValueError, r"data: got shape \(3,\), takes \(num, \*event\)"),
        (torch.zeros(0, 2), ValueError, r"data: got shape \(0, 2\)"),
        (torch.tensor([[0.0, float("nan")]]), ValueError, "data: got NaN or infinite"),
        (np.array([[np.inf]]), ValueError, "data: got NaN or infinite"),
        (Squares(0), ValueError, "data: got an empty Dataset"),
        (Stream(), TypeError, "data: got Stream without a length"),
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
    with pytest.raises(ValueError, match=rf"held_out: got {held_out}, takes 0 to 9 of 10 rows"):
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
        match=r"data: got 'mnist6k', takes one of \['darcy', .*'mnist5k', .*\] or a file .npy",
    ):
        load_rows("mnist6k")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_rows(str(tmp_path / "absent.npy"))
    for name in ("broken.npy", "broken.pt"):
        (tmp_path / name).write_bytes(b"not data")
        with pytest.raises(ValueError, match=rf"{name} cannot be read as an array"):
            load_rows(str(tmp_path / name))
    torch.save({"x": torch.zeros(2, 2)}, tmp_path / "other.pt")
    with pytest.raises(TypeError, match="data: got dict"):
        load_rows(str(tmp_path / "other.pt"))
    assert isinstance(as_dataset(torch.zeros(2, 2)), TensorDataset)
