"""Checkpoint files."""

import pickle

import pytest
import torch

from pyro_tkam.train import checkpoints
from pyro_tkam.train.checkpoints import read_checkpoint, write_checkpoint


def test_a_checkpoint_comes_back(tmp_path):
    path = tmp_path / "checkpoints" / "last.ckpt"
    write_checkpoint({"state_dict": {"weight": torch.arange(3.0)}, "global_step": 2}, path)
    content = read_checkpoint(path)
    assert content["global_step"] == 2
    assert torch.equal(content["state_dict"]["weight"], torch.arange(3.0))
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    write_checkpoint({"state_dict": {}, "global_step": 1}, path)

    def fail(content, file):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(checkpoints.torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        write_checkpoint({"state_dict": {}, "global_step": 2}, path)
    assert read_checkpoint(path)["global_step"] == 1


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('code ran')",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a readable checkpoint"),
        (b"no checkpoint at all", "is not a readable checkpoint"),
        (pickle.dumps(Evil(), protocol=2), "is not a readable checkpoint"),
    ],
)
def test_files_that_are_no_checkpoint_are_named(tmp_path, content, message):
    path = tmp_path / "last.ckpt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"last.ckpt {message}"):
        read_checkpoint(path)


def test_a_part_of_a_checkpoint_is_named(tmp_path):
    path = tmp_path / "last.ckpt"
    write_checkpoint({"state_dict": {"weight": torch.zeros(1000)}}, path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match="is not a readable checkpoint"):
        read_checkpoint(path)
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="has no state_dict"):
        read_checkpoint(path)
    with pytest.raises(FileNotFoundError, match=r"absent.ckpt is missing"):
        read_checkpoint(tmp_path / "absent.ckpt")
