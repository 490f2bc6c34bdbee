import pytest
import torch

from pyro_tkam.ops.pairwise import squared_distance

SHAPES = [
    ((5, 1), (4,)),
    ((5,), (4, 1)),
    ((3, 5, 1), (3, 1, 4)),
    ((6, 1, 2), (1, 7, 2)),
    ((4,), (4,)),
    ((), (3,)),
]


@pytest.mark.parametrize(("left", "right"), SHAPES)
def test_equals_the_direct_sum(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    a, b = (
        torch.randn(*left, 11, dtype=torch.float64),
        torch.randn(*right, 11, dtype=torch.float64) + 3,
    )
    torch.testing.assert_close(squared_distance(a, b), (a - b).square().sum(-1))


def test_gradients_equal_those_of_the_direct_sum() -> None:
    a = torch.randn(5, 1, 3, dtype=torch.float64, requires_grad=True)
    b = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(squared_distance, (a, b))
    assert torch.autograd.gradgradcheck(squared_distance, (a, b))


def test_single_precision_keeps_its_digits_far_from_the_origin() -> None:
    torch.manual_seed(0)
    a, b = 100 + torch.rand(50, 1, 784), 100 + torch.rand(40, 784)
    exact = (a.double() - b.double()).square().sum(-1)
    assert (squared_distance(a, b) - exact).abs().max() < 2e-6 * exact.max()
