"""Training that is stopped and goes on gives the numbers of training that is not."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pyro
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from pyro_tkam.diagnostics import load
from pyro_tkam.infer import ImportanceMLE
from pyro_tkam.models import TKAM
from pyro_tkam.train import ELBOTraining, RunFolder, callbacks, fit
from pyro_tkam.train.checkpoints import read_checkpoint

UPDATES, EVERY = 13, 4  # neither divides the other, nor the 5 batches of an epoch


class Crash(Callback):
    """Raise at the start of an update."""

    def __init__(self, update):
        self.update = update

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.update:
            raise RuntimeError("crash")


def run(folder, crash=None, scheduler=None, callbacks=(), **options):
    pyro.set_rng_seed(1)
    x = torch.rand(30, 4, generator=torch.Generator().manual_seed(0))
    model = TKAM.kart(4, latent_dim=2, coupling="shared", grid_size=5, widths=[6], noise_scale=0.2)
    options = {
        "updates": UPDATES,
        "batch_size": 6,
        "checkpoint_every": EVERY,
        "progress": False,
    } | options
    return fit(
        ELBOTraining(model, ImportanceMLE(8), size=30, scheduler=scheduler),
        x,
        folder,
        callbacks=(*callbacks, *(() if crash is None else (Crash(crash),))),
        **options,
    )


def assert_same(one, other):
    one, other = RunFolder(one), RunFolder(other)
    assert one.metrics.read_bytes() == other.metrics.read_bytes()
    first, second = read_checkpoint(one.checkpoint), read_checkpoint(other.checkpoint)
    assert first["global_step"] == second["global_step"] == UPDATES
    for name, value in first["state_dict"].items():
        assert torch.equal(value, second["state_dict"][name]), name
    for mine, theirs in zip(first["optimizer_states"], second["optimizer_states"], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert run(folder) > 0
    return folder


def test_the_files_of_a_run(whole):
    columns = RunFolder(whole).read_metrics()
    assert list(columns) == ["update", "loss", "ess"]
    assert columns["update"] == list(range(1, UPDATES + 1))
    assert all(1 <= size <= 8 for size in columns["ess"])
    assert read_checkpoint(RunFolder(whole).checkpoint)["global_step"] == UPDATES
    assert not list(whole.rglob("*.part"))


@pytest.mark.parametrize("crash", [2, 4, 5, 8, 10, 12])
def test_a_run_that_crashed_goes_on_to_the_same_numbers(whole, tmp_path, crash):
    with pytest.raises(RuntimeError, match="crash"):
        run(tmp_path, crash)
    run(tmp_path)
    assert_same(whole, tmp_path)


def test_a_finished_run_has_nothing_left_to_do(tmp_path):
    run(tmp_path)
    metrics = RunFolder(tmp_path).metrics.read_bytes()
    assert run(tmp_path) is None
    assert RunFolder(tmp_path).metrics.read_bytes() == metrics


def test_a_run_folder_may_move(whole, tmp_path):
    with pytest.raises(RuntimeError, match="crash"):
        run(tmp_path / "here", 10)
    (tmp_path / "here").rename(tmp_path / "there")
    run(tmp_path / "there")
    assert_same(whole, tmp_path / "there")


def test_torn_and_later_rows_are_dropped(whole, tmp_path):
    with pytest.raises(RuntimeError, match="crash"):
        run(tmp_path, 6)
    with RunFolder(tmp_path).metrics.open("a") as file:
        file.write("7,1.2")
    run(tmp_path)
    assert_same(whole, tmp_path)


def test_without_the_generators_state_the_numbers_differ(whole, tmp_path, monkeypatch):
    """What would go unnoticed if the law above were too weak."""
    with pytest.raises(RuntimeError, match="crash"):
        run(tmp_path, 6)
    monkeypatch.setattr(callbacks.RandomState, "load_state_dict", lambda self, state: None)
    run(tmp_path)
    assert RunFolder(whole).metrics.read_bytes() != RunFolder(tmp_path).metrics.read_bytes()


@pytest.mark.parametrize("crash", [None, 3, 6])
def test_the_bar_knows_its_total_in_a_resumed_run_too(tmp_path, capsys, crash):
    if crash is not None:
        with pytest.raises(RuntimeError, match="crash"):
            run(tmp_path, crash)
    run(tmp_path, progress=True)
    shown = capsys.readouterr().out
    assert f"{UPDATES}/{UPDATES}" in shown
    assert "/?" not in shown


class StepSizes(Callback):
    """Record the step size of every update."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, *_):
        self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])


def test_a_schedule_goes_on_after_every_update_and_after_a_crash(whole, tmp_path):
    halving = partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)
    recorded = StepSizes()
    run(tmp_path / "whole", scheduler=halving, callbacks=(recorded,))
    assert recorded.seen == pytest.approx([1e-3 * 0.5**k for k in range(UPDATES)])
    with pytest.raises(RuntimeError, match="crash"):
        run(tmp_path / "broken", 6, scheduler=halving)
    resumed = StepSizes()
    run(tmp_path / "broken", scheduler=halving, callbacks=(resumed,))
    assert resumed.seen == recorded.seen[4:]
    assert_same(tmp_path / "whole", tmp_path / "broken")


def test_a_short_gradient_norm_changes_the_run(whole, tmp_path):
    run(tmp_path, clip_norm=1e-3)
    assert RunFolder(whole).metrics.read_bytes() != RunFolder(tmp_path).metrics.read_bytes()


def test_a_run_in_half_precision_stays_near_and_resumes(whole, tmp_path):
    run(tmp_path / "half", precision="bf16-mixed")
    single, half = (
        RunFolder(folder).read_metrics()["loss"] for folder in (whole, tmp_path / "half")
    )
    assert half != single
    assert half == pytest.approx(single, abs=0.05)
    with pytest.raises(RuntimeError, match="crash"):
        run(tmp_path / "broken", 6, precision="bf16-mixed")
    run(tmp_path / "broken", precision="bf16-mixed")
    assert_same(tmp_path / "half", tmp_path / "broken")


def test_damaged_folders_are_named_and_left_alone(tmp_path):
    with pytest.raises(RuntimeError, match="crash"):
        run(tmp_path, 6)
    files = RunFolder(tmp_path)
    rows, checkpoint = files.metrics.read_text(), files.checkpoint.read_bytes()
    files.metrics.write_text("".join(rows.splitlines(keepends=True)[:3]))
    with pytest.raises(ValueError, match=r"metrics.csv lacks rows up to update 4"):
        run(tmp_path)
    files.metrics.write_text(rows)
    files.checkpoint.write_bytes(checkpoint[:100])
    with pytest.raises(ValueError, match=r"last.ckpt is not a readable checkpoint"):
        run(tmp_path)
    assert files.metrics.read_text() == rows


def test_a_checkpoint_of_another_model_is_named(whole):
    module = ELBOTraining(
        TKAM.kart(4, latent_dim=3, grid_size=5, widths=[6]), ImportanceMLE(8), size=30
    )
    with pytest.raises(ValueError, match=r"checkpoint must have the shapes.*, got \(6, 5\)"):
        fit(module, torch.rand(30, 4), whole, updates=99, batch_size=6, progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"updates": 0}, "updates must be an integer of at least 1, got 0"),
        ({"checkpoint_every": -1}, "checkpoint_every must be an integer of at least 1, got -1"),
        ({"batch_size": 31}, "batch_size must be from 1 to 30, the number of rows, got 31"),
        (
            {"device": "abacus"},
            "device must be available on this machine, got 'abacus' with devices=1",
        ),
    ],
)
def test_wrong_options_are_named_before_anything_is_written(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def without_times(results):
    """Results of a run but for how long it took, and for the checksum, which covers that."""
    if not isinstance(results, dict):
        return results
    kept = results.keys() - {"seconds_per_update", "checksum"}
    return {name: without_times(results[name]) for name in kept}


READERS = {
    ".ckpt": lambda path: {
        name: value.numpy().tobytes() for name, value in read_checkpoint(path)["state_dict"].items()
    },
    ".json": lambda path: without_times(json.loads(path.read_text())),
    ".nc": lambda path: {
        name: value.to_numpy().tobytes() for name, value in load(path).training.data_vars.items()
    },
}


def contents(folder):
    """What the files of a run hold to the bit, pictures too."""
    return {
        str(path.relative_to(folder)): READERS.get(path.suffix, Path.read_bytes)(path)
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_a_run_that_is_stopped_again_and_again_gives_the_same_numbers(tmp_path):
    works = [
        ("importance", 16, "SIGKILL", 10),
        ("automala", 9, "SIGKILL", 6),
        ("train", 13, "SIGTERM", 3),
        ("train", 13, "SIGKILL", 3),
    ]
    done = subprocess.run(  # one process, as its imports take longer than the runs
        [
            sys.executable,
            Path(__file__).with_name("killed_runs.py"),
            tmp_path,
            "0",
            *(str(word) for work in works for word in work),
        ],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.stdout.splitlines()[-1] == "3"
    for work, updates, name, _ in works:
        metrics = RunFolder(tmp_path / work / "whole").read_metrics()
        assert metrics["update"] == list(range(1, updates + 1))
        expected = contents(tmp_path / work / "whole")
        stopped = sorted((tmp_path / work).glob(f"{name}-*"))
        assert stopped
        for folder in stopped:
            assert contents(folder) == expected
