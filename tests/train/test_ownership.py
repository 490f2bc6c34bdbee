"""A folder has one owner, and what stopped it is told."""

import importlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading

import pytest

from pyro_tkam.train import TrainConfig, train
from pyro_tkam.train.ownership import Terminated, is_first_process, sole_owner

HOLD = """
import sys, time
from pathlib import Path
from pyro_tkam.train.ownership import sole_owner
with sole_owner(Path(sys.argv[1]), "train"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def held(tmp_path):
    """A folder that another process owns, and that process."""
    folder = tmp_path / "run"
    command = [sys.executable, "-c", HOLD, folder]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield folder, process
        process.kill()


def test_one_process_owns_a_folder_and_a_killed_one_is_told(held, caplog):
    folder, process = held
    before = sorted(folder.iterdir())
    message = (
        rf"run is in use by `train`, process {process.pid} on .* since .*; wait until it is free"
    )
    with pytest.raises(BlockingIOError, match=message), sole_owner(folder, "resume"):
        raise AssertionError
    assert sorted(folder.iterdir()) == before
    (folder / "metrics.0123abcd.part.csv").write_text("half")
    process.kill()
    process.wait()
    with caplog.at_level(logging.WARNING), sole_owner(folder, "resume"):
        assert not (folder / "metrics.0123abcd.part.csv").exists()
        assert json.loads((folder / ".owner").read_text())["process"] == os.getpid()
    assert f"its last use by `train`, process {process.pid} on " in caplog.text
    assert list(folder.iterdir()) == []


def test_others_are_told_whether_a_run_is_new_or_goes_on(tmp_path, monkeypatch):
    tasks = []

    def begin(config, rows, files, progress):
        tasks.append(json.loads((files.path / ".owner").read_text())["task"])
        config.save(files.config)
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib.import_module("pyro_tkam.train.run"), "_fit", begin)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(TrainConfig(data="digits"), tmp_path / "run", progress=False)
    assert tasks == ["train", "resume"]


def test_a_folder_is_owned_again_within(tmp_path):
    with sole_owner(tmp_path, "demo"):
        with sole_owner(tmp_path, "fit"):
            pass
        assert json.loads((tmp_path / ".owner").read_text())["task"] == "demo"
        found = []

        def other_thread():
            try:
                with sole_owner(tmp_path, "fit"):
                    found.append("owned")
            except BlockingIOError:
                found.append("refused")

        thread = threading.Thread(target=other_thread)
        thread.start()
        thread.join()
        assert found == ["refused"]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_to_which_nothing_was_written_goes(tmp_path):
    with sole_owner(tmp_path / "new" / "run", "train"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("stop", "line"),
    [
        (Terminated("after update 3 of 9"), "stopped by SIGTERM after update 3 of 9: resume it"),
        (KeyboardInterrupt("after update 3 of 9"), "stopped by Ctrl-C after update 3 of 9: resume"),
        (KeyboardInterrupt(), "stopped by Ctrl-C: resume it"),
    ],
)
def test_what_stopped_is_told_once(tmp_path, caplog, stop, line):
    with (
        pytest.raises(type(stop)),
        sole_owner(tmp_path, "demo", go_on=lambda: "resume it"),
        sole_owner(tmp_path / "inner", "train", go_on=lambda: "another"),
    ):
        raise stop
    assert line in caplog.text
    assert len(caplog.records) == 1
    assert not isinstance(stop, SystemExit) or stop.code == 143 == 128 + signal.SIGTERM


def test_the_first_of_several_processes(monkeypatch):
    assert is_first_process(2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert not is_first_process(2)
    assert is_first_process(1)  # a run of its own in the midst of others
