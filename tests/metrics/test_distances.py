"""Fréchet and kernel distances against closed forms, and their extrapolation."""

import math
from functools import partial

import pytest
import torch

from pyro_tkam.metrics import SAMPLE_SIZES, extrapolate, frechet_distance, kernel_distance


def with_moments(num, mean, covariance, seed):
    """Return points whose sample mean and unbiased sample covariance are exactly these."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num, len(mean), dtype=torch.float64, generator=generator)
    x = x - x.mean(0)
    white = torch.linalg.solve_triangular(
        torch.linalg.cholesky(x.T @ x / (num - 1)), x.T, upper=False
    ).T
    return white @ torch.linalg.cholesky(covariance).T + mean


MEANS = torch.tensor([[0.0, 1.0], [2.0, -1.0]], dtype=torch.float64)
COVARIANCES = torch.tensor(
    [[[2.0, 0.6], [0.6, 1.0]], [[0.5, -0.3], [-0.3, 3.0]]], dtype=torch.float64
)


def exact_frechet():
    """Two by two matrices have tr √A = √(tr A + 2 √det A)."""
    product = COVARIANCES[0] @ COVARIANCES[1]
    root = torch.sqrt(product.trace() + 2 * torch.linalg.det(product).sqrt())
    return float(
        (MEANS[0] - MEANS[1]).square().sum()
        + COVARIANCES[0].trace()
        + COVARIANCES[1].trace()
        - 2 * root
    )


def test_frechet_distance_of_known_normals():
    real, generated = (with_moments(300 + i, MEANS[i], COVARIANCES[i], i) for i in range(2))
    assert frechet_distance(real, generated) == pytest.approx(exact_frechet(), rel=1e-9)
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-6)


def kernel(x, y):
    return (float(x @ y) / len(x) + 1) ** 3


def test_kernel_distance_is_the_sum_over_pairs():
    torch.manual_seed(0)
    x, y = torch.randn(7, 3, dtype=torch.float64), torch.randn(7, 3, dtype=torch.float64) + 0.5
    within = (
        sum(
            kernel(some[i], some[j])
            for some in (x, y)
            for i in range(7)
            for j in range(7)
            if i != j
        )
        / 42
    )
    across = sum(kernel(a, b) for a in x for b in y) / 49
    assert kernel_distance(x, y) == pytest.approx(within - 2 * across, rel=1e-10)


def test_kernel_distance_of_shifted_normals():
    """
    (xy + 1)³ compares three moments: 3 m² + 3 m⁴ + (m³ + 3m)². Unbiased, so 40 small sets suffice;
    5 σ.
    """
    torch.manual_seed(0)
    shift = 0.7
    exact = 3 * shift**2 + 3 * shift**4 + (shift**3 + 3 * shift) ** 2
    x = torch.randn(40, 300, 1, dtype=torch.float64)
    y = torch.randn(40, 200, 1, dtype=torch.float64) + shift
    values = torch.tensor([kernel_distance(a, b) for a, b in zip(x, y, strict=True)])
    assert abs(values.mean() - exact) < 5 * values.std() / math.sqrt(40)
    zero = torch.tensor([kernel_distance(a, b) for a, b in zip(x, y - shift, strict=True)])
    assert abs(zero.mean()) < 5 * zero.std() / math.sqrt(40)


def test_the_line_recovers_the_distance_at_infinity_and_its_interval_covers():
    """
    100 models with a known Fréchet distance; a 95 % interval misses more than 14 of them with
    probability 1e-4.

    One size alone is off by many standard errors, which extrapolation removes.
    """
    torch.manual_seed(1)
    sizes = range(60, 161, 10)
    real = with_moments(500, MEANS[0], COVARIANCES[0], 0)
    exact, root = exact_frechet(), torch.linalg.cholesky(COVARIANCES[1])
    lines = []
    for _ in range(100):
        samples = torch.randn(sum(sizes), 2, dtype=torch.float64) @ root.T + MEANS[1]
        lines.append(extrapolate(partial(frechet_distance, real), samples, sizes))
    values = torch.tensor([line.value for line in lines])
    assert abs(values.mean() - exact) < 4 * values.std() / 10
    assert sum(line.low < exact < line.high for line in lines) >= 86
    assert (
        sum(
            line.value - line.standard_error < exact < line.value + line.standard_error
            for line in lines
        )
        < 90
    )


def test_extrapolation_removes_the_bias_of_many_features():
    """
    Thirty features, real and generated alike, so that the distance is 0: at N = 100 it is far from
    it.
    """
    torch.manual_seed(2)
    sizes = range(100, 301, 20)
    real = with_moments(
        400, torch.zeros(30, dtype=torch.float64), torch.eye(30, dtype=torch.float64), 0
    )
    line = extrapolate(
        partial(frechet_distance, real), torch.randn(sum(sizes), 30, dtype=torch.float64), sizes
    )
    assert line.distances[0] > 1
    assert abs(line.value) < 0.15 * line.distances[0]


def test_the_papers_eleven_sizes_are_the_default():
    assert SAMPLE_SIZES == (1000, 1200, 1400, 1600, 1800, 2000, 2200, 2400, 2600, 2800, 3000)
    seen = []
    line = extrapolate(
        lambda some: seen.append(some) or 2.0 + 300 / len(some), torch.arange(22_000.0).unsqueeze(1)
    )
    assert [len(some) for some in seen] == list(SAMPLE_SIZES)
    assert len(torch.cat(seen).unique()) == 22_000  # no sample twice
    assert line.value == pytest.approx(2)
    assert line.slope == pytest.approx(300)
    assert line.low == pytest.approx(line.high)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: frechet_distance(torch.zeros(3), torch.zeros(3, 1)),
            r"real must have shape \(num, num_features\) with num > 1, got \(3,\)",
        ),
        (
            lambda: frechet_distance(torch.zeros(3, 2), torch.zeros(3, 1)),
            r"generated must have rows of shape \(2,\), as real has, got \(3, 1\)",
        ),
        (
            lambda: kernel_distance(torch.zeros(3, 2), torch.full((3, 2), math.nan)),
            "generated must be finite, got 6 elements that are NaN or infinite",
        ),
        (
            lambda: extrapolate(len, torch.zeros(9, 1), [4, 6, 8]),
            r"samples must have sum\(sizes\) = 18 rows, .* its own, got shape \(9, 1\)",
        ),
        (
            lambda: extrapolate(len, torch.zeros(9, 1), [4, 4, 4]),
            r"sizes must be at least three.*, got \[4, 4, 4\]",
        ),
        (
            lambda: extrapolate(len, torch.zeros(99, 1), [4, 5, 6], confidence=95),
            r"confidence must lie in \(0, 1\), got 95",
        ),
    ],
    ids=["rank", "features", "nan", "few", "same", "confidence"],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
