"""Does a model repeat its training data?"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_tkam.metrics.checks import of_one_kind, rows_of


@dataclass(frozen=True)
class Copies:
    r"""
    How close samples are to the training images, compared with held-out images.

    :param nearest: index of the training image nearest to each sample, shape ``(num,)``.
    :param distance: Euclidean distance to it, in the images' units, shape ``(num,)``.
    :param closer: probability that a sample is closer to its nearest training image than a held-out
        image is to its own, with ties counted as half: about 1/2 for new images, 1 for copies.
    :param standard_error: of ``closer`` if samples and held-out images have the same distribution.
    """

    nearest: Tensor
    distance: Tensor
    closer: float
    standard_error: float


def copies(samples: Tensor, training: Tensor, held_out: Tensor) -> Copies:
    """
    Compare samples' distances to the training images with those of held-out images (Meehan et al.
    2020).

    The comparison is the Mann-Whitney statistic of arXiv:2004.05675. A value well above 1/2 means
    that samples are closer to the training images than new images are. This is also true of blurred
    samples, so look at the nearest images before you call it memorization. A value well below 1/2
    means that samples are far from all data.

    :param samples: generated images, shape ``(num, *event)``.
    :param training: training images, shape ``(num, *event)``.
    :param held_out: held-out images, shape ``(num, *event)``.
    :raises ValueError: for empty sets or different shapes.

    >>> training, held_out = torch.rand(50, 2, 2), torch.rand(50, 2, 2)
    >>> copies(training, training, held_out).closer
    1.0
    """
    rows_of("training", training)
    for name, images in (("samples", samples), ("held_out", held_out)):
        rows_of(name, images)
        of_one_kind(name, images, training, "training")
    distance, nearest = _nearest(samples, training)
    usual, _ = _nearest(held_out, training)
    difference = usual.unsqueeze(0) - distance.unsqueeze(1)
    closer = (difference > 0).double().mean() + (difference == 0).double().mean() / 2
    num = len(samples)
    other = len(held_out)
    return Copies(nearest, distance, float(closer), ((num + other + 1) / (12 * num * other)) ** 0.5)


def _nearest(images: Tensor, training: Tensor) -> tuple[Tensor, Tensor]:
    """
    Return distance and index of the nearest training image, without the rounding of a matrix
    product.
    """
    mode = "donot_use_mm_for_euclid_dist"
    pairs = [
        torch.cdist(some.flatten(1), training.flatten(1), compute_mode=mode)
        for some in images.split(500)
    ]
    least = [distances.min(1) for distances in pairs]
    return torch.cat([part.values for part in least]), torch.cat([part.indices for part in least])
