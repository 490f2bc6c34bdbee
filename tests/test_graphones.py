"""The joint 5-gram that sequences are compared with must itself be right."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

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


DOCS = Path(__file__).parents[1] / "docs"


def over_runs(runs: list[dict[str, Any]], *keys: str | int) -> Tensor:
    """Return a figure of all runs."""
    values: Any = runs
    for key in keys:
        values = [each[key] for each in values]
    return torch.tensor(values, dtype=torch.float64)


def percent(values: Tensor) -> str:
    """Return the mean over runs with its standard error, as the how-to writes it."""
    error = values.std() / len(values) ** 0.5
    return f"{100 * values.mean():.1f} ± {100 * error:.1f} %"


def nats(values: Tensor) -> str:
    """Return a mean over runs in nats, with its standard error."""
    return f"{values.mean():.2f} ± {values.std() / len(values) ** 0.5:.2f} nats"


def told() -> str:
    """Return the text of the how-to, in one line."""
    return " ".join((DOCS / "howto.rst").read_text().split())


def test_the_committed_figures_of_words_keep_their_bounds_and_the_how_to_cites_them() -> None:
    results = json.loads((DOCS / "results" / "seq2seq.json").read_text())
    runs, baseline = results["runs"], results["baseline"]
    assert baseline["phoneme_error"] < 0.08
    assert not results["seeds_not_run"]
    error = over_runs(runs, "error", "phoneme_error")
    assert bool((error < min(0.12, 1.5 * baseline["phoneme_error"])).all())
    assert bool((over_runs(runs, "latent_run", "minutes") < 60).all())
    information = over_runs(runs, "latent", "information_with_pair")
    others = over_runs(runs, "latent", "loss_with_others")
    assert bool((information > 1).all())
    text = told()
    drawn = {
        (name, key): over_runs(runs, "variants", "drawn", name, key)
        for name in ("matches", "recall")
        for key in ("latent_spread", "latent_drawn", "without_latent_symbols_drawn", "difference")
    }
    plain = over_runs(runs, "error_without_latent", "phoneme_error")
    beams = over_runs(runs, "variants", "searched", "recall", "without_latent")
    apart = drawn["recall", "latent_spread"] - drawn["recall", "latent_drawn"]
    sharper = {
        name: over_runs(runs, "without_latent_at_temperatures", 1, name)
        for name in ("temperature", "matches", "recall")
    }
    assert sharper["temperature"].unique().item() == 0.65
    for phrase in (
        f"5-gram gets {100 * baseline['phoneme_error']:.1f} % of the phonemes of "
        f"{baseline['words']:,} held-out words wrong",
        f"The first gets {percent(error)} of the phonemes wrong, and the second {percent(plain)}",
        f"carries {nats(information)} about a pair, and targets are scored {nats(others)} worse",
        f"match a variant in {percent(drawn['matches', 'latent_spread'])} of cases",
        f"without a latent in {percent(drawn['matches', 'without_latent_symbols_drawn'])}",
        f"{percent(drawn['recall', 'latent_spread'])} against "
        f"{percent(drawn['recall', 'without_latent_symbols_drawn'])}",
        f"Compared with independent draws, latents that lie apart find another {percent(apart)}",
        f"At a temperature of 0.65, draws of symbols match in {percent(sharper['matches'])} of "
        f"cases and find {percent(sharper['recall'])}",
        f"without the latent finds {percent(beams)}",
    ):
        assert phrase in text, phrase
    gaps = error - plain
    assert float(gaps.mean()) > 2 * float(gaps.std()) / len(gaps) ** 0.5, "so say the limits"
    gaps = drawn["recall", "difference"]
    assert float(gaps.mean()) < -2 * float(gaps.std()) / len(gaps) ** 0.5, "so says the how-to"
    gaps = sharper["matches"] - drawn["matches", "latent_spread"]
    assert float(gaps.mean()) > 2 * float(gaps.std()) / len(gaps) ** 0.5, "so says the how-to"
    gaps = drawn["matches", "difference"]
    assert float(gaps.mean()) > 2 * float(gaps.std()) / len(gaps) ** 0.5, "so says the how-to"


def test_the_committed_figures_of_lines_keep_their_bounds_and_the_how_to_cites_them() -> None:
    runs = json.loads((DOCS / "results" / "seq2seq.json").read_text())["lines"]["runs"]
    alone = json.loads((DOCS / "results" / "text.json").read_text())["runs"]
    assert [run["seed"] for run in runs] == [0, 1, 2]
    bits, bits_alone = over_runs(runs, "bits"), over_runs(alone, "bits")
    information = over_runs(runs, "latent", "information_with_pair")
    others = over_runs(runs, "latent", "loss_with_others")
    assert float(bits.mean()) <= float(bits_alone.mean())
    assert bool((information > 1).all())
    text = told()
    for each in (bits, bits_alone):
        assert f"needs {each.mean():.3f} ± {each.std() / len(each) ** 0.5:.3f}" in text
    assert f"carries {nats(information)}, and lines are scored {nats(others)} worse" in text
