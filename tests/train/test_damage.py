"""Damage to a run folder is named with its file and the way out, and nothing is overwritten."""

import io
import shutil
import struct
import zipfile

import numpy as np
import pytest
import torch

from pyro_tkam import __version__
from pyro_tkam.__main__ import main
from pyro_tkam.datasets import load_rows
from pyro_tkam.train import RunFolder, TrainConfig, checkpoints
from pyro_tkam.train.checkpoints import read_checkpoint

OPTIONS = {
    "data": "digits",
    "held_out": 50,
    "updates": 12,
    "checkpoint_every": 5,
    "batch_size": 50,
    "num_particles": 10,
    "model.latent_dim": 2,
    "model.grid_size": 5,
    "model.widths": "[8]",
    "device": "cpu",
}
WORDS = [f"--{name}={value}" for name, value in OPTIONS.items()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damage") / "run"
    assert main(["train", str(folder), *WORDS]) == 0
    return folder


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(command, files, capsys):
    """Run a command, which must fail in one line and leave everything as it is; return the line."""
    before = contents(files.path)
    assert main([command, str(files.path)]) == 1
    assert contents(files.path) == before
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 0x40]) + content[place + 1 :]


def flipped_in_data(content: bytes) -> bytes:
    """Flip a bit in the middle; of an archive, in its largest record: padding holds nothing."""
    place = len(content) // 2
    if zipfile.is_zipfile(io.BytesIO(content)):
        record = max(
            zipfile.ZipFile(io.BytesIO(content)).infolist(), key=lambda each: each.file_size
        )
        sizes = content[record.header_offset + 26 : record.header_offset + 30]
        place = record.header_offset + 30 + sum(struct.unpack("<HH", sizes))
    return flipped(content, place)


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


DAMAGES = {
    "cut": cut,
    "empty": lambda content: b"",
    "binary": lambda content: bytes(range(256)),
    "flipped": flipped_in_data,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    ("name", "commands", "way_out"),
    [
        ("metrics.csv", ("resume", "report"), "restore a copy of it, or train in a new folder"),
        ("summary.json", ("resume", "report"), "delete it, and `resume` will write it again"),
        ("config.yaml", ("resume", "report", "sample", "evidence"), "restore a copy of it, or "),
        ("checkpoints/last.ckpt", ("resume", "report", "sample", "evidence"), "restore a copy of"),
    ],
)
def test_damaged_files_are_named(run, capsys, damage, name, commands, way_out):
    path = run.path / name
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    for command in commands:
        line = refused(command, run, capsys)
        assert name in line
        assert way_out in line


@pytest.mark.parametrize(
    ("name", "commands"),
    [
        ("metrics.csv", ("resume", "report")),
        ("config.yaml", ("resume", "report", "sample")),
        ("checkpoints/last.ckpt", ("resume", "report", "sample")),
    ],
)
def test_missing_files_are_named(run, capsys, name, commands):
    (run.path / name).unlink()
    for command in commands:
        assert f"{name} is missing" in refused(command, run, capsys)


def test_a_missing_checkpoint_is_named_however_far_the_run_was(run, capsys):
    run.checkpoint.unlink()
    run.metrics.write_text("".join(run.metrics.read_text().splitlines(keepends=True)[:2]))
    assert "is missing, though metrics.csv has 1 updates" in refused("resume", run, capsys)


def test_a_folder_of_another_version_is_named(run, capsys, monkeypatch):
    monkeypatch.setattr(checkpoints, "FORMAT", checkpoints.FORMAT + 1)
    for command in ("resume", "sample", "evidence", "report"):
        line = refused(command, run, capsys)
        assert f"must have layout 3, got layout 2 of pyro-tkam {__version__}; use that" in line


def test_a_summary_that_was_deleted_is_written_again(run):
    numbers = run.read_summary()
    run.summary.unlink()
    assert main(["resume", str(run.path)]) == 0
    assert run.read_summary() == numbers | {"seconds_per_update": None}


def test_a_configuration_changed_by_hand_is_taken_without_its_first_line(run):
    text = run.config.read_text().replace("device: cpu", "device: auto")
    run.config.write_text(text)
    with pytest.raises(ValueError, match="remove its first line to accept the change"):
        TrainConfig.load(run.config)
    run.config.write_text(text.partition("\n")[2])
    assert TrainConfig.load(run.config).device == "auto"


def test_no_byte_of_a_checkpoint_can_change_unseen(tmp_path):
    """Every byte, one after another: the file is refused, or what it holds is the same."""
    path = tmp_path / "last.ckpt"
    content = {"state_dict": {"weight": torch.arange(5.0)}, "global_step": 3}
    checkpoints.write_checkpoint(content, path)
    whole, refusals = path.read_bytes(), 0
    places = range(len(whole))
    for place in places:
        path.write_bytes(flipped(whole, place))
        try:
            read = read_checkpoint(path)
        except ValueError:
            refusals += 1
        else:
            assert torch.equal(read["state_dict"]["weight"], torch.arange(5.0)), place
            assert read["global_step"] == 3
    assert refusals > len(places) // 10  # the rest is padding between records


class Evil:
    def __reduce__(self):
        return print, ("code ran",)


def test_unreadable_files_never_tell_how_to_run_code(tmp_path, capsys):
    torch.save(Evil(), tmp_path / "rows.pt")
    np.save(tmp_path / "rows.npy", np.array([Evil()]), allow_pickle=True)
    for read, name in ((read_checkpoint, "rows.pt"), (rows, "rows.pt"), (rows, "rows.npy")):
        with pytest.raises(ValueError, match="could run code") as caught:
            read(tmp_path / name)
        assert not any(word in str(caught.value) for word in ("weights_only", "pickle", "trust"))
    assert "code ran" not in capsys.readouterr().out


def rows(path):
    return load_rows(str(path))


@pytest.mark.parametrize("name", ["rows.pt", "rows.npy"])
def test_a_data_file_that_is_cut_is_named(tmp_path, name):
    path = tmp_path / name
    torch.save(torch.rand(30, 3), path) if name == "rows.pt" else np.save(path, np.ones((30, 3)))
    path.write_bytes(cut(path.read_bytes()))
    with pytest.raises(ValueError, match=rf"can be read as an array, got .*{name}"):
        rows(path)
