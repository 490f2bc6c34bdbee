"""
The verdict flags real runs of ``ParallelTempering`` that go wrong in known ways, and nothing on
healthy ones.

Seeds are fixed. Of 30 other seeds of each healthy model none was flagged, which bounds the rate of
false alarms of each run by 10% with 95% confidence. Of 20 other seeds of each failure all were
named. ``test_diagnosis.py`` plants failures in exact runs, one at a time.
"""

import math
import warnings

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
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        draws = ParallelTempering(kernel, **(defaults | options)).run(*args)
    verdict = run_verdict(draws)
    assert verdict.trusted or any("not to be trusted" in str(each.message) for each in told)
    return verdict


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


def far_modes_of_unequal_mass():
    """
    Two modes of one width, so far apart that a chain stays where it starts; one has 19 times the
    mass of the other.
    """
    z = pyro.sample("z", dist.Uniform(-10.0, 10.0))
    modes = ((-5.0, 0.95), (5.0, 0.05))
    log_masses = (dist.Normal(mean, 0.5).log_prob(z) + math.log(mass) for mean, mass in modes)
    pyro.factor("likelihood", torch.logaddexp(*log_masses))


def test_chains_without_swaps_disagree_about_two_modes():
    """
    A share ``p`` of the chains starts by one mode. Means ``log 19`` apart and a variance of 1/2
    within a mode make R-hat ``√(1 + 2 p (1 - p) log² 19)``: 1.52 where only 2 chains of 24 are by
    one of them, 2.3 where half are.
    """
    verdict = verdict_of(
        MALA(far_modes_of_unequal_mass), schedule=ENDS, num_chains=24, swap_every=NEVER
    )
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
    assert f"{draws} draws per chain are too few" in str(verdict)


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
    freely. One in six starts there, so that among 32 are some (no one in 0.2% of seeds).
    """
    verdict = verdict_of(
        MALA(walled, step_size=0.3),
        schedule=ENDS,
        warmup_steps=0,
        swap_every=NEVER,
        num_chains=32,
    )
    text = seen(verdict, "boundary-stuck chains")
    assert "of 32 chains barely move, most of them at t = 1" in text
    assert 1 <= int(text.split()[0]) < 16


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
        verdict = verdict_of(MALA(model), *args, seed=seed, num_temperatures=8)
        assert verdict.trusted, str(verdict)
