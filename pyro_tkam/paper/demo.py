"""Train two models on real digits and compare their samples."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyro
from torch import Tensor

from pyro_tkam import plots
from pyro_tkam.datasets import DATASETS, LabeledImages, split
from pyro_tkam.distributions import AutoregressiveTilted
from pyro_tkam.metrics import (
    ClassShares,
    class_shares,
    classifier_features,
    embed,
    frechet_distance,
    train_classifier,
)
from pyro_tkam.models import TKAM
from pyro_tkam.train.config import TrainConfig
from pyro_tkam.train.folder import RunFolder, write_results
from pyro_tkam.train.ownership import sole_owner
from pyro_tkam.train.pictures import generate, save_picture
from pyro_tkam.train.run import load_model, train

HELD_OUT = "held-out digits"


def _kart(config: TrainConfig) -> TrainConfig:
    """The representation theorem to the letter, trained by importance sampling from its prior."""
    return replace(config, model=replace(config.model, preset="kart", coupling="shared"))


def _autoregressive(config: TrainConfig) -> TrainConfig:
    """As many latents, each given those before it, trained with a guide network."""
    model = replace(
        config.model,
        preset="autoregressive",
        latent_dim=2 * config.model.latent_dim + 1,
        grid_size=8,
        noise_scale=0.3,
    )
    return replace(
        config,
        model=model,
        objective="amortized",
        num_particles=1,
        learning_rate=3 * config.learning_rate,
        schedule="one-cycle",
    )


MODELS: dict[str, Callable[[TrainConfig], TrainConfig]] = {
    "autoregressive": _autoregressive,
    "strict KART": _kart,
}
"""From the options of a demo to those of each run."""


@dataclass(frozen=True)
class DemoResult:
    """
    Results of the demo, for each model.

    :param summaries: ``summary.json`` of each run.
    :param shares: the classifier's judgment of each run's samples and of ``"held-out digits"``.
    :param distances: Fréchet distances to the training digits, in the classifier's features, for
        ``"held-out digits"`` and for as many samples of each run.
    """

    summaries: dict[str, dict[str, Any]]
    shares: dict[str, ClassShares]
    distances: dict[str, float]


def demo(config: TrainConfig, folder: Path | str, *, progress: bool = True) -> DemoResult:
    """
    Train the strict model of the representation theorem and the autoregressive one, compare their
    samples with held-out digits, and write pictures of both.

    The folder gets a run folder for each model, ``demo.png``, ``curves.png`` and ``summary.json``.
    A demo that was killed continues where it stopped.

    :param config: options of both runs; ``config.data`` is the name of a data set with labels. The
        autoregressive run takes Q = 2P + 1 latents, a guide, noise of .4, generators of 8 grid
        points and three times the step size, with a one-cycle schedule.
    :param folder: where to write.
    :param progress: show progress bars.
    :raises ValueError: for data without labels, fewer than two held-out digits, or several
        processes.
    :raises BlockingIOError: if another process is writing to the folder.
    """
    if config.data not in DATASETS:
        raise ValueError(
            f"data must be one of {sorted(DATASETS)}, as the demo needs labels, got {config.data!r}"
        )
    if config.held_out < 2:
        raise ValueError(
            "held_out must be at least 2, as the demo compares with held-out digits, got "
            f"{config.held_out}"
        )
    if (config.devices, config.num_nodes) != (1, 1):
        raise ValueError(
            f"devices must be 1 for the small demo, got {config.devices} on {config.num_nodes} "
            "machines"
        )
    with sole_owner(Path(folder), "demo"):
        return _demo(config, Path(folder), progress)


def _demo(config: TrainConfig, folder: Path, progress: bool) -> DemoResult:
    summaries = {}
    models = {}
    for name, options in MODELS.items():
        summaries[name] = train(options(config), _run(folder, name), progress=progress)
        models[name] = load_model(_run(folder, name))
    digits = DATASETS[config.data]()
    train_rows, held_out = split(len(digits.images), config.held_out, seed=config.seed)
    pyro.set_rng_seed(config.seed)
    samples = {name: generate(model, config.held_out) for name, model in models.items()}
    compared = {**samples, HELD_OUT: digits.images[held_out]}
    result = DemoResult(summaries, *_judged(digits, train_rows, compared))
    _draw(folder, models, compared, result.distances)
    written = {
        "runs": summaries,
        "classifier": {name: vars(share) for name, share in result.shares.items()},
        "frechet_distance": result.distances,
    }
    write_results(folder / "summary.json", written)
    return result


def _run(folder: Path, name: str) -> Path:
    return folder / name.replace(" ", "-")


def _judged(
    digits: LabeledImages, rows: Tensor, sets: dict[str, Tensor]
) -> tuple[dict[str, ClassShares], dict[str, float]]:
    """Return what a classifier thinks of sets of images, and how far they are from those rows."""
    images = digits.images[rows]
    labels = digits.labels[rows]
    classifier = train_classifier(images, labels)
    features = classifier_features(images, labels)
    real = embed(features, images)
    return (
        {name: class_shares(classifier, images) for name, images in sets.items()},
        {name: frechet_distance(real, embed(features, images)) for name, images in sets.items()},
    )


def _draw(
    folder: Path, models: dict[str, TKAM], compared: dict[str, Tensor], distances: dict[str, float]
) -> None:
    """Write the two pictures that show both models at once."""
    figure = plots.new_figure(10.0, 5.6)
    grids, panels = figure.subplots(2, 3, height_ratios=(3, 2))
    for axes, name in zip(grids, (HELD_OUT, *models), strict=True):
        title = "real digits, held out" if name == HELD_OUT else f"samples, {name}"
        plots.image_grid(compared[name][:64], axes, columns=8, title=title)
    for axes, model in zip(panels[1:], models.values(), strict=True):
        with pyro.get_param_store().scope():
            prior = model.prior()
        if isinstance(prior, AutoregressiveTilted):
            title = "the last latent's density, given those before"
            plots.conditional_densities(prior, axes, title=title)
        else:
            plots.prior_densities(prior, axes, title="learned priors")
    bars = panels[0].barh(list(distances), list(distances.values()))
    panels[0].bar_label(bars, fmt="%.2f", padding=3)
    panels[0].set_title("Fréchet distance to digits trained on", fontsize="medium")
    panels[0].margins(x=0.15)
    panels[0].spines[["top", "right"]].set_visible(False)
    save_picture(panels[0], folder / "demo.png", dpi=100)
    metrics = {name: RunFolder(_run(folder, name)).read_metrics() for name in models}
    save_picture(plots.training_curves(metrics)[0], folder / "curves.png")


def table(result: DemoResult) -> str:
    """
    Return the summary of a demo as text.

    :param result: what :func:`demo` returned.
    """
    names = (*MODELS, HELD_OUT)
    lines = [f"{'':26}" + "".join(f"{name:>18}" for name in names)]
    rows = {
        "Fréchet distance": [f"{result.distances[name]:.2f}" for name in names],
        "one class, p > .9": [f"{result.shares[name].confident:.0%}" for name in names],
        "classes among these": [
            str(sum(s > 0 for s in result.shares[name].confident_by_class)) for name in names
        ],
        "rarest class, any p": [f"{min(result.shares[name].by_class):.1%}" for name in names],
        "seconds per update": [_seconds(summary) for summary in result.summaries.values()],
    }
    lines += [
        f"{name:26}" + "".join(f"{entry:>18}" for entry in entries)
        for name, entries in rows.items()
    ]
    return "\n".join(lines)


def _seconds(summary: dict[str, Any]) -> str:
    seconds = summary["seconds_per_update"]
    return "-" if seconds is None else f"{seconds:.3f}"
