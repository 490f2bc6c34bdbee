"""
Grid updates by schedule: when, what happens to the optimizer, and that a run that stopped goes on.
"""

import math

import pyro
import pytest
import torch
from torch import nn

from pyro_tkam.infer import ImportanceMLE
from pyro_tkam.models import TKAM, GaussianLikelihood, LabeledPrior, LabeledTKAM
from pyro_tkam.nn import Basis
from pyro_tkam.train import (
    ELBOTraining,
    GridConfig,
    GridUpdates,
    RunFolder,
    TrainConfig,
    fit,
    load_model,
    train,
)
from pyro_tkam.train.checkpoints import read_checkpoint


def run(folder, updates=9, **options):
    pyro.set_rng_seed(1)
    x = torch.rand(30, 4, generator=torch.Generator().manual_seed(0))
    basis = options.pop("basis", "rbf")
    model = TKAM.kart(4, latent_dim=2, basis=basis, grid_size=5, widths=[6], noise_scale=0.2)
    module = ELBOTraining(model, ImportanceMLE(8), size=30, penalty=options.pop("penalty", None))
    schedule = GridUpdates(**({"every": 3, "decay": 0.5, "num_samples": 30} | options))
    fit(
        module,
        x,
        folder,
        updates=updates,
        batch_size=6,
        checkpoint_every=4,
        progress=False,
        callbacks=(schedule,),
    )
    return model, read_checkpoint(RunFolder(folder).checkpoint)


def test_a_run_with_updates_that_stopped_goes_on_to_the_same_numbers(tmp_path):
    _, whole = run(tmp_path / "whole")
    run(tmp_path / "parts", updates=5)
    _, parts = run(tmp_path / "parts")
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, parts["state_dict"][name]), name
    assert whole["state_dict"]["objective.model.prior.energies.basis.grid"].shape == (5, 1, 5)
    assert whole["state_dict"]["objective.model.generator.outer.layers.0.basis.grid"].shape == (
        5,
        5,
    )


def test_a_run_that_refines_goes_on_in_a_fresh_model(tmp_path):
    """It stopped after its grids of 5 became 9, and the model that resumes has 5 again."""
    _, whole = run(tmp_path / "whole", grid_size=9)
    model, _ = run(tmp_path / "parts", updates=5, grid_size=9)
    assert model.prior.energies.coefficients.shape == (5, 2, 9)
    _, parts = run(tmp_path / "parts", grid_size=9)
    assert all(
        torch.equal(value, parts["state_dict"][name]) for name, value in whole["state_dict"].items()
    )


def test_a_checkpoint_of_other_functions_is_refused():
    """A bank may have any number of functions on its grid, but not be another bank."""
    module = ELBOTraining(TKAM.kart(4, latent_dim=2, grid_size=5), ImportanceMLE(8))
    name = "objective.model.prior.energies.coefficients"
    for shape in ((5, 3, 9), (5, 9)):
        checkpoint = {"state_dict": module.state_dict() | {name: torch.zeros(shape)}}
        module.on_save_checkpoint(checkpoint)
        with pytest.raises(
            ValueError, match=rf"checkpoint must have .*\(5, 2\) for {name}, got \(5, [39]\)"
        ):
            module.on_load_checkpoint(checkpoint)


def test_intervals_grow_by_two_minus_decay(tmp_path):
    """Updates 3, then 4.5 and 6.75 later: after 3, 8 (7.5) and 14 (14.25)."""
    schedule = GridUpdates(every=3, decay=0.5)
    assert [schedule.due(update) for update in (2, 3)] == [False, True]
    _, checkpoint = run(tmp_path, updates=9)
    assert checkpoint["callbacks"]["GridUpdates"] == {"interval": 6.75, "next": 14.25}


def test_the_optimizer_starts_afresh_for_new_coefficients(tmp_path):
    model, checkpoint = run(tmp_path, updates=4, every=3)
    # by the parameter's number, in order of their last start
    states = checkpoint["optimizer_states"][0]["state"]
    counts = {
        name: float(states[i]["step"]) for i, (name, _) in enumerate(model.named_parameters())
    }
    assert len(counts) == len(states)
    assert [count for name, count in counts.items() if name.endswith("coefficients")] == [1, 1, 1]
    assert {count for name, count in counts.items() if not name.endswith("coefficients")} == {4}


def test_the_optimizer_goes_on_where_no_knot_moves(tmp_path):
    """Fourier energies have none to move; the hidden layer's interval widens."""
    model, checkpoint = run(tmp_path, updates=4, every=3, basis="fourier")
    states = checkpoint["optimizer_states"][0]["state"]
    counts = [
        float(states[i]["step"])
        for i, (name, _) in enumerate(model.named_parameters())
        if name.endswith("coefficients")
    ]
    assert counts == [4, 4, 1]
    assert model.prior.energies.basis.grid.dim() == 1


def test_refused_updates_change_nothing(tmp_path):
    model, checkpoint = run(tmp_path, updates=4, max_change=1e-12)
    assert all(basis.grid.dim() == 1 for basis in model.modules() if isinstance(basis, Basis))
    assert {
        float(state["step"]) for state in checkpoint["optimizer_states"][0]["state"].values()
    } == {4}


def test_an_update_of_a_collapsed_layer_is_skipped(tmp_path):
    """A hidden layer that puts out zeros ends no run, and the schedule goes on."""
    pyro.set_rng_seed(1)
    model = TKAM.kart(4, latent_dim=2, grid_size=5, widths=[6])
    first = model.generator.outer.layers[0]
    for parameter in first.parameters():
        torch.nn.init.zeros_(parameter)
    schedule = GridUpdates(every=2, num_samples=30)
    module = ELBOTraining(model, ImportanceMLE(8), optimizer=lambda p: torch.optim.SGD(p, lr=0.0))
    fit(
        module,
        torch.rand(30, 4),
        tmp_path,
        updates=3,
        batch_size=6,
        progress=False,
        callbacks=(schedule,),
    )
    assert all(basis.grid.dim() == 1 for basis in model.modules() if isinstance(basis, Basis))
    assert not schedule.due(3)


def test_a_penalty_is_part_of_the_loss(tmp_path):
    """With a strong penalty on the energies' curvature less of it is left than without."""
    rough = [
        float(
            run(
                tmp_path / str(weight),
                penalty=lambda model, weight=weight: weight * curvature(model),
            )[0]
            .prior.energies.regularization(l1=0.0, entropy=0.0, smoothness=1.0)
            .detach()
        )
        for weight in (0.0, 10.0)
    ]
    assert rough[1] < rough[0]


def curvature(model):
    return model.prior.energies.regularization(l1=0.0, entropy=0.0, smoothness=1.0)


def test_a_configured_run_loads_again(tmp_path):
    config = TrainConfig.of(
        {
            "data": "digits",
            "updates": 3,
            "batch_size": 10,
            "num_particles": 5,
            "model": {"latent_dim": 2, "grid_size": 5},
            "grid_updates": {"every": 2},
        }
    )
    assert config.grid_updates == GridConfig(every=2)
    config.save(tmp_path / "config.yaml")
    assert TrainConfig.load(tmp_path / "config.yaml") == config
    train(config, tmp_path / "run", progress=False)
    assert load_model(tmp_path / "run").prior.energies.basis.grid.dim() == 3


def test_a_model_without_grid_updates_is_refused_before_the_first_step(tmp_path):
    model = LabeledTKAM(LabeledPrior(3, 2), nn.Linear(2, 4), GaussianLikelihood(0.5))
    module = ELBOTraining(model, ImportanceMLE(8))
    with pytest.raises(
        TypeError, match="model must have update_grid, as TKAM has, got LabeledTKAM"
    ):
        fit(
            module,
            torch.rand(30, 4),
            tmp_path,
            updates=1,
            batch_size=6,
            progress=False,
            callbacks=(GridUpdates(),),
        )


def test_bad_schedules():
    for options, message in (
        ({"every": 0}, "every must be an integer of at least 1, got 0"),
        ({"num_samples": 0}, r"num_samples must be .*, got 0"),
        ({"decay": 0.0}, r"decay must be a finite number greater than 0, got 0\.0"),
        ({"grid_size": 0}, "grid_size must be an integer of at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            GridUpdates(**options)


@pytest.mark.parametrize(("basis", "least"), [("bspline", 1), ("rbf", 2)])
def test_one_interval_is_a_grid_where_a_basis_has_one(basis, least, tmp_path):
    pyro.set_rng_seed(0)
    model = TKAM.kart(4, latent_dim=2, grid_size=5, basis=basis)
    module = ELBOTraining(model, ImportanceMLE(8))
    schedule = GridUpdates(every=1, num_samples=30, max_change=math.inf, grid_size=1)
    options = {"updates": 2, "batch_size": 6, "progress": False, "callbacks": (schedule,)}
    if least == 2:
        with pytest.raises(ValueError, match="grid_size must be an integer of at least 2"):
            fit(module, torch.rand(30, 4), tmp_path, **options)
        return
    fit(module, torch.rand(30, 4), tmp_path, **options)
    assert all(each.placed.grid_size == 1 for each in model.modules() if isinstance(each, Basis))
