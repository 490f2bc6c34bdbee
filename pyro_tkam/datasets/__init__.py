"""Small real data sets, and the way from any tensor, array or Dataset to training."""

from pyro_tkam.datasets.images import DATASETS, LabelledImages, digits, mnist5k
from pyro_tkam.datasets.sources import as_dataset, load_rows, split

__all__ = ["DATASETS", "LabelledImages", "as_dataset", "digits", "load_rows", "mnist5k", "split"]
