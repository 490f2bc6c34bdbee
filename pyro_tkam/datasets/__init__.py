"""Small real data sets, and the way from any tensor, array or Dataset to training."""

from pyro_tkam.datasets.images import DATASETS, LabelledImages, digits, mnist5k
from pyro_tkam.datasets.sources import as_dataset, load_rows, split
from pyro_tkam.datasets.text import Text, encode, king_james, text

__all__ = [
    "DATASETS",
    "LabelledImages",
    "Text",
    "as_dataset",
    "digits",
    "encode",
    "king_james",
    "load_rows",
    "mnist5k",
    "split",
    "text",
]
