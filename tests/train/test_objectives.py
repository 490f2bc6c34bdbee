"""Every objective through the trainer: by name, resumed to the bit, stopped early, logged."""

from dataclasses import replace

import pyro
import pytest
import torch

from pyro_tkam.models import TKAM
from pyro_tkam.train import ChainConfig, ELBOTraining, ModelConfig, RunFolder, TrainConfig, fit, train
from pyro_tkam.train.callbacks import StopEarly
from pyro_tkam.train.checkpoints import read_checkpoint
from pyro_tkam.train.objectives import KERNELS, OBJECTIVES, make_objective
from tests.train.test_trainer import Crash

CONFIG = TrainConfig(
    updates=4,
    batch_size=6,
    num_particles=8,
    checkpoint_every=2,
    chains=ChainConfig(num_steps=2, num_temperatures=3),
)


def run(folder, objective, crash=None, **options):
    pyro.set_rng_seed(1)
    x = torch.rand(30, 4, generator=torch.Generator().manual_seed(0))
    model = TKAM.kart(4, latent_dim=2, coupling="shared", grid_size=5, widths=[6], noise_scale=0.2)
    elbo, guide = make_objective(replace(CONFIG, objective=objective), model)
    module = ELBOTraining(model, elbo, guide, size=30)
    options = {"updates": 4, "batch_size": 6, "checkpoint_every": 2, "progress": False} | options
    fit(module, x, folder, callbacks=() if crash is None else (Crash(crash),), **options)
    return elbo


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_run_that_crashed_goes_on_to_the_same_numbers(objective, tmp_path):
    whole = run(tmp_path / "whole", objective).state_dict()
    with pytest.raises(RuntimeError, match="crash"):
        run(tmp_path / "broken", objective, crash=3)
    resumed = run(tmp_path / "broken", objective).state_dict()
    one, other = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "broken")
    assert one.metrics.read_bytes() == other.metrics.read_bytes()
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, rtol=0, atol=0)
    first, second = (read_checkpoint(files.checkpoint)["state_dict"] for files in (one, other))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_without_the_objectives_state_the_numbers_differ(tmp_path, monkeypatch):
    """What would go unnoticed if the law above were too weak: autoMALA carries its step size."""
    whole = run(tmp_path / "whole", "automala")
    with pytest.raises(RuntimeError, match="crash"):
        run(tmp_path / "broken", "automala", crash=3)
    monkeypatch.setattr(type(whole), "load_state_dict", lambda self, state: None)
    run(tmp_path / "broken", "automala")
    one, other = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "broken")
    assert one.metrics.read_bytes() != other.metrics.read_bytes()


@pytest.mark.parametrize("objective", ["langevin", "thermodynamic"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_kernel_is_chosen_by_name(kernel, objective):
    config = replace(CONFIG, objective=objective, chains=ChainConfig(kernel=kernel, step_size=0.3, max_step_size=0.7))
    elbo, _ = make_objective(config, TKAM.kart(4, latent_dim=2, grid_size=5))
    assert type(elbo.kernel) is KERNELS[kernel][0]
    assert elbo.kernel.initial_step_size == 0.3
    assert kernel != "automala" or elbo.kernel.limits == (1e-4, 0.7)


def test_the_metrics_name_what_the_chains_did(tmp_path):
    run(tmp_path, "steppingstone")
    columns = RunFolder(tmp_path).read_metrics()
    assert list(columns) == ["update", "loss", "acceptance", "step_size", "swap_rate"]
    assert all(0 <= rate <= 1 for name in ("acceptance", "swap_rate") for rate in columns[name])


def test_a_whole_run_from_the_flag(tmp_path):
    config = TrainConfig(
        data="digits",
        held_out=50,
        model=ModelConfig(latent_dim=2, grid_size=5, widths=[8], noise_scale=0.3),
        objective="thermodynamic",
        chains=ChainConfig(num_steps=2, num_temperatures=3),
        updates=3,
        batch_size=20,
        device="cpu",
    )
    assert train(config, tmp_path / "run", progress=False)["updates"] == 3
    assert TrainConfig.load(RunFolder(tmp_path / "run").config).objective == "thermodynamic"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "elbo"}, "objective: got 'elbo', takes one of \\['amortised', 'automala', 'importance', 'iwae'"),
        ({"objective": "langevin", "chains": ChainConfig(kernel="nuts")}, "chains.kernel: got 'nuts', takes one of"),
        ({"objective": "langevin", "chains": ChainConfig(num_steps=0)}, "num_steps: got 0"),
        ({"objective": "langevin", "chains": ChainConfig(step_size=0.0)}, "step_size must be positive"),
        ({"objective": "steppingstone", "chains": ChainConfig(num_temperatures=1)}, "num must be at least 2"),
    ],
)
def test_wrong_options_are_named_before_anything_is_written(tmp_path, options, message):
    config = replace(CONFIG, data="digits", **options)
    with pytest.raises(ValueError, match=message):
        train(config, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_run_without_progress_stops_and_stays_so(tmp_path, monkeypatch):
    """With blocks of 2 updates and a loss that cannot fall, a patience of 2 ends the run after 3 blocks."""
    monkeypatch.setattr(StopEarly.__init__, "__defaults__", (2,))
    for _ in range(2):
        run(tmp_path, "importance", updates=20, patience=2, clip_norm=1e-30)
        columns = RunFolder(tmp_path).read_metrics()
        assert len(columns["update"]) % 2 == 0
        assert len(columns["update"]) < 20
    blocks = torch.tensor(columns["loss"]).reshape(-1, 2).mean(1)
    assert blocks[-2:].min() >= blocks[:-2].min()
    assert read_checkpoint(RunFolder(tmp_path).checkpoint)["global_step"] == len(columns["update"])


def test_a_run_that_crashed_stops_where_the_whole_one_does(tmp_path, monkeypatch):
    monkeypatch.setattr(StopEarly.__init__, "__defaults__", (2,))
    options = {"updates": 20, "patience": 2, "clip_norm": 1e-30}
    run(tmp_path / "whole", "importance", **options)
    with pytest.raises(RuntimeError, match="crash"):
        run(tmp_path / "broken", "importance", crash=4, **options)
    run(tmp_path / "broken", "importance", **options)
    one, other = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "broken")
    assert one.metrics.read_bytes() == other.metrics.read_bytes()


def test_tensorboard_gets_the_metrics(tmp_path):
    pytest.importorskip("tensorboard")
    run(tmp_path, "importance", tensorboard=True)
    assert list((tmp_path / "tensorboard").glob("events.*"))
