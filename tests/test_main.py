"""The command line, in this process."""

import json

import numpy as np
import pytest

from pyro_tkam.__main__ import COMMANDS, main
from pyro_tkam._arviz import load
from pyro_tkam.ops.bases import BASES
from pyro_tkam.train import RunFolder, TrainConfig, evidence, load_model

OPTIONS = """\
data: digits
held_out: 100
model:
  latent_dim: 2
  grid_size: 5
  widths: [8]
  noise_scale: 0.3
updates: 6
batch_size: 50
num_particles: 10
device: cpu
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("command line")
    (folder / "options.yaml").write_text(OPTIONS)
    assert (
        main(
            [
                "train",
                str(folder / "run"),
                "--config",
                str(folder / "options.yaml"),
                "--updates",
                "5",
            ]
        )
        == 0
    )
    return folder / "run"


def test_help_names_every_command_and_option(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert name in text
        with pytest.raises(SystemExit):
            main([name, "--help"])
        assert command.help.split()[0] in capsys.readouterr().out


def test_options_override_the_file(run):
    config = TrainConfig.load(RunFolder(run).config)
    assert config.updates == 5
    assert config.model.widths == [8]
    assert RunFolder(run).read_metrics()["update"][-1] == 5


def test_grids_are_refined_by_an_option(tmp_path):
    (tmp_path / "options.yaml").write_text(OPTIONS)
    words = [
        "--grid_updates.every",
        "3",
        "--grid_updates.grid_size",
        "9",
        "--grid_updates.max_change",
        "10",
    ]
    assert (
        main(["train", str(tmp_path / "run"), "--config", str(tmp_path / "options.yaml"), *words])
        == 0
    )
    assert load_model(tmp_path / "run").prior.energies.coefficients.shape[-1] == 9
    assert main(["sample", str(tmp_path / "run"), "--num", "2"]) == 0


def test_sample_writes_rows_and_a_picture(run, capsys):
    assert main(["sample", str(run), "--num", "7", "--seed", "3"]) == 0
    rows = np.load(run / "samples-7.npy")
    assert rows.shape == (7, 8, 8)
    assert ((rows >= 0) & (rows <= 1)).all()
    assert (run / "samples-7.png").read_bytes().startswith(b"\x89PNG")
    assert "of shape (7, 8, 8)" in capsys.readouterr().out
    assert main(["sample", str(run), "--num", "7", "--seed", "3", "--out", str(run / "again")]) == 0
    np.testing.assert_array_equal(np.load(run / "again.npy"), rows)


def test_resume_goes_on(run, tmp_path, capsys):
    RunFolder(tmp_path).config.write_text(RunFolder(run).config.read_text())
    assert main(["resume", str(tmp_path)]) == 0  # killed before the first checkpoint
    assert RunFolder(tmp_path).metrics.read_bytes() == RunFolder(run).metrics.read_bytes()
    assert "held-out log evidence" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sample", "absent"], "absent: there is no such run folder"),
        (["resume", "absent"], "absent: there is no such run folder"),
        (["train", "RUN"], "is already a run: continue it with"),
        (["sample", "RUN", "--num", "0"], "num must be an integer of at least 1, got 0"),
        (["train", "new", "--data", "mnist6k"], "data must be one of ['darcy', "),
        (
            ["train", "new", "--data", "digits", "--updates", "0"],
            "updates must be an integer of at least 1, got 0",
        ),
    ],
)
def test_failures_are_one_line_that_says_why(run, capsys, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([str(run) if word == "RUN" else word for word in words]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "new").exists()


def test_the_help_names_every_basis(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = capsys.readouterr().out
    assert all(f'"{name}"' in text for name in BASES)


def test_unknown_and_shortened_options_are_refused(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["train", "new", "--model.latent", "3"])
    assert stop.value.code == 2
    assert "model.latent" in capsys.readouterr().err


def test_evidence_of_every_held_out_datum(run, capsys, monkeypatch):
    short = {**evidence.TEMPERING, "num_temperatures": 6, "num_samples": 60, "warmup_steps": 60}
    monkeypatch.setattr(evidence, "TEMPERING", short)
    assert main(["evidence", str(run), "--num", "6", "--checked", "2", "--most_tempered", "1"]) == 0
    text = capsys.readouterr().out
    assert "estimated for 6 held-out data" in text
    assert "trusted:" in text
    content = json.loads((run / "evidence.json").read_text())
    assert content["num"] == len(content["per_datum"]["value"]) == 6
    stored = load(run / "evidence.nc")["evidence"]["log_evidence_value"]
    np.testing.assert_allclose(stored.values, content["per_datum"]["value"], rtol=1e-6)
    assert main(["evidence", str(run), "--num", "0"]) == 1
    assert "num" in capsys.readouterr().err
