"""What the benchmarks compare with must itself be right."""

import torch

from benchmarks.text import KneserNey


def test_five_grams_are_a_distribution_after_seen_and_unseen_contexts():
    torch.manual_seed(0)
    symbols = torch.multinomial(torch.tensor([0.6, 0.2, 0.1, 0.1]), 500, replacement=True).tolist()
    model = KneserNey(symbols, num_classes=5, order=5)  # the last symbol is never seen
    for context in [tuple(symbols[10:14]), (3, 3, 3, 3), (4, 4, 4, 4), (0, 0, 4, 0)]:
        p = torch.tensor([model.probability(context, symbol, 0.75) for symbol in range(5)], dtype=torch.float64)
        torch.testing.assert_close(p.sum(), torch.ones((), dtype=torch.float64))
        assert (p > 0).all()
