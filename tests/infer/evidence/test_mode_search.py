"""Scouts find a mode that a proposal lacks, and nothing where it is complete."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_tkam.infer import AutoMALA, ModelDensity
from pyro_tkam.infer.evidence.mode_search import Known, Scouts
from pyro_tkam.infer.posterior.budget import Budget

LOCS, SCALE = (-4.0, 4.0), 0.5


def model():
    z = pyro.sample("z", dist.Normal(torch.zeros(2), 3.0).to_event(1))
    modes = [dist.Normal(loc, SCALE).log_prob(z).sum(-1) for loc in LOCS]
    pyro.factor("likelihood", torch.logaddexp(*modes) - math.log(2))


@pytest.mark.parametrize(("signs", "found"), [((-1, 1), False), ((-1,), True)])
def test_only_modes_that_a_proposal_lacks_are_found(signs, found):
    pyro.set_rng_seed(0)
    density = ModelDensity(model)
    narrowed = 1 / (1 + SCALE**2 / 9)
    modes = [dist.Normal(4.0 * sign * narrowed, SCALE * narrowed**0.5) for sign in signs]
    evidence = 2 * dist.Normal(0.0, math.hypot(3.0, SCALE)).log_prob(torch.tensor(4.0))

    def log_density(position):
        heights = torch.stack([mode.log_prob(position).sum(-1) for mode in modes])
        return heights.logsumexp(0) - math.log(2) + evidence

    typical = log_density(modes[0].sample((1000, 2))).quantile(0.05)
    budget = Budget()
    scouts = Scouts(AutoMALA(model), density, budget)
    unseen = scouts.search(Known(log_density, typical))
    assert (unseen is not None) == found
    assert scouts.climbs > 500
    assert budget.spent > 512 * 48
    if unseen is not None:
        assert scouts.num_unseen > 100
        assert (unseen.mean((1, 2)) > 2).all()  # the lost mode, and no other


@pytest.mark.parametrize(("total", "climbs"), [(5000, True), (100, False)])
def test_a_budget_is_kept(total, climbs):
    """Nothing is known, so that each climb ends at something new."""
    pyro.set_rng_seed(0)
    budget = Budget(total)
    scouts = Scouts(AutoMALA(model), ModelDensity(model), budget)
    found = scouts.search(
        Known(lambda position: torch.full(position.shape[:-1], -1e3), torch.tensor(0.0))
    )
    assert budget.spent <= total
    assert (scouts.climbs > 0) == (found is not None) == climbs
