"""The page of a run."""

import base64
import json
from html.parser import HTMLParser

import pytest

from pyro_tkam.__main__ import main
from pyro_tkam.train import ModelConfig, RunFolder, TrainConfig, report, train

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
    files.summary.write_text(json.dumps({"updates": 3, "held_out": evidence}))
    page = Page(report(files.path).read_text())
    assert "<img src=x>" in page.text
    assert not page.references
    assert "1.00 ± 0.5 nats" in page.text


def test_a_run_without_held_out_data_has_no_evidence(tmp_path):
    files = unfinished(tmp_path)
    TrainConfig().save(files.config)
    files.summary.write_text('{"updates": 3}')
    assert "no data were held out" in report(files.path).read_text()


@pytest.mark.parametrize("text", ["{", "[1, 2]"])
def test_a_damaged_summary_is_named(tmp_path, text):
    files = unfinished(tmp_path)
    TrainConfig().save(files.config)
    files.summary.write_text(text)
    with pytest.raises(ValueError, match=r"summary\.json is damaged"):
        report(files.path)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such run folder"):
        report(tmp_path / "absent")
