"""Scouts find a mode that draws have lost, and nothing where the draws are complete."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_tkam.infer import AutoMALA, ModelDensity
from pyro_tkam.infer.scouts import Scouts

LOCS, SCALE = (-4.0, 4.0), 0.5


def model():
    z = pyro.sample("z", dist.Normal(torch.zeros(2), 3.0).to_event(1))
    modes = [dist.Normal(loc, SCALE).log_prob(z).sum(-1) for loc in LOCS]
    pyro.factor("likelihood", torch.logaddexp(*modes) - math.log(2))


@pytest.mark.parametrize(("visited", "found"), [((-1, 1), False), ((-1,), True)])
def test_only_modes_that_draws_have_lost_are_found(visited, found):
    pyro.set_rng_seed(0)
    density = ModelDensity(model)
    narrowed = 1 / (1 + SCALE**2 / 9)
    side = torch.tensor(visited).float()[torch.arange(800) % len(visited)].reshape(4, 200, 1)
    draws = side * 4.0 * narrowed + SCALE * narrowed**0.5 * torch.randn(4, 200, 2)
    unseen = Scouts(AutoMALA(model), density).unseen(draws)
    assert (len(unseen) > 0) == found
    assert (unseen.mean((1, 2)) > 2).all()  # the lost mode, and no other
