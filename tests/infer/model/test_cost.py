"""What recorded operations take."""

import torch
from torch import Tensor

from pyro_tkam.infer.model.compiled import TracedFunction
from pyro_tkam.infer.model.cost import Cost, seconds_of

WIDE = torch.randn(100, 100)


def cost_of_one(function, **options) -> Cost:
    traced = TracedFunction(lambda x: (function(x),), **options)
    assert traced.cost is None
    traced(torch.ones(5, 100))
    assert traced.cost is not None
    return traced.cost


def logs(x: Tensor) -> Tensor:
    return x.log().sum(-1)


def test_rows_take_what_their_numbers_do() -> None:
    sums, products = cost_of_one(logs), cost_of_one(lambda x: (x @ WIDE).sum(-1))
    assert 0 < sums.row < products.row / 4
    factors = cost_of_one(
        lambda x: torch.linalg.cholesky(x[:, :, None] * torch.eye(100)).sum((1, 2))
    )
    assert factors.row > 100 * products.row


def test_batches_take_what_their_operations_do() -> None:
    one, four = cost_of_one(logs), cost_of_one(lambda x: logs(x.exp().sin().cos().exp()))
    assert one.batch < four.batch
    assert one.seconds(1000) < 1000 * one.seconds(1)


def test_a_graph_of_one_row_is_run_for_each() -> None:
    looped = cost_of_one(logs, row_by_row=True)
    assert looped.batch == 0
    assert looped.seconds(10) > 5 * cost_of_one(logs).seconds(10)


def test_the_clock_tells_where_nothing_is_recorded(monkeypatch) -> None:
    monkeypatch.setattr("time.process_time", lambda: 12.0)
    assert seconds_of(None, 5, 10.0) == 2.0
    assert seconds_of(Cost(1.0, 2.0), 5, 10.0) == 11.0
