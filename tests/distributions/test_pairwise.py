"""
Every likelihood of independent elements against torch's own, on all pairs, with no tensor of pairs
× elements.
"""

import math

import pytest
import torch
from torch import Tensor
from torch import distributions as td

from pyro_tkam.distributions import (
    PairwiseBernoulli,
    PairwiseCategorical,
    PairwiseContinuousBernoulli,
)
from tests.laws.memory import LargestTensor


def bits(*shape: int) -> Tensor:
    return torch.rand(shape, dtype=torch.float64).round()


def brightness(*shape: int) -> Tensor:
    return torch.rand(shape, dtype=torch.float64)


def symbols(*shape: int) -> Tensor:
    return torch.randint(6, shape)


# ours, torch's, dimensions of one element's logits, data
INSTANCES = [
    pytest.param(PairwiseBernoulli, td.Bernoulli, (), bits, id="bernoulli"),
    pytest.param(
        PairwiseContinuousBernoulli,
        td.ContinuousBernoulli,
        (),
        brightness,
        id="continuous_bernoulli",
    ),
    pytest.param(PairwiseCategorical, td.Categorical, (6,), symbols, id="categorical"),
]


@pytest.mark.parametrize("event", [(3,), (2, 4), ()], ids=["1-d", "2-d", "0-d"])
@pytest.mark.parametrize(("ours", "theirs", "element", "draw"), INSTANCES)
def test_all_pairs_equal_the_sum_of_torchs_elements(ours, theirs, element, draw, event) -> None:
    torch.manual_seed(0)
    logits = 3 * torch.randn(5, 1, *event, *element, dtype=torch.float64)
    expanded = ours(logits, len(event)).expand((5, 4))
    value = draw(4, *event)
    expected = theirs(logits=logits).log_prob(value).reshape(5, 4, -1).sum(-1)
    assert expanded.event_shape == event
    torch.testing.assert_close(expanded.log_prob(value), expected)
    torch.testing.assert_close(ours(logits, len(event)).log_prob(value), expected)
    torch.testing.assert_close(ours(logits[:4, 0], len(event)).log_prob(value), expected.diagonal())


@pytest.mark.parametrize(("ours", "theirs", "element", "draw"), INSTANCES)
def test_gradients_are_those_of_finite_differences_twice(ours, theirs, element, draw) -> None:
    torch.manual_seed(0)
    value = draw(2, 3)
    logits = torch.randn(3, 1, 3, *element, dtype=torch.float64)
    logits[0] = 0  # where the continuous Bernoulli's normalizer is 0/0
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda logits: ours(logits).log_prob(value), logits)
    assert torch.autograd.gradgradcheck(lambda logits: ours(logits).log_prob(value), logits)


@pytest.mark.parametrize(("ours", "theirs", "element", "draw"), INSTANCES)
def test_no_tensor_of_pairs_times_elements(ours, theirs, element, draw) -> None:
    logits, value = torch.randn(50, 1, 1000, *element, dtype=torch.float64), draw(40, 1000)
    with LargestTensor() as largest:
        ours(logits).expand((50, 40)).log_prob(value)
    assert largest.numel <= logits.numel()
    with LargestTensor() as largest:
        theirs(logits=logits).log_prob(value)
    assert largest.numel >= 50 * 40 * 1000  # the measure does see such a tensor


@pytest.mark.parametrize(("ours", "theirs", "element", "draw"), INSTANCES)
def test_draws_have_the_frequencies(ours, theirs, element, draw) -> None:
    torch.manual_seed(0)
    fn = ours(torch.tensor([[-2.0, 1.0], [0.3, 0.0]]) if not element else torch.randn(2, 2, 6))
    draws = fn.sample((20_000,))
    assert draws.shape == (20_000, 2, 2)
    assert fn.support.check(draws).all()
    assert fn.expand((7, 2)).sample((3,)).shape == (3, 7, 2, 2)
    found = draws.mean(0) if not element else (draws == 0).double().mean(0).float()
    expected = fn.mean if not element else fn.logits.softmax(-1)[..., 0]
    # five standard errors of a number in [0, 1]: false alarms below 5e-6
    assert (found - expected).abs().max() < 5 * 0.5 / math.sqrt(20_000)


def test_continuous_bernoulli_is_normalized_at_every_size_of_the_logit() -> None:
    logits = torch.tensor(
        [-300.0, -30, -3, -0.21, -0.19, -1e-5, 0, 1e-9, 0.19, 0.21, 3, 30, 300], dtype=torch.float64
    )
    nodes = torch.linspace(0, 1, 400_001, dtype=torch.float64)
    fn = PairwiseContinuousBernoulli(logits, 0)
    density = fn.log_prob(nodes[:, None]).exp()
    torch.testing.assert_close(
        torch.trapezoid(density, nodes, dim=0), torch.ones_like(logits), atol=1e-6, rtol=0
    )
    mean = torch.trapezoid(density * nodes[:, None], nodes, dim=0)
    torch.testing.assert_close(fn.mean, mean, atol=1e-6, rtol=0)


@pytest.mark.parametrize("symbol", [-1, 6])
def test_refuses_a_symbol_outside_the_classes(symbol: int) -> None:
    with pytest.raises(ValueError, match=f"value must hold classes from 0 to 5, got {symbol}"):
        PairwiseCategorical(torch.zeros(3, 6)).log_prob(torch.tensor([0, symbol, 1]))


def test_refuses_to_be_expanded_to_what_it_does_not_broadcast_to() -> None:
    for shape in ((), (4,), (5, 1)):
        with pytest.raises(
            ValueError, match=r"batch_shape must be one that \(5,\) broadcasts to, got "
        ):
            PairwiseBernoulli(torch.zeros(5, 3)).expand(shape)


def test_refuses_wrong_arguments() -> None:
    with pytest.raises(TypeError, match=r"value must hold integers, got torch\.float32"):
        PairwiseCategorical(torch.zeros(3, 6)).log_prob(torch.zeros(3))
    with pytest.raises(ValueError, match="event_dim must be from 0 to 1, got 2"):
        PairwiseCategorical(torch.zeros(3, 6), 2)
    with pytest.raises(
        TypeError, match=r"logits must be a floating-point tensor, got torch\.int64"
    ):
        PairwiseBernoulli(torch.zeros(3, dtype=torch.int64))


@pytest.mark.parametrize("shared", [True, False], ids=["all pairs", "one each"])
def test_a_forbidden_class_has_probability_zero_and_spoils_no_other(shared) -> None:
    torch.manual_seed(0)
    logits = torch.randn(5, 1 if shared else 4, 3, 6, dtype=torch.float64)
    logits[..., 2] = -math.inf
    value = symbols(4, 3)
    value[0] = torch.tensor([0, 1, 3])
    value[1] = torch.tensor([0, 2, 3])
    logits.requires_grad_()
    ours = PairwiseCategorical(logits).log_prob(value)
    theirs = td.Categorical(logits=logits).log_prob(value).sum(-1)
    torch.testing.assert_close(ours, theirs)
    assert bool(ours[:, 0].isfinite().all())
    assert bool(ours[:, 1].isneginf().all())
    mapped = torch.func.vmap(lambda each: PairwiseCategorical(each).log_prob(value))(logits)
    torch.testing.assert_close(mapped, ours)
    torch.testing.assert_close(
        torch.autograd.grad(ours[:, 0].sum(), logits, retain_graph=True),
        torch.autograd.grad(theirs[:, 0].sum(), logits),
    )
