"""The pictures of a run folder."""

from pathlib import Path
from typing import Any

import pyro
import torch
from pyro.distributions import Normal

from pyro_tkam import plots
from pyro_tkam._files import replacing, write_text
from pyro_tkam.distributions import (
    AutoregressiveTilted,
    ExponentiallyTilted,
    JointEnergy,
    TiltedMixture,
)
from pyro_tkam.models import LabeledTKAM, Seq2SeqTKAM
from pyro_tkam.train.config import ModelConfig
from pyro_tkam.train.folder import RunFolder

NUM_DRAWS = 2000  # draws of a joint prior, for its marginals
SHOWN_TEXTS = 12


def generate(model: Any, num: int, label: int | None = None) -> Any:
    """
    Draw new data without changing Pyro's global parameter store, in which two models may share
    names.

    :param model: the model.
    :param num: number of rows.
    :param label: class of the rows, for a model of data with classes; None cycles through all
        classes.
    :return: a tensor, or a dictionary of tensors for several modalities.
    :raises ValueError: for a label outside the classes, or if the model has no classes.
    """
    with pyro.get_param_store().scope():
        if isinstance(model, LabeledTKAM):
            classes = len(model.prior.logits)
            each = torch.arange(num) % classes if label is None else torch.full((num,), label)
            return model.generate(each)
        if label is not None:
            raise ValueError(f"label must be left out for a model without classes, got {label}")
        return model.generate(num)


def save_picture(axes: Any, path: Path, dpi: int = 120) -> None:
    """
    Write the figure of some axes, completely or not at all.

    :param axes: axes of :mod:`pyro_tkam.plots`.
    :param path: the file to replace.
    :param dpi: dots per inch.
    """
    with replacing(path) as aside:
        plots.save(axes, aside, dpi)


def draw_run(model: Any, files: RunFolder, config: ModelConfig, num: int = 64) -> None:
    """
    Write samples (``samples.png`` if a datum is an image, one picture for each modality that is,
    ``samples.txt`` for texts), ``prior.png`` and ``curves.png``.

    For univariate priors, ``prior.png`` shows the densities; for joint priors, the first marginals
    of draws.

    :param model: the trained model.
    :param files: the run folder.
    :param config: the model's configuration.
    :param num: number of samples.
    """
    if not isinstance(model, Seq2SeqTKAM):
        _draw_samples(generate(model, num), files, config)
    with pyro.get_param_store().scope():
        prior = model.prior.components() if isinstance(model, LabeledTKAM) else model.prior()
        if isinstance(prior, JointEnergy | AutoregressiveTilted):
            panels = plots.prior_marginals(prior.sample((NUM_DRAWS,)), Normal(0.0, 1.0))
            save_picture(panels[0], files.path / "prior.png")
    if isinstance(prior, ExponentiallyTilted | TiltedMixture):
        save_picture(plots.prior_densities(prior), files.path / "prior.png")
    save_picture(plots.training_curves({"run": files.read_metrics()})[0], files.path / "curves.png")


def _draw_samples(samples: Any, files: RunFolder, config: ModelConfig) -> None:
    if config.alphabet is not None:
        write_text(files.texts, "\n".join(decoded(samples[:SHOWN_TEXTS], config.alphabet)) + "\n")
        return
    named = samples if isinstance(samples, dict) else {"": samples}
    for name, each in named.items():
        if each.is_floating_point() and plots.are_images(each):
            path = files.path / f"samples{name and '-of-'}{name}.png"
            save_picture(plots.image_grid(each), path)


def decoded(symbols: torch.Tensor, alphabet: str) -> list[str]:
    """
    Return texts, one per line; line breaks within a text become spaces.

    :param symbols: positions in the alphabet, shape ``(num, length)``.
    :param alphabet: the symbols.
    """
    return ["".join(alphabet[i] for i in row).replace("\n", " ") for row in symbols.tolist()]
