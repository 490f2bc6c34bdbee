"""Color patches from photographs that ship with Python packages."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from pyro_tkam._checks import whole_number
from pyro_tkam._optional import needs
from pyro_tkam.datasets.images import LabeledImages

#: the photographs, in the order of their labels
PHOTOGRAPHS = ("china", "flower", "astronaut", "chelsea", "coffee", "rocket")


def _photographs() -> Iterator[NDArray[np.uint8]]:
    """Read the photographs, each ``(height, width, 3)``."""
    with needs("datasets"):
        import skimage.data
        from sklearn.datasets import load_sample_images
    yield from load_sample_images().images
    for name in PHOTOGRAPHS[2:]:
        yield getattr(skimage.data, name)()


def color_patches(size: int = 16, *, shrink: int = 2) -> LabeledImages:
    """
    Cut six color photographs into square patches without overlap, so that any patch can be held
    out.

    Two photographs ship with ``scikit-learn`` and four with ``scikit-image``. The label of a patch
    says which photograph it comes from.

    :param size: pixels per side.
    :param shrink: first average squares of this many pixels per side, so that a patch shows more of
        its photograph.
    :return: images of shape ``(num, 3, size, size)``, from 0 to 1, and labels 0 to 5.
    :raises ValueError: for sizes below one, and for patches larger than the smallest photograph.
    :raises ImportError: without the extra ``datasets``.

    >>> color_patches(32).images.shape
    torch.Size([326, 3, 32, 32])
    """
    side = whole_number("size", size, 1) * whole_number("shrink", shrink, 1)
    photographs = list(_photographs())
    if min(min(photograph.shape[:2]) for photograph in photographs) < side:
        raise ValueError(
            f"size and shrink must fit the smallest photograph, got {size} and {shrink}"
        )
    parts = [_tiles(photograph, size, shrink) for photograph in photographs]
    images = torch.as_tensor(np.concatenate(parts), dtype=torch.get_default_dtype()) / 255
    counts = torch.tensor([len(part) for part in parts])
    return LabeledImages(images, torch.arange(len(parts)).repeat_interleave(counts))


def _tiles(photograph: NDArray[np.uint8], size: int, shrink: int) -> NDArray[np.float64]:
    """Shrink a photograph and cut it row by row; drop the rest that does not fill a patch."""
    side = size * shrink
    rows, columns = (length // side for length in photograph.shape[:2])
    whole = photograph[: rows * side, : columns * side].astype(np.float64)
    blocks = whole.reshape(rows, size, shrink, columns, size, shrink, 3).mean(axis=(2, 5))
    tiles: NDArray[np.float64] = blocks.transpose(0, 2, 4, 1, 3).reshape(-1, 3, size, size)
    return tiles
