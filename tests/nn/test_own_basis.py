"""A basis of a user's own works wherever a name does."""

import pytest
import torch

from pyro_tkam.models import TiltedPrior
from pyro_tkam.nn import KAN, Basis
from pyro_tkam.ops.bases import Polynomials


class Legendre(Polynomials):
    def argument(self, z):
        return torch.tanh(z)

    def following(self, n, x, last, before):
        return ((2 * n - 1) * x * last - (n - 1) * before) / n


def test_a_class_is_a_basis_of_networks_and_priors():
    values = Basis(Legendre, -1.0, 1.0, degree=2).bound()(torch.tensor([0.3]))
    x = torch.tanh(torch.tensor(0.3))
    torch.testing.assert_close(values[0], torch.stack((torch.ones(()), x, (3 * x**2 - 1) / 2)))
    network = KAN([2, 3, 1], basis=Legendre, degree=3)
    network(torch.randn(5, 2)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    again = KAN([2, 3, 1], basis=Legendre, degree=3)
    again.load_state_dict(network.state_dict())
    x = torch.randn(5, 2)
    torch.testing.assert_close(again(x), network(x))
    assert TiltedPrior(3, basis=Legendre)().log_prob(torch.full((3,), 0.5)).isfinite().all()


def test_another_class_is_refused():
    with pytest.raises(ValueError, match="basis must be one of"):
        Basis(dict, 0.0, 1.0)
