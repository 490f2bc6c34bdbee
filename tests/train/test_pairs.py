"""Whole runs on pairs of sequences, from the configuration, in Python and on the command line."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pyro_tkam.__main__ import main
from pyro_tkam.train import (
    ModelConfig,
    RunFolder,
    TrainConfig,
    load_guide,
    load_model,
    report,
    train,
)

WORDS = [a + b + c for a in "abc" for b in "xyz" for c in ("", "d", "de")]


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> TrainConfig:
    data = tmp_path_factory.mktemp("data") / "reversed.tsv"
    data.write_text("".join(f"{word}\t{word[::-1]}\n" for word in WORDS))
    return TrainConfig(
        data=str(data),
        held_out=6,
        model=ModelConfig(preset="seq2seq", latent_dim=3, width=8),
        objective="pair",
        updates=4,
        batch_size=7,
        device="cpu",
    )


@pytest.fixture(scope="module")
def folder(config, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "words"
    train(config, path, progress=False)
    return path


def test_a_run_folder_is_complete(config, folder):
    files = RunFolder(folder)
    assert {path.name for path in folder.iterdir()} >= {
        "config.yaml",
        "metrics.csv",
        "summary.json",
        "responses.txt",
        "prior.png",
        "curves.png",
        "training.nc",
    }
    assert TrainConfig.load(files.config).model.sequences == [10, 4, 10, 4]
    assert set(files.read_metrics()) == {
        "update",
        "loss",
        "source",
        "target",
        "information",
        "beyond",
    }
    summary = json.loads(files.summary.read_text())
    assert "reliable" in summary["held_out"]["verdict"]
    assert -40 < summary["held_out"]["log_evidence"] < -5  # 8 symbols and ends of 10 kinds: -22
    assert summary["latent_says"] > 0
    assert abs(summary["loss_with_others_latent"]) < 5
    lines = files.responses.read_text().splitlines()
    assert len(lines) == 7
    assert {line.split("\t")[0] for line in lines[1:]} <= set(WORDS)


def test_the_same_configuration_gives_the_same_run(config, folder, tmp_path):
    train(config, tmp_path, progress=False)
    for name in ("metrics.csv", "responses.txt"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_model_and_guide_come_back(folder):
    model, other = load_model(folder), load_model(folder)
    guide = load_guide(folder, model)
    source = torch.tensor([[2, 3, 0, 0]])
    found = []
    for each in (model, other):
        torch.manual_seed(0)
        found.append(each.respond(source, load_guide(folder, each)))
    assert torch.equal(*found)
    assert guide.latent_dim == 3


def test_the_report_shows_texts(folder):
    page = report(folder).read_text()
    assert "<pre>source\tmost probable target" in page
    assert "latent_says_beyond_source" in page


def test_the_command_line_answers_a_text(folder, capsys):
    assert main(["sample", str(folder), "--source", "axq", "--num", "2"]) == 0  # q is unknown
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("ax?\t")
    assert first.split("\t")[2].count(";") == 1
    assert main(["sample", str(folder), "--num", "1"]) == 0
    assert len((folder / "samples-1.txt").read_text().splitlines()) == 7
    assert main(["sample", str(folder), "--source", "abcdefgh"]) == 1
    assert "length must be at least that of every sequence" in capsys.readouterr().err
    assert main(["evidence", str(folder)]) == 1
    assert "folder must be a run on rows" in capsys.readouterr().err


def test_refuses_what_does_not_fit(config, folder, tmp_path):
    with pytest.raises(ValueError, match='objective must be "pair" for the preset "seq2seq"'):
        replace(config, objective="importance")
    with pytest.raises(ValueError, match='objective must be "pair" for the preset "seq2seq"'):
        TrainConfig(objective="pair")
    with pytest.raises(ValueError, match=r"data must be a \.dict or \.tsv file"):
        train(replace(config, data="digits"), tmp_path, progress=False)
    wrong = replace(config, model=replace(config.model, sequences=[1, 2, 3, 4]))
    with pytest.raises(ValueError, match=r"model\.sequences must be the sizes of the data"):
        train(wrong, tmp_path, progress=False)
    shutil.copytree(folder, tmp_path / "copy")
    text = RunFolder(tmp_path / "copy").config.read_text().partition("\n")[2]
    RunFolder(tmp_path / "copy").config.write_text(text.replace("width: 8", "width: 16"))
    with pytest.raises(ValueError, match="does not fit the model"):
        load_model(tmp_path / "copy")
