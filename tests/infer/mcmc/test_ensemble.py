from __future__ import annotations

import multiprocessing
import os
import signal
import warnings
from dataclasses import replace
from pathlib import Path as FilePath

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_tkam.diagnostics import to_arviz
from pyro_tkam.infer import (
    MALA,
    SMC,
    EnsembleHMC,
    ParallelTempering,
    RandomWalk,
    VectorizedMCMC,
)
from pyro_tkam.infer.mcmc import tempered_ensemble, vectorized
from pyro_tkam.infer.mcmc.ensemble_adaptation import EnsembleAdaptation
from pyro_tkam.infer.mcmc.judging import MOST_GROWTH, ChainRun, chain_verdict
from pyro_tkam.infer.mcmc.path import Path
from pyro_tkam.infer.mcmc.tempered_ensemble import TemperedEnsemble
from pyro_tkam.infer.model.density import ModelDensity
from tests.laws.memory import LargestTensor
from tests.untrusted import untrusted


@pytest.fixture(autouse=True)
def _seed() -> None:
    pyro.set_rng_seed(0)


def quiet(mcmc: VectorizedMCMC, *args: Tensor) -> dict[str, Tensor]:
    """Run chains that must have no finding."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mcmc.run(*args)
    assert mcmc.verdict.trusted
    return mcmc.get_samples()


def normal_model(x: Tensor) -> None:
    z = pyro.sample("z", dist.Normal(torch.zeros(10), 1.0).to_event(1))
    pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=x)


EXACT = dist.Normal(0.0, 1.25**0.5).log_prob(torch.ones(10)).sum().item()


def test_defaults_find_a_far_and_narrow_posterior_without_a_warning() -> None:
    """Widths of 1e-3, locations 1e6 posterior widths away, and a correlation of 0.99."""

    def model(x: Tensor) -> None:
        a = pyro.sample("a", dist.Normal(0.0, 1000.0))
        b = pyro.sample("b", dist.Normal(0.0, 1000.0))
        pyro.sample("x", dist.Normal(torch.stack([a, a + 0.1 * b]), 1e-3).to_event(1), obs=x)

    torch.set_default_dtype(torch.float64)
    try:
        mcmc = VectorizedMCMC(EnsembleHMC(model), num_samples=200, disable_progbar=True)
        samples = quiet(mcmc, torch.tensor([700.0, 701.0]))
    finally:
        torch.set_default_dtype(torch.float32)
    assert mcmc.get_samples(group_by_chain=True)["a"].shape == (64, 200)
    assert samples["a"].mean().item() == pytest.approx(700, abs=1e-4)
    assert samples["a"].std().item() == pytest.approx(1e-3, rel=0.05)
    assert samples["b"].std().item() == pytest.approx(10 * 2**0.5 * 1e-3, rel=0.05)


def test_flat_priors_and_bare_potentials_need_no_start() -> None:
    def model(x: Tensor) -> None:
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0).mask(False))
        scale = pyro.sample("scale", dist.HalfNormal(1.0).mask(False))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(loc, scale), obs=x)

    x = 300 + 20 * torch.randn(40)
    samples = quiet(VectorizedMCMC(EnsembleHMC(model), 200, disable_progbar=True), x)
    # p(loc) is Student's t of n - 2 degrees of freedom: a flat scale takes one away.
    exact = (x - x.mean()).square().sum().div(38).sqrt() * (38 / 36 / 40) ** 0.5
    assert samples["loc"].mean().item() == pytest.approx(x.mean().item(), abs=0.1)
    assert samples["loc"].std().item() == pytest.approx(exact.item(), rel=0.06)


def test_bounds_that_most_of_the_prior_misses() -> None:
    def model() -> None:
        z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        ordered = (z[0] < z[1]) & (z[1] < z[2])
        pyro.factor("order", torch.where(ordered, 0.0, -torch.inf))

    mcmc = VectorizedMCMC(EnsembleHMC(model), 200, disable_progbar=True)
    samples = quiet(mcmc)
    assert (samples["z"].diff(dim=-1) > 0).all()
    # The middle one of three normals has mean 0 and variance 0.4487.
    assert samples["z"][:, 1].var().item() == pytest.approx(0.4487, rel=0.06)


def disc_model() -> None:
    """A disc of radius 1 that holds 5e-9 of the prior."""
    z = pyro.sample("z", dist.Normal(torch.zeros(2), 1e4).to_event(1))
    pyro.factor("disc", torch.where((z[0] - 1).square() + z[1].square() < 1, 0.0, -torch.inf))


def test_a_support_that_no_prior_draw_meets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempered_ensemble, "MOST_REFERENCE_DRAWS", 10_000)
    mcmc = VectorizedMCMC(EnsembleHMC(disc_model), 300, disable_progbar=True)
    from_center = quiet(mcmc)["z"] - torch.tensor([1.0, 0.0])
    # The squared radius is uniform.
    assert from_center.square().sum(-1).mean().item() == pytest.approx(0.5, abs=0.03)
    again = VectorizedMCMC(EnsembleHMC(disc_model), 310, disable_progbar=True)
    again.resume(mcmc.state)
    quiet(again)
    longer = again.get_samples(group_by_chain=True)["z"]
    assert torch.equal(longer[:, :300], mcmc.get_samples(group_by_chain=True)["z"])

    smc = SMC(disc_model, 256, disable_progbar=True)
    smc.run()
    exact = torch.tensor(0.5e-8).log().item()
    assert abs(smc.log_evidence.value - exact) < 5 * smc.log_evidence.standard_error < 0.5


def test_each_datum_has_its_own_share_of_prior_draws_with_a_likelihood() -> None:
    """
    A step at ``b`` leaves ``1 - Φ(b)`` of the prior to a datum, whatever it leaves to the others.
    """
    bounds = torch.tensor([-1.0, 0.0, 1.0])

    def model() -> None:
        with pyro.plate("data", 3):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.factor("step", torch.where(z < bounds, -torch.inf, 0.0))

    smc = SMC(model, 512, kernel=RandomWalk(1), disable_progbar=True)
    smc.run()
    evidence = smc.log_evidence.per_datum
    assert evidence is not None
    assert (evidence - torch.special.ndtr(-bounds).log()).abs().max() < 0.06


def test_rows_at_which_the_model_raises_are_rejections() -> None:
    def model() -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        matrix = torch.stack([torch.stack([z + 2, z]), torch.stack([z, z + 2])])
        pyro.factor("factor", torch.linalg.cholesky(matrix).diagonal().log().sum() * 0)

    mcmc = VectorizedMCMC(EnsembleHMC(model), 400, disable_progbar=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mcmc.run()
    draws = mcmc.get_samples()["z"]
    cut = dist.Normal(0.0, 1.0)
    assert draws.min() > -1  # no factor below: the matrix is not positive definite
    exact = cut.log_prob(torch.tensor(-1.0)).exp() / (1 - cut.cdf(torch.tensor(-1.0)))
    assert draws.mean().item() == pytest.approx(exact.item(), abs=0.03)


def test_a_model_that_raises_everywhere_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempered_ensemble, "MOST_REFERENCE_DRAWS", 10_000)

    def model() -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.factor("never", torch.where(z.abs() < 100, -torch.inf, 0.0))

    with pytest.raises(ValueError, match="'never'"):
        VectorizedMCMC(EnsembleHMC(model), 10, disable_progbar=True).run()


@pytest.mark.parametrize("kernel", [EnsembleHMC, MALA])
def test_few_chains_continue_rows_of_an_ensemble(kernel: type) -> None:
    mcmc = VectorizedMCMC(
        kernel(normal_model), 50, warmup_steps=20, num_chains=2, disable_progbar=True
    )
    with untrusted():
        mcmc.run(torch.ones(10))
    assert mcmc.get_samples(group_by_chain=True)["z"].shape == (2, 50, 10)
    stats = to_arviz(mcmc)["sample_stats"]
    assert stats["ancestor"].shape == (2, 50)
    assert (stats["n_steps"] >= 1).all()


def test_local_data_have_temperatures_of_their_own() -> None:
    x = torch.linspace(-3, 3, 5)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, torch.logspace(0, 4, len(x))))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    density = ModelDensity(model, (x,))
    ensemble = TemperedEnsemble(EnsembleHMC(model), Path(density, 256), 256)
    while not ensemble.done:
        ensemble.rung()
    exact = dist.Normal(0.0, (torch.logspace(0, 8, 5) + 0.25).sqrt()).log_prob(x)
    torch.testing.assert_close(ensemble.log_evidence.float(), exact, atol=0.5, rtol=0)


@pytest.mark.slow
def test_frozen_runs_are_unbiased_and_adaptive_ones_are_not() -> None:
    """
    E[Ẑ/Z] over 200 frozen runs of 6 rows is 1 within 3 errors, which a right one misses with
    probability 0.003; adaptive runs are off by more. The bias is of the order of one over the rows,
    so fewer rows show it in fewer runs.
    """
    x = torch.ones(10)
    density = ModelDensity(normal_model, (x,))
    path = Path(density)
    mover = EnsembleHMC(normal_model)

    def estimates(num: int, schedule) -> Tensor:
        found = []
        for _ in range(num):
            run = TemperedEnsemble(mover, path, 6, schedule=schedule)
            while not run.done:
                run.rung()
            found.append(run.log_evidence.item())
        return (torch.tensor(found) - EXACT).exp()

    pilot, schedule = TemperedEnsemble(mover, path, 6), []
    while not pilot.done:
        pilot.rung()
        schedule.append(pilot.found)
    frozen = estimates(200, schedule)
    assert abs(frozen.mean() - 1) < 3 * frozen.std() / 200**0.5
    adaptive = estimates(200, None)
    assert abs(adaptive.mean() - 1) > 3 * adaptive.std() / 200**0.5


@pytest.mark.parametrize("kernel", [None, RandomWalk()])
def test_smc_samples_and_estimates(kernel: RandomWalk | None) -> None:
    smc = SMC(normal_model, 256, kernel=kernel, disable_progbar=True)
    smc.run(torch.ones(10))
    evidence = smc.log_evidence
    assert evidence.value == pytest.approx(EXACT, abs=5 * max(evidence.standard_error, 0.02))
    assert smc.get_samples()["z"].mean().item() == pytest.approx(0.8, abs=0.05)
    assert smc.get_samples(group_by_chain=True)["z"].shape == (4, 256, 10)
    assert smc.log_weights.logsumexp((0, 1)).item() == pytest.approx(0, abs=1e-6)
    smc.summary()


def ensemble_of(draws: Tensor, acceptance: Tensor | None = None) -> ChainRun:
    rate = torch.full(draws.shape[:2], 0.9) if acceptance is None else acceptance
    none = torch.zeros_like(rate, dtype=torch.bool)
    names = [f"z{i}" for i in range(draws.shape[-1])]
    groups = torch.arange(4).repeat_interleave(len(draws) // 4)
    return ChainRun(draws, names, rate, none, none, groups=groups)


def test_perfect_chains_have_no_finding() -> None:
    for _ in range(30):
        assert chain_verdict(ensemble_of(torch.randn(64, 500, 5))).trusted


def test_frozen_and_shifted_chains_are_found() -> None:
    draws, rate = torch.randn(64, 500, 5), torch.full((64, 500), 0.9)
    draws[7], rate[7] = draws[7, :1], 0.0
    assert {"frozen chains", "stray chains"} <= chain_verdict(ensemble_of(draws, rate)).names
    shifted = torch.randn(64, 500, 5)
    shifted[8:16] += 0.5
    assert "stray chains" in chain_verdict(ensemble_of(shifted)).names
    apart = torch.randn(64, 500, 5)
    apart[:16] += 0.5
    assert "chains disagree" in chain_verdict(ensemble_of(apart)).names


def test_short_trajectories_are_found() -> None:
    draws = torch.randn(64, 500, 2)
    cut = torch.ones(64, 500, dtype=torch.bool)
    assert chain_verdict(replace(ensemble_of(draws), capped=~cut)).trusted
    assert "capped trajectories" in chain_verdict(replace(ensemble_of(draws), capped=cut)).names


def growth(*windows: Tensor) -> Tensor:
    adaptation = EnsembleAdaptation(220, 0.8, dense=True)
    for draws in windows:
        adaptation._note_variances(draws)
    assert adaptation.growth is not None
    return adaptation.growth


def test_spreads_that_grow_are_told_from_those_that_fluctuate() -> None:
    """Chains that stand still at draws of an exponential tail, and chains that spread twice."""
    tails = [-torch.rand(64, 1, 200).log().expand(64, 40, 200) for _ in range(2)]
    before, last = (each.flatten(0, 1).std(0) for each in tails)
    assert (last / before > MOST_GROWTH).sum() > 20
    assert (growth(*tails) > MOST_GROWTH).sum() <= 2
    spreading = [scale * torch.randn(64, 1, 200).expand(64, 40, 200) for scale in (1, 2)]
    assert (growth(*spreading) > MOST_GROWTH).sum() > 190


def test_short_steps_take_no_more_gradients() -> None:
    mcmc = VectorizedMCMC(EnsembleHMC(normal_model), 200, warmup_steps=20, disable_progbar=True)
    quiet(mcmc, torch.ones(10))
    stats = {name: value[0] for name, value in mcmc.sample_stats.items()}
    full = stats["step_size"].max()
    short = stats["step_size"] < 0.9 * full
    torch.testing.assert_close(stats["step_size"][short], (full / 3).expand(int(short.sum())))
    assert 5 < short.sum() < 45  # 20 of 200 are expected
    longest = torch.ceil(2 * torch.pi / 2 / full)
    assert stats["n_steps"].max() <= longest
    assert stats["n_steps"][short].max() >= longest / 2
    assert not stats["capped"].any()


def test_judging_and_keeping_draws_copies_few_of_them() -> None:
    draws = torch.randn(64, 120, 96)
    whole = chain_verdict(ensemble_of(draws)).measures
    run = ensemble_of(draws)
    with LargestTensor(beside=draws) as largest:
        assert chain_verdict(run).measures == whole
    assert largest.numel < 0.5 * draws.numel()

    def model() -> None:
        pyro.sample("z", dist.Normal(torch.zeros(96), 1.0).to_event(1))

    mcmc = VectorizedMCMC(EnsembleHMC(model), 20, warmup_steps=5, disable_progbar=True)
    quiet(mcmc)
    kept = mcmc.state["records"]["position"].untyped_storage().data_ptr()
    assert mcmc._positions.untyped_storage().data_ptr() == kept


def run_with_checkpoint(path: FilePath, kill_at: int | None, kind: str) -> Tensor:
    torch.set_num_threads(1)
    pyro.set_rng_seed(3)
    count = [0]

    def model(x: Tensor) -> None:
        count[0] += 1
        normal_model(x)

    if kind == "smc":
        run = SMC(model, 64, disable_progbar=True, checkpoint=path)
    elif kind == "tempering":
        run = ParallelTempering(
            EnsembleHMC(model),
            num_temperatures=3,
            num_samples=20,
            warmup_steps=12,
            num_chains=4,
            disable_progbar=True,
            checkpoint=path,
            checkpoint_every=1,
        )
    else:
        run = VectorizedMCMC(
            EnsembleHMC(model),
            20,
            warmup_steps=12,
            num_chains=4,
            disable_progbar=True,
            checkpoint=path,
            checkpoint_every=1,
        )
    steps = [0]
    save = run._save_now_and_then

    def saving(last: bool) -> None:
        save(last)
        steps[0] += 1
        if steps[0] == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    run._save_now_and_then = saving
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run.run(torch.ones(10))
    return run.get_samples(group_by_chain=True)["z"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "kills"), [("chains", (2, 23)), ("smc", (2, 6)), ("tempering", (5, 20))]
)
def test_a_killed_run_goes_on_to_the_same_bits(kind: str, kills: tuple[int, int], tmp_path) -> None:
    """It is killed early, goes on, and is killed again."""
    whole = run_with_checkpoint(tmp_path / "whole.pt", None, kind)
    context = multiprocessing.get_context("fork")
    for kill_at in kills:
        args = (tmp_path / "cut.pt", kill_at, kind)
        killed = context.Process(target=run_with_checkpoint, args=args)
        killed.start()
        killed.join()
        assert killed.exitcode == -signal.SIGKILL
    pyro.set_rng_seed(99)
    assert torch.equal(run_with_checkpoint(tmp_path / "cut.pt", None, kind), whole)


def test_a_checkpoint_of_other_data_is_refused(tmp_path) -> None:
    run_with_checkpoint(tmp_path / "state.pt", None, "chains")
    mcmc = VectorizedMCMC(
        EnsembleHMC(normal_model),
        20,
        warmup_steps=12,
        num_chains=4,
        disable_progbar=True,
        checkpoint=tmp_path / "state.pt",
    )
    with pytest.raises(ValueError, match="same model and data"):
        mcmc.run(torch.zeros(10))


def test_thinned_draws_are_every_other_state(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(num_samples: int, thin: int) -> VectorizedMCMC:
        pyro.set_rng_seed(0)
        mcmc = VectorizedMCMC(
            EnsembleHMC(normal_model),
            num_samples,
            warmup_steps=10,
            num_chains=4,
            disable_progbar=True,
            thin=thin,
        )
        with untrusted():
            mcmc.run(torch.ones(10))
        return mcmc

    whole, thinned = run(40, 1), run(20, 2)
    z = whole.get_samples(group_by_chain=True)["z"]
    assert torch.equal(thinned.get_samples(group_by_chain=True)["z"], z[:, 1::2])
    for name, merge in (("n_steps", torch.sum), ("acceptance_rate", torch.mean)):
        pairs = whole.sample_stats[name].unflatten(1, (20, 2))
        torch.testing.assert_close(thinned.sample_stats[name], merge(pairs, 2))
    other = VectorizedMCMC(
        EnsembleHMC(normal_model), 20, warmup_steps=10, num_chains=4, disable_progbar=True
    )
    with pytest.raises(ValueError, match="saved with thin=1"):
        other.resume(thinned.state)
    monkeypatch.setattr(vectorized, "LARGE", 1e4)
    with pytest.warns(UserWarning, match=r"the draws will take 0\.0 GB of memory, 4 chains of 40"):
        run(40, 1)


def test_data_that_the_first_run_puts_outside_a_support() -> None:
    """A moving support: z lies between 0.9 and 1.1, as far as data say."""

    def model(y: Tensor) -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Uniform(z - 0.3, z + 0.3), obs=y)

    samples = quiet(
        VectorizedMCMC(EnsembleHMC(model), 200, disable_progbar=True), torch.tensor([0.8, 1.2])
    )
    assert samples["z"].min() >= 0.9
    assert samples["z"].max() <= 1.1
    # The prior falls by a factor e^-0.2 over the interval.
    assert samples["z"].mean().item() == pytest.approx(0.9967, abs=0.003)
