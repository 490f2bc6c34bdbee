from __future__ import annotations

import torch

from pyro_tkam.ops.annealing import log_weight_increments, next_temperature
from pyro_tkam.ops.resampling import effective_sample_size
from pyro_tkam.ops.shrinkage import shrunk_correlation


def test_the_next_temperature_keeps_the_wanted_share() -> None:
    torch.manual_seed(0)
    rest = torch.randn(1000, 3).double() * torch.tensor([1e-3, 30.0, 1e10])
    rest[:100] = -torch.inf
    t = next_temperature(rest, torch.zeros(3, dtype=torch.double), 0.5)
    assert t[0] == 1
    assert (t[1:] < 1).all()
    size = effective_sample_size(log_weight_increments(rest, t).T)
    torch.testing.assert_close(size[1:], torch.full((2,), 450.0).double(), rtol=1e-3, atol=0)


def test_correlations_are_shrunk_by_their_error() -> None:
    torch.manual_seed(1)
    factor = torch.tensor([[1.0, 0.0], [0.9, (1 - 0.81) ** 0.5]])
    many = shrunk_correlation(torch.randn(100_000, 2) @ factor.T, 100_000)
    torch.testing.assert_close(many[0, 1], torch.tensor(0.9).double(), atol=0.01, rtol=0)
    # Of independent coordinates 20 rows tell nothing: what they seem to be is taken away.
    few = shrunk_correlation(torch.randn(20, 50), 20)
    assert (few - torch.eye(50).double()).abs().mean() < 0.03
    assert torch.linalg.eigvalsh(few).min() > 0.1
    # Rows that repeat are worth their number without repetitions.
    repeated = shrunk_correlation(torch.randn(20, 50).repeat(50, 1), 20)
    assert torch.linalg.eigvalsh(repeated).min() > 0.1
