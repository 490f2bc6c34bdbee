"""Every objective through the trainer: by name, resumed to the bit, stopped early, logged."""

import copy
import shutil
from dataclasses import replace

import pyro
import pytest
import torch

from pyro_tkam import __version__
from pyro_tkam.distributions import PersistentULA, ShortRunULA
from pyro_tkam.infer import ImportanceMLE
from pyro_tkam.models import TKAM
from pyro_tkam.train import (
    ChainConfig,
    ELBOTraining,
    ModelConfig,
    RunFolder,
    TrainConfig,
    callbacks,
    fit,
    train,
)
from pyro_tkam.train.checkpoints import read_checkpoint, write_checkpoint
from pyro_tkam.train.objectives import KERNELS, OBJECTIVES, make_objective
from pyro_tkam.train.presets import make_model
from tests.train.test_trainer import Crash

CONFIG = TrainConfig(
    updates=4,
    batch_size=6,
    num_particles=8,
    checkpoint_every=2,
    chains=ChainConfig(num_steps=2, num_temperatures=3),
    model=ModelConfig(
        data_shape=[4],
        latent_dim=2,
        coupling="shared",
        grid_size=5,
        widths=[6],
        noise_scale=0.2,
    ),
)
OF_PAIRS = replace(
    CONFIG,
    objective="pair",
    model=ModelConfig(preset="seq2seq", sequences=[5, 3, 5, 3], latent_dim=2, width=8),
)


DATA = torch.rand(30, 4, generator=torch.Generator().manual_seed(0))


PAIRS = tuple(torch.randint(5, (30, 3), generator=torch.Generator().manual_seed(i)) for i in (0, 1))


def make(objective):
    pyro.set_rng_seed(1)
    config = replace(CONFIG, objective=objective) if objective != "pair" else OF_PAIRS
    elbo, guide = make_objective(config, model := make_model(config.model))
    return ELBOTraining(model, elbo, guide, size=30)


def run(folder, objective, crash=None, **options):
    module = make(objective)
    options = {"updates": 4, "batch_size": 6, "checkpoint_every": 2, "progress": False} | options
    data = PAIRS if objective == "pair" else DATA
    fit(module, data, folder, callbacks=() if crash is None else (Crash(crash),), **options)
    return module.elbo


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


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("automala", "importance", "'ImportanceMLE', got 'LangevinMLE with AutoMALA'"),
        ("importance", "automala", "'LangevinMLE with AutoMALA', got 'ImportanceMLE'"),
        (
            "langevin",
            "automala",
            "'LangevinMLE with AutoMALA', got 'LangevinMLE with ULA'",
        ),
        ("wake", "wake-sleep", "'WakeSleepMLE', got 'ImportanceMLE'"),
        ("importance", "wake", r"for objective\.guide\.encoder\.1\.bias, got None"),
    ],
)
def test_a_run_of_another_objective_is_named_and_left_alone(first, second, message, tmp_path):
    with pytest.raises(RuntimeError, match="crash"):
        run(tmp_path, first, crash=3)
    files = RunFolder(tmp_path)
    before = files.metrics.read_bytes(), files.checkpoint.read_bytes()
    with pytest.raises(ValueError, match=f"checkpoint must have .*{message}"):
        run(tmp_path, second)
    assert (files.metrics.read_bytes(), files.checkpoint.read_bytes()) == before
    run(tmp_path, first)


@pytest.fixture(scope="module")
def crashed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crashed")
    with pytest.raises(RuntimeError, match="crash"):
        run(folder, "automala", crash=3)
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("pyro_tkam_format"), "layout 2, got layout None"),
        (lambda c: c.update(pyro_tkam_format=99), "layout 2, got layout 99"),
        (
            lambda c: c.update(pyro_tkam_version="0.0.1"),
            f"pyro_tkam_version '{__version__}', got '0.0.1'",
        ),
        (
            lambda c: c.pop("pyro_tkam_objective"),
            "pyro_tkam_objective 'LangevinMLE with AutoMALA', got None",
        ),
        (
            lambda c: c.pop("carried"),
            r"the state \['chains', 'step', 'step_size'\] of objective, got none",
        ),
        (
            lambda c: c["carried"]["objective"].pop("step"),
            r"the state \[.*\] of objective, got \['chains', 'step_size'\]",
        ),
        (
            lambda c: c["callbacks"].pop("RandomState"),
            r"the state of RandomState, .*, got those of \[",
        ),
    ],
)
def test_a_checkpoint_of_another_version_is_named_before_anything_is_loaded(
    change, message, crashed, tmp_path
):
    shutil.copytree(crashed, tmp_path, dirs_exist_ok=True)
    files = RunFolder(tmp_path)
    content = read_checkpoint(files.checkpoint)
    change(content)
    write_checkpoint(content, files.checkpoint)
    module = make("automala")
    module.initialize(DATA[:6])
    before = copy.deepcopy(module.state_dict()), module.elbo.state_dict()
    with pytest.raises(ValueError, match=rf"(checkpoint|last\.ckpt) must have {message}"):
        fit(module, DATA, tmp_path, updates=4, batch_size=6, progress=False)
    assert all(torch.equal(value, before[0][name]) for name, value in module.state_dict().items())
    assert module.elbo.state_dict() == before[1]


@pytest.mark.parametrize("objective", ["langevin", "thermodynamic"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_kernel_is_chosen_by_name(kernel, objective):
    config = replace(
        CONFIG,
        objective=objective,
        chains=ChainConfig(kernel=kernel, step_size=0.3, max_step_size=0.7),
    )
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
        (
            {"objective": "elbo"},
            r"objective must be one of.*, got 'elbo'",
        ),
        (
            {"objective": "langevin", "chains": ChainConfig(kernel="nuts")},
            r"chains\.kernel must be one of \['automala', 'mala', 'ula'\], got 'nuts'",
        ),
        (
            {"objective": "langevin", "chains": ChainConfig(num_steps=0)},
            "num_steps must be an integer of at least 1, got 0",
        ),
        (
            {"objective": "langevin", "chains": ChainConfig(step_size=0.0)},
            "step_size must be positive",
        ),
        (
            {"objective": "steppingstone", "chains": ChainConfig(num_temperatures=1)},
            "num_temperatures must be an integer of at least 2",
        ),
    ],
)
def test_wrong_options_are_named_before_anything_is_written(tmp_path, options, message):
    model = replace(CONFIG.model, data_shape=None)
    config = replace(CONFIG, data="digits", model=model, **options)
    with pytest.raises(ValueError, match=message):
        train(config, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_run_without_progress_stops_and_stays_so(tmp_path, monkeypatch):
    """
    With blocks of 2 updates and a loss that cannot fall, a patience of 2 ends the run after 3
    blocks.
    """
    monkeypatch.setattr(callbacks, "BLOCK", 2)
    for _ in range(2):
        run(tmp_path, "importance", updates=20, patience=2, clip_norm=1e-30)
        columns = RunFolder(tmp_path).read_metrics()
        assert len(columns["update"]) % 2 == 0
        assert len(columns["update"]) < 20
    blocks = torch.tensor(columns["loss"]).reshape(-1, 2).mean(1)
    assert blocks[-2:].min() >= blocks[:-2].min()
    assert read_checkpoint(RunFolder(tmp_path).checkpoint)["global_step"] == len(columns["update"])


def test_a_run_that_crashed_stops_where_the_whole_one_does(tmp_path, monkeypatch):
    monkeypatch.setattr(callbacks, "BLOCK", 2)
    options = {"updates": 20, "patience": 2, "clip_norm": 1e-30}
    run(tmp_path / "whole", "importance", **options)
    with pytest.raises(RuntimeError, match="crash"):
        run(tmp_path / "broken", "importance", crash=4, **options)
    run(tmp_path / "broken", "importance", **options)
    one, other = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "broken")
    assert one.metrics.read_bytes() == other.metrics.read_bytes()


def test_tensorboard_gets_the_metrics(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tmp_path, "importance", tensorboard=True)
    written = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    columns = RunFolder(tmp_path).read_metrics()
    for name in ("loss", "ess"):
        assert [event.value for event in written.Scalars(name)] == pytest.approx(
            columns[name], rel=1e-6
        )


def deep(folder, crash=None):
    pyro.set_rng_seed(1)
    x = torch.rand(30, 4, generator=torch.Generator().manual_seed(0))
    sampler = PersistentULA(ShortRunULA(num_steps=3))
    model = TKAM.deep(4, latent_dim=2, grid_size=5, widths=[6], energy_widths=[3], sampler=sampler)
    options = {"updates": 4, "batch_size": 6, "checkpoint_every": 2, "progress": False}
    fit(
        ELBOTraining(model, ImportanceMLE(8)),
        x,
        folder,
        callbacks=() if crash is None else (Crash(crash),),
        **options,
    )


def test_persistent_chains_of_a_prior_go_on(tmp_path, monkeypatch):
    """And without their state the numbers differ."""
    deep(tmp_path / "whole")
    whole = RunFolder(tmp_path / "whole").metrics.read_bytes()
    for name in ("kept", "forgotten"):
        with pytest.raises(RuntimeError, match="crash"):
            deep(tmp_path / name, crash=3)
        if name == "forgotten":
            monkeypatch.setattr(PersistentULA, "load_state_dict", lambda self, state: None)
        deep(tmp_path / name)
        assert (RunFolder(tmp_path / name).metrics.read_bytes() == whole) == (name == "kept")
