"""
A line continues a line: bits a character of a target line, with the line before it as the source.

    python -m benchmarks.line_to_line --threads 1 --work runs/lines

The text and its held-out tenth are those of ``benchmarks/text.py``. Lines are windows of 128
characters, and each is the target of the one before it, so that nothing is scored without a
context. Bits are those of the importance-weighted bound with draws of the guide from both lines, an
upper bound on average. A run that was stopped goes on from the files in ``--work``. What else is in
``--output`` is kept, so that it may be the file of ``benchmarks/seq2seq.py``.
"""

import argparse
import math
from pathlib import Path

import pyro
import torch
from torch import Tensor

from benchmarks.seq2seq import FREE_NATS, Budget, latents_share, report, with_latent
from benchmarks.timing import earlier, environment
from pyro_tkam.datasets import Alphabet, Pairs, Text, king_james
from pyro_tkam.models import PairGuide, Seq2SeqTKAM
from pyro_tkam.nn import ended_log_prob

LENGTH, WIDTH, PARTICLES = 128, 160, 8
STRENGTH = 0.1  # of the latent at first: a strong one throws the trained decoder off
BUDGET = Budget(updates=1750, before=1400, batch=24, rate=3e-3)


def lines(text: Text, symbols: Tensor, stride: int) -> Pairs:
    """Return windows, each the target of the window before it, that begin at every ``stride``."""
    rows = symbols.unfold(0, 2 * LENGTH, stride) + 2  # 0 ends a line, 1 is unknown
    alphabet = Alphabet(tuple(text.alphabet))
    source, target = rows[:, :LENGTH], rows[:, LENGTH:]
    return Pairs(source, target, torch.arange(len(rows)), alphabet, alphabet)


@torch.no_grad()
def bits(model: Seq2SeqTKAM, guide: PairGuide, pairs: Pairs) -> float:
    """Return bits a character of targets given sources, with the latent summed out."""
    total = 0.0
    for rows in torch.arange(len(pairs)).split(50):
        part = pairs.rows(rows)
        encoded = model.encoder(part.source)
        alone, both = guide.posterior(encoded), guide.posterior(encoded, part.target)
        weights = []
        for _ in range(PARTICLES):
            z = both.sample()
            score = ended_log_prob(model.target_decoder, z, part.target, encoded)
            weights.append(score + alone.log_prob(z) - both.log_prob(z))
        log_prob = torch.stack(weights).logsumexp(0) - math.log(PARTICLES)
        total -= float(log_prob.sum())
    return total / pairs.target.numel() / math.log(2)


def main() -> None:
    """Train, score and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2, help="torch threads")
    parser.add_argument("--output", type=Path, help="also write the JSON to this file")
    parser.add_argument("--short", action="store_true", help="few lines and few updates")
    parser.add_argument("--work", type=Path, help="folder of checkpoints; None keeps none")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    text = king_james()
    cut = len(text.symbols) * 9 // 10
    train, test = lines(text, text.symbols[:cut], 16), lines(text, text.symbols[cut:], LENGTH)
    test = test.rows(torch.arange(40 if options.short else len(test)))
    budget = Budget(updates=3, before=2, batch=8) if options.short else BUDGET
    every = earlier(options.output)
    results = every.setdefault("lines", {"runs": []})
    settings = {**vars(budget), "width": WIDTH, "strength": STRENGTH, "free_nats": FREE_NATS}
    results |= {"environment": environment(), "lines": len(test), "settings": settings}
    for seed in range(1 if options.short else options.seeds):
        if seed in {run["seed"] for run in results["runs"]}:
            continue
        path = None if options.work is None else options.work / f"lines-{seed}.pt"
        model, guide, spent = with_latent(train, budget, seed, path, WIDTH, STRENGTH)
        pyro.set_rng_seed(seed)
        found = {"bits": bits(model, guide, test), "latent": latents_share(model, guide, test)}
        results["runs"].append({"seed": seed, **spent, **found})
        report(every, options.output)


if __name__ == "__main__":
    main()
