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
        ({"energy": 3.0}, TypeError, "energy: got float"),
        ({"energy": lambda z: 0.0}, TypeError, "energy: got a result of type float"),
        ({"energy": lambda z: z > 0}, TypeError, "energy: got a result of dtype torch.bool"),
        ({"energy": lambda z: z.sum() + torch.zeros(3)}, ValueError, "energy: got values of shape"),
        ({"energy": lambda z: z / 0}, ValueError, "energy: got values that are not finite"),
        ({"energy": lambda z: z * torch.nan}, ValueError, "energy: got values that are not finite"),
        ({"energy": lambda z: z - torch.inf}, ValueError, "no mass on the interval"),
        ({"reference": "gausian"}, ValueError, "reference: got 'gausian', takes one of"),
        ({"reference": 1.0}, TypeError, "reference: got float"),
        (
            {"reference": MultivariateNormal(torch.zeros(2), torch.eye(2))},
            ValueError,
            "reference: got event shape",
        ),
        ({"reference": Bernoulli(0.5)}, ValueError, "reference: got a discrete distribution"),
        ({"reference": Normal(0.0, 1.0)}, ValueError, "low: got -inf"),
        ({"reference": Uniform(2.0, 3.0), "low": 0.0, "high": 1.0}, ValueError, "low, high: got"),
        (
            {"reference": Normal(0.0, 1e-3), "low": 5.0, "high": 6.0},
            ValueError,
            "no mass on the interval",
        ),
        ({"low": 1.0, "high": 1.0}, ValueError, "low, high: got low=1.0, high=1.0"),
        ({"low": torch.tensor([0.0, 2.0]), "high": 1.0}, ValueError, "low, high: got"),
        ({"high": float("nan")}, ValueError, "high: got nan"),
        ({"high": float("inf")}, ValueError, "high: got inf"),
        ({"high": "one"}, TypeError, "high: got str"),
        ({"low": torch.zeros(2), "high": torch.ones(3)}, ValueError, "low, high"),
        (
            {
                "reference": Normal(torch.zeros(2).double(), 1.0),
                "low": 0.0,
                "high": torch.ones(2, 2),
            },
            TypeError,
            "dtype",
        ),
        ({"quadrature": 100}, TypeError, "quadrature: got int"),
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
    with pytest.raises(ValueError, match="value: got probabilities outside"):
        strict.icdf(outside)
    with pytest.raises(ValueError, match="to be within the support"):
        strict.log_prob(torch.tensor(float("nan")))


def test_expand_to_a_shape_that_does_not_fit():
    with pytest.raises(ValueError, match=r"batch_shape: got \(2,\)"):
        ExponentiallyTilted(lambda z: z * torch.ones(3)).expand((2,))


def test_a_rule_too_coarse_for_its_tolerance_warns_only_when_validating():
    def wiggly(z):
        return 5 * torch.sin(200 * z)

    rule = composite(1, 4, base_cells=2, tolerance=1e-6)
    assert ExponentiallyTilted(wiggly, quadrature=rule, validate_args=False).quadrature_error > 1e-6
    with pytest.warns(UserWarning, match="quadrature: the error of the CDF is estimated at"):
        ExponentiallyTilted(wiggly, quadrature=rule, validate_args=True)


@pytest.mark.parametrize("rule", [gauss_legendre, gauss_kronrod, trapezium])
@pytest.mark.parametrize("count", [0, -1, 10_000])
def test_counts_of_nodes(rule, count):
    with pytest.raises(ValueError, match=f"num_nodes: got {count}"):
        rule(count)


@pytest.mark.parametrize("nodes", [(), (0.5, 0.2), (-0.1, 0.5), (0.5, 1.5)])
def test_nodes_of_a_rule(nodes):
    with pytest.raises(ValueError, match="nodes: got"):
        Quadrature(nodes)
