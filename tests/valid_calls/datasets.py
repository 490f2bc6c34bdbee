"""One small valid call of everything public in datasets."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch

from pyro_tkam.datasets import (
    Alphabet,
    RowsOf,
    as_dataset,
    cifar10,
    color_patches,
    darcy,
    encode,
    fashion_mnist,
    gaussian_fields,
    king_james,
    load_array,
    load_arrays,
    load_pairs,
    load_rows,
    mnist,
    pronunciations,
    solve_darcy,
    split,
    svhn,
    text,
    text_pairs,
)
from tests.datasets.test_published import BATCHES, LABELS, write_cifar, write_mnist, write_svhn
from tests.valid_calls.call import Call, calls_of

#: Made by the package, tables, and what has no arguments.
RECORDS = (
    "DATASETS",
    "DarcyFields",
    "LabeledImages",
    "PHOTOGRAPHS",
    "SOURCES",
    "digits",
    "mnist5k",
)


def of_files(folder: Path) -> dict[str, Call]:
    np.save(folder / "rows.npy", np.ones((3, 2)))
    np.savez(folder / "rows.npz", x=np.ones((3, 2)))
    (folder / "words.dict").write_text("cat K AE1 T\ndog D AO1 G\n", encoding="utf-8")
    (folder / "pairs.tsv").write_text("a\tb\nc\td\n", encoding="utf-8")
    write_mnist(folder, np.zeros((5, 4, 6), np.uint8), LABELS)
    write_svhn(folder, "train_32x32.mat")
    write_cifar(folder, BATCHES)
    words = pronunciations(folder / "words.dict")
    options = {"folder": str(folder), "train": True, "verify": False, "download": False}
    return {
        "load_rows": Call(load_rows, {"source": str(folder / "rows.npy")}, also=("data",)),
        "load_array": Call(
            load_array,
            {
                "source": str(folder / "rows.npy"),
                "name": "data",
                "least_dim": 1,
                "or_names": "one of 'digits' or ",
            },
            also=("data",),
        ),
        "load_arrays": Call(load_arrays, {"source": str(folder / "rows.npz")}, also=("data",)),
        "load_pairs": Call(load_pairs, {"source": str(folder / "words.dict")}, also=("data",)),
        "pronunciations": Call(
            pronunciations,
            {
                "path": str(folder / "words.dict"),
                "stress": False,
                "max_letters": 5,
                "max_phonemes": 5,
            },
        ),
        "text_pairs": Call(text_pairs, {"path": str(folder / "pairs.tsv"), "max_length": 3}),
        **calls_of(words, rows={"index": torch.tensor([0])}, split={"held_out": 1, "seed": 0}),
        "text": Call(text, {"source": str(folder / "pairs.tsv"), "alphabet": "abcd\t\n"}),
        "mnist": Call(mnist, options),
        "fashion_mnist": Call(fashion_mnist, options),
        "svhn": Call(svhn, options),
        "cifar10": Call(cifar10, options),
    }


def of_tensors(folder: Path) -> dict[str, Call]:
    rows = torch.rand(3, 2)
    letters = Alphabet(("a", "b"))
    written = encode("abba")
    return {
        "as_dataset": Call(as_dataset, {"data": rows}),
        "RowsOf": Call(RowsOf, {"data": (rows,)}),
        "split": Call(split, {"size": 5, "held_out": 2, "seed": 0}),
        "encode": Call(encode, {"characters": "abba", "alphabet": "ab"}),
        **calls_of(written, windows={"length": 2}, decode={"symbols": torch.tensor([0, 1])}),
        "Alphabet": Call(Alphabet, {"symbols": ("a", "b")}),
        **calls_of(
            letters,
            encode={"sequences": ["ab"], "length": 3},
            decode={"tokens": torch.tensor([2, 3, 0])},
        ),
        "king_james": Call(king_james, {"books": ("Jude",)}, expensive=True),
        "color_patches": Call(color_patches, {"size": 64, "shrink": 4}, expensive=True),
        "gaussian_fields": Call(
            gaussian_fields, {"num": 2, "resolution": 5, "generator": torch.Generator()}
        ),
        "solve_darcy": Call(
            solve_darcy, {"permeability": 1 + torch.rand(2, 5, 5), "forcing": torch.ones(2, 5, 5)}
        ),
        "darcy": Call(
            darcy,
            {"num": 2, "resolution": 5, "refinement": 2, "seed": 0, "folder": str(folder)},
        ),
    }


def calls() -> dict[str, Call]:
    torch.manual_seed(0)
    folder = Path(tempfile.mkdtemp())
    return of_files(folder) | of_tensors(folder)
