"""A basis of a user's own works wherever a name does."""

from functools import partial

import pytest
import torch

from pyro_tkam.models import TiltedPrior
from pyro_tkam.nn import KAN, Basis
from pyro_tkam.ops.bases import Polynomials, ShiftedKernel
from tests.laws import basis as laws


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


class Cauchy(ShiftedKernel):
    """A bump that PyTorch differentiates."""

    @staticmethod
    def derivative(u, order):
        def bump(u):
            return 1 / (1 + u.square())

        for _ in range(order):
            bump = partial(slope, bump)
        return bump(u)


def slope(function, u):
    return torch.func.jvp(function, (u,), (torch.ones_like(u),))[1]


class Deaf(Cauchy):
    """It does not listen to the order."""

    @staticmethod
    def derivative(u, order):
        return 1 / (1 + u.square())


@pytest.mark.parametrize(
    "law", [laws.gradients_are_right, laws.layers_are_right, laws.maps_over_any_input]
)
def test_a_kernel_may_be_differentiated_by_torch(law):
    torch.manual_seed(0)
    law(laws.cast(Cauchy.uniform(0.0, 1.0, 6, 3, 1.0), torch.double))


def test_a_kernel_with_wrong_derivatives_is_refused():
    message = r"basis must have consistent derivatives, got Deaf\.derivative\(u, 1\)"
    with pytest.raises(ValueError, match=message):
        KAN([2, 3], basis=Deaf)


@pytest.mark.parametrize("wrong", [torch.nn.Linear, "nonsense", 3])
def test_what_a_basis_may_be_is_told(wrong):
    with pytest.raises(
        ValueError, match=r"basis must be one of 'rbf', .*, or a subclass of BasisFunctions, got"
    ):
        KAN([2, 3], basis=wrong)


def test_a_shape_is_whole_numbers():
    with pytest.raises(TypeError, match=r"batch_shape must be an int or a tuple of ints, got 2.0"):
        TiltedPrior(2.0)
