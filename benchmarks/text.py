"""
Bits a character of held-out text: a latent sequence model against an interpolated 5-gram model of
the same text.

    python -m benchmarks.text --threads 1

The text is the first five books of the King James Bible (0.8 million characters); the last tenth is
held out. The sequence model scores windows that do not overlap, each with its latent summed out by
draws from the prior and with nothing known before its first character; the 5-gram model goes on
from window to window. The 5-gram model is interpolated Kneser-Ney with its discount fitted to a
part of the training text.
"""

import math
import time
from collections import Counter, defaultdict
from typing import Any

import pyro
import torch
from torch import nn

from benchmarks.timing import arguments, report
from pyro_tkam.datasets import king_james
from pyro_tkam.infer import ImportanceMLE
from pyro_tkam.models import TKAM, MixturePrior, SequenceLikelihood, TiltedPrior
from pyro_tkam.nn import SequenceGenerator

ORDER, LENGTH, LATENTS = 5, 256, 8


class KneserNey:
    """Interpolated Kneser-Ney of one discount: lower orders count different predecessors."""

    def __init__(self, symbols: list[int], num_classes: int, order: int) -> None:
        self.num_classes, self.order = num_classes, order
        grams: dict[int, Counter[tuple[int, ...]]] = {
            order: Counter(tuple(symbols[i : i + order]) for i in range(len(symbols) - order + 1))
        }
        for n in range(order - 1, 0, -1):
            grams[n] = Counter(gram[1:] for gram in grams[n + 1])
        self.counts: list[dict[tuple[int, ...], Counter[int]]] = []
        for n in range(1, order + 1):
            table: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
            for gram, count in grams[n].items():
                table[gram[:-1]][gram[-1]] += count
            self.counts.append(dict(table))
        self.totals = [
            {context: sum(row.values()) for context, row in table.items()} for table in self.counts
        ]

    def probability(self, context: tuple[int, ...], symbol: int, discount: float) -> float:
        """Return ``p(symbol | context)``."""
        p = 1 / self.num_classes
        for n in range(self.order):
            tail = context[len(context) - n :]
            row = self.counts[n].get(tail)
            if row is None:
                return p
            total = self.totals[n][tail]
            p = (max(row.get(symbol, 0) - discount, 0) + discount * len(row) * p) / total
        return p

    def bits(self, symbols: list[int], discount: float) -> float:
        """Return bits a character."""
        n = self.order - 1
        scored = range(n, len(symbols))
        total = sum(
            -math.log2(self.probability(tuple(symbols[i - n : i]), symbols[i], discount))
            for i in scored
        )
        return total / len(scored)


def ngram_bits(train: list[int], test: list[int], num_classes: int) -> dict[str, float]:
    """Fit the discount on the last tenth of the training text, then count all of it."""
    cut = len(train) * 9 // 10
    part = KneserNey(train[:cut], num_classes, ORDER)
    discount = min(
        (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95),
        key=lambda d: part.bits(train[cut : cut + 20_000], d),
    )
    return {"bits": KneserNey(train, num_classes, ORDER).bits(test, discount), "discount": discount}


def make_model(num_classes: int) -> TKAM:
    """Return a mixture prior, and a decoder that attends to the latents."""
    prior = MixturePrior(TiltedPrior((LATENTS, 4)))
    decoder = SequenceGenerator(
        LATENTS, num_classes, LENGTH, width=160, num_heads=4, num_layers=2, local=6
    )
    return TKAM(prior, nn.Identity(), SequenceLikelihood(decoder))


def train_model(
    model: TKAM, symbols: torch.Tensor, minutes: float, particles: int, batch: int
) -> int:
    """
    Train by importance MLE for some minutes of processor time, with a falling rate; return the
    updates.
    """
    loss = ImportanceMLE(particles)(model, None)
    optimizer = torch.optim.AdamW(loss.parameters(), lr=3e-3, betas=(0.9, 0.98), weight_decay=0.05)
    start, updates = time.process_time(), 0
    while (share := (time.process_time() - start) / (60 * minutes)) < 1:
        rate = (
            3e-3
            * min(1, (updates + 1) / 100)
            * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))
        )
        optimizer.param_groups[0]["lr"] = rate
        first = torch.randint(len(symbols) - LENGTH + 1, (batch, 1))
        rows = symbols[first + torch.arange(LENGTH)]
        optimizer.zero_grad()
        value = loss(rows) / rows.numel()
        value.backward()
        nn.utils.clip_grad_norm_(loss.parameters(), 1.0)
        optimizer.step()
        updates += 1
        if updates % 100 == 0:
            print(f"{updates} updates, {value.item() / math.log(2):.3f} bits", flush=True)
    return updates


@torch.no_grad()
def model_bits(model: TKAM, windows: torch.Tensor, particles: int) -> float:
    """
    Return bits a character of windows, with the latent summed out by prior draws: an upper bound on
    average.
    """
    objective = ImportanceMLE(particles)  # one for all, which checks the model's plates once
    loss = sum(objective.loss(model, None, rows) for rows in windows.split(64))
    return loss / windows.numel() / math.log(2)


def main() -> None:
    """Train, score and print."""
    options = arguments(__doc__)
    data = king_james()
    cut, size = len(data.symbols) * 9 // 10, len(data.alphabet)
    held_out = data.symbols[cut:]
    windows = held_out.unfold(0, LENGTH, LENGTH)
    results: dict[str, Any] = {
        "text": {"characters": len(data.symbols), "held_out": len(held_out), "alphabet": size},
        "five_gram": ngram_bits(data.symbols[:cut].tolist(), held_out.tolist(), size),
        "runs": [],
    }
    for seed in range(1 if options.short else 3):
        pyro.set_rng_seed(seed)
        pyro.clear_param_store()
        model = make_model(size)
        updates = train_model(
            model, data.symbols[:cut], 0.3 if options.short else 6.0, particles=1, batch=12
        )
        run = {
            "updates": updates,
            "bits": model_bits(model, windows, 4),
            "sample": data.decode(model.generate(1)[0]),
        }
        results["runs"].append(run)
        report(results, options.output)


if __name__ == "__main__":
    main()
