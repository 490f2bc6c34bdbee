"""Chains in coordinates with a standard normal prior."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_tkam.infer import MALA, EnsembleHMC, VectorizedMCMC
from pyro_tkam.infer.mcmc.nearer_normal import excess
from pyro_tkam.ops.langevin import Point
from tests.untrusted import untrusted

EFFECTS = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def eight_schools(effects: Tensor) -> None:
    """Centered: a funnel."""
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", 8):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("y", dist.Normal(theta, ERRORS), obs=effects)


def exact_mean_of_log_tau() -> float:
    """By quadrature over the logarithm; effects and location are integrated exactly."""
    log_tau = torch.linspace(-12, 6, 20_001, dtype=torch.float64)
    tau = log_tau.exp()
    variance = ERRORS.double().square() + tau[:, None].square()
    precision = 1 / 25 + (1 / variance).sum(-1)
    linear = (EFFECTS / variance).sum(-1)
    log_density = (
        dist.HalfCauchy(5.0).log_prob(tau)
        + log_tau
        - (variance.log() + EFFECTS.square() / variance).sum(-1) / 2
        + linear.square() / precision / 2
        - precision.log() / 2
    )
    return float((log_density.softmax(0) * log_tau).sum())


def run(num_samples: int, **options) -> VectorizedMCMC:
    pyro.set_rng_seed(0)
    mcmc = VectorizedMCMC(EnsembleHMC(eight_schools), num_samples, **options)
    mcmc.run(EFFECTS)
    return mcmc


@pytest.mark.parametrize("standard_normal", [True, None])
def test_a_funnel_is_no_funnel_there(standard_normal: bool | None) -> None:
    """The mean of log tau, whose tail in the neck chains miss, within 4.5 errors."""
    mcmc = run(500, standard_normal=standard_normal)
    assert mcmc.verdict.trusted
    worth = mcmc.verdict.measures["smallest effective sample size"]
    assert worth > 4000
    log_tau = mcmc.get_samples()["tau"].log()
    error = log_tau.std().item() / math.sqrt(worth)
    assert log_tau.mean().item() == pytest.approx(exact_mean_of_log_tau(), abs=4.5 * error)
    assert "theta" not in mcmc.kernel.transforms


def test_unconstrained_coordinates_are_kept_where_they_are_asked_for() -> None:
    with pytest.warns(UserWarning, match="not to be trusted"):
        asked = run(100, standard_normal=False)
    assert asked.verdict.measures["smallest effective sample size"] < 400
    with untrusted():
        watched = run(20, hook_fn=lambda *_: None)
    for mcmc in (asked, watched):
        assert "theta" in mcmc.kernel.transforms


def strong_data(effects: Tensor) -> None:
    """Centered effects that the data tell: in the other coordinates they depend on the scale."""
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", 8):
        theta = pyro.sample("theta", dist.Normal(0.0, tau))
        pyro.sample("y", dist.Normal(theta, 0.1), obs=effects)


def test_a_posterior_that_is_normal_as_it_is_stays_there() -> None:
    pyro.set_rng_seed(0)
    mcmc = VectorizedMCMC(EnsembleHMC(strong_data), 20)
    mcmc.run(EFFECTS)
    assert "theta" in mcmc.kernel.transforms


def draws_around(spread: float, correlation: float) -> Tensor:
    """Draws of a normal ``(chains, draws, 2)``, by which coordinates are compared."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(64, 20, 2, generator=generator, dtype=torch.float64)
    return spread * (noise + correlation * noise.flip(-1))


def test_a_divergence_is_that_of_the_closed_form() -> None:
    """A log-normal of width ``s``, from its normal: 0.5 log((exp(s²) - 1) exp(s²) / s²) nats."""
    width = 0.5
    log_draws = width * draws_around(1.0, 0.0)

    class OfLog:
        def point(self, position: Tensor, rows: Tensor | None = None) -> Point:
            value = -0.5 * (position / width).square().sum(-1)
            return Point(position, value, position)

    class OfValue:
        def point(self, position: Tensor, rows: Tensor | None = None) -> Point:
            logs = position.log()
            return Point(position, (-0.5 * (logs / width).square() - logs).sum(-1), position)

    gain = excess(log_draws.exp(), OfValue()).mean() - excess(log_draws, OfLog()).mean()
    exact = math.log((math.exp(width**2) - 1) * math.exp(width**2) / width**2)  # two of them
    assert gain.item() == pytest.approx(exact, abs=0.15)


def test_no_draw_is_kept_without_its_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unadjusted steps before the change are not made again after it."""
    adjusted = []
    plain = EnsembleHMC.step

    def step(self, point, target, tuning, test):
        adjusted.append(test)
        return plain(self, point, target, tuning, test)

    monkeypatch.setattr(EnsembleHMC, "step", step)
    pyro.set_rng_seed(0)
    mcmc = VectorizedMCMC(EnsembleHMC(eight_schools, num_unadjusted=150), 20, num_chains=8)
    with untrusted():
        mcmc.run(EFFECTS)
    assert "theta" not in mcmc.kernel.transforms
    steps = adjusted[-240:]  # the tempered start comes before
    assert steps == [False] * 150 + [True] * 90


def test_angles_stay_together_in_the_other_coordinates() -> None:
    """A funnel beside an angle near the cut of its circle."""

    def model(effects: Tensor) -> None:
        pyro.sample("angle", dist.VonMises(math.pi, 20.0))
        eight_schools(effects)

    pyro.set_rng_seed(0)
    mcmc = VectorizedMCMC(EnsembleHMC(model), 100)
    mcmc.run(EFFECTS)
    assert mcmc.verdict.trusted
    assert "theta" not in mcmc.kernel.transforms
    cosine = mcmc.get_samples()["angle"].cos().mean().item()
    assert cosine == pytest.approx(-0.9744, abs=0.003)  # I₁(20) / I₀(20)


def test_a_state_in_other_coordinates_is_refused_where_these_are_fixed() -> None:
    with untrusted():
        changed = run(20, num_chains=8)
    watched = VectorizedMCMC(EnsembleHMC(eight_schools), 20, num_chains=8, hook_fn=lambda *_: None)
    watched.resume(changed.state)
    with pytest.raises(ValueError, match="to which hook_fn refers, got one that has changed"):
        watched.run(EFFECTS)


def test_a_run_that_changes_coordinates_resumes_to_the_bit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is stopped before the change, after it, and after the warm-up, and others go on."""

    class StopError(Exception):
        pass

    plain = VectorizedMCMC._step

    def stopping(mcmc: VectorizedMCMC, index: int) -> dict[str, Tensor]:
        if index == stop:
            raise StopError
        return plain(mcmc, index)

    with untrusted():
        whole = run(20, num_chains=8)
    monkeypatch.setattr(VectorizedMCMC, "_step", stopping)
    pyro.set_rng_seed(0)
    part = VectorizedMCMC(EnsembleHMC(eight_schools), 20, num_chains=8)
    for stop in (100, 130, 230):
        with pytest.raises(StopError):
            part.run(EFFECTS)
        state = part.state
        assert state["chains"]["changed"] == (stop > 120)
        part = VectorizedMCMC(EnsembleHMC(eight_schools), 20, num_chains=8)
        part.resume(state)
    stop = -1
    with untrusted():
        part.run(EFFECTS)
    for name, draws in whole.get_samples().items():
        assert torch.equal(part.get_samples()[name], draws)


def test_a_run_is_resumed_in_its_own_coordinates_alone() -> None:
    with untrusted():
        whole = run(20, warmup_steps=10, num_chains=8, standard_normal=True)
        half = run(10, warmup_steps=10, num_chains=8, standard_normal=True)
    more = VectorizedMCMC(
        EnsembleHMC(eight_schools), 20, warmup_steps=10, num_chains=8, standard_normal=True
    )
    more.resume(half.state)
    with untrusted():
        more.run(EFFECTS)
    assert torch.equal(more.get_samples()["theta"], whole.get_samples()["theta"])
    other = VectorizedMCMC(EnsembleHMC(eight_schools), 20, warmup_steps=10, num_chains=8)
    with pytest.raises(ValueError, match="saved with standard_normal=None, as this run has"):
        other.resume(half.state)


def test_what_is_of_unconstrained_coordinates_is_refused() -> None:
    start = {"mu": torch.zeros(4), "tau": torch.zeros(4), "theta": torch.zeros(4, 8)}
    for name, given in (("initial_params", start), ("transforms", {})):
        with pytest.raises(ValueError, match=f"standard_normal must be False or None with {name}"):
            VectorizedMCMC(
                MALA(eight_schools), 10, num_chains=4, standard_normal=True, **{name: given}
            )
