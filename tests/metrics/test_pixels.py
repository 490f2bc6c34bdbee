"""Errors in the data's units, and copies of training data."""

import pyro
import pytest
import torch

from pyro_tkam.metrics import copies, reconstruction_error, unpaired_error, variance_ratio
from pyro_tkam.models import TKAM, GaussianLikelihood


class Normals(torch.nn.Module):
    """A prior of two independent standard normals."""

    def forward(self):
        return pyro.distributions.Normal(
            torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
        )


def test_reconstruction_of_a_conjugate_model():
    """
    With ``x = z + σε`` the posterior mean is ``x / (1 + σ²)``; 20,000 draws leave 1 % of error
    here.
    """
    pyro.set_rng_seed(0)
    noise_scale = 0.7
    model = TKAM(Normals(), torch.nn.Identity(), GaussianLikelihood(noise_scale))
    x = torch.randn(50, 2, dtype=torch.float64)
    exact = (x * (1 - 1 / (1 + noise_scale**2))).square().mean()
    assert reconstruction_error(model, x, num_draws=20_000) == pytest.approx(float(exact), rel=0.03)


def test_unpaired_error_is_the_mean_over_all_pairs():
    torch.manual_seed(0)
    samples, data = torch.rand(6, 3, 4), torch.rand(5, 3, 4)
    pairs = torch.stack([(a - b).square().mean() for a in samples for b in data])
    assert unpaired_error(samples, data) == pytest.approx(float(pairs.mean()))
    mean_image = data.mean(0, keepdim=True).expand(6, 3, 4)
    assert unpaired_error(mean_image, data) == pytest.approx(unpaired_error(data, data) / 2)


def test_variance_ratio():
    data = torch.randn(50, 3, 2)
    assert variance_ratio(data * 0.5, data) == pytest.approx(0.25)
    assert variance_ratio(torch.ones(9, 3, 2), data) == 0
    with pytest.raises(ValueError, match=r"data must vary, got variance 0\.0"):
        variance_ratio(data, torch.ones(9, 3, 2))


def test_copies_are_told_from_new_images():
    """New images of the same law give 1/2 within 4 standard errors, a false alarm in 16,000."""
    torch.manual_seed(0)
    training, held_out, new = torch.rand(300, 2, 2), torch.rand(200, 2, 2), torch.rand(250, 2, 2)
    order = torch.randperm(300)[:100]
    repeated = copies(training[order], training, held_out)
    assert repeated.closer == 1
    assert torch.equal(repeated.nearest, order)
    assert repeated.distance.max() == 0
    fresh = copies(new, training, held_out)
    assert abs(fresh.closer - 0.5) < 4 * fresh.standard_error
    assert fresh.standard_error == pytest.approx((451 / (12 * 250 * 200)) ** 0.5)
    assert copies(new + 5, training, held_out).closer == 0
    half = torch.cat([training[:125], new[:125]])
    assert copies(half, training, held_out).closer == pytest.approx(0.75, abs=0.08)
    with pytest.raises(
        ValueError, match=r"samples must have shape \(num, \*event\) .*, got \(0, 2, 2\)"
    ):
        copies(new[:0], training, held_out)
