"""Train both couplings on real digits, side by side, and say how good they are."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyro
from torch import Tensor

from pyro_tkam import plots
from pyro_tkam.datasets import DATASETS, LabeledImages, split
from pyro_tkam.metrics import ClassShares, class_shares, train_classifier
from pyro_tkam.models import TKAM
from pyro_tkam.train.config import TrainConfig
from pyro_tkam.train.folder import RunFolder, write_results
from pyro_tkam.train.ownership import sole_owner
from pyro_tkam.train.pictures import generate, save_picture
from pyro_tkam.train.run import load_model, train

COUPLINGS = ("shared", "independent")


@dataclass(frozen=True)
class DemoResult:
    """
    What the demo found, for each coupling.

    :param summaries: ``summary.json`` of each run.
    :param shares: what the classifier thinks of each run's samples, and of ``"held-out digits"``.
    """

    summaries: dict[str, dict[str, Any]]
    shares: dict[str, ClassShares]


def demo(
    config: TrainConfig, folder: Path | str, *, num_samples: int = 1000, progress: bool = True
) -> DemoResult:
    """
    Train one run for each coupling, compare their samples with held-out digits, and write pictures
    of both.

    The folder gets a run folder for each coupling, ``demo.png``, ``curves.png`` and
    ``summary.json``. A demo that was killed goes on where it was.

    :param config: options of both runs; ``config.data`` is the name of a data set with labels.
    :param folder: where to write.
    :param num_samples: number of samples that the classifier sees.
    :param progress: show progress bars.
    :raises ValueError: for data without labels, nothing held out, or several processes.
    :raises BlockingIOError: for a folder that another process writes to.
    """
    if config.data not in DATASETS:
        raise ValueError(
            f"data must be one of {sorted(DATASETS)}, as the demo needs labels, got {config.data!r}"
        )
    if config.held_out < 1:
        raise ValueError(
            "held_out must be at least 1, as the demo compares with held-out digits, got "
            f"{config.held_out}"
        )
    if (config.devices, config.num_nodes) != (1, 1):
        raise ValueError(
            f"devices must be 1 for the small demo, got {config.devices} on {config.num_nodes} "
            "machines"
        )
    with sole_owner(Path(folder), "demo"):
        return _demo(config, Path(folder), num_samples, progress)


def _demo(config: TrainConfig, folder: Path, num_samples: int, progress: bool) -> DemoResult:
    summaries, models = {}, {}
    for coupling in COUPLINGS:
        run = replace(config, model=replace(config.model, coupling=coupling))
        summaries[coupling] = train(run, folder / coupling, progress=progress)
        models[coupling] = load_model(folder / coupling)
    digits = DATASETS[config.data]()
    train_rows, held_out = split(len(digits.images), config.held_out, seed=config.seed)
    pyro.set_rng_seed(config.seed)
    samples = {coupling: generate(model, num_samples) for coupling, model in models.items()}
    shares = _shares(digits, train_rows, {**samples, "held-out digits": digits.images[held_out]})
    _draw(folder, models, samples, digits.images[held_out])
    result = DemoResult(summaries, shares)
    written = {
        "runs": summaries,
        "classifier": {name: vars(share) for name, share in shares.items()},
    }
    write_results(folder / "summary.json", written)
    return result


def _shares(digits: LabeledImages, rows: Tensor, sets: dict[str, Tensor]) -> dict[str, ClassShares]:
    classifier = train_classifier(digits.images[rows], digits.labels[rows])
    return {name: class_shares(classifier, images) for name, images in sets.items()}


def _draw(folder: Path, models: dict[str, TKAM], samples: dict[str, Tensor], real: Tensor) -> None:
    """Write the two pictures that show both couplings at once."""
    figure = plots.new_figure(10.0, 5.6)
    grids, densities = figure.subplots(2, 3, height_ratios=(3, 2))
    plots.image_grid(real[:64], grids[0], columns=8, title="real digits, held out")
    for column, (coupling, model) in enumerate(models.items(), start=1):
        plots.image_grid(
            samples[coupling][:64],
            grids[column],
            columns=8,
            title=f'samples, coupling="{coupling}"',
        )
        with pyro.get_param_store().scope():
            prior = model.prior()
        plots.prior_densities(prior, densities[column], title="learned priors")
    metrics = {coupling: RunFolder(folder / coupling).read_metrics() for coupling in models}
    plots.training_curves(
        {name: {k: run[k] for k in ("update", "loss")} for name, run in metrics.items()},
        [densities[0]],
    )
    save_picture(densities[0], folder / "demo.png", dpi=100)
    save_picture(plots.training_curves(metrics)[0], folder / "curves.png")


def table(result: DemoResult) -> str:
    """
    Return the summary of a demo as text.

    :param result: what :func:`demo` returned.
    """
    lines = [f"{'':26}" + "".join(f"{name:>18}" for name in (*COUPLINGS, "held-out digits"))]
    evidence = {name: summary["held_out"] for name, summary in result.summaries.items()}
    rows = {
        "log evidence a digit": [
            f"{e['log_evidence']:.2f} ± {e['standard_error']:.2f}" for e in evidence.values()
        ],
        "effective draws a digit": [f"{e['effective_sample_size']:.1f}" for e in evidence.values()],
        "seconds a step": [_seconds(summary) for summary in result.summaries.values()],
        "one class, p > .9": [f"{share.confident:.0%}" for share in result.shares.values()],
        "classes among these": [
            str(sum(s > 0 for s in share.confident_by_class)) for share in result.shares.values()
        ],
        "rarest class, any p": [f"{min(share.by_class):.1%}" for share in result.shares.values()],
    }
    lines += [
        f"{name:26}" + "".join(f"{entry:>18}" for entry in entries)
        for name, entries in rows.items()
    ]
    lines += ["", "Can the log evidence be believed?"]
    lines += [f"  {name}: {e['verdict']}" for name, e in evidence.items()]
    return "\n".join(lines)


def _seconds(summary: dict[str, Any]) -> str:
    seconds = summary["seconds_per_update"]
    return "-" if seconds is None else f"{seconds:.3f}"
