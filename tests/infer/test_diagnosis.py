"""The verdict flags each planted failure of a tempered run, and nothing on healthy ones.

Runs are exact: draws of the power posteriors of ``z ~ N(0, I)``, ``x|z ~ N(z, s² I)``,
autocorrelated along chains, with every swap accepted. Healthy runs are silent for each of 20 fixed
seeds, which bounds the rate of false alarms by 14% with 95% confidence.
"""

import dataclasses

import pytest
import torch

from pyro_tkam.infer.diagnosis import TemperedRun, importance_verdict, tempering_verdict
from pyro_tkam.ops.schedules import power_law
from pyro_tkam.ops.tempering import swap

RUNGS, CHAINS, DRAWS, DIM, NOISE = 9, 8, 300, 3, 0.5


def exact_run(
    seed: int,
    shape: tuple[int, ...] = (),
    rungs: int = RUNGS,
    draws: int = DRAWS,
    chains: int = CHAINS,
) -> TemperedRun:
    generator = torch.Generator().manual_seed(seed)
    betas = power_law(rungs, 3.0, dtype=torch.float64)
    precision = (1 + betas / NOISE**2).reshape(-1, 1, 1, *(1,) * len(shape), 1)
    normal = torch.randn(
        rungs, chains, draws, *shape, DIM, generator=generator, dtype=torch.float64
    )
    normal = autocorrelated(normal)
    mean = betas.reshape(precision.shape) / NOISE**2 / precision
    z = mean + normal / precision.sqrt()
    log_likelihood = -((z - 1).square().sum(-1)) / (2 * NOISE**2)
    return TemperedRun(
        log_likelihood, betas, all_accepted(log_likelihood, betas), torch.full((rungs - 1,), 0.7)
    )


def autocorrelated(normal: torch.Tensor) -> torch.Tensor:
    """Make chains ``(temperature, chain, draw, ...)`` of independent normals."""
    for i in range(1, normal.shape[2]):
        normal[:, :, i] = 0.6 * normal[:, :, i - 1] + 0.8 * normal[:, :, i]
    return normal


def all_accepted(log_likelihood: torch.Tensor, betas: torch.Tensor) -> torch.Tensor:
    """The index process when every swap is accepted."""
    rungs, chains, draws, *shape = log_likelihood.shape
    replicas = torch.arange(rungs).reshape(-1, 1, *(1,) * len(shape)).repeat(1, chains, *shape)
    flat, ones, path = (
        torch.zeros(replicas.shape),
        torch.ones(rungs // 2 + 1, *replicas.shape[1:]) / 2,
        [],
    )
    for i in range(draws):
        replicas = swap(flat, betas.float(), ones, odd=bool(i % 2)).apply(replicas)
        path.append(replicas)
    return torch.stack(path, 2)


def cut_run(seed: int) -> TemperedRun:
    """The same with ``z_1 > 0`` observed too: the likelihood is zero on half of the prior."""
    run = exact_run(seed)
    generator = torch.Generator().manual_seed(1000 + seed)
    z = autocorrelated(torch.randn(RUNGS, CHAINS, DRAWS, generator=generator, dtype=torch.float64))
    precision = (1 + run.betas / NOISE**2).reshape(-1, 1, 1)
    mean = run.betas.reshape(-1, 1, 1) / NOISE**2 / precision
    # quantiles of the normals cut off at 0
    above = torch.special.ndtr(mean[1:] * precision[1:].sqrt())
    cut = mean[1:] - torch.special.ndtri(above * torch.special.ndtr(-z[1:])) / precision[1:].sqrt()
    z = torch.cat([z[:1], cut])
    extra = torch.where(z > 0, -((z - 1).square()) / (2 * NOISE**2), -torch.inf)
    acceptance = run.swap_acceptance * torch.cat([torch.tensor([0.5]), torch.ones(RUNGS - 2)])
    return dataclasses.replace(
        run, log_likelihood=run.log_likelihood + extra, swap_acceptance=acceptance
    )


def changed(run: TemperedRun, change) -> TemperedRun:
    log_likelihood = run.log_likelihood.clone()
    change(log_likelihood)
    return dataclasses.replace(run, log_likelihood=log_likelihood)


def no_round_trips(run: TemperedRun) -> TemperedRun:
    rungs = torch.arange(RUNGS).reshape(-1, *(1,) * (run.log_likelihood.ndim - 1))
    return dataclasses.replace(run, replicas=rungs.expand(run.log_likelihood.shape))


def rejected_swaps(run: TemperedRun) -> TemperedRun:
    acceptance = run.swap_acceptance.clone()
    acceptance[3] = 0.02
    return dataclasses.replace(run, swap_acceptance=acceptance)


def mode_lost_when_cold(run: TemperedRun) -> TemperedRun:
    def lose(log_likelihood):
        # the last rung sits where the likelihood is lower than its neighbor says
        log_likelihood[-1] -= 6.0

    return changed(run, lose)


def first_step_too_long(run: TemperedRun) -> TemperedRun:
    def stretch(log_likelihood):  # a few prior draws carry the first ratio
        heavy = torch.rand(
            log_likelihood[0].shape, generator=torch.Generator().manual_seed(0)
        ).double()
        log_likelihood[0] = -1.5 * heavy.log() / run.betas[1]

    return changed(run, stretch)


def drift(run: TemperedRun) -> TemperedRun:
    def move(log_likelihood):
        spread = log_likelihood[4].std()
        slope = torch.linspace(0, 4, DRAWS).reshape(1, -1, *(1,) * (log_likelihood.ndim - 3))
        log_likelihood[4] += spread * slope

    return changed(run, move)


def one_chain_elsewhere(run: TemperedRun) -> TemperedRun:
    def move(log_likelihood):
        log_likelihood[-1, 0] -= 5 * log_likelihood[-1].std()

    return changed(run, move)


def chain_at_boundary(run: TemperedRun) -> TemperedRun:
    def freeze(log_likelihood):
        log_likelihood[-1, 2] = log_likelihood[-1, 2, :1] + 1e-7 * log_likelihood[-1, 2]

    return changed(run, freeze)


def slow_mixing(run: TemperedRun) -> TemperedRun:
    def slow(log_likelihood):
        log_likelihood[5] = log_likelihood[5, :, ::60].repeat_interleave(60, 1)

    return changed(run, slow)


FAILURES = {
    "stuck ladder": no_round_trips,
    "too few rungs": rejected_swaps,
    "missed mode": mode_lost_when_cold,
    "heavy-tailed weights": first_step_too_long,
    "non-stationary rung": drift,
    "chains in disagreement": one_chain_elsewhere,
    "boundary-stuck chains": chain_at_boundary,
    "too few draws": slow_mixing,
}


@pytest.mark.parametrize("shape", [(), (4,)])
def test_healthy_runs_are_silent(shape):
    for seed in range(20):
        verdict = tempering_verdict(exact_run(seed, shape))
        assert verdict.trusted, str(verdict)
        assert str(verdict).startswith("trusted")


def test_a_likelihood_that_is_zero_on_half_of_the_prior_is_healthy():
    """Without the share of possible draws, the gap of the first pair is log 2."""
    for seed in range(20):
        verdict = tempering_verdict(cut_run(seed))
        assert verdict.trusted, str(verdict)
        assert verdict.measures["largest sandwich gap of a pair"] < 0.3


@pytest.mark.parametrize("shape", [(), (4,)])
@pytest.mark.parametrize("name", FAILURES)
def test_each_planted_failure_is_flagged(name, shape):
    for seed in range(3):
        verdict = tempering_verdict(FAILURES[name](exact_run(seed, shape)))
        assert name in verdict.names, str(verdict)
        assert not verdict.trusted
        assert name in str(verdict)


BETAS = power_law(RUNGS, 3.0, dtype=torch.float64)
PLACES = {
    "too few rungs": f"between t = {BETAS[3]:.3g} and {BETAS[4]:.3g}",
    "missed mode": f"t = {BETAS[7]:.3g} and 1,",
    "heavy-tailed weights": f"between t = 0 and {BETAS[1]:.3g}",
    "non-stationary rung": f"at t = {BETAS[4]:.3g}",
    "chains in disagreement": "at t = 1",
    "boundary-stuck chains": "1 of 8 chains barely move, most of them at t = 1",
    "too few draws": f"at t = {BETAS[5]:.3g}",
}


@pytest.mark.parametrize("shape", [(), (4,)])
@pytest.mark.parametrize("name", PLACES)
def test_a_finding_names_its_temperature(name, shape):
    findings = tempering_verdict(FAILURES[name](exact_run(0, shape))).findings
    (finding,) = [each for each in findings if each.name == name]
    assert PLACES[name] in str(finding)


def test_a_stuck_ladder_names_the_rarest_swaps():
    run = rejected_swaps(no_round_trips(exact_run(0)))
    (finding,) = [each for each in tempering_verdict(run).findings if each.name == "stuck ladder"]
    assert PLACES["too few rungs"] in str(finding)


@pytest.mark.parametrize("chains", [1, CHAINS])
@pytest.mark.parametrize("shape", [(), (4,)])
def test_r_hat_and_effective_draws_of_each_rung(shape, chains):
    """
    R-hat is that of halves, so one chain that moves on half way is seen; only the rung that does
    has a large one.
    """
    run = exact_run(0, shape, draws=1000, chains=chains)
    assert run.rhat.shape == run.effective_draws.shape == (RUNGS - 1, *shape)
    assert (run.rhat != 1).all()
    assert (run.rhat < 1.1).all()
    moved = run.log_likelihood.clone()
    moved[4, :, 500:] += 3 * moved[4].std()
    moved = dataclasses.replace(run, log_likelihood=moved)
    rung = torch.arange(1, RUNGS) == 4
    assert (moved.rhat[rung] > 1.5).all()
    assert (moved.effective_draws[rung] < 30).all()
    torch.testing.assert_close(moved.rhat[~rung], run.rhat[~rung])
    torch.testing.assert_close(moved.effective_draws[~rung], run.effective_draws[~rung])
    assert "chains in disagreement" in tempering_verdict(moved).names


def test_a_single_healthy_chain_is_silent():
    for seed in range(20):
        verdict = tempering_verdict(exact_run(seed, draws=1000, chains=1))
        assert verdict.trusted, str(verdict)


def test_r_hat_needs_draws():
    with pytest.raises(
        ValueError, match="num_samples must be at least 4 per chain for R-hat, got 3"
    ):
        _ = exact_run(0, draws=3).rhat


@pytest.mark.parametrize("name", ["stuck ladder", "too few rungs"])
def test_failures_of_the_ladder_are_told_apart(name):
    assert tempering_verdict(FAILURES[name](exact_run(0))).names == {name}


def test_a_run_of_few_draws_is_not_diagnosed_but_flagged():
    assert tempering_verdict(exact_run(0, draws=8)).names == {"too few draws"}


def test_importance_weights():
    assert importance_verdict(torch.tensor([0.2, 0.6]), torch.tensor([300.0, 90.0])).trusted
    assert importance_verdict(torch.tensor([0.2, 0.9]), torch.tensor([300.0, 90.0])).names == {
        "heavy-tailed weights"
    }
    assert importance_verdict(torch.tensor([0.2, 0.6]), torch.tensor([300.0, 9.0])).names == {
        "too few draws"
    }
