"""
The directive ``benchmark``: a table that is rendered from a committed result of ``benchmarks/``.
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from docutils.parsers.rst import Directive
from docutils.statemachine import StringList

RESULTS = Path(__file__).parent / "results"
Row = tuple[object, ...]


def _training_step(results: Any) -> Iterable[Row]:
    yield "P", '``"independent"``, s', '``"shared"``, s', "published, s"
    steps = results["gradient_step"]
    for independent, shared in zip(steps["independent"], steps["shared"], strict=True):
        seconds = (independent["seconds"], shared["seconds"], independent["published_seconds"])
        yield independent["latent_dim"], *(f"{each:.3f}" for each in seconds)


def _memory(results: Any) -> Iterable[Row]:
    yield "coupling", "MiB"
    for coupling, mib in results["peak_mib"].items():
        yield f'``"{coupling}"``', f"{mib:.0f}"


def _draws(results: Any) -> Iterable[Row]:
    yield "draws", "energies", "time, as a ratio", "error of our CDF", "error of theirs"
    for draws, key in (("100 of 81 × 40", "independent"), ("10,000 of 81", "many")):
        for name, suffix in (("as they start", ""), ("coefficients of size one", "_rough")):
            case = results[key + suffix]
            errors = (f"{case[each]:.0e}" for each in ("exact_cdf_error", "published_cdf_error"))
            yield draws, name, f"{case['ratio']:.2f}", *errors


def _mixture(results: Any) -> Iterable[Row]:
    yield "components", "table, ms", "100 draws, ms", "log-probability and gradient of them, ms"
    for case in results["mixture"]:
        names = ("table_seconds", "draw_seconds", "log_prob_and_gradient_seconds")
        yield case["num_components"], *(f"{1000 * case[name]:.1f}" for name in names)


def _chains(results: Any) -> Iterable[Row]:
    yield (
        "kernel",
        "1 chain, ms per step",
        "64 chains, ms per step",
        "ratio",
        "tempering, 1000 evaluations per second",
    )
    for kernel, cost in results["cost_of_64_chains"].items():
        times = (f"{cost[each]:.2f}" for each in ("one_chain_ms", "64_chains_ms", "ratio"))
        yield kernel, *times, f"{results['tempering_per_second'][kernel]['evaluations'] / 1000:.0f}"


def _against_nuts(results: Any) -> Iterable[Row]:
    yield (
        "model",
        "per second",
        "a processor second",
        "a gradient",
        "an evaluation, with or without gradient",
    )
    units = (
        "ess_per_wall_second",
        "ess_per_process_second",
        "ess_per_gradient",
        "ess_per_evaluation",
    )
    for name, model in (
        ("eight schools", "eight_schools"),
        ("logistic regression, 20-d", "logistic_20d"),
    ):
        yield name, *(f"{results['against_nuts'][model]['ratio'][unit]:.2g}" for unit in units)


def _evidence(results: Any) -> Iterable[Row]:
    yield "problem", "seeds", "error, rms", "largest", "trusted", "most evaluations", "processor, s"
    for name, methods in results["problems"].items():
        case = methods["auto"]
        yield (
            name.replace("_", " "),
            case["runs"],
            f"{case['rmse']:.4f}",
            f"{case['largest_error']:.4f}",
            case["trusted"],
            f"{case['most_evaluations']:,}",
            f"{case['process_seconds']:.1f}",
        )


def _peers(results: Any) -> Iterable[Row]:
    yield "problem", "``auto``", "nautilus", "PyMC's SMC"

    def cell(case: dict[str, Any]) -> str:
        runs, ended = case["runs"], case["ended"]
        late = f"{runs - ended} of {runs} not ended in {results['limit_process_seconds']} s"
        if not ended:
            return late
        seeds = f"{ended} seed{'s' if ended > 1 else ''}"
        found = f"{case['rmse']:.4f} ({case['process_seconds']:.1f} s, {seeds})"
        return found if ended == runs else f"{found}; {late}"

    for name, methods in results["problems"].items():
        cells = (cell(methods[each]) for each in ("auto", "nautilus", "pymc"))
        yield name.replace("_", " "), *cells


def _two_bumps(results: Any) -> Iterable[Row]:
    yield "places", "dimensions", "widths", "runs", "within 0.05", "trusted", "trusted and wrong"
    for name, case in results["problems"].items():
        counts = ("runs", "within_0.05", "trusted", "trusted_and_wrong")
        yield (*name.split("/"), *(case[each] for each in counts))


def _per_datum(results: Any) -> Iterable[Row]:
    yield (
        "latents",
        "digits",
        "trusted",
        "log evidence, nats",
        "its Monte Carlo error",
        "median k-hat",
        "s a digit",
    )
    for case in results["models"]:
        value, error = f"{case['log_evidence']:.2f}", f"{case['standard_error']:.4f}"
        khat, seconds = (
            f"{case['khat_quantiles'][1]:.2f}",
            f"{case['cpu_seconds'] / case['num']:.1f}",
        )
        yield case["latents"], case["num"], case["trusted"], value, error, khat, seconds


def _per_datum_against(results: Any) -> Iterable[Row]:
    yield (
        "latents",
        "method",
        "mean difference",
        "root mean square",
        "its standard error",
        "within 3 joint errors",
    )
    names = {
        "bar": "BAR",
        "ais": "annealed importance sampling",
        "guide": "importance sampling from the guide",
    }
    measures = ("mean_difference", "root_mean_square_difference", "mean_standard_error")
    for case in results["models"]:
        for method, found in case["against"].items():
            within = (
                f"{found['within_3_standard_errors'] * case['compared']:.0f} of {case['compared']}"
            )
            yield (
                case["latents"],
                names.get(method, method),
                *(f"{found[each]:.3f}" for each in measures),
                within,
            )


def _labels(results: Any) -> Iterable[Row]:
    yield (
        "contender",
        "labels a class",
        "draws of labels",
        "right classes of held-out digits, %",
        "samples of the class asked for, %",
        "held-out digits by the same judge, %",
    )
    measures = ("accuracy", "right_class_samples", "judge_on_held_out")
    for (name, per_class), runs in _grouped(results["runs"], "name", "per_class"):
        cells = (_percent(runs, each) if each in runs[0] else "" for each in measures)
        yield name, per_class, len(runs), *cells


def _conditional(results: Any) -> Iterable[Row]:
    yield (
        "updates",
        "seeds",
        "Fréchet distance",
        "to held-out digits",
        "samples of the class asked for, %",
        "held-out digits of their class, %",
        "nearest training image, over held-out digits'",
        "s per update",
    )
    for (updates,), runs in _grouped(results["runs"], "updates"):
        nearest = mean(
            run["nearest_training"] / run["nearest_training_of_held_out"] for run in runs
        )
        yield (
            f"{updates:,}",
            len(runs),
            with_error([run["frechet"] for run in runs]),
            with_error([run["frechet_to_held_out"] for run in runs]),
            _percent(runs, "right"),
            f"{100 * results['held_out_right']:.1f}",
            f"{nearest:.2f}",
            f"{mean(run['cpu_seconds_per_update'] for run in runs):.3f}",
        )


def _densities(results: Any) -> Iterable[Row]:
    yield "density", "contender", "seeds", "gap, nats", "processor s of the fit"
    for (problem, name), runs in _grouped(results["runs"], "problem", "name"):
        gap = with_error([run["gap"] for run in runs], digits=4)
        seconds = mean(run["cpu_seconds"] for run in runs)
        yield problem, name, len(runs), gap, f"{seconds:.0f}"


def _grouped(runs: list[Any], *keys: str) -> list[tuple[Row, list[Any]]]:
    """Return the runs of each value of some keys, in the order in which they first appear."""
    groups: dict[Row, list[Any]] = {}
    for run in runs:
        groups.setdefault(tuple(run[key] for key in keys), []).append(run)
    return list(groups.items())


def with_error(values: list[float], digits: int = 2) -> str:
    """Return the mean with its standard error, where there is more than one value."""
    text = f"{mean(values):.{digits}f}"
    if len(values) == 1:
        return text
    return f"{text} ± {stdev(values) / math.sqrt(len(values)):.{digits}f}"


def _percent(runs: list[Any], measure: str) -> str:
    return with_error([100 * run[measure] for run in runs], digits=1)


def _knowledge(results: Any) -> Iterable[Row]:
    yield "problem", "seed", "start, nats", "informed start", "end", "updates to it", "informed"
    for name in ("planted", "digits"):
        for seed, run in enumerate(results[name]):
            nats = (
                f"{value:.2f}" for value in (run["uninformed"][0], run["informed"][0], run["final"])
            )
            yield name, seed, *nats, run["uninformed_updates"], run["informed_updates"]


def _multimodal(results: Any) -> Iterable[Row]:
    yield "seen", "label right", "the other half: error", "by linear regression", "by the mean half"
    found, percent = results["mean"], "{:.1f} %".format
    yield "both halves", percent(100 * found["label_from_upper_and_lower"]), "", "", ""
    for half, other in (("upper", "lower"), ("lower", "upper")):
        errors = (f"{found[f'{other}_by_{name}']:.3f}" for name in ("model", "linear", "mean"))
        yield f"{half} half", percent(100 * found[f"label_from_{half}"]), *errors


def _text(results: Any) -> Iterable[Row]:
    yield "model", "updates", "bits a character"
    yield "interpolated 5-gram", "", f"{results['five_gram']['bits']:.3f}"
    for seed, run in enumerate(results["runs"]):
        yield f"sequence model, seed {seed}", f"{run['updates']:,}", f"{run['bits']:.3f}"


def _kan(results: Any) -> Iterable[Row]:
    yield (
        "network",
        "batch",
        "step over the MLP's",
        "forward over the MLP's",
        "MiB of memory in a step",
    )
    names = {
        "mlp": "perceptron",
        "rbf": "this package, RBF",
        "bspline": "this package, cubic B-spline",
    }
    peak = results["layers_peak_mib_batch_1000"]
    for batch, timed in results["layers"].items():
        for name, times in timed.items():
            label = names.get(name) or f"{name} {results['peers'][name]}, cubic B-spline"
            memory = f"{peak[name]:.0f}" if batch == "1000" else ""
            yield (
                label,
                batch,
                f"{times['step_by_mlp']:.1f}",
                f"{times['forward_by_mlp']:.1f}",
                memory,
            )


def _quality(results: Any) -> Iterable[Row]:
    yield (
        "model",
        "updates",
        "seeds",
        "Fréchet distance",
        "over the best VAE's",
        "s per update",
        "s for 10,000",
    )
    groups: dict[tuple[str, int], list[Any]] = {}
    for run in results["runs"]:
        groups.setdefault((run["name"], run["updates"]), []).append(run)

    def average(key: tuple[str, int], measure: str) -> float:
        return mean(run[measure] for run in groups[key])

    def alike(name: str, updates: int) -> Iterable[tuple[str, int]]:
        """Yield the VAEs with as many updates and the same kind of step size."""
        for key in groups:
            if (
                key[0].startswith("vae")
                and key[1] == updates
                and key[0].endswith("falling") == name.endswith("falling")
            ):
                yield key

    for name, updates in sorted(groups, key=lambda key: (key[1], average(key, "frechet"))):
        beside = [average(key, "frechet") for key in alike(name, updates)]
        distance = average((name, updates), "frechet")
        seconds = f"{average((name, updates), 'cpu_seconds_per_update'):.2g}"
        drawing = results["generation_seconds"].get(name)
        row = (
            name,
            updates,
            len(groups[name, updates]),
            f"{distance:.2f}",
            f"{distance / min(beside):.2f}" if beside else "",
            seconds,
        )
        yield *row, "" if drawing is None else f"{drawing:.2g}"


def _quality_measures(results: Any) -> Iterable[Row]:
    """Yield further measures of contenders that have them, extrapolated ones in parentheses."""
    yield (
        "model",
        "updates",
        "seeds",
        "Fréchet, training",
        "Fréchet, held out",
        "kernel, training",
        "kernel, held out",
        "nearest training image, over held-out digits'",
        "held-out log evidence",
        "s for 10,000",
    )
    runs = [run for run in results["runs"] if "nearest_training" in run]
    groups = _grouped(runs, "name", "updates")
    for key, group in sorted(
        groups, key=lambda each: (each[0][1], mean(run["frechet"] for run in each[1]))
    ):
        distances = (
            f"{mean(run[each] for run in group):.{digits}f} "
            f"({mean(run[f'{each}_extrapolated'] for run in group):.{digits}f})"
            for each, digits in (
                ("frechet", 2),
                ("frechet_to_held_out", 2),
                ("kernel", 3),
                ("kernel_to_held_out", 3),
            )
        )
        nearest = mean(
            run["nearest_training"] / run["nearest_training_of_held_out"] for run in group
        )
        evidence = [run["held_out_log_evidence"] for run in group if "held_out_log_evidence" in run]
        drawing = mean(run["cpu_seconds_for_10000"] for run in group)
        told = with_error(evidence, digits=1) if len(evidence) == len(group) else ""
        yield *key, len(group), *distances, f"{nearest:.2f}", told, f"{drawing:.2g}"


def _calibration_of_evidence(results: Any) -> Iterable[Row]:
    """Yield summaries of each model, and of all."""
    yield (
        "model",
        "runs",
        "trusted",
        "trusted and wrong",
        "error, rms",
        "error over standard error, rms",
        "95 % point",
        "processor, s",
    )
    for name, case in (*results["models"].items(), *results["pooled"].items()):
        yield (
            name.replace("_", " "),
            case["runs"],
            case["trusted"],
            case["trusted_and_wrong"],
            f"{case['rmse']:.4f}",
            f"{case['rms_ratio']:.2f}",
            f"{case['quantile_95_ratio']:.2f}",
            f"{case['process_seconds']:.1f}",
        )


def _steppingstone(results: Any) -> Iterable[Row]:
    yield "temperatures", '``"independent"``, s', '``"shared"``, s', "published, s"
    for case in results["steppingstone"]:
        seconds = (case[each] for each in ("independent", "shared", "published_seconds"))
        yield case["temperatures"], *(f"{each:.2f}" for each in seconds)


def _generation(results: Any) -> Iterable[Row]:
    yield "s", "published, s"
    yield tuple(f"{results['generation'][each]:.3f}" for each in ("seconds", "published_seconds"))


def _pruning(results: Any) -> Iterable[Row]:
    yield "network", "widths", "parameters", "mean squared error", "10,000 evaluations, ms"
    for name in ("before", "after"):
        case = results[name]
        widths = ", ".join(map(str, case["widths"]))
        yield (
            name,
            widths,
            case["parameters"],
            f"{case['mean_squared_error']:.1e}",
            f"{1000 * case['cpu_seconds']:.1f}",
        )


def _prior_steps(results: Any) -> Iterable[Row]:
    yield "prior Langevin steps", "s", "published, s"
    for case in results["prior_langevin_steps"]:
        yield case["steps"], f"{case['seconds']:.2f}", f"{case['published_seconds']:.2f}"


def _symbolic_groups(results: Any) -> dict[tuple[str, str], list[Any]]:
    groups: dict[tuple[str, str], list[Any]] = {}
    for key, run in results["runs"].items():
        task, package, _, _ = key.split("/")
        groups.setdefault((task, package), []).append(run)
    return groups


def _symbolic(results: Any) -> Iterable[Row]:
    yield "task", "package", "runs", "found", "the law itself", "processor seconds, median"
    for (task, package), runs in sorted(_symbolic_groups(results).items()):
        same = sum(run["same"] for run in runs) if "same" in runs[0] else "–"
        seconds = f"{median(run['seconds'] for run in runs):.0f}"
        version = f"{package} {results['versions'][package]}"
        yield task, version, len(runs), sum(run["found"] for run in runs), same, seconds


def _symbolic_laws(results: Any) -> Iterable[Row]:
    """Yield the formulas of Feynman's lectures, seeds apart, with the error of each."""
    yield "law", "package", "seed", "found", "relative rmse", "formula"
    for key, run in results["runs"].items():
        task, package, law, seed = key.split("/")
        if task == "feynman":
            formula = run["formula"] if len(run["formula"]) <= 60 else f"{run['formula'][:57]}..."
            found = "yes" if run["found"] else "no"
            error = run["relative_rmse"]  # None where the formula has no value at a fresh point
            told = "not finite" if error is None else f"{error:.1e}"
            yield law, package, seed, found, told, f"``{formula}``"


def _workflow(results: Any) -> Iterable[Row]:
    """Yield milliseconds of a step; pykan's as a ratio to the plain step too."""
    yield "network", "ms per step", "with the penalty, ms", "pykan, ms", "``speed()``, ms", "ratio"
    for widths, steps in results["steps"].items():
        ours, theirs = steps["plain"], steps["pykan"]
        names = ("plain", "penalized", "pykan", "pykan speed()")
        yield widths, *(f"{1000 * steps[name]:.1f}" for name in names), f"{theirs / ours:.1f}"


def _bridge(results: Any) -> Iterable[Row]:
    """Yield evidences of six models from draws of NUTS."""
    yield "model", "exact", "error", "standard error", "trusted"
    for name, run in results["nuts"].items():
        trusted = "yes" if run["trusted"] else "no"
        numbers = (f"{run[each]:.4f}" for each in ("exact", "error", "standard_error"))
        yield name, *numbers, trusted


def _turtles(results: Any) -> Iterable[Row]:
    yield "seed", "log evidence, alike", "different", "Bayes factor", "published"
    for seed, run in enumerate(results["turtles"]):
        each = (f"{run['log_evidence'][name]:.3f}" for name in ("alike", "different"))
        yield seed, *each, f"{run['bayes_factor']:.3f}", run["published_bayes_factor"]


def _samplers(results: Any) -> Iterable[Row]:
    """Yield medians of the seeds; of NUTS the better of its two ways."""
    yield (
        "posterior",
        "largest R-hat",
        "effective draws",
        "processor seconds",
        "effective draws per second",
        "of NUTS",
        "ratio",
        "ratio a gradient",
    )
    runs: dict[str, dict[str, Any]] = {}
    for key, run in results["runs"].items():
        name, kind, seed = key.split("/")
        runs.setdefault(name, {}).setdefault(kind, {})[seed] = run
    for name, kinds in runs.items():
        ours = list(kinds["chains"].values())
        middle = {
            each: median(run[each] for run in ours)
            for each in ("effective_draws", "process_seconds", "per_second", "per_gradient")
        }
        rhat = max(run["rhat"] for run in ours)
        row = (name, f"{rhat:.4f}", f"{middle['effective_draws']:,.0f}")
        seconds = (f"{middle['process_seconds']:.1f}", f"{middle['per_second']:,.0f}")
        yield *row, *seconds, *_beside_nuts(kinds, middle)


def _beside_nuts(kinds: dict[str, Any], ours: dict[str, float]) -> Row:
    theirs = [kinds[kind]["0"] for kind in ("nuts", "nuts compiled") if kind in kinds]
    ended = [run for run in theirs if "per_second" in run]
    if not theirs:
        return "not run", "", ""
    if not ended:
        return "none in 120 s", "", ""
    best = max(run["per_second"] for run in ended)
    counted = [run["per_gradient"] for run in ended if "per_gradient" in run]
    each = f"{ours['per_gradient'] / counted[0]:.1f}" if counted else ""
    return f"{best:,.1f}", f"{ours['per_second'] / best:,.0f}", each


def _targets(results: Any) -> Iterable[Row]:
    yield (
        "target",
        "largest R-hat",
        "smallest effective sample size",
        "gradients a chain",
        "seconds",
    )
    by_name: dict[str, list[Any]] = {}
    for key, run in results["runs"].items():
        by_name.setdefault(key.rpartition("/")[0], []).append(run)
    for name, each in by_name.items():
        rhat, draws = max(run["rhat"] for run in each), min(run["effective_draws"] for run in each)
        gradients = max(run["gradients"] for run in each)
        seconds = median(run["process_seconds"] for run in each)
        yield name, f"{rhat:.4f}", f"{draws:,.0f}", f"{gradients:,}", f"{seconds:.1f}"


def _trajectories(results: Any) -> Iterable[Row]:
    """Yield effective draws a gradient over the default's, and what all posteriors have."""
    told = {name: each for name, each in results["summary"].items() if name != "default"}
    yield "effective draws a gradient, over the default's", *told
    for name in next(iter(told.values()))["per_gradient"]["by_posterior"]:
        ratios = (each["per_gradient"]["by_posterior"][name] for each in told.values())
        yield name, *(f"{ratio:.3g}" for ratio in ratios)
    medians = {
        "per_gradient": "a gradient",
        "tail_per_gradient": "in a tail, a gradient",
        "per_second": "per second",
    }
    for of, label in medians.items():
        cells = []
        for each in told.values():
            least, most = each[of]["seeds"]
            cells.append(f"{each[of]['median']:.2f} ({least:.2f} to {most:.2f})")
        yield f"median of the first eight, {label} (seeds)", *cells
    default = results["summary"]["default"]
    rhats = (f"{each['rhat']:.4f}" for each in told.values())
    yield f"largest R-hat (the default: {default['rhat']:.4f})", *rhats
    findings = (len(each["failures"]) for each in told.values())
    yield f"runs with a finding (the default: {len(default['failures'])})", *findings


def _costs(results: Any) -> Iterable[Row]:
    """Yield milliseconds of a leapfrog step, and of an evaluation over that written by hand."""
    yield "posterior", "one chain, ms", "64 chains, ms", "ratio", "over arithmetic by hand"
    for name, each in results["steps"].items():
        times = (f"{each[key]:.2f}" for key in ("one_chain_ms", "64_chains_ms", "ratio"))
        by_hand = each.get("ratio_to_by_hand")
        yield name, *times, "" if by_hand is None else f"{by_hand:.2f}"


def _ranks(results: Any) -> Iterable[Row]:
    yield "model", "data sets", "parameter", "p-value", "p-value of the control"
    for key, run in results["runs"].items():
        name, kind, num = key.split("/")
        control = results["runs"].get(f"{name}/control/{num}")
        if kind == "control" or "p_values" not in run or control is None:
            continue
        for parameter, p in run["p_values"].items():
            p_control = f"{control['p_values'][parameter]:.1e}"
            yield name, f"{int(num):,}", parameter, f"{p:.3f}", p_control


def _means(results: Any) -> Iterable[Row]:
    yield "runs", "mean of the estimates over the exact value", "errors from 1"
    names = {"right": "tuned by a run before", "control": "tuned by themselves (control)"}
    for key, run in results["runs"].items():
        measured, kind, num = key.split("/")
        if measured == "evidence":
            mean = f"{run['mean']:.3f} ± {run['standard_error']:.3f}"
            yield f"{int(num):,} {names[kind]}", mean, f"{run['errors_from_1']:.1f}"


def _convolutional(results: Any) -> Iterable[Row]:
    yield "experiment", "seconds per update", "from", "peak memory, MiB", "hours of 8,000 updates"
    for data in ("svhn", "cifar10"):
        for prior in ("mixture", "deep"):
            for by in ("mle", "se"):
                name = f"{data}-{prior}-{by}"
                row = results["rows"].get(name)
                if row is None:
                    yield f"``{name}``", "not run", "", "", ""
                    continue
                how = (
                    f"{row['updates']} updates"
                    if row["updates"]
                    else f"chains of {' and '.join(map(str, row['steps_run']))} steps"
                )
                yield (
                    f"``{name}``",
                    f"{row['seconds_an_update']:.0f}",
                    how,
                    f"{row['peak_mib']:.0f}",
                    f"{row['hours_of_a_full_run']:.0f}",
                )


def _fashion(results: Any) -> Iterable[Row]:
    yield (
        "model",
        "seeds",
        "Fréchet",
        "nearest training image, over held-out articles'",
        "over the nearest unseen image",
        "processor s per update",
    )
    for (name,), runs in _grouped(results["runs"], "name"):
        near, copied = (
            with_error([run["nearest_training"] / run[other] for run in runs], digits=3)
            for other in ("nearest_training_of_held_out", "nearest_unseen")
        )
        yield (
            name,
            len(runs),
            with_error([run["frechet_to_held_out_extrapolated"] for run in runs]),
            near,
            copied,
            f"{mean(run['cpu_seconds_per_update'] for run in runs):.2g}",
        )


def _told_apart(difference: Any, digits: int) -> str:
    """Return a difference with its error, and whether two errors tell it from nothing."""
    size, error = difference["mean"], difference["standard_error"]
    told = "" if abs(size) > 2 * error else " (not told apart)"
    return f"{size:+.{digits}f} ± {error:.{digits}f}{told}"


def _variants(results: Any) -> Iterable[Row]:
    yield "model", "Fréchet", "reconstruction", "log evidence, nats", "variance ratio"
    for (name,), runs in _grouped(results["runs"], "name"):
        shown = {"frechet": 2, "reconstruction_error": 5, "log_evidence": 2, "variance_ratio": 3}
        apart = results["differences"].get(name)
        yield (
            name,
            *(
                _told_apart(apart[figure], digits)
                if apart
                else with_error([run[figure] for run in runs], digits)
                for figure, digits in shown.items()
            ),
        )


def _versions(results: Any) -> Iterable[Row]:
    yield "environment", "versions", "tests that passed", "that failed"
    for row in results["environments"]:
        names = {"torch": "PyTorch", "pyro-ppl": "Pyro", "numpy": "NumPy", "arviz": "ArviZ"}
        counts = ("passed", "failed", "errors")
        others = row.keys() - {"name", *counts, *names}
        versions = [f"{name} {row[key]}" for key, name in names.items()]
        versions += [f"{each} {row[each]}" for each in sorted(others)]
        yield row["name"], ", ".join(versions), row["passed"], row["failed"] + row["errors"]


#: tables by name: the file they are rendered from, and how
TABLES = {
    "convolutional": ("convolutional", _convolutional),
    "fashion": ("fashion", _fashion),
    "variants": ("variants", _variants),
    "versions": ("versions", _versions),
    "training_step": ("training_step", _training_step),
    "symbolic": ("symbolic", _symbolic),
    "symbolic_laws": ("symbolic", _symbolic_laws),
    "memory": ("training_step", _memory),
    "draws": ("distributions", _draws),
    "mixture": ("distributions", _mixture),
    "chains": ("langevin", _chains),
    "against_nuts": ("langevin", _against_nuts),
    "samplers": ("samplers", _samplers),
    "targets": ("targets", _targets),
    "trajectories": ("trajectories", _trajectories),
    "costs": ("costs", _costs),
    "ranks": ("calibration", _ranks),
    "means": ("calibration", _means),
    "evidence": ("evidence", _evidence),
    "evidence_peers": ("evidence_peers", _peers),
    "two_bumps": ("two_bumps", _two_bumps),
    "evidence_calibration": ("evidence_calibration", _calibration_of_evidence),
    "per_datum": ("per_datum", _per_datum),
    "per_datum_against": ("per_datum", _per_datum_against),
    "labels": ("labels", _labels),
    "conditional": ("conditional", _conditional),
    "densities": ("densities", _densities),
    "knowledge": ("knowledge", _knowledge),
    "multimodal": ("multimodal", _multimodal),
    "text": ("text", _text),
    "kan": ("kan", _kan),
    "quality": ("quality", _quality),
    "quality_measures": ("quality", _quality_measures),
    "steppingstone": ("objectives", _steppingstone),
    "pruning": ("pruning", _pruning),
    "workflow": ("workflow", _workflow),
    "bridge": ("bridge", _bridge),
    "turtles": ("bridge", _turtles),
    "generation": ("objectives", _generation),
    "prior_steps": ("objectives", _prior_steps),
}


def rendered(name: str) -> list[str]:
    """
    Return a table as lines of reStructuredText, with the machine and the versions that it came
    from.

    :param name: one of ``TABLES``.
    :raises ValueError: for another name.
    """
    if name not in TABLES:
        raise ValueError(f"benchmark must be one of {sorted(TABLES)}, got {name!r}")
    file, rows_of = TABLES[name]
    results = json.loads((RESULTS / f"{file}.json").read_text())
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in rows_of(results):
        lines += [f"   {'* -' if i == 0 else '  -'} {cell}" for i, cell in enumerate(row)]
    if "environment" not in results:
        return [*lines, "", f"``docs/results/{file}.json``", ""]
    machine = results["environment"]
    origin = (
        f"{machine['cores']} cores, {machine['threads']} threads "
        f"({machine.get('processor', machine['machine'])}); "
    )
    versions = f"Python {machine['python']}, PyTorch {machine['torch']}, Pyro {machine['pyro']}"
    for peer, version in results.get("peers", {}).items():
        versions += f", {peer} {version}"
    return [*lines, "", f"*{origin}{versions}:* ``docs/results/{file}.json``", ""]


class Benchmark(Directive):
    """``.. benchmark:: name``."""

    required_arguments = 1

    def run(self) -> list[Any]:
        """Parse the table in place."""
        self.state_machine.insert_input(
            StringList(rendered(self.arguments[0]), source="benchmark"), "benchmark"
        )
        return []


def setup(app: Any) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("benchmark", Benchmark)
    return {"parallel_read_safe": True}
