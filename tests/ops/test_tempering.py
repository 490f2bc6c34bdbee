from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyro_tkam.ops.schedules import power_law
from pyro_tkam.ops.tempering import round_trips, swap


def run(rungs: int, draws: int, shape: tuple[int, ...], spread: float) -> Tensor:
    """
    Swap labels ``draws`` times; return the index process ``(temperature, chain, draw, *local)``.
    """
    label = torch.arange(rungs).reshape(-1, *(1,) * len(shape)).expand(rungs, *shape)
    process = []
    for draw in range(draws):
        log_likelihood = spread * torch.randn(rungs, *shape)
        swapped = swap(
            log_likelihood, power_law(rungs), torch.rand(rungs // 2, *shape), odd=bool(draw % 2)
        )
        label = swapped.apply(label)
        process.append(label)
    return torch.stack(process, 2)


@pytest.mark.parametrize("spread", [0.0, 3.0, 1e6])
def test_swaps_are_permutations_of_neighbors(spread: float) -> None:
    torch.manual_seed(0)
    process = run(7, 40, (3, 4), spread)
    expected = torch.arange(7).reshape(-1, 1, 1, 1).expand_as(process)
    assert torch.equal(process.sort(0).values, expected)
    assert (process.argsort(0).diff(dim=2).abs() <= 1).all()


def test_pairs_decide_by_chain_and_datum() -> None:
    betas = torch.tensor([0.0, 0.5, 1.0])
    log_likelihood = torch.zeros(3, 2, 2)
    log_likelihood[0, 0, 1] = -1e9  # this chain's datum must not move down, so its state stays
    swapped = swap(log_likelihood, betas, torch.full((1, 2, 2), 0.5), odd=False)
    stays = torch.tensor([[0, 0], [0, 0]])
    assert torch.equal(swapped.source[0], stays + torch.tensor([[1, 0], [1, 1]]))
    assert torch.equal(swapped.source[2], stays + 2)


def test_odd_swaps_leave_the_first_rung() -> None:
    swapped = swap(torch.zeros(4, 1), power_law(4), torch.full((2, 1), 0.5), odd=True)
    assert swapped.source.squeeze().tolist() == [0, 2, 1, 3]
    assert swapped.lower.tolist() == [1]


def test_acceptance_is_the_published_ratio() -> None:
    log_likelihood = torch.tensor([[-1.0], [-3.0]])
    rate = swap(
        log_likelihood, torch.tensor([0.0, 1.0]), torch.rand(1, 1), odd=False
    ).acceptance_rate
    assert rate.item() == 1.0
    rate = swap(
        log_likelihood.flip(0), torch.tensor([0.0, 1.0]), torch.rand(1, 1), odd=False
    ).acceptance_rate
    assert rate.item() == pytest.approx(torch.tensor(-2.0).exp().item())


@pytest.mark.parametrize("value", [-torch.inf, torch.nan])
def test_a_state_without_likelihood_stays_where_it_is(value: float) -> None:
    log_likelihood = torch.tensor([[value], [0.0]])
    assert swap(
        log_likelihood, torch.tensor([0.0, 1.0]), torch.rand(1, 1), odd=False
    ).source.flatten().tolist() == [
        0,
        1,
    ]


def test_gathering_moves_whole_states() -> None:
    swapped = swap(torch.zeros(2, 1), power_law(2), torch.full((1, 1), 0.5), odd=False)
    states = torch.arange(6.0).reshape(2, 1, 3)
    torch.testing.assert_close(swapped.apply(states), states.flip(0))


@pytest.mark.parametrize("rungs", [2, 5, 8])
def test_round_trips_are_counted_exactly_when_every_swap_is_accepted(rungs: int) -> None:
    """Then each replica moves with period 2 * rungs, so that a period makes one trip of each."""
    periods = 3
    trips = run(rungs, 2 * rungs * (periods + 1), (2, 3), spread=0.0)
    assert torch.equal(round_trips(trips), torch.full((2, 3), by_hand(trips)))
    assert rungs * periods <= by_hand(trips) <= rungs * (periods + 1)


def by_hand(process: Tensor) -> int:
    """Count round trips of the first chain and datum, one replica and draw after another."""
    rungs, trips = len(process), 0
    for replica in range(rungs):
        stage = "start"
        for rung in process[:, 0, :, 0].eq(replica).int().argmax(0).tolist():
            if rung == 0:
                trips += stage == "up"
                stage = "low"
            elif rung == rungs - 1 and stage == "low":
                stage = "up"
    return trips


def test_round_trips_of_random_walks_equal_a_count_by_hand() -> None:
    torch.manual_seed(1)
    process = run(4, 300, (1, 1), spread=0.7)
    assert by_hand(process) > 5
    assert round_trips(process).item() == by_hand(process)


def test_swaps_leave_the_product_of_power_posteriors_invariant() -> None:
    """
    Normal prior and likelihood: from exact draws, moments stay; 40,000 draws, 5 sigma (false alarm
    < 1e-5).
    """
    torch.manual_seed(2)
    betas = torch.tensor([0.0, 0.3, 1.0])
    scale = (1 + 4 * betas).rsqrt().unsqueeze(-1)
    z = torch.randn(3, 40_000) * scale
    for index in range(4):
        swapped = swap(-2 * z.square(), betas, torch.rand(1, 40_000), odd=bool(index % 2))
        z = swapped.apply(z)
    torch.testing.assert_close(
        (z / scale).var(1), torch.ones(3), rtol=0, atol=5 * (2 / 40_000) ** 0.5
    )
