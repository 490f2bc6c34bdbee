"""The pictures of a run folder."""

import pyro
import torch
from pyro.distributions import Normal

from pyro_tkam import plots
from pyro_tkam.distributions import (
    AutoregressiveTilted,
    ExponentiallyTilted,
    JointEnergy,
    TiltedMixture,
)
from pyro_tkam.models import TKAM
from pyro_tkam.train.folder import RunFolder

NUM_DRAWS = 2000  # of a joint prior, for its marginals


def generate(model: TKAM, num: int) -> torch.Tensor:
    """
    Draw new data without touching Pyro's global parameters, in which two models may share names.

    :param model: the model.
    :param num: number of rows.
    """
    with pyro.get_param_store().scope():
        return model.generate(num)


def draw_run(model: TKAM, files: RunFolder, num: int = 64) -> None:
    """
    Write ``samples.png`` (where a datum is an image), ``prior.png`` and ``curves.png``.

    Of univariate priors the densities are drawn, of joint ones the first marginals of draws.

    :param model: the trained model.
    :param files: the run folder.
    :param num: number of samples.
    """
    samples = generate(model, num)
    if plots.are_images(samples):
        plots.save(plots.image_grid(samples), files.path / "samples.png")
    with pyro.get_param_store().scope():
        prior = model.prior()
        if isinstance(prior, JointEnergy | AutoregressiveTilted):
            panels = plots.prior_marginals(prior.sample((NUM_DRAWS,)), Normal(0.0, 1.0))
            plots.save(panels[0], files.path / "prior.png")
    if isinstance(prior, ExponentiallyTilted | TiltedMixture):
        plots.save(plots.prior_densities(prior), files.path / "prior.png")
    plots.save(plots.training_curves({"run": files.read_metrics()})[0], files.path / "curves.png")
