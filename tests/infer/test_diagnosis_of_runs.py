"""
The verdict flags real runs of ``ParallelTempering`` that go wrong in known ways, and nothing on
healthy ones.

Seeds are fixed. Of 30 other seeds of each healthy model none was flagged, which bounds the rate of
false alarms of each run by 10% with 95% confidence. Of 20 other seeds of each failure all were
named, but 19 of the chains in disagreement and 18 of those frozen at a bound, which depend on where
the chains start. ``test_verdict.py`` plants failures in exact runs, one at a time.
"""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_tkam.infer import MALA, ULA, ParallelTempering
from pyro_tkam.infer.tempering.estimates import run_verdict
from tests.infer.models import ROWS, eight_schools_noncentered, local_latents

NEVER = 10**6
ENDS = torch.tensor([0.0, 1.0])


def verdict_of(kernel, *args, seed=0, **options):
    pyro.set_rng_seed(seed)
    defaults = {"num_samples": 300, "num_chains": 8, "disable_progbar": True}
    return run_verdict(ParallelTempering(kernel, **(defaults | options)).run(*args))


def seen(verdict, name):
    """What a finding says."""
    assert name in verdict.names, str(verdict)
    (finding,) = [each for each in verdict.findings if each.name == name]
    return finding.seen


def sharp():
    """A posterior a hundred times narrower than the prior, in four dimensions."""
    z = pyro.sample("z", dist.Normal(torch.zeros(4), 1.0).to_event(1))
    pyro.sample("x", dist.Normal(z, 0.01).to_event(1), obs=torch.ones(4))


def test_two_rungs_on_a_sharp_posterior():
    verdict = verdict_of(MALA(sharp), num_temperatures=2)
    assert "no round trip" in seen(verdict, "stuck ladder")
    assert "between t = 0 and 1" in seen(verdict, "too few rungs")
    assert "between t = 0 and 1" in seen(verdict, "heavy-tailed weights")


def far_and_narrow():
    """
    A mode at 5 with 99% of the mass, so narrow that few draws of the prior are near it, and a wide
    one.
    """
    z = pyro.sample("z", dist.Uniform(-10.0, 10.0))
    narrow = dist.Normal(5.0, 0.01).log_prob(z) + math.log(0.99)
    pyro.factor(
        "likelihood", torch.logaddexp(narrow, dist.Normal(-5.0, 1.0).log_prob(z) + math.log(0.01))
    )


def test_a_far_narrow_mode_that_the_cold_chains_never_saw():
    """Without swaps they stay at the wide mode; draws of the prior know of 4.6 nats more."""
    verdict = verdict_of(
        MALA(far_and_narrow), schedule=ENDS, num_samples=1000, warmup_steps=100, swap_every=NEVER
    )
    assert "t = 0 and 1, differ by" in seen(verdict, "missed mode")


def two_widths():
    """Two modes of equal mass and different widths."""
    z = pyro.sample("z", dist.Uniform(-10.0, 10.0))
    pyro.factor(
        "likelihood",
        torch.logaddexp(*(dist.Normal(*mode).log_prob(z) for mode in ((-5.0, 1.0), (5.0, 0.25)))),
    )


def test_chains_without_swaps_disagree_about_two_modes():
    verdict = verdict_of(MALA(two_widths), schedule=ENDS, num_chains=24, swap_every=NEVER)
    assert "at t = 1" in seen(verdict, "chains in disagreement")


def displaced():
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(z, 0.3), obs=torch.tensor(10.0))


def test_without_a_warm_up_the_draws_drift():
    """
    The first half goes from the prior to the posterior, ten of the prior's standard deviations
    away.
    """
    verdict = verdict_of(
        ULA(displaced, step_size=1e-3), schedule=ENDS, warmup_steps=0, swap_every=NEVER
    )
    assert "at t = 1" in seen(verdict, "non-stationary rung")


def test_too_few_draws():
    verdict = verdict_of(
        MALA(displaced), num_temperatures=4, num_samples=40, warmup_steps=100, num_chains=1
    )
    assert "effective draws at t = " in seen(verdict, "too few draws")


@pytest.mark.parametrize(("chains", "draws"), [(1, 20), (1, 31), (8, 8)])
def test_runs_too_short_to_diagnose_are_flagged(chains, draws):
    verdict = verdict_of(
        MALA(displaced), schedule=ENDS, num_samples=draws, warmup_steps=100, num_chains=chains
    )
    assert verdict.names == {"too few draws"}
    assert f"{draws} draws in a chain are too few" in str(verdict)


@pytest.mark.parametrize(("chains", "draws"), [(1, 32), (2, 16)])
def test_the_shortest_runs_that_are_diagnosed(chains, draws):
    verdict = verdict_of(
        MALA(displaced), schedule=ENDS, num_samples=draws, warmup_steps=100, num_chains=chains
    )
    assert "effective draws at t = 1" in seen(verdict, "too few draws")


def walled():
    """
    Nothing is possible beyond 1, and the likelihood rises toward it by a million nats a unit.
    """
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    wall = torch.where(z > 0.5, 1e6 * (z - 1), -2 * z.square())
    pyro.factor("likelihood", torch.where(z < 1, wall, -torch.inf))


def test_a_chain_frozen_at_a_bound():
    """
    A chain that starts below the bound is driven over it by each proposal; the other chains move
    freely.
    """
    verdict = verdict_of(
        MALA(walled, step_size=0.3), schedule=ENDS, warmup_steps=0, swap_every=NEVER
    )
    text = seen(verdict, "boundary-stuck chains")
    assert "of 8 chains hardly move, most at t = 1" in text
    assert 1 <= int(text.split()[0]) < 4


def regression():
    inputs = torch.linspace(-1, 1, 20)
    weights = pyro.sample("weights", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("data", 20):
        pyro.sample(
            "y", dist.Normal(weights[..., :1] + weights[..., 1:] * inputs, 0.5), obs=inputs.sin()
        )


HEALTHY = {
    "regression": (regression, ()),
    "eight schools": (eight_schools_noncentered, ()),
    "latents of each datum": (local_latents, (ROWS,)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_run_is_silent(name):
    model, args = HEALTHY[name]
    for seed in range(3):
        verdict = verdict_of(MALA(model), *args, seed=seed, num_temperatures=8, num_samples=500)
        assert verdict.trusted, str(verdict)
