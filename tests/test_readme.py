"""The README's examples run as they stand, and what it says of the package is true."""

import json
import math
import re
import statistics
import tomllib
from pathlib import Path

import pyro
import pytest
from sympy import symbols

from pyro_tkam.datasets import SOURCES

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text()
PROJECT = tomllib.loads((README.parent / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def names():
    blocks = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    assert len(blocks) == 4
    assert max(len(block.splitlines()) for block in blocks) <= 17
    pyro.set_rng_seed(0)
    with pyro.get_param_store().scope():
        content: dict[str, object] = {}
        exec(compile("".join(blocks), str(README), "exec"), content)
        yield content


def test_the_prior_of_the_readme_learns(names):
    losses = names["losses"]
    assert sum(losses[-10:]) < sum(losses[:10])
    two_modes = names["prior"]().log_prob(names["torch"].tensor([[-2.0], [0.0], [2.0]])).exp()
    assert (two_modes[0] > two_modes[1]).all()
    assert (two_modes[2] > two_modes[1]).all()


def test_the_evidence_of_the_readme_is_right_and_arrives_in_arviz(names):
    evidence, data = names["evidence"], names["data"]
    assert evidence.verdict.trusted
    # by a grid, as in the tutorial
    assert abs(evidence.value - -31.432) < max(5 * evidence.standard_error, 0.02)
    assert data.attrs["log_evidence"] == evidence.value
    summary = names["arviz"].summary(data, var_names=["location", "scatter"])
    assert (summary["r_hat"] <= 1.01).all()
    assert names["mcmc"].verdict.trusted


def test_chains_beside_nuts_are_in_committed_results():
    runs = json.loads((README.parent / "docs/results/samplers.json").read_text())["runs"]
    speeds: dict[str, dict[str, list[float]]] = {}
    for name, run in runs.items():
        model, sampler, _ = name.rsplit("/", 2)
        if "per_second" in run:
            of_model = speeds.setdefault(model, {"chains": [], "nuts": []})
            of_model[sampler.removesuffix(" compiled")].append(run["per_second"])
    ratios = [
        math.log(statistics.median(each["chains"]) / max(each["nuts"]))
        for each in speeds.values()
        if each["nuts"]
    ]
    mean, error = statistics.mean(ratios), statistics.stdev(ratios) / len(ratios) ** 0.5
    assert len(ratios) == 7
    words = " ".join(TEXT.split())
    median, least = (math.exp(each) for each in (statistics.median(ratios), min(ratios)))
    assert f"make {median:.0f} times as many effective draws per processor second" in words
    assert f"the least ratio is {least:.0f}, and the mean log ratio" in words
    assert f"{mean:.2f} ± {error:.2f}" in words


def test_the_formula_of_the_readme_is_found(names):
    u, v = symbols("u v")
    assert (names["formula"].expressions[0] - (u + v) / (u * v + 1)).simplify() == 0


def test_what_the_readme_points_to_is_there():
    links = re.findall(r"\]\(((?!http)[^)]+)\)", TEXT)
    assert links
    headings = re.findall(r"^#+ (.+)$", TEXT, flags=re.MULTILINE)
    anchors = {"#" + re.sub(r"[^\w ]", "", each).lower().replace(" ", "-") for each in headings}
    for link in links:
        assert link in anchors or (README.parent / link).is_file()
    assert (README.parent / "docs" / "images" / "demo.png").stat().st_size < 300_000


def test_the_badges_are_true():
    label = dict(re.findall(r"\[!\[([^:\]]+?):? ([^\]]+)\]\(docs/images/badge-\w+\.svg\)\]", TEXT))
    assert label["License"] == PROJECT["license"]
    assert label["Python"].replace("≥ ", ">=") == PROJECT["requires-python"]
    assert PROJECT["urls"]["Paper"] == f"https://arxiv.org/abs/{label['arXiv']}"
    for name, value in (("license", "License"), ("python", "Python"), ("paper", "arXiv")):
        assert (
            f">{label[value]}<"
            in (README.parent / "docs" / "images" / f"badge-{name}.svg").read_text()
        )


def test_the_readme_and_the_makefile_agree_on_the_time_of_the_demo():
    for text in (TEXT, (README.parent / "Makefile").read_text()):
        assert "about seven minutes on two cores, installing included" in text


def test_the_readme_names_every_data_set():
    line = re.search(r"`train` takes `--data` \(([^)]*)\)", TEXT)
    assert set(SOURCES) <= set(re.findall(r"`(\w+)`", line.group(1)))
