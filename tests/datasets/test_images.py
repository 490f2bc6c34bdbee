"""The images that ship inside packages."""

import pytest
import torch

from pyro_tkam.datasets import DATASETS


@pytest.mark.parametrize(("name", "num", "side"), [("mnist5k", 5000, 28), ("digits", 1797, 8)])
def test_images_and_labels(name, num, side):
    data = DATASETS[name]()
    assert data.images.shape == (num, side, side)
    assert data.images.dtype == torch.get_default_dtype()
    assert data.images.min() == 0
    assert data.images.max() == 1
    assert data.labels.dtype == torch.int64
    assert set(data.labels.tolist()) == set(range(10))
    assert 0.5 * num / 10 < torch.bincount(data.labels).min()
