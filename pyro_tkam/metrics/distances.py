"""Distances between two sets of images in a feature space, computed with ``torchmetrics``."""

import torch
from torch import Tensor, nn

from pyro_tkam._optional import needs
from pyro_tkam.metrics.checks import of_one_kind
from pyro_tkam.ops._arguments import dense, finite


class _Given(nn.Module):
    """A feature network for what is features already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def _check(real: Tensor, generated: Tensor) -> None:
    for name, features in (("real", real), ("generated", generated)):
        dense(name, features)
        if features.dim() != 2 or len(features) < 2 or features.shape[1] == 0:
            raise ValueError(
                f"{name} must have shape (num, num_features) with num > 1, got "
                f"{tuple(features.shape)}"
            )
        finite(name, features)
    of_one_kind("generated", generated, real, "real")


def frechet_distance(real: Tensor, generated: Tensor) -> float:
    r"""
    Return the Fréchet distance between two normal distributions with the moments of two sets of
    features.

    :math:`|μ_1 - μ_2|^2 + \mathrm{tr}(Σ_1 + Σ_2 - 2 (Σ_1 Σ_2)^{1/2})` (Heusel et al. 2017,
        arXiv:1706.08500). It is biased upward by an amount that depends on the number of images;
        see :func:`extrapolate`. Features from :func:`embed` are float64, which the square root
        needs.

    :param real: features of real images, shape ``(num, num_features)``.
    :param generated: features of generated images, shape ``(num, num_features)``.
    :raises TypeError: for what is no tensor of numbers, and dtypes that differ.
    :raises ValueError: for other shapes and features that are not finite.
    :raises ImportError: without the extra ``metrics``.

    >>> import torch
    >>> features = torch.randn(100, 3, dtype=torch.float64)
    >>> round(frechet_distance(features, features + 2), 6)
    12.0
    """
    _check(real, generated)
    with needs("metrics"):
        from torchmetrics.image.fid import FrechetInceptionDistance
    metric = FrechetInceptionDistance(feature=_Given(real.shape[1])).to(real.device)
    metric.update(real, real=True)
    metric.update(generated, real=False)
    return float(metric.compute())


def kernel_distance(real: Tensor, generated: Tensor) -> float:
    r"""
    Return the unbiased squared maximum mean discrepancy of two sets of features.

    The kernel is :math:`(x·y / d + 1)^3` (Bińkowski et al. 2018, arXiv:1801.01401). From the larger
    set, a random subset of the size of the smaller set is used.

    :param real: features of real images, shape ``(num, d)``.
    :param generated: features of generated images, shape ``(num, d)``.
    :raises TypeError: for what is no tensor of numbers, and dtypes that differ.
    :raises ValueError: for other shapes and features that are not finite.
    :raises ImportError: without the extra ``metrics``.

    >>> import torch
    >>> kernel_distance(torch.zeros(5, 1), torch.ones(5, 1))
    7.0
    """
    _check(real, generated)
    with needs("metrics"):
        from torchmetrics.image.kid import poly_mmd
    size = min(len(real), len(generated))
    real, generated = (
        some[torch.randperm(len(some), device=some.device)[:size]] for some in (real, generated)
    )
    return float(poly_mmd(real, generated))
