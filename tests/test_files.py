"""Files that appear whole or not at all."""

import errno
import subprocess
import sys

import pytest

from pyro_tkam._files import disk_errors_named, replacing, write_text


def test_a_file_is_replaced(tmp_path):
    path = tmp_path / "new" / "file.txt"
    write_text(path, "first")
    with replacing(path) as aside:
        aside.write_text("second")
        assert path.read_text() == "first"
        assert aside.suffix == ".txt"
    assert path.read_text() == "second"
    assert list(path.parent.iterdir()) == [path]


def fail_half_way(path, error):
    with replacing(path) as aside:
        aside.write_text("half")
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError(), OSError(errno.ENOSPC, "")])
def test_a_write_that_fails_leaves_the_old_file_alone(tmp_path, error):
    path = tmp_path / "file"
    write_text(path, "old")
    with pytest.raises(type(error)):
        fail_half_way(path, error)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def as_torch_does():
    try:
        raise OSError(errno.ENOSPC, "full")
    except OSError:
        raise RuntimeError("unexpected pos 704 vs 598")  # noqa: B904


def as_numpy_does():
    raise OSError("200000 requested and 76784 written")


@pytest.mark.parametrize("fail", [as_torch_does, as_numpy_does])
def test_a_full_disk_is_named_however_it_is_told(tmp_path, fail):
    message = "file could not be written; its previous content is unchanged: No space left"
    with pytest.raises(OSError, match=message), disk_errors_named(tmp_path / "file"):
        fail()


def test_other_errors_stay_as_they_are(tmp_path):
    with pytest.raises(PermissionError), disk_errors_named(tmp_path / "file"):
        raise PermissionError(errno.EACCES, "no")


WRITE = """
import resource, signal, sys, torch
from pathlib import Path
from pyro_tkam.train.checkpoints import write_checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path(sys.argv[1])
write_checkpoint({"state_dict": {"a": torch.zeros(10)}}, path)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write_checkpoint({"state_dict": {"a": torch.zeros(100_000)}}, path)
except OSError as error:
    print(error)
"""


def test_a_checkpoint_that_finds_no_room_leaves_the_last_one(tmp_path):
    pytest.importorskip("resource")
    path = tmp_path / "last.ckpt"
    done = subprocess.run(
        [sys.executable, "-c", WRITE, path], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.startswith(
        f"{path} could not be written; its previous content is unchanged: "
    ), done
    assert len(done.stdout.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_size < 10_000
