"""
Sequences of variable length: padding changes nothing, probabilities sum to one, draws have the
model's frequencies, and a wide enough beam finds the best sequences of all.
"""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from pyro_tkam.nn import (
    SequenceEncoder,
    SequenceGenerator,
    beam_search,
    ended_excess,
    ended_log_prob,
    sample_ended,
)

CLASSES, LONGEST = 4, 3
SOURCES = torch.tensor([[2, 3, 0, 0, 0], [4, 2, 2, 3, 0], [0, 0, 0, 0, 0], [1, 2, 3, 4, 5]])


def encoder(**options) -> SequenceEncoder:
    torch.manual_seed(1)
    return loud(SequenceEncoder(6, 5, width=8, num_heads=2, num_layers=2, **options))


def decoder() -> SequenceGenerator:
    torch.manual_seed(2)
    options = {"width": 8, "num_heads": 2, "num_layers": 2, "local": 2, "adds_latent": True}
    return loud(SequenceGenerator(3, CLASSES, LONGEST, **options))


def loud(module):
    """Make every part matter, in double precision."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return module.double()


def latents(*shape: int) -> Tensor:
    torch.manual_seed(3)
    return torch.randn(*shape, 3, dtype=torch.float64)


def all_sequences() -> Tensor:
    """Every sequence of at most ``LONGEST`` symbols, padded."""
    rows = [
        (*symbols, *[0] * (LONGEST - n))
        for n in range(LONGEST + 1)
        for symbols in product(range(1, CLASSES), repeat=n)
    ]
    return torch.tensor(rows)


def test_padding_changes_no_feature_of_an_encoder() -> None:
    network = encoder()
    whole = network(SOURCES)
    longer = network(torch.cat([SOURCES, torch.zeros(4, 3, dtype=torch.int64)], -1))
    junk = SOURCES.clone()
    junk[0, 3:] = 5  # after the first 0
    other = network(junk)
    for row, size in enumerate((3, 5, 1, 6)):
        alone = network(SOURCES[row : row + 1, : size - 1])
        for found in (whole, longer, other):
            assert found.mask[row].tolist() == [True] * size + [False] * (6 - size)
            torch.testing.assert_close(
                found.features[row, :size], alone.features[0], atol=1e-5, rtol=0
            )
            torch.testing.assert_close(found.pooled()[row], alone.pooled()[0], atol=1e-5, rtol=0)


def test_every_symbol_of_a_source_changes_every_feature() -> None:
    network, changed = encoder(local=0), SOURCES[3:].repeat(5, 1)
    changed[range(5), range(5)] = 4
    changed[3, 3] = 1
    gaps = (network(changed).features - network(SOURCES[3:]).features).abs().amax(-1)
    assert bool((gaps > 1e-6).all())


@pytest.mark.parametrize("attends", [False, True])
def test_padding_and_company_change_no_score(attends: bool) -> None:
    source = encoder()(SOURCES) if attends else None
    z, targets = latents(4), torch.tensor([[2, 0, 0], [3, 1, 2], [0, 0, 0], [1, 3, 0]])
    scores = ended_log_prob(decoder(), z, targets, source)
    longer = torch.cat([targets, torch.zeros(4, 2, dtype=torch.int64)], -1)
    torch.testing.assert_close(
        ended_log_prob(decoder(), z, longer, source), scores, atol=1e-5, rtol=0
    )
    for row, size in enumerate((1, 3, 0, 2)):
        own = encoder()(SOURCES[row : row + 1]) if attends else None
        alone = ended_log_prob(decoder(), z[row], targets[row : row + 1, :size], own)
        torch.testing.assert_close(alone[0], scores[row], atol=1e-5, rtol=0)
    changed = torch.where(targets > 0, targets % 3 + 1, 0)  # the control: symbols do matter
    assert bool(
        ((ended_log_prob(decoder(), z, changed, source) - scores).abs()[[0, 1, 3]] > 0.01).all()
    )


def test_scores_of_all_sequences_sum_to_one() -> None:
    source = encoder()(SOURCES)
    every = all_sequences()
    assert len(every) == 40
    paired = type(source)(source.features.unsqueeze(1), source.mask.unsqueeze(1))
    scores = ended_log_prob(decoder(), latents(4).unsqueeze(1), every, paired)
    torch.testing.assert_close(scores.logsumexp(-1).exp(), torch.ones(4).double())


@pytest.mark.parametrize("draws", [1, 3])
def test_a_wide_beam_finds_the_exact_order_of_all_sequences(draws: int) -> None:
    """Of every row's average over draws of the latent, for sources of different lengths."""
    source, z, every = encoder()(SOURCES), latents(4, draws), all_sequences()
    paired = type(source)(source.features[:, None, None], source.mask[:, None, None])
    scores = ended_log_prob(decoder(), z.unsqueeze(2), every, paired).logsumexp(1)
    scores = scores - torch.tensor(float(draws)).log()
    found = beam_search(decoder(), z, source, num_beams=60)
    exact = scores.sort(-1, descending=True)
    torch.testing.assert_close(found.log_prob[:, :40], exact.values)
    assert torch.equal(found.tokens[:, :40], every[exact.indices])
    assert bool(found.log_prob[:, 40:].isneginf().all())


def test_beams_of_a_row_are_those_of_the_row_alone() -> None:
    source, z = encoder()(SOURCES), latents(4, 2)
    found = beam_search(decoder(), z, source, num_beams=3)
    for row in range(4):
        own = encoder()(SOURCES[row : row + 1])
        alone = beam_search(decoder(), z[row : row + 1], own, num_beams=3)
        assert torch.equal(alone.tokens[0], found.tokens[row])
        torch.testing.assert_close(alone.log_prob[0], found.log_prob[row])


def test_a_narrow_beam_may_miss_the_best_sequence_and_scores_what_it_finds() -> None:
    network, z = decoder(), 4 * latents(50)
    best = ended_log_prob(network, z.unsqueeze(1), all_sequences()).amax(-1)
    greedy = beam_search(network, z.unsqueeze(1), num_beams=1)
    torch.testing.assert_close(
        greedy.log_prob[:, 0], ended_log_prob(network, z, greedy.tokens[:, 0])
    )
    assert bool((greedy.log_prob[:, 0] < best + 1e-9).all())
    assert bool((greedy.log_prob[:, 0] < best - 1e-3).any())


def test_the_excess_is_the_gradient_of_a_bias() -> None:
    network, source, z = decoder(), encoder()(SOURCES), latents(4)
    targets = torch.tensor([[2, 0, 3], [3, 1, 2], [0, 0, 0], [1, 3, 0]])
    found = ended_excess(network, z, targets, source)
    scores = ended_log_prob(network, z, targets, source)
    for row in range(4):
        (wanted,) = torch.autograd.grad(scores[row], network.to_logits.bias, retain_graph=True)
        torch.testing.assert_close(found[row], wanted)


def test_draws_have_the_models_frequencies() -> None:
    """20,000 draws against the exact table of 40; five standard errors, false alarms < 3e-5."""
    source, z, every = encoder()(SOURCES[1]), latents(), all_sequences()
    draws = sample_ended(decoder(), z.expand(20_000, 3), source)
    exact = ended_log_prob(decoder(), z, every, source).exp()
    place = torch.tensor([CLASSES**2, CLASSES, 1])
    found = torch.bincount(draws @ place, minlength=CLASSES**3)[every @ place] / 20_000
    assert abs(float(found.sum()) - 1) < 1e-6
    assert bool(((found - exact).abs() < 5 * (exact * (1 - exact) / 20_000).sqrt() + 1e-9).all())


def test_refuses_bad_sequences() -> None:
    with pytest.raises(ValueError, match="at most max_length=3 symbols, got 4"):
        ended_log_prob(decoder(), latents(1), torch.ones(1, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match="at most max_length=5 symbols, got 6"):
        encoder()(torch.ones(1, 6, dtype=torch.int64))
    with pytest.raises(ValueError, match="tokens must hold classes from 0 to 5, got 6"):
        encoder()(torch.full((1, 2), 6))
    with pytest.raises(ValueError, match="encoded must be None, got one"):
        encoder()(SOURCES, encoder()(SOURCES))
    with pytest.raises(ValueError, match="encoded must be another sequence, got None"):
        encoder(attends=True)(SOURCES)
    with pytest.raises(ValueError, match="width must be a multiple"):
        SequenceEncoder(6, 5, width=9, num_heads=2)
    with pytest.raises(ValueError, match="num_beams must be at least 1, got 0"):
        beam_search(decoder(), latents(1, 1), num_beams=0)
    with pytest.raises(ValueError, match=r"z must have shape \(\*batch, S, Q\)"):
        beam_search(decoder(), latents())
