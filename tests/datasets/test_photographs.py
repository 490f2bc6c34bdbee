"""Patches of photographs: no pixel twice, and each what the photograph shows there."""

import numpy as np
import pytest
import torch

from pyro_tkam.datasets import PHOTOGRAPHS, color_patches
from pyro_tkam.datasets.photographs import _photographs, _tiles


def test_patches_of_all_photographs():
    data = color_patches()
    assert data.images.shape == (1378, 3, 16, 16)
    assert data.images.dtype == torch.get_default_dtype()
    assert 0 <= data.images.min() < 0.05
    assert 0.95 < data.images.max() <= 1
    assert set(data.labels.tolist()) == set(range(len(PHOTOGRAPHS)))


def test_a_patch_is_the_mean_of_its_place():
    photograph = next(_photographs())
    first = color_patches(8, shrink=4).images[21]  # the second row, second column of 20
    for row, column in ((0, 0), (5, 7)):
        top, left = 32 + 4 * row, 32 + 4 * column
        mean = photograph[top : top + 4, left : left + 4].mean((0, 1)) / 255
        np.testing.assert_allclose(first[:, row, column], mean, atol=1e-6)


def test_tiles_use_every_pixel_once():
    pixels = np.arange(12 * 17 * 3).reshape(12, 17, 3)
    tiles = _tiles(pixels, 4, 1)
    assert tiles.shape == (12, 3, 4, 4)
    np.testing.assert_array_equal(np.sort(tiles.ravel()), np.sort(pixels[:, :16].ravel()))


def test_bad_sizes_are_named():
    for size, shrink, message in (
        (0, 1, "size must be .* at least 1, got 0"),
        (8, 0, "shrink must be .* at least 1, got 0"),
        (200, 2, "size and shrink must fit .*, got 200 and 2"),
    ):
        with pytest.raises(ValueError, match=message):
            color_patches(size, shrink=shrink)
