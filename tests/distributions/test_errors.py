"""Bad input of the tilted prior: errors that name the argument, before anything is built."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Bernoulli, MultivariateNormal, Normal, Uniform

from pyro_tkam.distributions import ExponentiallyTilted
from pyro_tkam.ops.quadrature import Quadrature, composite, gauss_kronrod, gauss_legendre, trapezium


def flat(z):
    return torch.zeros_like(z)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"energy": 3.0}, TypeError, r"energy must .*, got float"),
        ({"energy": lambda z: 0.0}, TypeError, "energy must return a tensor, got float"),
        (
            {"energy": lambda z: z > 0},
            TypeError,
            r"energy must return a floating-point tensor, got torch\.bool",
        ),
        (
            {"energy": lambda z: z.sum() + torch.zeros(3)},
            ValueError,
            r"energy must return the shape that.*, got \(3,\) for z of shape \(256, 1\)",
        ),
        (
            {"energy": lambda z: z / 0},
            ValueError,
            r"energy must be finite .*, got NaN or .*inf",
        ),
        (
            {"energy": lambda z: z * torch.nan},
            ValueError,
            r"energy must be finite .*, got NaN or .*inf",
        ),
        (
            {"energy": lambda z: z - torch.inf},
            ValueError,
            r"reference must have mass on the interval from .*, got none",
        ),
        (
            {"reference": "gausian"},
            ValueError,
            r"reference must be one of \['flat',.*, got 'gausian'",
        ),
        ({"reference": 1.0}, TypeError, r"reference must be a .*, got float"),
        (
            {"reference": MultivariateNormal(torch.zeros(2), torch.eye(2))},
            ValueError,
            r"reference must be a univariate distribution, got event shape \(2,\)",
        ),
        (
            {"reference": Bernoulli(0.5)},
            ValueError,
            r"reference must be a continuous.*, got a discrete one,",
        ),
        (
            {"reference": Normal(0.0, 1.0)},
            ValueError,
            r"low must be finite \(and given.*, got -inf",
        ),
        (
            {"reference": Uniform(2.0, 3.0), "low": 0.0, "high": 1.0},
            ValueError,
            r"low must be below high, both inside the reference's.*, got low=",
        ),
        (
            {"reference": Normal(0.0, 1e-3), "low": 5.0, "high": 6.0},
            ValueError,
            r"reference must have mass on the interval from .*, got none",
        ),
        (
            {"low": 1.0, "high": 1.0},
            ValueError,
            r"low must be below high.*, got low=1\.0, high=1\.0",
        ),
        (
            {"low": torch.tensor([0.0, 2.0]), "high": 1.0},
            ValueError,
            r"low must be below high, both inside the reference's.*, got low=",
        ),
        ({"high": float("nan")}, ValueError, r"high must be finite \(and given.*, got nan"),
        ({"high": float("inf")}, ValueError, r"high must be finite \(and given.*, got inf"),
        ({"high": "one"}, TypeError, "high must be a number, a tensor or None, got str"),
        ({"low": torch.zeros(2), "high": torch.ones(3)}, ValueError, r"low and high must .*, got "),
        (
            {
                "reference": Normal(torch.zeros(2).double(), 1.0),
                "low": 0.0,
                "high": torch.ones(2, 2),
            },
            TypeError,
            "dtype",
        ),
        ({"quadrature": 100}, TypeError, "quadrature must be a Quadrature, got int"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        ExponentiallyTilted(**{"energy": flat, **arguments})


def test_values_outside_the_support():
    outside = torch.tensor([-0.5, 0.5, 1.5])
    lenient = ExponentiallyTilted(flat, validate_args=False)
    assert lenient.log_prob(outside).tolist() == pytest.approx([-torch.inf, 0.0, -torch.inf])
    torch.testing.assert_close(lenient.cdf(outside), torch.tensor([0.0, 0.5, 1.0]))
    strict = ExponentiallyTilted(flat, validate_args=True)
    with pytest.raises(ValueError, match="within the support"):
        strict.log_prob(outside)
    with pytest.raises(
        ValueError, match="value must hold probabilities from 0 to 1, got values outside"
    ):
        strict.icdf(outside)
    with pytest.raises(ValueError, match="value must lie within the support"):
        strict.log_prob(torch.tensor(float("nan")))


def test_expand_to_a_shape_that_does_not_fit():
    with pytest.raises(
        ValueError, match=r"batch_shape must be one that \(3,\) broadcasts to, got \(2,\)"
    ):
        ExponentiallyTilted(lambda z: z * torch.ones(3)).expand((2,))


def test_a_rule_too_coarse_for_its_tolerance_warns_only_when_validating():
    def wiggly(z):
        return 5 * torch.sin(200 * z)

    rule = composite(1, 4, base_cells=2, tolerance=1e-6)
    assert ExponentiallyTilted(wiggly, quadrature=rule, validate_args=False).quadrature_error > 1e-6
    with pytest.warns(UserWarning, match="quadrature: the estimated error of the CDF is"):
        ExponentiallyTilted(wiggly, quadrature=rule, validate_args=True)


@pytest.mark.parametrize("rule", [gauss_legendre, gauss_kronrod, trapezium])
@pytest.mark.parametrize("count", [0, -1, 10_000])
def test_counts_of_nodes(rule, count):
    with pytest.raises(
        ValueError, match=rf"num_nodes must be an integer from \d to \d+, got {count}"
    ):
        rule(count)


@pytest.mark.parametrize("nodes", [(), (0.5, 0.2), (-0.1, 0.5), (0.5, 1.5)])
def test_nodes_of_a_rule(nodes):
    with pytest.raises(ValueError, match=r"nodes must be increasing numbers in \[0, 1\], got "):
        Quadrature(nodes)
