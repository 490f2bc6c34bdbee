"""
Mixture or deep priors on color patches
========================================

*A prior can be a mixture of univariate densities, which can be sampled exactly, or one deep energy
over all latents. Which one draws better patches of photographs, at what cost, and can you still see
what it learned?*
"""

# %%
# The data are 1,378 patches of 16 × 16 pixels and three colors, from photographs that come with
# scientific packages.

import os
import time

import pyro
import torch
from matplotlib import pyplot
from pyro.infer import Trace_ELBO

from pyro_tkam import plots
from pyro_tkam.datasets import color_patches, split
from pyro_tkam.distributions import ShortRunULA
from pyro_tkam.metrics import embed, frechet_distance, principal_features
from pyro_tkam.models import TKAM, AmortizedGuide

SMALL = "PYRO_TKAM_SMALL" in os.environ  # set where only the code is checked
UPDATES = 8 if SMALL else 1200
LATENTS = 41

patches = color_patches(16).images
train_rows, held_out_rows = split(len(patches), 278)
training, held_out = patches[train_rows], patches[held_out_rows]
features = principal_features(training, 16)
real = embed(features, training)

# %%
# Both models have the same generator. For each latent, the mixture sums 20 tilted densities and
# normalizes them by quadrature. The deep prior is ``exp(f(z)) N(z; 0, I)`` with a network ``f`` of
# all latents. Its density is known only up to a constant.

shape, common = (3, 16, 16), {"grid_size": 8, "noise_scale": 0.15}


def mixture():
    """Return the model with the mixture prior."""
    return TKAM.mixture(shape, LATENTS, 20, reference="gaussian", **common)


def deep(num_steps=40):
    """Return the model with the deep prior, which is sampled with Langevin steps."""
    return TKAM.deep(
        shape, LATENTS, energy_widths=[82], sampler=ShortRunULA(num_steps=num_steps), **common
    )


def train(make):
    """Train with a guide network and the evidence lower bound; return model and seconds/update."""
    pyro.set_rng_seed(0)
    model = make()
    loss = Trace_ELBO(max_plate_nesting=1)(model, AmortizedGuide(model))
    optimizer = torch.optim.Adam(loss.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, UPDATES)
    start = time.perf_counter()
    for _ in range(UPDATES):
        optimizer.zero_grad()
        (loss(training[torch.randint(len(training), (100,))]) / 100).backward()
        optimizer.step()
        schedule.step()
    return model, (time.perf_counter() - start) / UPDATES


def drawn(model, num=1000):
    """Return samples and the seconds that they took."""
    start = time.perf_counter()
    samples = model.generate(num)
    return samples, time.perf_counter() - start


models, samples, distances = {}, {}, {}
for name, make in (("mixture", mixture), ("deep", deep)):
    models[name], per_update = train(make)
    samples[name], seconds = drawn(models[name])
    distances[name] = frechet_distance(real, embed(features, samples[name]))
    print(
        f"{name}: distance {distances[name]:.2f}, {per_update:.2f} s per update, {seconds:.2f} s "
        "for 1000 samples"
    )
print(f"held-out patches: distance {frechet_distance(real, embed(features, held_out)):.2f}")

# %%
# An update of the deep prior does more work: its energy is a separate network, and its gradient
# needs draws from Langevin steps. Its samples are no better:

assert SMALL or 0.5 < distances["mixture"] / distances["deep"] < 1.5

figure, panels = pyplot.subplots(1, 3, figsize=(10, 3.6), layout="constrained")
plots.image_grid(held_out[:36], panels[0], title="held-out patches")
for panel, name in zip(panels[1:], samples, strict=True):
    plots.image_grid(
        samples[name][:36].clamp(0, 1), panel, title=f"{name} (distance {distances[name]:.1f})"
    )

# %%
# What a draw means
# -----------------
#
# A draw from the mixture is exact: one pass through an inverse distribution function. A draw from
# the deep prior is the end of a chain, and you must find out how long the chain needs to be. Here
# we sample the same trained energy with shorter and longer chains:

state = models["deep"].state_dict()
lengths = (5, 20, 80) if SMALL else (10, 40, 160, 640)
by_length = []
for length in lengths:
    model = deep(length)
    model.load_state_dict(state)
    pyro.set_rng_seed(1)
    some, seconds = drawn(model)
    by_length.append((frechet_distance(real, embed(features, some)), seconds))
    print(f"{length:4d} steps: distance {by_length[-1][0]:.2f}, {seconds:.2f} s for 1000 samples")

prior = models["mixture"].prior()
with torch.no_grad():
    z = prior.sample((4000,))
    uniform = prior.cdf(z)
print(
    f"the mixture's distribution function at its own draws: mean {uniform.mean():.3f}, standard "
    "deviation "
    f"{uniform.std():.3f} (uniform numbers have 0.500 and 0.289)"
)
assert abs(uniform.mean() - 0.5) < 0.01
assert abs(uniform.std() - 12**-0.5) < 0.01

figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
left.plot(lengths, [each for each, _ in by_length], "o-", label="deep, by the length of its chains")
left.axhline(distances["mixture"], color="C1", linestyle="--", label="mixture, exact")
left.set(xscale="log", xlabel="Langevin steps a draw", ylabel="Fréchet distance", ylim=(0, None))
left.legend(frameon=False)
plots.prior_densities(prior, right, title="the mixture's densities that changed most")

# %%
# For the deep prior, you have to measure how much the length of the chain matters, at a cost that
# grows with the length. The mixture needs no such measurement. You can also look at its densities
# one by one (right), while the deep energy shows only its samples. A small network, trained for one
# to three minutes, learns colors and edges but no textures. (The paper found the mixture better on
# SVHN and CIFAR-10. On patches like these, three seeds of 300 updates each do not decide which
# prior is better; see :doc:`/reproduction`.)
