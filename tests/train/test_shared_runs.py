"""Several processes, which share every batch, give the gradients and the run of a single one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pyro_tkam.paper.demo import demo
from pyro_tkam.train import RunFolder, TrainConfig, fit
from tests.train.shared_runs import RUNS, UPDATES, run

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
EXACT = ("importance", "unscaled")  # all draws are shared by the data


def call(*words):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *words],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Runs of two processes."""
    folder = tmp_path_factory.mktemp("shared")
    call(str(Path(__file__).with_name("shared_runs.py")), str(folder))
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Runs of one process."""
    folder = tmp_path_factory.mktemp("alone")
    for name in EXACT:
        run(name, folder / name)
    return folder


def gradients_close(one, other):
    first, second = (
        torch.load(folder / "gradients.pt", weights_only=True) for folder in (one, other)
    )
    assert first.keys() == second.keys()
    assert all(gradient.abs().max() > 1e-6 for gradient in first.values())
    return all(torch.allclose(first[name], second[name], rtol=1e-10, atol=1e-14) for name in first)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXACT)
def test_the_gradient_is_that_of_one_process_at_the_whole_batch(shared, alone, name):
    assert gradients_close(shared / name, alone / name)


@pytest.mark.slow
def test_other_draws_in_each_process_would_change_the_gradient(shared, alone):
    assert not gradients_close(shared / "apart", alone / "importance")


@pytest.mark.slow
@pytest.mark.parametrize("name", EXACT)
def test_a_run_of_two_processes_is_that_of_one(shared, alone, name):
    one, two = (RunFolder(folder / name).read_metrics() for folder in (alone, shared))
    assert one["update"] == two["update"] == list(range(1, UPDATES + 1))
    for column in ("loss", "ess"):
        assert two[column] == pytest.approx(one[column], rel=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["importance", "resampled", "automala"])
def test_processes_that_crashed_go_on_to_the_same_numbers(shared, name):
    whole, resumed = (RunFolder(shared / folder).metrics for folder in (name, f"{name}-resumed"))
    assert whole.read_bytes() == resumed.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_the_processes_end_with_the_same_parameters(shared, name):
    """Grids are updated on the way."""
    first, second = (
        torch.load(shared / name / f"parameters-{rank}.pt", weights_only=True) for rank in (0, 1)
    )
    assert all(torch.equal(first[part], second[part]) for part in first)


@pytest.mark.slow
def test_the_command_line_trains_in_two_processes_and_writes_once(tmp_path):
    folder = tmp_path / "run"
    options = {
        "data": "digits",
        "held_out": 20,
        "model.latent_dim": 2,
        "model.grid_size": 5,
        "model.widths": "[8]",
        "updates": 4,
        "batch_size": 50,
        "num_particles": 10,
        "device": "cpu",
        "devices": 2,
    }
    words = [f"--{name}={value}" for name, value in options.items()]
    printed = call("-m", "pyro_tkam", "train", str(folder), *words)
    assert printed.count("wrote") == 1
    files = RunFolder(folder)
    assert files.read_metrics()["update"] == [1, 2, 3, 4]
    assert TrainConfig.load(files.config).devices == 2
    assert files.training.is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"devices": 0}, "devices must be an integer of at least 1, got 0"),
        ({"num_nodes": 0}, "num_nodes must be an integer of at least 1, got 0"),
        ({"devices": 4}, "batch_size must be a multiple of the 4 processes, got 6"),
        ({"devices": 2, "num_nodes": 2}, "batch_size must be a multiple of the 4 processes, got 6"),
        (
            {"precision": "half"},
            r"precision must be one of \['32-true', 'bf16-mixed'\], got 'half'",
        ),
    ],
)
def test_what_processes_cannot_share_is_named_before_anything_is_written(
    tmp_path, options, message
):
    with pytest.raises(ValueError, match=message):
        TrainConfig(batch_size=6, **options)
    with pytest.raises(ValueError, match=message):
        fit(
            RUNS["importance"](),
            torch.rand(30, 4).double(),
            tmp_path / "run",
            batch_size=6,
            **options,
        )
    assert not (tmp_path / "run").exists()


def test_the_demo_runs_in_one_process(tmp_path):
    with pytest.raises(
        ValueError, match="devices must be 1 for the small demo, got 2 on 1 machines"
    ):
        demo(TrainConfig(devices=2), tmp_path)
