import pytest
import torch

from pyro_tkam.datasets import encode, king_james, text


def test_a_file_comes_back_as_it_was(tmp_path) -> None:
    path = tmp_path / "some.txt"
    path.write_text("Über allen Gipfeln\nist Ruh", encoding="utf-8")
    read = text(path)
    assert read.decode(read.symbols) == "Über allen Gipfeln\nist Ruh"
    assert sorted(read.alphabet) == list(read.alphabet)
    assert read.symbols.dtype == torch.int64


def test_windows_are_the_text_without_its_rest() -> None:
    read = encode("abcdefgh")
    assert [read.decode(window) for window in read.windows(3)] == ["abc", "def"]
    with pytest.raises(
        ValueError, match="length must be from 1 to 8, the length of the text, got 9"
    ):
        read.windows(9)


def test_refuses_what_is_not_a_text(tmp_path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"source must be an existing file, got .*missing\.txt"
    ):
        text(tmp_path / "missing.txt")
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(ValueError, match="characters must hold at least one character, got none"):
        text(tmp_path / "empty.txt")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"source must be UTF-8 text, got .*binary\.txt"):
        text(tmp_path / "binary.txt")
    with pytest.raises(ValueError, match="characters must be in the alphabet 'ab', got 'c'"):
        encode("abc", alphabet="ab")


def test_the_bible_is_below_a_megabyte_and_has_the_book_asked_for() -> None:
    books = king_james()
    assert 800_000 < len(books.symbols) < 1_000_000
    assert len(books.alphabet) < 80
    with pytest.raises(ValueError, match=r"books must be among Genesis,.*, got 'Hamlet'"):
        king_james(("Hamlet",))
