"""The site documents every public object, its anchors exist, and its tables render."""

import importlib
import importlib.util
import inspect
import json
import pkgutil
import re
import statistics
from pathlib import Path

import pytest

import pyro_tkam

DOCS = Path(__file__).parents[1] / "docs"
PACKAGES = [
    "distributions",
    "nn",
    "infer",
    "models",
    "datasets",
    "diagnostics",
    "metrics",
    "plots",
    "train",
    "symbolic",
    "sklearn",
]
REFERENCE = (DOCS / "api.rst").read_text()
MODULES = re.findall(r"^\.\. automodule:: ([\w.]+)$", REFERENCE, flags=re.MULTILINE)


@pytest.mark.parametrize("module", MODULES)
def test_every_public_object_is_documented(module):
    content = importlib.import_module(module)
    for name in getattr(content, "__all__", ()):
        value = getattr(content, name)
        assert name in dir(content), (
            f"{module}.{name} is loaded late, and autodoc takes what dir() lists"
        )
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), (
                f"{module}.{name} has no docstring, so the reference leaves it out"
            )
        else:  # a comment beside a constant only counts in the module that defines it
            commented = re.search(
                rf"^#: .*\n{name}\b", inspect.getsource(content), flags=re.MULTILINE
            )
            assert (
                commented
                or f"\n.. py:data:: {name}\n" in REFERENCE.split(f"automodule:: {module}\n")[1]
            )


def test_every_package_is_in_the_reference():
    assert {f"pyro_tkam.{package}" for package in PACKAGES} <= set(MODULES)


def test_every_module_with_public_names_is_listed_here():
    public = {
        each.name
        for each in pkgutil.iter_modules(pyro_tkam.__path__)
        if not each.name.startswith("_")
    }
    assert public == {*PACKAGES, "ops", "paper"}


def test_every_anchor_that_is_cited_exists():
    anchors = set()
    cited = set()
    for page in DOCS.glob("*.rst"):
        anchors |= set(re.findall(r"^\.\. _([\w-]+):$", page.read_text(), flags=re.MULTILINE))
    for source in [*Path(pyro_tkam.__file__).parent.rglob("*.py"), *DOCS.glob("*.rst")]:
        cited |= set(re.findall(r":ref:`(?:[^`<]*<)?([\w-]+)>?`", source.read_text()))
    assert cited <= anchors


def benchmark_tables():
    spec = importlib.util.spec_from_file_location("benchmark_tables", DOCS / "benchmark_tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_figures_in_the_prose_of_the_performance_page_are_those_of_committed_results():
    text = " ".join((DOCS / "performance.rst").read_text().split())
    ratio = json.loads((DOCS / "results" / "reparam.json").read_text())
    found = f"{ratio['log_ratio']:.1f} ± {ratio['log_ratio_standard_error']:.1f}"
    assert (
        f"smallest bulk effective sample size per gradient is {found} "
        f"({ratio['settings']['seeds']} seeds" in text
    )
    variances = json.loads((DOCS / "results" / "gradient_variance.json").read_text())
    by_scale = zip(*variances["relative_variance"].values(), strict=True)
    pathwise, excess = zip(
        *((path / score, contrast / score - 1) for path, score, contrast in by_scale), strict=True
    )
    assert [f"{each:.1f}" for each in pathwise[:3]] == ["0.3", "0.3", "0.4"]
    assert 0.8 < pathwise[3] < 1.2
    assert "Up to scale 0.5 the pathwise gradient has a third of the variance" in text
    assert f"it has {pathwise[4]:.0f} and {pathwise[5]:.0f} times as much" in text
    assert (
        f"contrastive gradient is {100 * min(excess):.0f} to {100 * max(excess):.0f} % above"
        in text
    )


def test_what_the_performance_page_says_of_samples_and_samplers_is_in_committed_results():
    text = " ".join((DOCS / "performance.rst").read_text().split())
    runs = json.loads((DOCS / "results" / "quality.json").read_text())["runs"]

    def mean(name: str, updates: int = 2000, of: str = "frechet") -> float:
        return statistics.mean(
            run[of] for run in runs if (run["name"], run["updates"]) == (name, updates)
        )

    best, best_long = (
        min(mean(name, each) for name in ("vae", "vae, noise 0.5")) for each in (2000, 8000)
    )
    assert (
        f"{mean('amortized mixture') / best:.1f}"
        == f"{mean('shared, 400 draws') / best:.1f}"
        == "0.7"
    )
    assert (
        "After 2,000 updates, the mixture trained with a guide and the shared coupling with 400 "
        "draws both have 0.7 of the VAE's distance." in text
    )
    ratio = mean("amortized mixture", 8000) / best_long
    assert f"After 8,000 updates, the mixture has {ratio:.2f} of it." in text
    falling = mean("amortized mixture, falling") / mean("vae, noise 0.4, falling")
    assert f"the mixture then has {falling:.2f} of the VAE's distance" in text
    assert best < mean("shared, 100 draws") < mean("mixture, 100 draws") < mean("deep, 100 draws")
    assert mean("Langevin mixture") > mean("latent energy")
    distance, seconds = (
        mean("refined mixture, falling", of=each) / mean("latent energy", of=each)
        for each in ("frechet", "cpu_seconds_per_update")
    )
    assert f"{distance:.2f} of its distance in {seconds:.2f} of its time" in text
    assert distance < 0.8
    assert seconds < 1
    level = mean("refined mixture, falling") / mean("latent energy, falling")
    assert f"the two are level ({level:.2f})" in text
    drawing = json.loads((DOCS / "results" / "quality.json").read_text())["generation_seconds"]
    assert drawing["refined mixture, falling"] / drawing["latent energy, falling"] == pytest.approx(
        1 / 8, rel=0.05
    )
    assert "it draws without chains, in an eighth of the time" in text
    vae = "vae, noise 0.4, falling"
    perceptron = mean("refined mixture, perceptron, falling") / mean(vae)
    assert f"a refined mixture has {perceptron:.2f} of the VAE's distance" in text
    slower = drawing["refined mixture, perceptron, falling"] / drawing[vae]
    assert (
        f"takes {slower:.1f} times as long as with the VAE if the mixture uses the VAE's perceptron"
        in text
    )
    assert slower < 2
    slowest = drawing["refined mixture, falling"] / drawing[vae]
    assert f"It takes {slowest:.0f} times as long with the KAN" in text
    peers = json.loads((DOCS / "results" / "evidence_peers.json").read_text())["problems"]
    for found in peers.values():
        others = [found[name]["rmse"] for name in ("dynesty", "nautilus", "ultranest")]
        assert found["fitted importance"]["rmse"] < min(others)
    assert "Each of them has a larger error than ``auto`` on each of the three problems." in text


def test_the_time_of_generation_is_told_beside_the_published_one():
    timed = json.loads((DOCS / "results" / "objectives.json").read_text())["generation"]
    ratio = timed["seconds"] / timed["published_seconds"]
    assert f"That is {ratio:.1f} times as long as published" in (DOCS / "tempering.rst").read_text()


def test_every_table_renders_from_a_committed_result():
    tables = benchmark_tables()
    pages = "\n".join(page.read_text() for page in DOCS.glob("*.rst"))
    used = re.findall(r"^\.\. benchmark:: (\w+)$", pages, flags=re.MULTILINE)
    assert used
    for name in used:
        text = "\n".join(tables.rendered(name))
        assert "list-table" in text
        assert re.search(r"PyTorch \d+\.\d+", text)
    with pytest.raises(ValueError, match=r"benchmark must be one of .*, got 'absent'"):
        tables.rendered("absent")
