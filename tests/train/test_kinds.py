"""Runs on texts, classes and several modalities, from the command line."""

import json

import numpy as np
import pytest
import torch

from pyro_tkam.__main__ import main
from pyro_tkam.train import RunFolder, TrainConfig, load_model
from pyro_tkam.train.encoders import ModalityEncoder

COMMON = ["--updates", "3", "--batch_size", "20", "--num_particles", "4", "--held_out", "20"]
COMMON += ["--model.latent_dim", "3", "--model.grid_size", "4", "--device", "cpu"]


def trained(run, *words):
    assert main(["train", str(run), *COMMON, *words]) == 0
    assert main(["report", str(run)]) == 0
    summary = json.loads(RunFolder(run).summary.read_text())
    assert np.isfinite(summary["held_out"]["log_evidence"])
    return summary, (run / "report.html").read_text()


def test_classes_of_which_some_are_missing(tmp_path, capsys):
    torch.manual_seed(0)
    label = torch.randint(3, (60,))
    x = (label / 3)[:, None, None] + 0.01 * torch.rand(60, 4, 4)
    label[::4] = -1
    np.savez(tmp_path / "rows.npz", x=x.numpy(), label=label.numpy())
    run = tmp_path / "run"
    words = ["--data", str(tmp_path / "rows.npz"), "--model.preset", "labeled"]
    words += ["--model.widths", "[6]", "--model.noise_scale", "0.3", "--objective", "amortized"]
    summary, page = trained(run, *words)
    assert 0 <= summary["label_accuracy"] <= 1
    assert "samples of the trained model" in page
    assert TrainConfig.load(RunFolder(run).config).model.num_labels == 3
    drawn = {}
    for label in ("0", "2"):
        assert main(["sample", str(run), "--num", "4", "--label", label]) == 0
        drawn[label] = np.load(run / "samples-4.npy")
    assert drawn["0"].shape == (4, 4, 4)
    assert not np.array_equal(drawn["0"], drawn["2"])
    assert main(["sample", str(run), "--label", "3"]) == 1
    assert "label" in capsys.readouterr().err
    assert main(["evidence", str(run)]) == 1
    assert "folder must be a run on rows, got one with preset 'labeled'" in capsys.readouterr().err


def test_several_modalities_of_which_some_are_missing(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "image": rng.random((60, 4, 4)),
        "kind": rng.integers(3, size=60),
        "symbols": rng.integers(5, size=(60, 2)),
        "kind_observed": rng.random(60) > 0.3,
    }
    np.savez(tmp_path / "rows.npz", **arrays)
    run = tmp_path / "run"
    words = ["--data", str(tmp_path / "rows.npz"), "--model.preset", "multimodal"]
    words += ["--model.num_components", "2", "--model.widths", "[6]", "--objective", "amortized"]
    _, page = trained(run, *words)
    assert "samples of image" in page
    assert main(["sample", str(run), "--num", "5"]) == 0
    drawn = np.load(run / "samples-5.npz")
    shapes = {name: drawn[name].shape for name in drawn.files}
    assert shapes == {"image": (5, 4, 4), "kind": (5,), "symbols": (5, 2)}
    found = load_model(run).conditional({"image": torch.rand(2, 4, 4)}, num_particles=30)
    assert found["kind"].shape == (2, 3)


def test_an_encoder_does_not_see_what_is_missing():
    torch.manual_seed(0)
    encoder = ModalityEncoder(
        {"a": {"shape": [2], "classes": 0}, "b": {"shape": [], "classes": 3}}, 4
    )
    x = {"a": torch.rand(5, 2), "b": torch.tensor([0, 1, 2, 0, 1])}
    there = torch.tensor([True, False, True, False, True])
    found = encoder(x, {"b": there})
    other = encoder({**x, "b": torch.where(there, x["b"], 2)}, {"b": there})
    assert torch.equal(found, other)
    assert not torch.allclose(found[~there], encoder(x)[~there])
    torch.testing.assert_close(found[there], encoder(x)[there])
    torch.testing.assert_close(encoder({"a": x["a"]})[~there], found[~there])


def test_texts(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("the cat sat on the mat. " * 40)
    run = tmp_path / "run"
    words = ["--data", str(path), "--model.preset", "text", "--model.length", "8"]
    words += ["--model.num_components", "2", "--model.width", "16", "--objective", "amortized"]
    summary, page = trained(run, *words)
    assert summary["bits_a_symbol"] > 0
    assert TrainConfig.load(RunFolder(run).config).model.alphabet == " .acehmnost"
    assert len((run / "samples.txt").read_text().splitlines()) == 12
    assert (run / "samples.txt").read_text().splitlines()[0] in page
    assert main(["sample", str(run), "--num", "3"]) == 0
    lines = (run / "samples-3.txt").read_text().splitlines()
    assert [len(line) for line in lines] == [8, 8, 8]


@pytest.mark.parametrize(
    ("preset", "data", "message"),
    [
        ("text", "rows.npz", "data must be a .txt file for the preset 'text', got"),
        ("labeled", "rows.npz", r"data must hold 'x' and 'label', got ['image']"),
        ("labeled", "rows.npy", "data must be a .npz file of named arrays, got"),
        (
            "multimodal",
            "odd.npz",
            "data must have Booleans only as masks of shape (num,) named NAME_observed",
        ),
        ("multimodal", "z.npz", "data must have arrays whose names are valid site names, got 'z'"),
        ("multimodal", "low.npz", "data must have classes from 0, and Booleans kind_observed"),
        ("multimodal", "wide.npz", "model.output must be 'none' for data outside [0, 1]"),
        ("labeled", "absent.npz", "data must be an existing file"),
    ],
)
def test_data_that_do_not_fit_are_named(tmp_path, preset, data, message, capsys):
    image = np.zeros((30, 2, 2))
    np.savez(tmp_path / "rows.npz", image=image)
    np.savez(tmp_path / "odd.npz", image=image, there=np.ones(30, bool))
    np.savez(tmp_path / "z.npz", z=image)
    np.savez(tmp_path / "low.npz", image=image, kind=np.arange(30) - 1)
    np.savez(tmp_path / "wide.npz", image=image + 2)
    words = ["--data", str(tmp_path / data), "--model.preset", preset]
    assert main(["train", str(tmp_path / "run"), *COMMON, *words]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
