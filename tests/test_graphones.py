"""The joint 5-gram that sequences are compared with must itself be right."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.graphones import CHUNKS, Alignment, JointNGram
from benchmarks.seq2seq import Budget, Words, as_tuple, compared, edits, matches, recall
from pyro_tkam.datasets import Pairs, text_pairs


@pytest.fixture
def pairs(tmp_path) -> Pairs:
    """Words in which ``th`` is one sound, ``x`` two, and a last ``e`` none."""
    words = [
        a + b + c for a in ("th", "t", "h", "x") for b in "aio" for c in ("n", "ne", "x", "th")
    ]
    said = [w.replace("th", "0").replace("x", "ks").rstrip("e") for w in words]
    file = tmp_path / "words.tsv"
    file.write_text("".join(f"{w}\t{s}\n" for w, s in zip(words, said, strict=True)))
    return text_pairs(file)


def cuts(n: int, m: int, i: int = 0, j: int = 0) -> Iterator[tuple[tuple[int, int, int], ...]]:
    """Yield every way to cut ``n`` letters and ``m`` sounds into chunks: kind, letter, sound."""
    if (i, j) == (n, m):
        yield ()
    for kind, (a, b) in enumerate(CHUNKS):
        if i + a <= n and j + b <= m:
            for rest in cuts(n, m, i + a, j + b):
                yield ((kind, i, j), *rest)


def test_expected_counts_are_those_of_all_cuts(pairs: Pairs) -> None:
    alignment = Alignment(pairs, rounds=0)
    torch.manual_seed(0)
    tables = [torch.randn_like(table) for table in alignment.tables]
    rows = torch.tensor([3, 12, 30])
    found = [torch.zeros_like(table) for table in tables]
    alignment.expect(rows, tables, found)
    wanted = [torch.zeros_like(table) for table in tables]
    for row in rows:
        one = row[None]
        ways = []
        for cut in cuts(int(alignment.n[row]), int(alignment.m[row])):
            chunks = [(kind, int(alignment.chunk(one, kind, i, j))) for kind, i, j in cut]
            ways.append((math.exp(sum(float(tables[kind][c]) for kind, c in chunks)), chunks))
        total = sum(weight for weight, _ in ways)
        for weight, chunks in ways:
            for (kind, c), times in Counter(chunks).items():
                wanted[kind][c] += weight / total * times
    for one_found, one_wanted in zip(found, wanted, strict=True):
        torch.testing.assert_close(one_found, one_wanted)


def test_it_learns_chunks_and_reads_words_that_it_has_not_seen(pairs: Pairs) -> None:
    kept = torch.arange(len(pairs)) % 5 != 0
    model = JointNGram(pairs.rows(kept))
    letters, sounds = pairs.source_alphabet.symbols, pairs.target_alphabet.symbols
    th = tuple(2 + letters.index(each) for each in "th")
    assert (2 + sounds.index("0"),) in {said for _, said in model.by_letters[th]}
    unseen = pairs.rows(~kept)
    assert len(unseen) == 10
    found = [model.decode(list(as_tuple(row))) for row in unseen.source]
    right = sum(tuple(one) == as_tuple(row) for one, row in zip(found, unseen.target, strict=True))
    assert right >= 9


def test_edits_are_counted() -> None:
    assert edits((1, 2, 3), (1, 2, 3)) == 0
    assert edits((), (1, 2)) == 2
    assert edits((1, 2, 3), (2, 3, 4)) == 2
    assert edits((1, 2, 3, 4), (1, 5, 4)) == 2


def test_variants_are_gathered_and_found() -> None:
    pairs = torch.tensor([[2, 0], [2, 0], [3, 0]])
    targets = torch.tensor([[4, 5], [4, 0], [6, 0]])
    words = Words.of(Pairs(pairs, targets, torch.tensor([0, 0, 1]), None, None))
    assert sorted(map(sorted, words.variants)) == [[(4,), (4, 5)], [(6,)]]
    draws = torch.tensor([[[4, 0], [6, 0]], [[4, 0], [7, 0]]])
    variants = [{(4,), (4, 5)}, {(6,)}]
    assert recall(draws, variants).tolist() == [0.5, 1.0]
    assert matches(draws, variants).tolist() == [1.0, 0.5]


def test_draws_of_two_networks_are_compared_word_by_word() -> None:
    draws = torch.tensor([[[4, 0], [6, 0]], [[4, 0], [7, 0]]])
    other = torch.tensor([[[4, 0], [6, 0]], [[4, 5], [6, 0]]])
    found = compared({"one": draws, "other": other}, [{(4,), (4, 5)}, {(6,)}])
    assert found["different"] == {"one": 1.5, "other": 1.5}
    expected = {"one": 0.75, "other": 1.0, "difference": -0.25, "difference_error": 0.25}
    assert found["matches"] == pytest.approx(expected)
    assert found["recall"] == pytest.approx(expected)


def test_a_budget_is_divided_into_updates_before_and_with_the_latent() -> None:
    before, after = Budget(updates=10, before=7, rate=0.4).parts()
    assert (before.updates, before.rate) == (7, 0.4)
    assert (after.updates, after.rate) == (3, 0.2)


def test_the_committed_baseline_is_not_broken_and_the_how_to_cites_it() -> None:
    docs = Path(__file__).parents[1] / "docs"
    results = json.loads((docs / "results" / "seq2seq.json").read_text())
    error = results["baseline"]["phoneme_error"]
    assert error < 0.08
    text = " ".join((docs / "howto.rst").read_text().split())
    assert f"5-gram gets {100 * error:.1f} % of the phonemes" in text
    assert f"of {results['baseline']['words']:,} held-out words wrong" in text
    assert ("have not been measured in full" in text) == bool(results["seeds_not_run"])
