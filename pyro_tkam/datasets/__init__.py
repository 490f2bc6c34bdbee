"""
Small real data sets, texts, a solver that generates data, and conversion of tensors, arrays and
Datasets for training.
"""

from pyro_tkam.datasets.flow import DarcyFields, darcy, gaussian_fields, solve_darcy
from pyro_tkam.datasets.images import DATASETS, LabeledImages, digits, mnist5k
from pyro_tkam.datasets.pairs import Alphabet, Pairs, load_pairs, pronunciations, text_pairs
from pyro_tkam.datasets.photographs import PHOTOGRAPHS, color_patches
from pyro_tkam.datasets.published import cifar10, fashion_mnist, mnist, svhn
from pyro_tkam.datasets.sources import (
    SOURCES,
    RowsOf,
    as_dataset,
    load_array,
    load_arrays,
    load_rows,
    split,
)
from pyro_tkam.datasets.text import Text, encode, king_james, text

__all__ = [
    "DATASETS",
    "PHOTOGRAPHS",
    "SOURCES",
    "Alphabet",
    "DarcyFields",
    "LabeledImages",
    "Pairs",
    "RowsOf",
    "Text",
    "as_dataset",
    "cifar10",
    "color_patches",
    "darcy",
    "digits",
    "encode",
    "fashion_mnist",
    "gaussian_fields",
    "king_james",
    "load_array",
    "load_arrays",
    "load_pairs",
    "load_rows",
    "mnist",
    "mnist5k",
    "pronunciations",
    "solve_darcy",
    "split",
    "svhn",
    "text",
    "text_pairs",
]
