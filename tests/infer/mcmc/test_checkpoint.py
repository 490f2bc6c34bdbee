"""Checkpoints of runs are whole, and damaged ones are named."""

import pickle

import pytest
import torch

from pyro_tkam.infer.mcmc.checkpoint import load_checkpoint, save_checkpoint


def test_a_state_comes_back_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "run.pt"
    for number in (1, 2):
        save_checkpoint(path, {"index": number, "position": torch.ones(2)})
    assert load_checkpoint(path)["index"] == 2
    assert [each.name for each in tmp_path.iterdir()] == ["run.pt"]


class Unpicklable:
    """What torch refuses to write."""

    def __reduce__(self):
        raise pickle.PicklingError("no")


def test_a_write_that_fails_leaves_the_state_before(tmp_path):
    path = tmp_path / "run.pt"
    save_checkpoint(path, {"index": 1})
    with pytest.raises(pickle.PicklingError):
        save_checkpoint(path, {"index": Unpicklable()})
    assert load_checkpoint(path) == {"index": 1}
    assert [each.name for each in tmp_path.iterdir()] == ["run.pt"]


@pytest.mark.parametrize("content", [b"", b"text", b"\x80\x04N.", "cut", "flipped"])
def test_a_damaged_file_is_named_without_unsafe_advice(tmp_path, content):
    path = tmp_path / "run.pt"
    save_checkpoint(path, {"index": 1, "position": torch.arange(100.0)})
    whole = path.read_bytes()
    if content == "cut":
        content = whole[:-40]
    elif content == "flipped":
        content = whole.replace(b"PK", b"QK")
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"checkpoint must be .*run\.pt.*remove it") as told:
        load_checkpoint(path)
    assert "weights_only" not in str(told.value)
