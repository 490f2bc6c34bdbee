"""Distances at infinitely many samples, by regression on the inverse of the sample size."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from pyro_tkam import _checks
from pyro_tkam._optional import needs
from pyro_tkam.ops._arguments import dense

#: the eleven sample sizes of Raj 2025 (arXiv:2506.14167, Sec. 4)
SAMPLE_SIZES = tuple(range(1000, 3001, 200))


@dataclass(frozen=True)
class Extrapolation:
    """
    A straight line through distances against ``1/N``, and its value at 0.

    :param value: the distance at infinitely many samples.
    :param standard_error: of that value, from the residuals of the line.
    :param low: lower end of the confidence interval.
    :param high: upper end of the confidence interval.
    :param slope: how fast the distance falls with the sample size, in distance times samples.
    :param sizes: the sample sizes ``N``.
    :param distances: the distance at each.
    """

    value: float
    standard_error: float
    low: float
    high: float
    slope: float
    sizes: tuple[int, ...]
    distances: tuple[float, ...]


def extrapolate(
    distance: Callable[[Tensor], float],
    samples: Tensor,
    sizes: Sequence[int] = SAMPLE_SIZES,
    *,
    confidence: float = 0.95,
) -> Extrapolation:
    r"""
    Extrapolate a distance to infinitely many samples: fit :math:`d_N = d_∞ + c/N` by least squares.

    Such distances have a bias of order ``1/N`` that differs between models, so a single sample size
    can't rank models (Chong and Forsyth 2020, arXiv:1911.07023; Raj 2025, arXiv:2506.14167, Sec.
    4). Each sample size uses separate samples, because the interval (Student's t with two degrees
    of freedom fewer than the number of sizes) holds only for independent points. The number of
    *real* images is fixed, so its bias stays, and it is the same for all models.

    :param distance: of samples ``(N, *event)`` to the real data, such as
        ``partial(frechet_distance, real_features)``.
    :param samples: generated images or features, at least ``sum(sizes)`` of them (22,000 for the
        default), in random order.
    :param sizes: at least three sample sizes, two of them different.
    :param confidence: level of the interval.
    :raises ValueError: for other sizes, too few samples, and levels outside (0, 1).
    :raises ImportError: without the extra ``metrics``.

    >>> import torch
    >>> line = extrapolate(lambda some: 3 + 5 / len(some), torch.zeros(600, 2), sizes=[100, 200,
    ...     300])
    >>> round(line.value, 6), round(line.slope, 6)
    (3.0, 5.0)
    """
    _checks.function("distance", distance, "samples")
    sizes = sample_sizes(sizes)
    dense("samples", samples)
    if samples.dim() == 0 or len(samples) < sum(sizes):
        raise ValueError(
            f"samples must have sum(sizes) = {sum(sizes)} rows, because each size needs its "
            f"own, got shape {tuple(samples.shape)}"
        )
    confidence = _checks.within("confidence", confidence, 0, 1)
    parts = samples[: sum(sizes)].split(list(sizes))
    distances = [_checks.number("distance(samples)", distance(some)) for some in parts]
    return _line(sizes, tuple(distances), confidence)


def sample_sizes(sizes: Any) -> tuple[int, ...]:
    """
    Return sample sizes that a line can be fitted to.

    :param sizes: whole numbers.
    :raises TypeError: for what is no sequence.
    :raises ValueError: for fewer than three, no two different ones, and those below 2.
    """
    sizes = _checks.sizes("sizes", sizes)
    if len(sizes) < 3 or len(set(sizes)) < 2 or min(sizes) < 2:
        raise ValueError(
            f"sizes must be at least three numbers above 1, not all equal, got {list(sizes)}"
        )
    return sizes


def _line(sizes: tuple[int, ...], distances: tuple[float, ...], confidence: float) -> Extrapolation:
    with needs("metrics"):
        from scipy.stats import t
    design = np.stack([np.ones(len(sizes)), 1 / np.asarray(sizes, float)], axis=1)
    (value, slope), *_ = np.linalg.lstsq(design, np.asarray(distances), rcond=None)
    freedom = len(sizes) - 2
    scatter = float(np.square(distances - design @ [value, slope]).sum()) / freedom
    error = float(np.sqrt(scatter * np.linalg.inv(design.T @ design)[0, 0]))
    margin = error * float(t.ppf((1 + confidence) / 2, freedom))
    return Extrapolation(
        float(value),
        error,
        float(value) - margin,
        float(value) + margin,
        float(slope),
        sizes,
        distances,
    )
