from __future__ import annotations

import math
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import Tensor

from pyro_tkam.infer import (
    MALA,
    ULA,
    AutoMALA,
    EnsembleHMC,
    ParallelTempering,
    PowerPosteriors,
)
from pyro_tkam.infer.model.density import ModelDensity
from pyro_tkam.infer.tempering.chains import TemperedChains
from pyro_tkam.infer.tempering.schedule import make_ladder
from pyro_tkam.ops.schedules import power_law
from tests.infer.mcmc.test_kernels import interrupt
from tests.infer.models import ROWS, eight_schools, local_latents, mixture
from tests.untrusted import untrusted

KERNELS = [ULA, MALA, AutoMALA, EnsembleHMC]
every_kernel = pytest.mark.parametrize("kernel", KERNELS)


def regression(x: Tensor, y: Tensor) -> None:
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[-1]]).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(x @ w, 0.5), obs=y)


def scale_family(dim: int, precision: float) -> None:
    """
    Normal prior with likelihood ``exp(-c |z|^2 / 2)``: the posterior at t is N(0, 1 / (1 + c t)).
    """
    z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([dim]).to_event(1))
    pyro.factor("likelihood", -0.5 * precision * z.square().sum(-1))


def gamma_prior(x: Tensor) -> None:
    """A prior without inverse CDF."""
    rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Exponential(rate), obs=x)


@pytest.fixture(autouse=True)
def _seed() -> None:
    pyro.set_rng_seed(7)


def steppingstone(result: PowerPosteriors) -> tuple[Tensor, Tensor]:
    """Return forward and reverse estimates of log evidence, summed over local data."""
    gap = (
        result.betas.double()
        .diff()[:, None, None]
        .reshape(-1, *(1,) * (result.log_likelihood.ndim - 1))
    )
    values = result.log_likelihood.double()
    draws = math.log(values[0, :, :].shape[0] * values.shape[2])
    forward = (gap * values[:-1]).flatten(1, 2).logsumexp(1) - draws
    reverse = (-gap * values[1:]).flatten(1, 2).logsumexp(1) - draws
    return forward.sum(), -reverse.sum()


@pytest.mark.slow
@every_kernel
def test_evidence_of_a_conjugate_regression(kernel: type) -> None:
    """
    Forward and reverse estimates bracket the exact value; a wrong swap or kernel moves them by
    whole nats.
    """
    x, y = torch.randn(20, 4), torch.randn(20)
    # The bias of ULA, of order η, is -.15 at .003 and below .05 at .001, which takes more steps.
    step_size, num_samples = (0.001, 512) if kernel is ULA else (0.1, 256)
    tempering = ParallelTempering(
        kernel(regression, step_size=step_size),
        num_temperatures=10,
        num_samples=num_samples,
        num_chains=32,
        disable_progbar=True,
    )
    result = tempering.run(x, y)
    covariance = x @ x.T + 0.25 * torch.eye(20)
    exact = torch.distributions.MultivariateNormal(torch.zeros(20), covariance).log_prob(y).item()
    forward, reverse = steppingstone(result)
    assert forward.item() == pytest.approx(exact, abs=0.25)
    assert reverse.item() == pytest.approx(exact, abs=0.25)
    posterior = torch.linalg.inv(4 * x.T @ x + torch.eye(4))
    draws = tempering.get_samples()["w"]
    torch.testing.assert_close(draws.mean(0), posterior @ x.T @ y * 4, atol=0.05, rtol=0)
    torch.testing.assert_close(draws.std(0), posterior.diagonal().sqrt(), atol=0, rtol=0.12)
    shape = (10, 32, num_samples)
    assert result.log_likelihood.shape == result.log_prior.shape == result.replicas.shape == shape
    assert result.positions.shape == (1, 32, num_samples, 4)
    assert result.swap_acceptance.shape == (9,)
    assert result.evaluations >= 10 * 32 * 512
    assert (result.round_trips > 0).any()
    tempering.summary()


@every_kernel
@pytest.mark.parametrize("exact_prior", [True, False])
def test_every_evaluation_of_the_likelihood_is_counted(kernel: type, exact_prior: bool) -> None:
    """Of at most two rows, exactly those are evaluated that need it."""
    density = ModelDensity(scale_family, (2, 9.0), standard_normal=True)
    density.can_sample_prior = lambda: exact_prior  # type: ignore[method-assign]
    rows = []
    for name in ("point", "split", "split_values"):
        monitored = getattr(density, name)
        setattr(
            density,
            name,
            lambda position, *rest, real=monitored: rows.append(len(position)) or real(position),
        )
    ladder = make_ladder(torch.tensor([0.0, 1.0]), 2)
    tempered = TemperedChains(kernel(scale_family, step_size=0.2), density, ladder, 1, 0, 1)
    for _ in range(50):
        tempered.step()
    assert tempered.evaluations == sum(rows)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [MALA, AutoMALA])
@pytest.mark.parametrize("exact_prior", [True, False])
def test_tempering_leaves_all_power_posteriors_invariant(kernel: type, exact_prior: bool) -> None:
    """
    KS at each rung after 5 steps from exact draws: 8 rungs times 4 calls, Bonferroni, false alarm
    1e-3.
    """
    precision, chains = 9.0, 4000
    density = ModelDensity(scale_family, (2, precision), standard_normal=True)
    density.can_sample_prior = lambda: exact_prior  # type: ignore[method-assign]
    ladder = make_ladder(power_law(8, 2.0), 8)
    tempered = TemperedChains(kernel(scale_family, step_size=0.2), density, ladder, chains, 0, 1)
    scale = (1 + precision * tempered.betas).rsqrt().repeat_interleave(chains).unsqueeze(-1)
    tempered.point = tempered._target(torch.randn(8 * chains, 2) * scale)
    for _ in range(5):
        tempered.step()
    whitened = tempered.by_rung((tempered.point.position / scale).square().sum(-1))
    p_values = [stats.kstest(rung.numpy(), stats.chi2(2).cdf).pvalue for rung in whitened]
    assert min(p_values) > 1e-3 / 32


def test_the_test_above_would_see_labels_mixed_up() -> None:
    chains = 4000
    density = ModelDensity(scale_family, (2, 9.0), standard_normal=True)
    tempered = TemperedChains(
        MALA(scale_family), density, make_ladder(power_law(8, 2.0), 8), chains, 0, 1
    )
    wrong = (1 + 9.0 * tempered.betas).rsqrt().repeat(chains).unsqueeze(-1)
    whitened = tempered.by_rung(
        (torch.randn(8 * chains, 2) * wrong / wrong.sort(0, True).values).square().sum(-1)
    )
    assert min(stats.kstest(rung.numpy(), stats.chi2(2).cdf).pvalue for rung in whitened) < 1e-10


@pytest.mark.slow
def test_the_barrier_is_that_of_theory() -> None:
    """
    λ(t) = c/(1 + ct) Γ(d/2 + 1/2) / (√π Γ(d/2)), so Λ = log(1 + c) Γ(d/2 + 1/2) / (√π Γ(d/2)).
    """
    dim, precision = 6, 30.0
    result = ParallelTempering(
        MALA(scale_family),
        num_temperatures=14,
        num_samples=400,
        num_chains=64,
        disable_progbar=True,
    ).run(dim, precision)
    constant = math.exp(math.lgamma(dim / 2 + 0.5) - math.lgamma(dim / 2)) / math.sqrt(math.pi)
    exact = torch.log1p(precision * result.betas) * constant
    # A finite ladder's rejections sum to a little less than the integral.
    torch.testing.assert_close(result.barrier, exact, rtol=0.04, atol=0.02)
    rejections = 1 - result.swap_acceptance
    assert rejections.max() < 1.15 * rejections.mean()
    assert result.suggested_num_temperatures == math.ceil(2 * result.barrier[-1].item()) + 1


@every_kernel
def test_local_data_swap_by_themselves(kernel: type) -> None:
    tempering = ParallelTempering(
        kernel(local_latents),
        num_temperatures=4,
        num_samples=20,
        num_chains=3,
        keep_all=True,
        disable_progbar=True,
    )
    with untrusted():
        result = tempering.run(ROWS)
    assert result.log_likelihood.shape == (4, 3, 20, len(ROWS))
    assert result.positions.shape == (4, 3, 20, len(ROWS), 3)
    assert result.round_trips.shape == (3, len(ROWS))
    assert (result.replicas[..., 0] != result.replicas[..., 1]).any()
    split = result.density.split(result.positions.flatten(0, 2))
    torch.testing.assert_close(
        split.log_likelihood.reshape(4, 3, 20, -1), result.log_likelihood, rtol=1e-3, atol=1e-3
    )


def test_recorded_likelihoods_belong_to_recorded_positions() -> None:
    tempering = ParallelTempering(
        MALA(eight_schools),
        num_temperatures=5,
        num_samples=10,
        num_chains=2,
        keep_all=True,
        disable_progbar=True,
    )
    with untrusted():
        result = tempering.run()
    split = result.density.split(result.positions.flatten(0, 2))
    torch.testing.assert_close(
        split.log_prior.reshape(5, 2, 10), result.log_prior, rtol=1e-3, atol=1e-3
    )
    torch.testing.assert_close(
        result.samples["theta"], result.density.constrain(result.positions)["theta"][-1]
    )


@pytest.mark.parametrize("kernel", [MALA, AutoMALA])
def test_data_may_have_more_precision_than_latents(kernel: type) -> None:
    def model(x: Tensor) -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    tempering = ParallelTempering(
        kernel(model), num_temperatures=4, num_samples=20, num_chains=2, disable_progbar=True
    )
    with untrusted():
        result = tempering.run(torch.tensor([1.0, 2.0, 3.0]).double())
    assert result.log_likelihood.dtype == result.positions.dtype == torch.float32


@pytest.mark.slow
@pytest.mark.parametrize(("model", "exact"), [(gamma_prior, True), (mixture, False)])
def test_priors_without_standard_normal_coordinates(model, exact: bool) -> None:
    data = ROWS if model is mixture else torch.tensor([0.3, 1.2, 0.7])
    tempering = ParallelTempering(
        AutoMALA(model), num_temperatures=8, num_samples=200, num_chains=16, disable_progbar=True
    )
    result = tempering.run(data)
    assert tempering._chains.exact_prior is exact
    forward, reverse = steppingstone(result)
    assert forward.item() == pytest.approx(reverse.item(), abs=0.15)
    if exact:  # the marginal of exponentials under a gamma prior
        log_evidence = math.lgamma(5.0) - math.lgamma(2.0) - 5 * math.log(1 + 2.2)
        assert forward.item() == pytest.approx(log_evidence, abs=0.1)


@every_kernel
def test_a_resumed_run_is_the_same_to_the_bit(
    kernel: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stopped in its warm-up and at its draws, and each time another one goes on."""

    def make() -> ParallelTempering:
        return ParallelTempering(
            kernel(eight_schools),
            num_temperatures=5,
            num_samples=20,
            warmup_steps=20,
            num_chains=3,
            disable_progbar=True,
        )

    with untrusted():
        whole = make().run()
    pyro.set_rng_seed(7)
    part, step = make(), ParallelTempering._step
    for stop in (9, 30):
        monkeypatch.setattr(
            part,
            "_step",
            lambda index, part=part, stop=stop: (
                interrupt(index + 1 == stop),
                step(part, index),
            )[1],
        )
        with pytest.raises(KeyboardInterrupt):
            part.run()
        state = part.state
        if stop > 20:
            assert part.result is not None
            assert torch.equal(part.result.log_likelihood, whole.log_likelihood[:, :, : stop - 20])
        part = make()
        part.resume(state)
        pyro.set_rng_seed(1)
    with untrusted():
        result = part.run()
    for name in (
        "betas",
        "log_likelihood",
        "log_prior",
        "replicas",
        "positions",
        "swap_acceptance",
    ):
        assert torch.equal(getattr(result, name), getattr(whole, name))


def test_draws_are_judged_by_themselves_and_by_the_ladder(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(step_size: float) -> ParallelTempering:
        kernel = MALA(
            regression, step_size=step_size, adapt_step_size=False, adapt_mass_matrix=False
        )
        return ParallelTempering(
            kernel, num_temperatures=4, num_samples=80, num_chains=8, disable_progbar=True
        )

    data = torch.randn(20, 2), torch.randn(20)
    frozen = run(10.0)
    with pytest.warns(
        UserWarning, match=r"not to be trusted: .*chains in disagreement.*frozen chains"
    ):
        frozen.run(*data)
    assert {"chains in disagreement", "frozen chains"} <= frozen.verdict.names
    frozen.summary()
    assert "8 of 8 chains accept under 2% of steps" in capsys.readouterr().out
    healthy = ParallelTempering(
        EnsembleHMC(regression),
        num_temperatures=4,
        num_samples=200,
        num_chains=8,
        disable_progbar=True,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        healthy.run(*data)
    assert healthy.verdict.trusted


def test_a_state_of_another_ladder_is_refused() -> None:
    def make(num_temperatures: int) -> ParallelTempering:
        return ParallelTempering(
            MALA(eight_schools),
            num_temperatures=num_temperatures,
            num_samples=4,
            disable_progbar=True,
        )

    saved = make(3)
    with untrusted():
        saved.run()
    other = make(4)
    other.resume(saved.state)
    with pytest.raises(ValueError, match="state must have been saved with 4 temperatures"):
        other.run()


def test_swaps_can_be_rarer() -> None:
    tempering = ParallelTempering(
        MALA(eight_schools), num_temperatures=3, num_samples=12, swap_every=3, disable_progbar=True
    )
    with untrusted():
        result = tempering.run()
    moved = (result.replicas.diff(dim=2) != 0).any(0)[0]
    assert set(moved.nonzero().flatten().tolist()) <= {2, 5, 8, 0, 3, 6, 9, 1, 4, 7, 10}
    assert moved.sum() <= 4


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="potential_fn"):
        ParallelTempering(MALA(potential_fn=lambda params: params["z"]), num_samples=5)
    with pytest.raises(ValueError, match="num_temperatures"):
        ParallelTempering(MALA(eight_schools), num_temperatures=1, num_samples=5)
    with pytest.raises(ValueError, match="schedule"):
        ParallelTempering(MALA(eight_schools), schedule="magic", num_samples=5)
    with pytest.raises(ValueError, match="schedule"):
        ParallelTempering(MALA(eight_schools), schedule=torch.tensor([0.0, 0.5]), num_samples=5)
    with pytest.raises(ValueError, match="swap_every"):
        ParallelTempering(MALA(eight_schools), swap_every=0, num_samples=5)
    with pytest.raises(TypeError, match="kernel"):
        ParallelTempering("MALA", num_samples=5)  # type: ignore[arg-type]

    def improper() -> None:
        with pyro.poutine.mask(mask=False):
            pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(0.0, 1.0), obs=torch.tensor(0.3))

    with pytest.raises(ValueError, match="'z'"):
        ParallelTempering(MALA(improper), num_samples=5, disable_progbar=True).run()


@pytest.mark.parametrize("chains", [1, 3])
def test_r_hat_of_each_temperature_is_reported(chains: int) -> None:
    tempering = ParallelTempering(
        MALA(local_latents),
        num_temperatures=4,
        num_samples=100,
        num_chains=chains,
        disable_progbar=True,
    )
    with untrusted():
        result = tempering.run(ROWS)
    by_rung = tempering.diagnostics()["temperatures"]
    torch.testing.assert_close(by_rung["t"], result.betas[1:])
    torch.testing.assert_close(by_rung["r_hat"], result.rhat)
    torch.testing.assert_close(by_rung["n_eff"], result.effective_draws)
    halves = torch.cat([result.log_likelihood[2, :, :50, 3], result.log_likelihood[2, :, 50:, 3]])
    within = halves.var(1).mean()
    torch.testing.assert_close(
        result.rhat[1, 3], ((49 / 50 * within + halves.mean(1).var()) / within).sqrt()
    )
    assert result.rhat.shape == result.effective_draws.shape == (3, len(ROWS))


def test_diagnostics_say_how_many_draws_they_take() -> None:
    tempering = ParallelTempering(
        MALA(local_latents), num_temperatures=2, num_samples=3, disable_progbar=True
    )
    with untrusted():
        tempering.run(ROWS)
    with pytest.raises(
        ValueError, match="num_samples must be at least 4 per chain for R-hat, got 3"
    ):
        tempering.diagnostics()
