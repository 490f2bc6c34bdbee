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
from benchmarks import fashion, quality, targets, trajectories
from pyro_tkam.infer import diagnosis
from pyro_tkam.infer.evidence import from_draws, mixture_proposal
from pyro_tkam.infer.mcmc import judging, smc
from pyro_tkam.infer.tempering import estimates

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
REFERENCE = "".join(page.read_text() for page in (DOCS / "api").glob("*.rst"))
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


def test_what_the_performance_page_says_of_samples_is_in_committed_results():
    text = " ".join((DOCS / "performance.rst").read_text().split())
    vae, long_vae = (
        min(
            (by_seed(name, updates) for name in ("vae", "vae, noise 0.5")),
            key=statistics.mean,
        )
        for updates in (2000, 8000)
    )
    guided, many = by_seed("amortized mixture"), by_seed("shared, 400 draws")
    assert (
        "After 2,000 updates, the mixture trained with a guide and the shared coupling with 400 "
        f"draws have {ratio(guided, vae)} and {ratio(many, vae)} of the VAE's distance." in text
    )
    long = by_seed("amortized mixture", 8000)
    assert f"After 8,000 updates, the mixture has {ratio(long, long_vae)} of it." in text
    shared, mixture, deep = (
        by_seed(f"{name}, 100 draws") for name in ("shared", "mixture", "deep")
    )
    assert statistics.mean(vae) < statistics.mean(shared) < statistics.mean(mixture)
    assert f"the same way (paired difference {paired(mixture, deep)}, two seeds)" in text
    chains, energy = by_seed("Langevin mixture"), by_seed("latent energy")
    assert f"behind the latent energy prior (paired difference {paired(chains, energy)})" in text
    refined = by_seed(chosen("refined mixture"))
    assert f"does better ({paired(refined, chains)}; " in text
    energy = by_seed(chosen("latent energy"))
    assert f"distance is {ratio(refined, energy)} times that of the latent energy" in text

    tuned = by_seed(chosen("vae"))
    falling = by_seed(chosen("amortized mixture"))
    gains = [statistics.mean(a) / statistics.mean(b) for a, b in ((tuned, vae), (falling, guided))]
    assert gains[0] < gains[1]
    assert f"then has {ratio(falling, tuned)} of the VAE's distance; the two are not" in text
    assert f"told apart (paired difference {paired(falling, tuned)})" in text
    plain, decoded = (
        by_seed(name)
        for name in ("amortized mixture, perceptron", "refined mixture, perceptron, falling")
    )
    assert statistics.mean(plain) > statistics.mean(vae)
    assert f"has {ratio(decoded, tuned)} of the best VAE's distance" in text
    assert f"(paired difference {paired(decoded, tuned)})" in text
    distances = told(by_seed(chosen("vae, KAN decoder"))), told(tuned)
    assert "distance is {}, where the perceptron's is {}".format(*distances) in text


def test_what_the_performance_page_says_of_the_time_of_samples_is_in_committed_results():
    text = " ".join((DOCS / "performance.rst").read_text().split())
    drawing = json.loads((DOCS / "results" / "quality.json").read_text())["generation_seconds"]
    chains = drawing["refined mixture, falling"] / drawing["latent energy, falling"]
    assert chains == pytest.approx(1 / 8, rel=0.05)
    assert "it draws without chains, in an eighth of the time" in text
    vae = drawing["vae, noise 0.4, falling"]
    slower = drawing["refined mixture, perceptron, falling"] / vae
    assert (
        f"takes {slower:.1f} times as long as with the VAE if the mixture uses the VAE's perceptron"
        in text
    )
    assert slower < 2
    slowest = drawing["refined mixture, falling"] / vae
    assert f"It takes {slowest:.0f} times as long with the KAN" in text


def test_what_the_performance_page_says_of_targets_is_in_committed_results():
    runs = json.loads((DOCS / "results" / "targets.json").read_text())["runs"]
    assert set(runs) == {f"{name}/{seed}" for name in targets.TARGETS for seed in range(3)}
    for seed in range(3):
        assert not runs[f"eight schools, centered/{seed}"]["findings"]
        assert runs[f"eight schools, centered, coordinates kept/{seed}"]["findings"]


def test_what_the_performance_page_says_of_trajectories_is_in_committed_results():
    text = " ".join((DOCS / "performance.rst").read_text().split())
    results = json.loads((DOCS / "results" / "trajectories.json").read_text())
    told, fresh = (
        json.loads(json.dumps(each), parse_float=lambda number: round(float(number), 9))
        for each in (results["summary"], trajectories.summary(results["runs"]))
    )
    assert told == fresh
    seeds = {name: {3} for name in (*trajectories.POSTERIORS, *trajectories.HARDER)}
    for name, counts in seeds.items():
        for kernel in trajectories.KERNELS:
            counts.add(sum(key.startswith(f"{name}/{kernel}/") for key in results["runs"]))
        assert len(counts) == 1
    assert "Each has three seeds." in text
    best = results["summary"]["isokinetic, 1.57 √d"]
    medians = {name: each["per_gradient"]["median"] for name, each in results["summary"].items()}
    assert max(medians, key=lambda name: medians[name]) == "isokinetic, 1.57 √d"
    assert f"{best['per_gradient']['median']:.2f} times the default's" in text
    assert f"and {best['per_second']['median']:.2f} times as many a second" in text
    shorter = results["summary"]["shorter, × 0.75"]
    assert (
        f"a gradient, {shorter['per_gradient']['median']:.2f} times the default's, but "
        f"{shorter['tail_per_gradient']['median']:.2f} times as many in a tail" in text
    )
    target = "hierarchical, 205-d, centered"
    rhats = {
        kernel: [results["runs"][f"{target}/{kernel}/{seed}"]["rhat"] for seed in range(3)]
        for kernel in medians
    }
    isokinetic = [rhats[kernel] for kernel in ("isokinetic, √d", "isokinetic, 1.57 √d")]
    worst = " and ".join(f"{max(each):.2f}" for each in isokinetic)
    assert f"isokinetic chains of one seed disagree (R-hat {worst})" in text
    assert [sum(rhat > 1.01 for rhat in each) for each in isokinetic] == [1, 1]
    assert max(rhats["default"]) < 1.01


def test_what_the_performance_page_says_of_peers_is_in_committed_results():
    text = " ".join((DOCS / "performance.rst").read_text().split())
    problems = json.loads((DOCS / "results" / "evidence_peers.json").read_text())["problems"]
    assert len(problems) == 6

    def times(peer: str, of: str, names=problems) -> list[float]:
        cases = [problems[name] for name in names if problems[name][peer]["ended"]]
        return [case[peer][of] / case["auto"][of] for case in cases]

    errors, seconds = times("pymc", "rmse"), times("pymc", "process_seconds")
    assert f"errors {min(errors):.0f} to {max(errors):.0f} times as large" in text
    assert f"{min(seconds):.1f} to {max(seconds):.1f} times its seconds" in text
    seconds = times("nautilus", "process_seconds")
    assert f"takes {min(seconds):.0f} to {max(seconds):.0f} times the seconds" in text
    smooth = [name for name in problems if name not in {"regression", "suppressed_mode"}]
    errors = times("nautilus", "rmse", smooth)
    assert f"errors are {min(errors):.1f} to {max(errors):.1f} times as large" in text
    assert problems["regression"]["nautilus"]["ended"] == 1
    assert "it ended once in three runs on the regression" in text
    narrow = problems["suppressed_mode"]
    largest = [f"{narrow[peer]['largest_error']:.2f}" for peer in ("nautilus", "pymc")]
    assert f"up to {largest[0]} and {largest[1]} nats" in text


def chosen(contender: str, updates: int = 2000) -> str:
    """Return the name of a contender's row with its validated setting."""
    rows = json.loads((DOCS / "results" / "quality.json").read_text())["validation"]
    count = sum((row["name"], row["updates"]) == (contender, updates) for row in rows)
    assert count == {2000: 12, 8000: 6}[updates]
    return quality.best(rows, contender, updates).name(contender)


def test_settings_on_fashion_are_the_best_on_digits():
    chosen_on_digits = {name: chosen(name) for name in fashion.SETTINGS}
    assert {name: one.name(name) for name, one in fashion.SETTINGS.items()} == chosen_on_digits


def by_seed(name: str, updates: int = 2000, of: str = "frechet") -> list[float]:
    """Return a measure of a contender's samples for seeds 0, 1 and so on."""
    runs = json.loads((DOCS / "results" / "quality.json").read_text())["runs"]
    found = {
        run["seed"]: run[of] for run in runs if (run["name"], run["updates"]) == (name, updates)
    }
    assert sorted(found) == list(range(len(found)))
    assert len(found) >= 2
    return [found[seed] for seed in range(len(found))]


def told(each: list[float]) -> str:
    """Write a mean and its standard error."""
    return f"{statistics.mean(each):.2f} ± {statistics.stdev(each) / len(each) ** 0.5:.2f}"


def ratio(ours: list[float], others: list[float]) -> str:
    """Write a ratio of means and its standard error over the seeds of both."""
    squares = [(statistics.stdev(v) / statistics.mean(v)) ** 2 / len(v) for v in (ours, others)]
    value = statistics.mean(ours) / statistics.mean(others)
    return f"{value:.2f} ± {value * sum(squares) ** 0.5:.2f}"


def paired(ours: list[float], others: list[float]) -> str:
    """Write the mean difference over the seeds of both, and its standard error."""
    return told([a - b for a, b in zip(ours, others, strict=False)]).replace("-", "−")


def test_what_the_performance_page_says_of_the_autoregressive_prior_is_in_committed_results():
    text = " ".join((DOCS / "performance.rst").read_text().split())
    readme = " ".join((DOCS.parent / "README.md").read_text().split())
    others = {name for name in quality.TUNED if not name.startswith("autoregressive")}
    vaes = {chosen(name) for name in others if name.startswith("vae")}
    ours = by_seed(chosen("autoregressive, 81 blocks"))
    vae = min(map(by_seed, vaes), key=statistics.mean)
    flow = min((by_seed(chosen(name)) for name in others), key=statistics.mean)
    assert flow == by_seed(chosen("flow prior, MAF"))
    assert len(ours) == len(vae) == len(flow) == 3
    assert f"has {ratio(ours, vae)} of the best VAE's distance" in text
    assert f"and {ratio(ours, flow)} of that of the best flow prior" in text
    assert f"is {ratio(ours, vae)} times that of the best VAE" in readme
    assert f"and {ratio(ours, flow)} times that of the best flow prior" in readme
    assert f"paired difference from that flow is {paired(ours, flow)}" in text

    def near(updates: int) -> float:
        name = chosen("autoregressive, 81 blocks", updates)
        drawn, real = (
            statistics.mean(by_seed(name, updates, each))
            for each in ("nearest_training", "nearest_training_of_held_out")
        )
        return drawn / real

    assert f"is {near(2000):.2f} times that of held-out digits" in text
    assert near(8000) >= quality.NO_COPIES
    assert f"{near(8000):.2f} times as far from the training images as held-out digits" in text
    long, long_vae = (
        told(by_seed(chosen(name, 8000), 8000)) for name in ("autoregressive, 81 blocks", "vae")
    )
    assert (
        f"After 8,000 updates its distance is {long}, and that of the best VAE {long_vae}" in text
    )


def test_what_the_performance_page_says_of_densities_is_in_committed_results():
    text = " ".join((DOCS / "performance.rst").read_text().split())
    runs = json.loads((DOCS / "results" / "densities.json").read_text())["runs"]

    def gap(problem: str, name: str) -> float:
        own = [r["gap"] for r in runs if (r["problem"], r["name"]) == (problem, name)]
        assert len(own) == 3
        return statistics.mean(own)

    problems = ("banana", "ring", "correlated", "grid")
    moved = {problem: gap(problem, "autoregressive, moved") for problem in problems}
    assert max(moved.values()) < 0.02
    assert all(run["standard_error"] < 0.003 for run in runs if "moved" in run["name"])
    assert f"by {gap('banana', 'autoregressive'):.2f} nats, as the spline flow does" in text
    assert f"as the spline flow does by {gap('banana', 'flow, splines'):.2f}" in text
    for problem in ("banana", "correlated"):
        assert gap(problem, "flow, MAF") < moved[problem]
    misses = [gap(problem, "flow, MAF") for problem in ("ring", "grid")]
    assert f"misses the ring by {misses[0]:.2f} and the grid by {misses[1]:.2f}" in text
    assert all(gap(problem, "independent") > 0.5 for problem in problems[:3])


def test_what_the_performance_page_says_of_the_memory_of_draws_is_in_committed_results():
    text = " ".join((DOCS / "performance.rst").read_text().split())
    memory = json.loads((DOCS / "results" / "costs.json").read_text())["memory"]
    assert len(memory["peaks"]) == 3
    assert f"take at most {max(memory['peaks']):.2f} times the memory" in text
    assert (memory["chains"], memory["draws"], memory["latents"]) == (64, 2000, 1000)


def test_what_the_performance_page_says_of_asked_classes_is_in_committed_results():
    text = " ".join((DOCS / "performance.rst").read_text().split())
    results = json.loads((DOCS / "results" / "conditional.json").read_text())
    near = [run for run in results["validation"] if run["frechet"] < 0.27]
    best = max(near, key=lambda run: run["right"])["noise"]
    assert {run["noise"] for run in results["runs"]} == {best}
    assert {run["noise"] for run in results["validation"]} == {0.2, 0.3, 0.4}
    assert "one of three (0.2, 0.3, 0.4), compared on 800 of the 4,000 digits" in text

    def mean(runs: list[dict[str, float]], of: str) -> float:
        return statistics.mean(run[of] for run in runs)

    assert mean(results["runs"], "frechet") < 0.27
    assert 0.93 < mean(results["runs"], "right") < results["held_out_right"]
    assert "Samples are nearly as often of their class as real digits are." in text
    runs = json.loads((DOCS / "results" / "quality.json").read_text())["runs"]
    plain = [run for run in runs if run["name"] == chosen("autoregressive, 81 blocks")]
    assert mean(results["runs"], "nearest_training") < mean(plain, "nearest_training")
    assert "They lie nearer to training images than those of the model without labels do." in text


def test_what_the_performance_page_says_of_evidences_from_draws_is_in_committed_results():
    text = " ".join((DOCS / "performance.rst").read_text().split())
    results = json.loads((DOCS / "results" / "bridge.json").read_text())
    runs = list(results["nuts"].values())
    for versions in results["files"].values():
        assert all(f"{version}" in text for version in versions)
        assert versions["0.23.4"] == versions["1.3.0"]
        runs += versions.values()
    assert len(results["files"]) == 6
    for run in runs:
        assert run["trusted"]
        assert abs(run["error"]) < min(3 * run["standard_error"], 0.05)


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


def test_every_cross_reference_of_a_page_leads_to_an_object():
    role = re.compile(r":(?:class|func|meth|mod|attr|data):`(?:[^`<]*<)?~?(pyro_tkam[\w.]*)>?`")
    referred = {each for page in DOCS.glob("*.rst") for each in role.findall(page.read_text())}
    assert len(referred) > 30
    for target in referred:
        assert pkgutil.resolve_name(target) is not None


def finding_rows() -> dict[str, list[str]]:
    """Return what the page says of when a finding appears, by its name."""
    rows: dict[str, list[str]] = {}
    page = (DOCS / "verdicts.rst").read_text()
    for name, when in re.findall(
        r"^   \* - (.+)\n     - ((?:.|\n)+?)\n     - ", page, re.MULTILINE
    ):
        rows.setdefault(name, []).append(" ".join(when.split()))
    del rows["finding"]
    return rows


def test_the_page_of_verdicts_explains_every_finding_and_no_other():
    source = Path(pyro_tkam.__file__).parent / "infer"
    made = re.compile(r"\bFinding\(\s*\"([^\"]+)\"")
    assert set(finding_rows()) == {
        name for file in source.rglob("*.py") for name in made.findall(file.read_text())
    }


def test_the_page_of_verdicts_has_the_limits_of_the_code():
    rows = finding_rows()
    for name, limits in {
        "chains disagree": [f"above {judging.RHAT_LIMIT}"],
        "stray chains": [
            f"more than {judging.STRAY_LIMIT:.0f} standard errors",
            f"more than {judging.FAR_STRAY_LIMIT}",
        ],
        "frozen chains": [f"fewer than {judging.FROZEN_RATE:.0%}"],
        "too few draws": [
            f"below {judging.FEWEST_EFFECTIVE:.0f}",
            f"below {diagnosis.DRAWS_LIMIT:.0f}",
        ],
        "slow energy": [f"below {judging.LEAST_BFMI}"],
        "divergences": [f"more than {judging.MOST_DIVERGING:.1%}"],
        "failed proposals": [f"more than {judging.MOST_FAILED:.0%}"],
        "capped trajectories": [f"more than {judging.MOST_CAPPED:.0%}"],
        "improper posterior": [f"more than {judging.MOST_GROWTH - 1:.0%}"],
        "too few rungs": [f"less than {diagnosis.SWAP_RATE_LIMIT:.0%}"],
        "missed mode": [
            f"more than {diagnosis.SIGMAS:.0f} standard errors",
            f"more than {estimates.AGREEMENT_SIGMAS:.0f} standard errors",
            f"more than {diagnosis.GAP_LIMIT} nats",
            f"or {estimates.AGREEMENT_LIMIT} nats",
        ],
        "heavy-tailed weights": [f"above {diagnosis.KHAT_LIMIT}"],
        "non-stationary rung": [f"more than {diagnosis.DRIFT_LIMIT} standard deviations"],
        "chains in disagreement": [f"above {diagnosis.RHAT_LIMIT}"],
        "boundary-stuck chains": [f"more than {diagnosis.STUCK_LIMIT:.0%}"],
        "short search for modes": [f"fewer than {mixture_proposal.FEWEST_CLIMBS} climbs"],
        "halves in disagreement": [f"more than {diagnosis.HALVES_SIGMAS:.0f} standard errors"],
        "little overlap": [f"fewer than {diagnosis.TERMS_LIMIT:.0f} effective terms"],
        "draws of another posterior": [f"more than {diagnosis.SCORE_LIMIT} standard deviations"],
        "draws on the boundary": [f"more than {from_draws.LOST_LIMIT:.0%}"],
        "runs disagree": [f"above {smc.RHAT_LIMIT}"],
        "few ancestors": [f"fewer than {smc.FEWEST_ANCESTORS} prior draws"],
        "uncertain evidence": [f"more than {2 * smc.LARGEST_ERROR:.0f} nat between"],
    }.items():
        for limit in limits:
            assert any(limit in when for when in rows[name]), (name, limit)


def test_the_calls_in_the_tables_of_the_overviews_exist():
    pages = "".join((DOCS / name).read_text() for name in ("cheatsheet.rst", "choosing.rst"))
    calls = set(re.findall(r"(?<![\w.])([A-Za-z]\w*)\(", pages))
    public = {
        name
        for package in PACKAGES
        for name in getattr(importlib.import_module(f"pyro_tkam.{package}"), "__all__", ())
    }
    assert calls - {"print", "SVI", "MCMC", "prior", "exp"} <= public
    assert {"VectorizedMCMC", "log_evidence", "TiltedPrior", "find_formula"} <= calls
