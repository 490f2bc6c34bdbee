"""The page of a run."""

import base64
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch

from pyro_tkam.__main__ import main
from pyro_tkam.train import ModelConfig, RunFolder, TrainConfig, report, train
from pyro_tkam.train.folder import write_results
from pyro_tkam.train.per_datum import EvidenceReport, PerDatum

CONFIG = TrainConfig(
    data="digits",
    held_out=50,
    model=ModelConfig(latent_dim=2, grid_size=5, widths=[8], noise_scale=0.3),
    updates=3,
    batch_size=50,
    num_particles=10,
    device="cpu",
)


class Page(HTMLParser):
    """What a browser would find: the text, every tag's name, and every reference to a file."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.tags, self.references = "", [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.references += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.text += data


@pytest.mark.slow
def test_the_page_of_a_run_is_self_contained(tmp_path, capsys):
    summary = train(CONFIG, tmp_path / "a run", progress=False)
    assert main(["report", str(tmp_path / "a run")]) == 0
    assert "report.html" in capsys.readouterr().out
    page = Page((tmp_path / "a run" / "report.html").read_text())
    assert "3 of 3 updates on digits" in page.text
    assert f"{summary['held_out']['log_evidence']:.2f}" in page.text
    assert summary["held_out"]["verdict"] in page.text
    assert "model.latent_dim" in page.text
    assert len(page.references) == page.tags.count("img") == 3
    for reference in page.references:
        kind, content = reference.split(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(content).startswith(b"\x89PNG")


def unfinished(folder):
    files = RunFolder(folder / "<b>run</b>".replace("/", "∕"))
    files.path.mkdir()
    return files


def test_everything_is_escaped_and_nothing_is_needed_but_the_configuration(tmp_path):
    files = unfinished(tmp_path)
    TrainConfig(data="<script>alert(1)</script>.npy").save(files.config)
    page = Page(report(files.path).read_text())
    assert "b" not in page.tags
    assert "script" not in page.tags
    assert "0 of 2000 updates on <script>alert(1)</script>.npy" in page.text
    assert "the run has not finished" in page.text
    assert not page.references


def test_a_verdict_from_a_stranger_is_escaped(tmp_path):
    files = unfinished(tmp_path)
    TrainConfig().save(files.config)
    evidence = {"log_evidence": 1.0, "standard_error": 0.5, "verdict": "<img src=x>"}
    write_results(files.summary, {"updates": 3, "held_out": evidence})
    page = Page(report(files.path).read_text())
    assert "<img src=x>" in page.text
    assert not page.references
    assert "1.00 ± 0.5 nats" in page.text


def test_a_run_without_held_out_data_has_no_evidence(tmp_path):
    files = unfinished(tmp_path)
    TrainConfig().save(files.config)
    write_results(files.summary, {"updates": 3})
    assert "no data were held out" in report(files.path).read_text()


@pytest.mark.slow
def test_color_samples_and_the_marginals_of_a_deep_prior_are_shown(tmp_path):
    model = ModelConfig(preset="deep", latent_dim=2, grid_size=5, widths=[8])
    config = replace(
        CONFIG, data="patches", objective="langevin", updates=1, model=model, held_out=0
    )
    train(config, tmp_path / "run", progress=False)
    assert main(["sample", str(tmp_path / "run"), "--num", "4"]) == 0
    page = Page(report(tmp_path / "run").read_text())
    assert len(page.references) == 3
    assert "No picture" not in page.text
    assert (tmp_path / "run" / "samples-4.png").is_file()


def test_the_evidence_of_each_datum_is_shown_where_it_was_estimated(tmp_path):
    files = unfinished(tmp_path)
    TrainConfig().save(files.config)
    assert "each by itself" not in report(files.path).read_text()
    own = PerDatum(
        torch.tensor([-2.0, -3.0]),
        torch.full((2,), 0.1),
        torch.zeros(2),
        torch.tensor([0, 1]),
        torch.tensor([1, 0]),
    )
    EvidenceReport(own, torch.tensor([0]), own.take(torch.tensor([0]))).write(files)
    page = Page(report(files.path).read_text())
    assert "-2.500 ± 0.071 nats per datum" in page.text
    assert "1 by draws from the prior, 1 by draws from a mixture fitted to each datum" in page.text
    assert "1 of 2" in page.text
    assert "1 of 1" in page.text


@pytest.mark.parametrize("name", ["summary", "evidence"])
@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "{}", '{"updates": 3}', "\udcff"])
def test_damaged_numbers_are_named(tmp_path, name, text):
    files = unfinished(tmp_path)
    TrainConfig().save(files.config)
    (files.path / f"{name}.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=rf"{name}\.json is damaged: .*; delete it"):
        report(files.path)


@pytest.mark.parametrize("name", ["summary", "evidence"])
@pytest.mark.parametrize(
    "content", [{"held_out": {}, "num": 3}, {"held_out": 3, "log_evidence": "a"}]
)
def test_other_numbers_are_named(tmp_path, name, content):
    files = unfinished(tmp_path)
    TrainConfig().save(files.config)
    write_results(files.path / f"{name}.json", content)
    with pytest.raises(ValueError, match=rf"{name}\.json is damaged"):
        report(files.path)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such run folder"):
        report(tmp_path / "absent")
