"""Sums of densities, of which a run takes one summand."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_tkam.infer.model.density import ModelDensity
from pyro_tkam.infer.model.summands import FEWEST_TURNS, MOST_TURNS, OneSummand

TERMS = torch.tensor([[1.0, 2.0, 4.0], [3.0, 5.0, 9.0]])


@pytest.mark.parametrize(
    ("total", "summands"),
    [
        (lambda row: torch.logsumexp(row, -1), {1.0, 2.0, 4.0}),
        (lambda row: torch.logsumexp(row, (0,)), {1.0, 2.0, 4.0}),
        (lambda row: row.logsumexp(dim=0), {1.0, 2.0, 4.0}),
        (lambda row: torch.special.logsumexp(row, 0), {1.0, 2.0, 4.0}),
        (lambda row: torch.logaddexp(row[0], row[2]), {1.0, 4.0}),
        (lambda row: row[1].logaddexp(row[0]), {1.0, 2.0}),
        (lambda row: torch.logaddexp(row[:1], row).sum(), {3.0, 7.0}),
    ],
)
def test_all_summands_take_turns_on_all_rows(total, summands) -> None:
    summand = OneSummand()
    seen = set()
    for summand.turn in range(FEWEST_TURNS):
        with summand:
            rows = torch.func.vmap(total)(TERMS)
        seen.add(rows[0].item())
    assert seen == summands
    assert summand.num_turns == FEWEST_TURNS


def test_a_normalization_is_no_choice() -> None:
    summand = OneSummand()
    with summand:
        total = TERMS.logsumexp(1, keepdim=True)
    torch.testing.assert_close(total, TERMS.exp().sum(1, keepdim=True).log())
    assert summand.num_turns == 0


def test_long_sums_take_more_turns_up_to_a_limit() -> None:
    terms = torch.arange(12.0)
    summand = OneSummand()
    seen = set()
    with summand:
        terms.logsumexp(0)
    num_turns = summand.num_turns
    assert num_turns == 12
    for summand.turn in range(num_turns):
        with summand:
            seen.add(terms.logsumexp(0).item())
    assert seen == set(range(12))
    with summand:
        torch.zeros(100).logsumexp(0)
    assert summand.num_turns == MOST_TURNS


@pytest.mark.parametrize("enumerated", [True, False])
def test_a_mixture_is_each_of_its_components_in_turn(enumerated: bool) -> None:
    """Density and gradient of the joint with a component are known in closed form."""
    places, log_shares = torch.tensor([-1.0, 3.0]), torch.tensor([0.25, 0.75]).log()

    def model() -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        if enumerated:
            k = pyro.sample("k", dist.Categorical(logits=log_shares))
            pyro.sample("x", dist.Normal(places[k], 0.5), obs=z)
        else:
            each = dist.Normal(places, 0.5).log_prob(z.unsqueeze(-1)) + log_shares
            pyro.factor("f", each.logsumexp(-1))

    def expected(z: torch.Tensor, k: int) -> torch.Tensor:
        component = dist.Normal(places[k], 0.5).log_prob(z) + log_shares[k]
        return dist.Normal(0.0, 1.0).log_prob(z) + component

    density = ModelDensity(model, (), batch_plates=())
    position = torch.tensor([[0.3], [-2.0]])
    z = position[:, 0].clone().requires_grad_()
    wanted = [
        (value.detach(), torch.autograd.grad(value.sum(), z)[0])
        for value in (expected(z, 0), expected(z, 1))
    ]
    summand = OneSummand()
    seen = set()
    for summand.turn in range(FEWEST_TURNS):
        point = density.summand_point(position, summand)
        near = [k for k in (0, 1) if torch.allclose(point.log_density, wanted[k][0])]
        assert len(near) == 1
        assert torch.allclose(point.gradient[:, 0], wanted[near[0]][1])
        seen.add(near[0])
    assert seen == {0, 1}
    both = torch.stack([wanted[0][0], wanted[1][0]]).logsumexp(0)
    assert torch.allclose(density.point(position).log_density, both)
