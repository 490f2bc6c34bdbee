"""
Text, and whether its latent is used
====================================

*A sequence model with a latent learns to write. Does the latent say anything about the text, and
how would we know?*

A decoder that reads the letters before the next one can predict it without a latent. Training may
then leave the latent unused, and neither the samples nor the loss reveal this (Bowman et al. 2016,
arXiv:1511.06349). This tutorial measures how much the latent is used and tests the measure on a
decoder that cannot read.
"""

# %%
# The data are five books of the King James Bible. The last tenth is held out. Texts are cut into
# windows.

import math
import os
from time import process_time

import pyro
import torch
from matplotlib import pyplot
from torch import nn

from pyro_tkam.datasets import king_james
from pyro_tkam.models import TKAM, AmortizedGuide, MixturePrior, SequenceLikelihood, TiltedPrior
from pyro_tkam.nn import SequenceGenerator

SMALL = "PYRO_TKAM_SMALL" in os.environ  # set where only the code is checked
UPDATES = 15 if SMALL else 700
LENGTH, LATENTS, BATCH = 48, 24, 48

pyro.set_rng_seed(0)
data = king_james()
cut, size = len(data.symbols) * 9 // 10, len(data.alphabet)
training, windows = (
    data.symbols[:cut],
    data.symbols[cut:].unfold(0, LENGTH, LENGTH)[: 100 if SMALL else 1500],
)
print(f"{len(data.symbols):,} characters of {size} kinds; {len(windows)} windows are held out")

# %%
# We start with a baseline: the probability of a letter given the two letters before it, counted and
# smoothed with the counts given one letter, and so on.


def ngram_bits(order):
    """Return bits per character of interpolated counts of up to this many characters."""
    estimate = torch.full((size,), 1 / size)
    for n in range(1, order + 1):
        grams = training.unfold(0, n, 1) @ size ** torch.arange(n - 1, -1, -1)
        counts = torch.bincount(grams, minlength=size**n).reshape(*[size] * n)
        estimate = (counts + 5 * estimate) / (counts.sum(-1, keepdim=True) + 5)
    return -estimate[tuple(windows.unfold(1, order, 1).unbind(-1))].log2().mean().item()


counted = {order: ngram_bits(order) for order in (1, 2, 3)}
print("n-grams, bits a character:", {order: f"{bits:.2f}" for order, bits in counted.items()})


# %%
# The model
# ---------
#
# The model is a Transformer that attends to the latent, with a mixture prior. The guide reads a
# window and proposes its latent.


def make_model():
    """Return the model and its guide."""
    pyro.set_rng_seed(1)
    decoder = SequenceGenerator(LATENTS, size, LENGTH, width=96, num_heads=4, num_layers=2, local=4)
    model = TKAM(
        MixturePrior(TiltedPrior((LATENTS, 4), "gaussian")),
        nn.Identity(),
        SequenceLikelihood(decoder),
    )
    encoder = nn.Sequential(
        nn.Embedding(size, 32),
        nn.Flatten(),
        nn.Linear(32 * LENGTH, 256),
        nn.SiLU(),
        nn.Linear(256, 2 * LATENTS),
    )
    return model, AmortizedGuide(model, encoder=encoder)


def train(blind, floor):
    """
    Maximize the evidence lower bound.

    A blind decoder reads random letters instead of its own. During the first hundred updates, the
    divergence of the guide from the prior has a small weight, so the model tries the latent before
    it pays for it. After that, ``floor`` nats per window are free.
    """
    model, guide = make_model()
    decoder = model.likelihood.decoder
    optimizer = torch.optim.AdamW(
        [*model.parameters(), *guide.parameters()], 3e-3, betas=(0.9, 0.98)
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 3e-3, total_steps=UPDATES, pct_start=0.1
    )
    start = process_time()
    for update in range(UPDATES):
        rows = training[
            torch.randint(len(training) - LENGTH + 1, (BATCH, 1)) + torch.arange(LENGTH)
        ]
        read = torch.randint(size, rows.shape) if blind else rows
        posterior = guide.posterior(rows)
        z = posterior.rsample()
        divergence = (posterior.log_prob(z) - model.prior().log_prob(z).sum(-1)).mean()
        misfit = (
            nn.functional.cross_entropy(decoder(z, read).flatten(0, 1), rows.flatten()) * LENGTH
        )
        optimizer.zero_grad()
        (misfit + (divergence.clamp_min(floor) if update >= 100 else 0.1 * divergence)).backward()
        nn.utils.clip_grad_norm_(guide.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    print(f"trained in {process_time() - start:.0f} s")
    return model, guide


# %%
# Two numbers show whether the latent is used. The first is the divergence of the guide from the
# prior, which measures how much the guide says about a window. The second is how much worse the
# letters are predicted with the latent of another window than with their own.


@torch.no_grad()
def measure(model, guide, blind):
    """
    Return bits per character: the divergence, and the letters given their own latent and given
    another window's latent.
    """
    posterior = guide.posterior(windows)
    z = posterior.sample()
    divergence = (
        (posterior.log_prob(z) - model.prior().log_prob(z).sum(-1)).mean() / LENGTH / math.log(2)
    )
    read = torch.randint(size, windows.shape) if blind else windows
    own, other = (
        nn.functional.cross_entropy(
            model.likelihood.decoder(latent, read).mT, windows, reduction="none"
        ).mean(0)
        / math.log(2)
        for latent in (z, z.roll(1, 0))
    )
    return divergence.item(), own, other


runs = {"reads": train(blind=False, floor=0.0), "blind": train(blind=True, floor=8.0)}
found = {name: measure(*run, blind=name == "blind") for name, run in runs.items()}
for name, (divergence, own, other) in found.items():
    print(
        f"{name}: letters {own.mean():.3f} bits with the own latent, {other.mean():.3f} with "
        "another's; "
        f"divergence {divergence:.3f} bits a character"
    )

figure, axes = pyplot.subplots(figsize=(7, 3.4), layout="constrained")
for name, (_, own, other) in found.items():
    axes.plot(other - own, label="decoder that reads" if name == "reads" else "blind decoder")
axes.axhline(0, color="black", linewidth=0.5)
axes.set(xlabel="position in the window", ylabel="bits that the own latent saves")
axes.legend(frameon=False)

# %%
# The blind decoder shows that the measure works. It has only its latent, and using the latent of
# another window costs a tenth of a bit per letter or more. The decoder that reads gains nothing
# from its latent, and its guide says nothing. Even so, it predicts better than counts of three
# letters:

saved = {name: (other - own).mean().item() for name, (_, own, other) in found.items()}
bound = found["reads"][1].mean().item() + found["reads"][0]
print(f"evidence bound {bound:.2f} bits a character, counts of three letters {counted[3]:.2f}")
assert SMALL or abs(saved["reads"]) < 0.02
assert SMALL or saved["blind"] > 0.08
assert SMALL or bound < counted[3] - 0.3

# %%
# Here is what it writes, twice with one latent and then with another:

writer = runs["reads"][0]
with torch.no_grad():
    z = writer.prior().sample((2,))[[0, 0, 1]]
    for row in writer.likelihood(z).sample():
        print(repr(data.decode(row)))

# %%
# The samples contain words and phrases of the book, but nothing that a latent would determine.
# Before you interpret a latent, check the divergence to see whether it is used at all. If you want
# the latent to be used, several things help: a decoder that sees less, a floor under the
# divergence, or data whose parts share something that nearby letters don't reveal. (The larger
# model of ``benchmarks/text.py``, trained for six minutes, needs 1.58 bits per character; counts of
# five letters need 1.66.)
