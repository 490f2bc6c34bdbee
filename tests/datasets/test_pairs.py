"""Words and pronunciations: what a dictionary's lines say, and a split that no variant crosses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pyro_tkam.datasets import Alphabet, load_pairs, pronunciations, text_pairs

LINES = """;;; a comment
'em  AH0 M
CAT  K AE1 T
CAT(1)  K AH0 T
CAT(2)  K AE2 T
!EXCLAMATION-POINT  EH2 K S K L AH0
dog D AO1 G # of the house
a42128  EY1 F
supercalifragilistic S UW2 P
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "words.dict"
    file.write_text(LINES)
    return file


def read(pairs) -> list[tuple[str, str]]:
    return [
        ("".join(pairs.source_alphabet.decode(s)), " ".join(pairs.target_alphabet.decode(t)))
        for s, t in zip(pairs.source, pairs.target, strict=True)
    ]


def test_reads_words_variants_and_comments(path: Path) -> None:
    pairs = pronunciations(path, max_letters=10)
    assert read(pairs) == [
        ("'em", "AH M"),
        ("cat", "K AE T"),
        ("cat", "K AH T"),
        ("dog", "D AO G"),
    ]
    assert pairs.group.tolist() == [0, 1, 1, 2]
    assert pairs.source.shape == (4, 10)


def test_keeps_stress_where_asked(path: Path) -> None:
    found = read(pronunciations(path, stress=True, max_letters=10))
    assert found[1:4] == [("cat", "K AE1 T"), ("cat", "K AH0 T"), ("cat", "K AE2 T")]


def test_reads_latin_1(tmp_path: Path) -> None:
    file = tmp_path / "old.dict"
    file.write_bytes("D\u00c9J\u00c0  D EY1\n".encode("latin-1"))
    assert read(pronunciations(file)) == [("d\u00e9j\u00e0", "D EY")]


@pytest.mark.parametrize("seed", range(5))
def test_no_word_is_on_both_sides(path: Path, seed: int) -> None:
    pairs = pronunciations(path)
    state = torch.get_rng_state()
    train, test = pairs.split(2, seed=seed)
    assert torch.equal(torch.get_rng_state(), state)
    assert not set(train.group.tolist()) & set(test.group.tolist())
    assert len(set(test.group.tolist())) == 2
    assert sorted(read(train) + read(test)) == sorted(read(pairs))


def test_an_alphabet_reads_what_it_wrote() -> None:
    letters = Alphabet(("a", "b"))
    rows = letters.encode(["ab", "", "axb"], 5)
    assert rows.tolist() == [[2, 3, 0, 0, 0], [0] * 5, [2, 1, 3, 0, 0]]
    assert [letters.decode(row) for row in rows] == [("a", "b"), (), ("a", "?", "b")]
    assert len(letters) == 4
    with pytest.raises(
        ValueError, match="length must be at least that of every sequence, 3, got 2"
    ):
        letters.encode(["axb"], 2)


def test_refuses_what_is_no_dictionary(path: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="path must be an existing file"):
        pronunciations(tmp_path / "none")
    (tmp_path / "bare").write_text("cat\n")
    with pytest.raises(ValueError, match="words with phonemes, got 'cat' in line 1"):
        pronunciations(tmp_path / "bare")
    (tmp_path / "empty").write_text(";;; nothing\n")
    with pytest.raises(ValueError, match="words with phonemes, got none"):
        pronunciations(tmp_path / "empty")
    with pytest.raises(ValueError, match="held_out must be from 0 to"):
        pronunciations(path).split(99)


def test_reads_pairs_of_texts(tmp_path: Path) -> None:
    file = tmp_path / "pairs.tsv"
    file.write_text("ab\tx\nc\t\nab\tyy\nab\tx\nlong\tlonger\n")
    pairs = text_pairs(file, max_length=5)
    found = [
        ("".join(pairs.source_alphabet.decode(s)), "".join(pairs.target_alphabet.decode(t)))
        for s, t in zip(pairs.source, pairs.target, strict=True)
    ]
    assert found == [("ab", "x"), ("ab", "yy"), ("c", "")]
    assert pairs.group.tolist() == [0, 0, 1]
    assert len(load_pairs(str(file))) == 4
    file.write_text("ab\tx\ny\n")
    with pytest.raises(ValueError, match="separated by a tab, got 'y' in line 2"):
        text_pairs(file)
    file.write_bytes(b"\xff\t\xff")
    with pytest.raises(ValueError, match="path must be UTF-8 text"):
        text_pairs(file)
    file.write_text("")
    with pytest.raises(ValueError, match="pairs of texts, got none"):
        text_pairs(file)
    with pytest.raises(ValueError, match=r"data must be a \.dict or \.tsv file"):
        load_pairs("digits")
    with pytest.raises(FileNotFoundError, match="path must be an existing file"):
        text_pairs(tmp_path / "none.tsv")
