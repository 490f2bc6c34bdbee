"""
Multimodal and class-conditional generation
===========================================

*Given one latent, can we draw the missing half of a digit, predict its label, and draw digits of a
given class?*

If a latent explains several kinds of data at once, you can infer it from any of them and generate
the others. If the prior of a latent knows about classes, you can draw the latent for one class.
"""

# %%
# The data are 1,797 handwritten digits of 8 × 8 pixels, 397 of them held out. A digit has three
# modalities: its upper half, its lower half and its label.

import os

import pyro
import torch
from matplotlib import pyplot
from torch import nn

from pyro_tkam import plots
from pyro_tkam.datasets import digits, split
from pyro_tkam.infer import ImportanceMLE
from pyro_tkam.metrics import train_classifier
from pyro_tkam.models import (
    CategoricalLikelihood,
    GaussianLikelihood,
    Heads,
    LabeledPrior,
    LabeledTKAM,
    LatentGenerator,
    MixturePrior,
    MultimodalTKAM,
    TiltedPrior,
)
from pyro_tkam.nn import KAN

SMALL = "PYRO_TKAM_SMALL" in os.environ  # set where only the code is checked
UPDATES = 60 if SMALL else 1000
DRAWS = 1000 if SMALL else 10_000
LATENTS, FEATURES = 24, 80

pyro.set_rng_seed(0)
images, labels = digits()
upper, lower = images.flatten(1).chunk(2, -1)
train, test = split(len(images), 397)
modalities = {"upper": upper, "lower": lower, "label": labels}
training = {name: value[train] for name, value in modalities.items()}
held_out = {name: value[test] for name, value in modalities.items()}

# %%
# Three modalities of one latent
# ------------------------------
#
# One layer of a Kolmogorov-Arnold network turns the latents into features. One more layer per
# modality generates the data of that modality.

shared = LatentGenerator(
    KAN([LATENTS, FEATURES], "rbf", grid_size=10, bias=False),
    (FEATURES,),
    mean=0.5,
    spread=12**-0.5,
)
heads = {
    "upper": KAN([FEATURES, 32], "rbf", grid_size=10, bias=False, output="sigmoid"),
    "lower": KAN([FEATURES, 32], "rbf", grid_size=10, bias=False, output="sigmoid"),
    "label": KAN([FEATURES, 10], "rbf", grid_size=10, bias=False),
}
likelihoods = {
    "upper": GaussianLikelihood(0.2),
    "lower": GaussianLikelihood(0.2),
    "label": CategoricalLikelihood(event_dim=0),
}
prior = MixturePrior(TiltedPrior((LATENTS, 8), grid_size=10))
model = MultimodalTKAM(
    prior, Heads(heads, nn.Sequential(shared, nn.LayerNorm(FEATURES))), likelihoods
)


def fit(model, batches, updates, particles=300):
    """Train by importance sampling from the prior, with a decreasing step size."""
    loss = ImportanceMLE(particles)(model, None)
    optimizer = torch.optim.Adam(loss.parameters(), 4e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    for _ in range(updates):
        optimizer.zero_grad()
        (loss(*batches(torch.randint(len(train), (100,)))) / 100).backward()
        optimizer.step()
        schedule.step()


fit(model, lambda rows: ({name: value[rows] for name, value in training.items()},), UPDATES)

# %%
# The model was not told which modality would be missing. ``conditional`` gives the posterior mean
# of each modality, given those that are present, and probabilities for labels. Here, we look at the
# lower half, which we compare with the mean of the training halves, and at the labels.

by_upper = model.conditional({"upper": held_out["upper"]}, num_particles=DRAWS)
by_image = model.conditional(
    {name: held_out[name] for name in ("upper", "lower")}, num_particles=DRAWS
)


def error(guess):
    """Return the root mean square error over pixels of lower halves."""
    return (guess - held_out["lower"]).square().mean().sqrt().item()


errors = {"model": error(by_upper["lower"]), "mean half": error(training["lower"].mean(0))}
centers = torch.stack([images[train][labels[train] == c].flatten(1).mean(0) for c in range(10)])
nearest = torch.cdist(images[test].flatten(1), centers).argmin(-1)
accuracy = {
    "model, from the image": (by_image["label"].argmax(-1) == labels[test]).float().mean().item(),
    "model, from the upper half": (by_upper["label"].argmax(-1) == labels[test])
    .float()
    .mean()
    .item(),
    "nearest class mean, from the image": (nearest == labels[test]).float().mean().item(),
}
print(
    "error of the lower half from the upper:",
    {name: f"{value:.3f}" for name, value in errors.items()},
)
print("accuracy of the label:", {name: f"{value:.3f}" for name, value in accuracy.items()})
assert errors["model"] < errors["mean half"]
assert SMALL or errors["model"] < 0.85 * errors["mean half"]
assert SMALL or accuracy["model, from the image"] > 0.85

# %%
# A mean of several possible halves is blurry. ``complete`` draws one possible half instead, and
# repeated draws show what the model considers possible. Each row below starts with the given half,
# continues with five completions, and ends with the true half.

given = {"upper": held_out["upper"][:8]}
blank = torch.zeros_like(given["upper"])
completions = [model.complete(given, num_particles=DRAWS)["lower"] for _ in range(5)]
columns = [blank, *completions, held_out["lower"][:8]]
rows = torch.stack(
    [torch.cat([given["upper"], half], -1).unflatten(-1, (8, 8)) for half in columns], 1
)
figure, panel = pyplot.subplots(figsize=(6, 7), layout="constrained")
plots.image_grid(
    rows.flatten(0, 1), panel, columns=7, title="given half  |  five completions  |  truth"
)

# %%
# Digits of a given class
# -----------------------
#
# To draw a class from the model above, you would have to search the prior for latents with that
# label. ``LabeledPrior`` has a density for each class and latent instead, so draws given a class
# are exact and take one pass.

labeled = LabeledTKAM(
    LabeledPrior(10, 16, grid_size=12),
    KAN([16, 64, 64], "rbf", grid_size=8, layer_norm=True, bias=False, output="sigmoid"),
    GaussianLikelihood(0.25),
)
flat = images.flatten(1)[train]
fit(labeled, lambda rows: (flat[rows], labels[train][rows]), UPDATES)

# %%
# To judge the samples, we use a classifier trained on the training digits. It has never seen a
# sample. Its accuracy on real held-out digits is the benchmark for the samples.

judge = train_classifier(images[train], labels[train], epochs=3 if SMALL else 30)
wanted = torch.arange(10).repeat_interleave(100)
samples = labeled.generate(wanted).unflatten(-1, (8, 8))


@torch.no_grad()
def judged(images, labels):
    """Return the share of images that the judge assigns to their label."""
    return (judge(images.unsqueeze(1)).argmax(-1) == labels).float().mean().item()


share, best = judged(samples, wanted), judged(images[test], labels[test])
print(
    f"the judge sees the class asked for in {share:.1%} of 1000 samples; it is right on "
    f"{best:.1%} of held-out digits"
)
assert SMALL or share > 0.5, "guessing is right in a tenth"

figure, panel = pyplot.subplots(figsize=(6, 5), layout="constrained")
shown = samples.unflatten(0, (10, 100))[:, :12].flatten(0, 1)
plots.image_grid(shown, panel, columns=12, title="drawn given the class, one row each, 0 to 9")
