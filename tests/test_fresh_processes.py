"""Exact log evidences of the fresh processes agree with the joint densities of their models."""

import math

import pyro
import pytest
import torch
from torch import Tensor

from benchmarks.fresh_processes import (
    friendships,
    legendre,
    mining_disasters,
    pollen,
    prevalence,
)
from benchmarks.problems import Model, Problem


def log_joint(model: Model, values: dict[str, Tensor]) -> Tensor:
    """Log joint density at the values, by a run of the model."""
    conditioned = pyro.poutine.condition(model, data=values)
    return pyro.poutine.trace(conditioned).get_trace().log_prob_sum()


def test_prevalence_by_a_rule() -> None:
    """The square of a sine takes the pole of the Jeffreys prior away."""
    problem = prevalence()
    angles, log_weights = legendre(0.0, math.pi / 2, 100)
    values = [
        log_joint(problem.model, {"prevalence": angle.sin().square()}) + (2 * angle).sin().log()
        for angle in angles
    ]
    assert (torch.stack(values) + log_weights).logsumexp(0).item() == pytest.approx(
        problem.exact, abs=1e-4
    )


def from_draws(problem: Problem, draws: dict[str, torch.distributions.Distribution]) -> float:
    """Estimate by importance sampling from given distributions."""
    terms = []
    for _ in range(400):
        values = {name: each.sample() for name, each in draws.items()}
        own = sum(each.log_prob(values[name]).sum() for name, each in draws.items())
        terms.append(log_joint(problem.model, values) - own)
    return torch.stack(terms).double().logsumexp(0).item() - math.log(len(terms))


def test_mining_disasters_by_draws() -> None:
    """Draws from close to the posterior."""
    torch.manual_seed(0)
    draws = {
        "change": torch.distributions.Uniform(0.0, 20.0),
        "rates": torch.distributions.Gamma(torch.tensor([10.0, 8.0]), torch.tensor([4.0, 8.0])),
    }
    problem = mining_disasters()
    assert from_draws(problem, draws) == pytest.approx(problem.exact, abs=0.3)


def test_friendships_by_draws() -> None:
    """Draws from the prior."""
    torch.manual_seed(0)
    draws = {
        "share": torch.distributions.Beta(2.0, 2.0),
        "chance": torch.distributions.Beta(torch.ones(3), torch.ones(3)),
    }
    problem = friendships()
    assert from_draws(problem, draws) == pytest.approx(problem.exact, abs=0.3)


def test_pollen_by_conjugacy() -> None:
    """What the joint density leaves beside the Dirichlet posterior, at any shares."""
    problem = pollen()
    counts = pyro.poutine.trace(problem.model).get_trace().nodes["counts"]["value"]
    expected = torch.tensor([0.4, 0.3, 0.2, 0.1])
    shares = expected.expand(8, 4)
    log_concentration, log_weights = legendre(-2.0, 5.0, 60)
    values = []
    for concentration in log_concentration.exp():
        posterior = torch.distributions.Dirichlet(concentration * expected + counts)
        at = {"concentration": concentration, "shares": shares}
        values.append(log_joint(problem.model, at) - posterior.log_prob(shares).sum())
    total = (torch.stack(values) + log_concentration + log_weights).logsumexp(0).item()
    assert total == pytest.approx(problem.exact, abs=1e-4)
