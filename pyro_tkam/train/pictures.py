"""The pictures of a run folder."""

from pathlib import Path
from typing import Any

import pyro
import torch
from pyro.distributions import Normal

from pyro_tkam import plots
from pyro_tkam._files import replacing
from pyro_tkam.distributions import (
    AutoregressiveTilted,
    ExponentiallyTilted,
    JointEnergy,
    TiltedMixture,
)
from pyro_tkam.models import TKAM, Seq2SeqTKAM
from pyro_tkam.train.folder import RunFolder

NUM_DRAWS = 2000  # of a joint prior, for its marginals


def generate(model: TKAM, num: int) -> torch.Tensor:
    """
    Draw new data without touching Pyro's global parameters, where two models may share names.

    :param model: the model.
    :param num: number of rows.
    """
    with pyro.get_param_store().scope():
        return model.generate(num)


def save_picture(axes: Any, path: Path, dpi: int = 120) -> None:
    """
    Write the figure of some axes completely or not at all.

    :param axes: axes of :mod:`pyro_tkam.plots`.
    :param path: the file to replace.
    :param dpi: dots an inch.
    """
    with replacing(path) as aside:
        plots.save(axes, aside, dpi)


def draw_run(model: TKAM | Seq2SeqTKAM, files: RunFolder, num: int = 64) -> None:
    """
    Write ``samples.png`` (if a datum is an image), ``prior.png`` and ``curves.png``.

    For univariate priors the plot shows the densities; for joint priors, the first marginals of
    draws.

    :param model: the trained model.
    :param files: the run folder.
    :param num: number of samples.
    """
    if isinstance(model, TKAM) and plots.are_images(samples := generate(model, num)):
        save_picture(plots.image_grid(samples), files.path / "samples.png")
    with pyro.get_param_store().scope():
        prior = model.prior()
        if isinstance(prior, JointEnergy | AutoregressiveTilted):
            panels = plots.prior_marginals(prior.sample((NUM_DRAWS,)), Normal(0.0, 1.0))
            save_picture(panels[0], files.path / "prior.png")
    if isinstance(prior, ExponentiallyTilted | TiltedMixture):
        save_picture(plots.prior_densities(prior), files.path / "prior.png")
    save_picture(plots.training_curves({"run": files.read_metrics()})[0], files.path / "curves.png")
