"""
A sequence given a sequence, and what the source does not determine
===================================================================

*Words are written in one way and spoken in two. Can a model produce both, and does its latent know
which?*

A decoder of pronunciations that attends to the letters knows nearly everything that it needs. It
cannot know the speaker. Here we make up a language with two dialects and train a model in which
source and target share a latent. We then check that the latent encodes the dialect in which a word
is spoken: one bit, and nothing else.
"""

# %%
# In the first dialect, a word is spoken as it is written. In the second, its vowels move: ``a`` is
# spoken as ``e``, ``e`` as ``i``, ``i`` as ``o`` and ``o`` as ``a``. Every word is spoken in both.

import math
import os
from time import process_time

import pyro
import torch
from matplotlib import pyplot
from torch import nn

from pyro_tkam.datasets import Alphabet
from pyro_tkam.models import TKAM, PairELBO, PairGuide
from pyro_tkam.nn import Encoded, beam_search, ended_log_prob

SMALL = "PYRO_TKAM_SMALL" in os.environ  # set where only the code is checked
UPDATES = 15 if SMALL else 900

pyro.set_rng_seed(0)
letters = Alphabet(tuple("aeioklmnpst"))
vowels, consonants = "aeio", "klmnpst"
moved = str.maketrans("aeio", "eioa")


def word():
    """Make up a word of two or three syllables."""
    count = int(torch.randint(2, 4, ()))
    picks = torch.randint(7 * 4, (count,)).tolist()
    return "".join(consonants[i // 4] + vowels[i % 4] for i in picks)


words = sorted({word() for _ in range(1500)})
words = [words[i] for i in torch.randperm(len(words)).tolist()]
source = letters.encode(words, 6)
spoken = torch.stack(
    [letters.encode(words, 6), letters.encode([w.translate(moved) for w in words], 6)]
)
held_out = 200
print(f"{len(words)} words, such as {words[0]}: {words[0]} or {words[0].translate(moved)}")

# %%
# The model
# ---------
#
# The prior of the latent is an autoregressive tilted prior. One decoder writes the source from the
# latent. Another writes the target from the latent and the encoded source. The guide proposes a
# latent from both words, or from the source alone. The first 0.7 nats of what the latent says are
# free. Without free nats, a decoder learns to ignore the latent.

model = TKAM.seq2seq(
    len(letters), len(letters), max_source=6, max_target=6, latent_dim=2, width=32, num_heads=2
)
guide = PairGuide(model)
objective = PairELBO(free_nats=0.7)(model, guide)
optimizer = torch.optim.AdamW(objective.parameters(), 3e-3, betas=(0.9, 0.98))
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=UPDATES, pct_start=0.1)
start = process_time()
for _ in range(UPDATES):
    rows = torch.randint(held_out, len(words), (64,))
    target = spoken[torch.randint(2, (64,)), rows]
    optimizer.zero_grad()
    (objective(source[rows], target) / 64).backward()
    nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
    optimizer.step()
    schedule.step()
print(f"trained in {process_time() - start:.0f} s")

# %%
# What does the latent say?
# -------------------------
#
# We score held-out words with a latent of their own, and with a latent of the same word in the
# other dialect. The difference is what the latent says about the target. The divergence between the
# two guides measures the same in nats: what the pair says about the latent beyond what the source
# says.

test, rows = source[:held_out], torch.arange(held_out)
dialect = rows % 2
with torch.no_grad():
    encoded = model.encoder(test)
    alone = guide.posterior(encoded)
    posteriors = [guide.posterior(encoded, spoken[each, rows]) for each in (dialect, 1 - dialect)]
    own, other = (
        ended_log_prob(model.target_decoder, each.sample(), spoken[dialect, rows], encoded)
        for each in posteriors
    )
    beyond = torch.distributions.kl_divergence(posteriors[0], alone).mean().item()
lost = (own - other).mean()
print(f"beyond the source, the guide says {beyond:.2f} nats; one bit is {math.log(2):.2f}")
print(f"a word loses {lost:.1f} nats with a latent of the other dialect")

# %%
# Say it again
# ------------
#
# Conditional generation takes one pass: draw a latent given the source, then decode. A word that
# the model has never seen comes out in both dialects, and hardly ever in a mixture of the two.

pyro.set_rng_seed(1)
drawn = model.respond(test, guide, num=20, num_beams=1)
both = spoken[:, :held_out]
right = (drawn == both[0]).all(-1) | (drawn == both[1]).all(-1)
heard = (drawn == both[1]).all(-1).float().mean(0)
print(f"{right.float().mean():.1%} of the draws are one of the two ways to say a word")
print(f"{heard.mean():.0%} are in the second dialect")
for i in range(3):
    ways = sorted({"".join(letters.decode(row)) for row in drawn[:, i]})
    print(f"{words[i]}: {', '.join(ways)}")
assert SMALL or right.float().mean() > 0.9
assert SMALL or 0.3 < heard.mean() < 0.7
assert SMALL or lost > 1

# %%
# The figure shows draws of the latent given the source for three words. The colors show the
# dialects in which the draws are decoded. For every word, the draws fall into two halves.

with torch.no_grad():
    z = alone.sample((200,))[:, :3]
    decoded = beam_search(
        model.target_decoder,
        z.movedim(0, 1).unsqueeze(-2),
        Encoded(encoded.features[:3, None], encoded.mask[:3, None]),
        num_beams=1,
    ).tokens[:, :, 0]
figure, panels = pyplot.subplots(1, 3, figsize=(9, 3), layout="constrained")
for i, axes in enumerate(panels):
    moves = (decoded[i] == both[1, i]).all(-1)
    axes.scatter(*z[~moves, i].T, s=6, label="as written")
    axes.scatter(*z[moves, i].T, s=6, label="moved")
    axes.set(title=words[i], xlabel="first latent", ylabel="second latent")
panels[0].legend(frameon=False)

# %%
# The search averages over draws of the latent. Each of the two pronunciations gets about half of
# the probability:

found = model.search(test[:3], guide, num_beams=2, num_draws=32)
for i in range(3):
    for tokens, log_prob in zip(found.tokens[i], found.log_prob[i], strict=True):
        print(f"{words[i]}: {''.join(letters.decode(tokens))} {log_prob.exp():.2f}")

# %%
# To train on a dictionary of real pronunciations, see :func:`pyro_tkam.datasets.pronunciations`.
