"""
Training on digits
==================

*How do you train the model of the paper, and what does a guide add?*

The model sends uniform numbers through learned inverse distribution functions and a
Kolmogorov-Arnold network to make an image. There are three ways to train it. *Importance sampling*
never infers which numbers made an image. *Langevin* training infers them with a Markov chain for
each image. *Amortized* training also trains a network that infers them, as in a variational
autoencoder. Each takes a few lines of Pyro.
"""

# %%
# The data are 1,797 handwritten digits of 8 × 8 pixels, 300 of them held out.

import os

import pyro
import pyro.distributions as dist
import torch
from matplotlib import pyplot
from pyro.infer import SVI, Trace_ELBO
from pyro.poutine import reparam
from torch import nn

from pyro_tkam import plots
from pyro_tkam.datasets import digits, split
from pyro_tkam.infer import (
    ULA,
    ImportanceMLE,
    ImportanceSampling,
    InverseTransformReparam,
    LangevinMLE,
)
from pyro_tkam.models import TKAM

SMALL = "PYRO_TKAM_SMALL" in os.environ  # set where only the code is checked
UPDATES = 150 if SMALL else 1500
BATCH = 100
LATENTS = 8

pyro.set_rng_seed(0)
train_rows, held_out_rows = split(1797, 300)
images = digits().images
training, held_out = images[train_rows], images[held_out_rows]


def new_model():
    """Eight uniform numbers, 17 × 8 inverse distribution functions, and a network to 64 pixels."""
    pyro.set_rng_seed(1)
    return TKAM.kart((8, 8), latent_dim=LATENTS, coupling="shared", grid_size=10, noise_scale=0.25)


# %%
# Importance sampling
# -------------------
#
# The likelihood of an image is an average over the prior, :math:`p(x) = E_{p(z)}[p(x|z)]`. Draw a
# hundred :math:`z`, shared across the batch, and average. The gradient is a weighted average of the
# gradients at the draws, where each weight says how well the draw explains the image. This needs no
# guide and no Markov chain.


def train(svi, updates=UPDATES):
    """Take updates on random batches; return the loss in nats per image."""
    rows = (torch.randperm(len(training))[:BATCH] for _ in range(updates))
    return [svi.step(training[batch], len(training)) / len(training) for batch in rows]


by_importance = new_model()
with pyro.get_param_store().scope():
    objective = ImportanceMLE(100)
    svi = SVI(by_importance, None, pyro.optim.Adam({"lr": 3e-3}), loss=objective)
    losses = {"importance": train(svi)}
effective = objective.statistics.effective_sample_size.mean()
print(
    f"importance: {losses['importance'][-1]:.1f} nats an image, {effective:.1f} of 100 draws "
    "count for an image"
)
assert losses["importance"][-1] < losses["importance"][0] - 10
assert effective < 10

# %%
# Only a few of the hundred draws explain an image. Training tolerates this well, because each image
# pulls on the draws that resemble it. The *value* does not: the log of an average over so few draws
# is biased downward.
#
# Langevin
# --------
#
# For each image, a chain starts at a prior draw and moves toward numbers that explain the image. It
# follows the gradient of the log density, plus noise. The gradient with respect to the
# parameters is computed at the end of the chain. Each step needs the generator's gradient for every
# image. The loss is a different quantity: the misfit at the ends of the chains, not an evidence.

by_langevin = new_model()
with pyro.get_param_store().scope():
    chains = LangevinMLE(ULA, num_steps=10, step_size=0.05)
    svi = SVI(by_langevin, None, pyro.optim.Adam({"lr": 3e-3}), loss=chains)
    misfit = train(svi, UPDATES // 2)
print(f"Langevin: misfit {misfit[0]:.1f}, later {misfit[-1]:.1f} nats an image")
assert misfit[-1] < misfit[0] - 10

# %%
# Amortized
# ---------
#
# For each image, a guide proposes numbers that may have made it. A guide is easier to write for
# normal numbers than for uniform ones. ``InverseTransformReparam`` converts one to the other: the
# site ``u`` becomes ``u_noise``, which is standard normal.

amortized = new_model()
normal_model = reparam(amortized, {"u": InverseTransformReparam()})
encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.SiLU(), nn.Linear(128, 2 * LATENTS))


def guide(x, size=None):
    """Propose normal numbers for each image."""
    pyro.module("encoder", encoder)
    with pyro.plate("data", size or len(x), subsample=torch.arange(len(x))):
        mean, log_scale = encoder(x).chunk(2, -1)
        pyro.sample("u_noise", dist.Normal(mean, log_scale.exp()).to_event(1))


with pyro.get_param_store().scope():
    svi = SVI(normal_model, guide, pyro.optim.Adam({"lr": 3e-3}), loss=Trace_ELBO())
    losses["amortized"] = train(svi)
print(f"amortized: {losses['amortized'][-1]:.1f} nats an image")
assert losses["amortized"][-1] < losses["amortized"][0] - 10

# %%
# How good are they?
# ------------------
#
# We estimate the log evidence of the held-out images with weighted draws, first from the prior and
# then from the guide. Each value comes with a verdict.

with pyro.get_param_store().scope():
    by_guide = ImportanceSampling(normal_model, guide, num_particles=500).run(held_out)
with pyro.get_param_store().scope():
    by_prior = ImportanceSampling(by_importance, num_particles=5000).run(held_out)
for name, draws in (
    ("importance, by 5000 prior draws", by_prior),
    ("amortized, by 500 guide draws", by_guide),
):
    size = draws.effective_sample_size.median()
    print(
        f"{name}: {draws.evidence.value / len(held_out):.1f} nats an image, {size:.0f} effective "
        "draws"
    )
    print(f"  {draws.verdict}")
assert not by_prior.verdict.trusted
assert not by_guide.verdict.trusted
share = {
    name: draws.effective_sample_size.median() / draws.num_particles
    for name, draws in (("prior", by_prior), ("guide", by_guide))
}
assert share["guide"] > 3 * share["prior"], "a draw of the guide is worth several of the prior"

# %%
# One guide draw is worth several prior draws, because the guide looks at the image first. Still,
# neither value can be trusted for every image, and the verdicts say so. Both are too low by unknown
# amounts, so don't compare them. (For a reliable value, use tempering; see :doc:`04_evidence`.) The
# guide infers the numbers of every image. It costs a second network, and it gets the posterior of
# some images wrong. To compare the samples, look at them:

with pyro.get_param_store().scope():
    samples = {"importance": by_importance.generate(64)}
with pyro.get_param_store().scope():
    samples["Langevin"] = by_langevin.generate(64)
with pyro.get_param_store().scope():
    samples["amortized"] = amortized.generate(64)
figure, panels = pyplot.subplots(1, 5, figsize=(14, 3.2), layout="constrained")
for name, values in losses.items():
    panels[0].plot(values, label=name, linewidth=0.7)
lowest, first = min(losses["importance"]), losses["importance"][0]
panels[0].set(xlabel="update", ylabel="loss (nats an image)", ylim=(lowest - 10, first))
panels[0].legend(frameon=False)
plots.image_grid(held_out[:64], panels[1], title="held-out digits")
for panel, (name, drawn) in zip(panels[2:], samples.items(), strict=True):
    plots.image_grid(drawn, panel, title=f"samples, {name}")
    assert (SMALL and name == "Langevin") or drawn.std(0).mean() > 0.02, (
        "samples differ from each other"
    )

# %%
# Next steps: ``python -m pyro_tkam train`` does the same for 28 × 28 digits, with checkpoints,
# metrics and pictures, and ``make demo`` compares it with an autoregressive prior.
# ``ImportanceMLE`` also takes a guide, which then learns from the same weights (reweighted
# wake-sleep).
