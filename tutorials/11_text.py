"""
Text, and whether its latent says anything
==========================================

*A sequence model with a latent learns to write. Does its latent hold anything about the text, and how would one know?*

A decoder that reads what it has written can do without a latent: it predicts the next letter from the letters before.
Training then may well leave the latent idle, which no sample shows and the loss does not tell. This tutorial measures
it, and makes the latent work by hiding letters from the decoder.
"""

# %%
# The data: five books of the King James Bible, of which the last tenth is held out. A text is cut into windows.

import math
import os
from time import process_time

import pyro
import torch
from matplotlib import pyplot
from torch import nn

from pyro_tkam.datasets import king_james
from pyro_tkam.models import TKAM, AmortisedGuide, MixturePrior, SequenceLikelihood, TiltedPrior
from pyro_tkam.nn import SequenceGenerator

SMALL = "PYRO_TKAM_SMALL" in os.environ  # set where only the code is checked
UPDATES = 15 if SMALL else 700
LENGTH, LATENTS, BATCH = 48, 24, 48

pyro.set_rng_seed(0)
data = king_james()
cut, size = len(data.symbols) * 9 // 10, len(data.alphabet)
training, windows = data.symbols[:cut], data.symbols[cut:].unfold(0, LENGTH, LENGTH)[: 100 if SMALL else 1500]
print(f"{len(data.symbols):,} characters of {size} kinds; {len(windows)} windows are held out")

# %%
# A yardstick first: the probability of a letter after the two before it, counted and smoothed with that after one, and
# so on.


def ngram_bits(order):
    """Return bits a character of interpolated counts of so many characters."""
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
# A Transformer that attends to the latent; a mixture prior; and a guide that reads a window and proposes its latent.


def make_model():
    """Return the model and its guide."""
    pyro.set_rng_seed(1)
    decoder = SequenceGenerator(LATENTS, size, LENGTH, width=96, num_heads=4, num_layers=2, local=4)
    model = TKAM(MixturePrior(TiltedPrior((LATENTS, 4), "gaussian")), nn.Identity(), SequenceLikelihood(decoder))
    encoder = nn.Sequential(
        nn.Embedding(size, 32),
        nn.Flatten(),
        nn.Linear(32 * LENGTH, 256),
        nn.SiLU(),
        nn.Linear(256, 2 * LATENTS),
    )
    return model, AmortisedGuide(model, encoder=encoder)


def train(hidden):
    """
    Maximise the evidence lower bound.

    A share ``hidden`` of the letters that the decoder reads is replaced by random ones. The divergence of the guide
    from the prior counts little at first, so that the latent is tried before it is paid for.
    """
    model, guide = make_model()
    decoder = model.likelihood.decoder
    optimizer = torch.optim.AdamW([*model.parameters(), *guide.parameters()], 3e-3, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=UPDATES, pct_start=0.1)
    start = process_time()
    for update in range(UPDATES):
        rows = training[torch.randint(len(training) - LENGTH + 1, (BATCH, 1)) + torch.arange(LENGTH)]
        noise = torch.randint(size, rows.shape)
        read = torch.where(torch.rand(rows.shape) < hidden, noise, rows)
        posterior = guide.posterior(rows)
        z = posterior.rsample()
        divergence = posterior.log_prob(z) - model.prior().log_prob(z).sum(-1)
        misfit = nn.functional.cross_entropy(decoder(z, read).flatten(0, 1), rows.flatten()) * LENGTH
        optimizer.zero_grad()
        (misfit + min(1.0, 0.05 + 1.5 * update / UPDATES) * divergence.mean()).backward()
        nn.utils.clip_grad_norm_(guide.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    print(f"trained with {hidden:.0%} hidden in {process_time() - start:.0f} s")
    return model, guide


@torch.no_grad()
def measure(model, guide):
    """Return bits a character of the bound, and at each position with the own latent and with another window's."""
    posterior = guide.posterior(windows)
    z = posterior.sample()
    divergence = (posterior.log_prob(z) - model.prior().log_prob(z).sum(-1)).mean() / LENGTH / math.log(2)
    by_position = []
    for latent in (z, z.roll(1, 0)):
        logits = model.likelihood.decoder(latent, windows)
        loss = nn.functional.cross_entropy(logits.mT, windows, reduction="none") / math.log(2)
        by_position.append(loss.mean(0))
    own, other = by_position
    return (own.mean() + divergence).item(), divergence.item(), own, other


runs = {hidden: train(hidden) for hidden in (0.0, 0.6)}
found = {hidden: measure(*run) for hidden, run in runs.items()}
for hidden, (bound, divergence, own, other) in found.items():
    print(
        f"{hidden:.0%} hidden: {bound:.3f} bits a character, of which {divergence:.3f} for the latent; "
        f"the letters cost {own.mean():.3f} with the own latent and {other.mean():.3f} with another's"
    )

# %%
figure, axes = pyplot.subplots(figsize=(7, 3.4), layout="constrained")
for hidden, (_, _, own, other) in found.items():
    axes.plot(other - own, label=f"{hidden:.0%} of the letters hidden in training")
axes.axhline(0, color="black", linewidth=0.5)
axes.set(xlabel="position in the window", ylabel="bits that the own latent saves")
axes.legend(frameon=False)

# %%
# What they write, each with one latent twice and then another:

for hidden, (model, _) in runs.items():
    pyro.set_rng_seed(2)
    with torch.no_grad():
        z = model.prior().sample((2,))[[0, 0, 1]]
        print(f"{hidden:.0%} hidden:")
        for row in model.likelihood(z).sample():
            print("   ", repr(data.decode(row)))
