"""Pairs of sequences of variable length, such as words and their pronunciations."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pyro_tkam._checks import existing_file, file_path, flag, iterable, whole_number, words
from pyro_tkam.ops._arguments import dense
from pyro_tkam.ops.symbols import END, UNKNOWN, check_symbols


@dataclass(frozen=True)
class Alphabet:
    """
    Symbols as integers: 0 ends and pads a sequence, 1 is the unknown symbol, and the others follow.

    :param symbols: the symbols, such as letters or phonemes.

    >>> letters = Alphabet(("a", "b"))
    >>> letters.encode(["ab", "bca"])
    tensor([[2, 3, 0, 0],
            [3, 1, 2, 0]])
    >>> letters.decode(letters.encode(["bca"])[0])
    ('b', '?', 'a')
    """

    symbols: tuple[str, ...]

    def __post_init__(self) -> None:
        words("symbols", self.symbols, "symbols")
        if len(set(self.symbols)) != len(self.symbols):
            raise ValueError(f"symbols must be distinct, got {self.symbols!r}")

    def __len__(self) -> int:
        """Return the number of integers, including those for the end and for unknown symbols."""
        return len(self.symbols) + 2

    def encode(self, sequences: Iterable[Sequence[str]], length: int | None = None) -> Tensor:
        """
        Return sequences as integers, padded with 0.

        :param sequences: strings, or sequences of symbols.
        :param length: number of columns; None takes one more than the longest sequence.
        :return: shape ``(num, length)``.
        :raises ValueError: for a sequence longer than ``length``.
        """
        iterable("sequences", sequences, "strings or sequences of symbols")
        sequences = list(sequences)
        for each in sequences:
            if not isinstance(each, str):
                words("every element of sequences", each, "symbols")
        place = {symbol: i + 2 for i, symbol in enumerate(self.symbols)}
        rows = [[place.get(symbol, UNKNOWN) for symbol in each] for each in sequences]
        longest = max(map(len, rows), default=0)
        length = longest + 1 if length is None else whole_number("length", length, 0)
        if longest > length:
            raise ValueError(
                f"length must be at least that of every sequence, {longest}, got {length}"
            )
        return torch.tensor(
            [row + [END] * (length - len(row)) for row in rows], dtype=torch.int64
        ).view(len(rows), length)

    def decode(self, tokens: Tensor) -> tuple[str, ...]:
        """
        Return the symbols of one sequence, up to its end.

        :param tokens: integers, 1-d.
        :raises TypeError: for anything but a tensor of integers.
        :raises ValueError: for another shape, and integers outside the alphabet.
        """
        check_symbols("tokens", tokens, len(self))
        if tokens.dim() != 1:
            raise ValueError(f"tokens must have shape (num,), got {tuple(tokens.shape)}")
        names = ("", "?", *self.symbols)
        found = [names[i] for i in tokens.tolist()]
        return tuple(found[: found.index("")] if "" in found else found)


@dataclass(frozen=True)
class Pairs:
    """
    Pairs of sequences, a source and a target.

    :param source: integers, shape ``(num, longest source)``, padded with 0.
    :param target: integers, shape ``(num, longest target)``, padded with 0.
    :param group: the number of each pair's source, shape ``(num,)``; pairs with the same source,
        such as variants of a word, share it.
    :param source_alphabet: the symbols of sources.
    :param target_alphabet: the symbols of targets.
    """

    source: Tensor
    target: Tensor
    group: Tensor
    source_alphabet: Alphabet
    target_alphabet: Alphabet

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.source)

    def rows(self, index: Tensor) -> Pairs:
        """
        Return some of the pairs.

        :param index: which, integers or Booleans of shape ``(num,)``.
        :raises TypeError: for anything but a tensor of integers or Booleans.
        :raises ValueError: for another shape, and for pairs that do not exist.
        """
        dense("index", index)
        if index.dtype not in (torch.int64, torch.bool):
            raise TypeError(f"index must hold integers or Booleans, got {index.dtype}")
        if index.dim() != 1 or (index.dtype == torch.bool and len(index) != len(self)):
            raise ValueError(
                f"index must have shape (num,), ({len(self)},) if Boolean, got {tuple(index.shape)}"
            )
        if index.dtype == torch.int64 and len(index):
            low = int(index.min())
            high = int(index.max())
            if low < -len(self) or high >= len(self):
                raise ValueError(
                    f"index must be in range for {len(self)} pairs, got {low} to {high}"
                )
        return Pairs(
            self.source[index],
            self.target[index],
            self.group[index],
            self.source_alphabet,
            self.target_alphabet,
        )

    def split(self, held_out: int, *, seed: int = 0) -> tuple[Pairs, Pairs]:
        """
        Split by source, so that no source of a held-out pair occurs in the training pairs.

        :param held_out: number of sources to hold out, with all their targets.
        :param seed: selects the split; the global generator is neither read nor changed.
        :return: training pairs and held-out pairs.
        :raises ValueError: if no source would be left for training.
        """
        num = int(self.group.max()) + 1
        seed = whole_number("seed", seed, 0)
        if whole_number("held_out", held_out, 0) >= num:
            raise ValueError(
                f"held_out must be from 0 to {num - 1} of {num} sources, got {held_out}"
            )
        order = torch.randperm(num, generator=torch.Generator().manual_seed(seed))
        apart = torch.zeros(num, dtype=torch.bool)
        apart[order[:held_out]] = True
        apart = apart[self.group]
        return self.rows(~apart), self.rows(apart)


_VARIANT = re.compile(r"\(\d+\)$")


def pronunciations(
    path: Path | str, *, stress: bool = False, max_letters: int = 20, max_phonemes: int = 20
) -> Pairs:
    """
    Read a pronouncing dictionary in the format of the CMU dictionary.

    A line is a word and its phonemes, ``cat K AE1 T``. A variant of a word has a number,
    ``cats(2)``. Lines that begin with ``;;;``, and text after ``#``, are comments. Words are
    converted to lower case; only words of letters, apostrophes, hyphens and dots are kept. All
    variants of a word have the same ``group``, so ``split`` keeps them together.

    :param path: path of the file, in UTF-8 or Latin-1.
    :param stress: keep the stress of vowels, the digits 0, 1 and 2. If False, variants that differ
        only in stress are the same.
    :param max_letters: leave out longer words.
    :param max_phonemes: leave out longer pronunciations.
    :raises FileNotFoundError: for a missing file.
    :raises ValueError: for a word without phonemes, and a file without words.
    """
    flag("stress", stress)
    max_letters = whole_number("max_letters", max_letters, 1)
    max_phonemes = whole_number("max_phonemes", max_phonemes, 1)
    path = existing_file("path", path)
    content = path.read_bytes()
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = content.decode("latin-1")  # the encoding of version 0.7 of the dictionary
    found: dict[str, dict[tuple[str, ...], None]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = [] if line.startswith(";;;") else line.partition("#")[0].split()
        if not words:
            continue
        word = _VARIANT.sub("", words[0].lower())
        phonemes = tuple(words[1:])
        if not phonemes:
            raise ValueError(f"path must hold words with phonemes, got {line!r} in line {number}")
        if not stress:
            phonemes = tuple(each.rstrip("012") for each in phonemes)
        if len(word) <= max_letters and len(phonemes) <= max_phonemes and _is_word(word):
            found.setdefault(word, {})[phonemes] = None
    if not found:
        raise ValueError(f"path must hold words with phonemes, got none in {path}")
    return _gathered(found, max_letters, max_phonemes)


def _gathered(
    found: Mapping[str, Iterable[Sequence[str]]], max_source: int, max_target: int
) -> Pairs:
    """Encode targets that are grouped by source."""
    pairs = [(i, source, each) for i, source in enumerate(found) for each in found[source]]
    group, sources, targets = zip(*pairs, strict=True)
    alphabets = [
        Alphabet(tuple(sorted({symbol for each in sequences for symbol in each})))
        for sequences in (sources, targets)
    ]
    return Pairs(
        alphabets[0].encode(sources, max_source),
        alphabets[1].encode(targets, max_target),
        torch.tensor(group),
        *alphabets,
    )


def _is_word(word: str) -> bool:
    """
    Tell whether an entry is a word, and not the name of a punctuation mark, such as
    ``!exclamation-point``.
    """
    return any(c.isalpha() for c in word) and all(c.isalpha() or c in "'-." for c in word)


def text_pairs(path: Path | str, *, max_length: int = 100) -> Pairs:
    """
    Read pairs of texts, one pair per line, separated by a tab; symbols are characters.

    Lines with the same source have the same ``group``.

    :param path: path of a file in UTF-8.
    :param max_length: leave out pairs with longer texts.
    :raises FileNotFoundError: for a missing file.
    :raises ValueError: for a file that is not text in UTF-8, a line that does not have two parts,
        and a file without pairs.
    """
    max_length = whole_number("max_length", max_length, 0)
    path = existing_file("path", path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"path must be UTF-8 text, got {path}: {error}") from error
    found: dict[str, dict[str, None]] = {}
    for number, line in enumerate(lines, 1):
        parts = line.split("\t")
        if len(parts) != 2:
            raise ValueError(
                f"path must hold two texts per line, separated by a tab, got {line!r} in line "
                f"{number}"
            )
        if max(map(len, parts)) <= max_length:
            found.setdefault(parts[0], {})[parts[1]] = None
    if not found:
        raise ValueError(f"path must hold pairs of texts, got none in {path}")
    targets = [each for row in found.values() for each in row]
    longest = [max(1, *map(len, texts)) for texts in (found, targets)]
    return _gathered(found, *longest)


#: readers of pairs by file suffix
PAIR_READERS: dict[str, Callable[[Path], Pairs]] = {".dict": pronunciations, ".tsv": text_pairs}


def load_pairs(source: str) -> Pairs:
    """
    Load pairs of sequences from a file.

    :param source: path of a ``.dict`` file, see :func:`pronunciations`, or a ``.tsv`` file, see
        :func:`text_pairs`.
    :raises FileNotFoundError: for a missing file.
    :raises ValueError: for any other suffix, and for files that cannot be read.
    """
    path = file_path("data", source)
    if path.suffix not in PAIR_READERS:
        raise ValueError(
            f"data must be a {' or '.join(PAIR_READERS)} file of pairs of sequences, got {source!r}"
        )
    return PAIR_READERS[path.suffix](path)
