from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from contextlib import nullcontext

import arviz
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC
from pyro.infer.mcmc import StreamingMCMC
from torch import Tensor

from pyro_tkam.infer import MALA, ULA, AutoMALA, EnsembleHMC, VectorizedMCMC
from pyro_tkam.infer.mcmc.adaptation import doubling_rounds, stan_windows
from tests.infer.models import (
    ROWS,
    eight_schools,
    eight_schools_noncentered,
    local_latents,
    mixture,
)
from tests.untrusted import untrusted

KERNELS = [ULA, MALA, AutoMALA, EnsembleHMC]
every_kernel = pytest.mark.parametrize("kernel", KERNELS)


def gaussian(x: Tensor) -> None:
    """Conjugate: the posterior of "a_mean" is N(0.8 x, 0.2), and "scale" stays at its prior."""
    loc = pyro.sample("a_mean", dist.Normal(0.0, 1.0))
    pyro.sample("scale", dist.Exponential(1.0))
    pyro.sample("x", dist.Normal(loc, 0.5), obs=x)


@pytest.fixture(autouse=True)
def _seed() -> None:
    pyro.set_rng_seed(3)


def mean_error(samples: dict[str, Tensor], sds: float) -> None:
    """
    Draws whose effective number gives standard errors of ``sds`` times the posterior's; 5 sigma are
    allowed.
    """
    assert samples["a_mean"].mean().item() == pytest.approx(0.8, abs=5 * sds * 0.2**0.5)
    assert samples["scale"].mean().item() == pytest.approx(1.0, abs=5 * sds)


def without_steep_flanks(x: Tensor) -> None:
    """
    As :func:`gaussian`, with a bounded gradient of "scale": no step of a sane size diverges,
    whatever the seed.
    """
    loc = pyro.sample("a_mean", dist.Normal(0.0, 1.0))
    pyro.sample("scale", dist.Uniform(0.0, 2.0))
    pyro.sample("x", dist.Normal(loc, 0.5), obs=x)


@every_kernel
def test_kernels_run_in_pyros_mcmc(kernel: type) -> None:
    seen = []
    mcmc = MCMC(
        kernel(without_steep_flanks, step_size=0.2),
        num_samples=400,
        warmup_steps=100,
        hook_fn=lambda kernel, params, stage, i: seen.append((stage, i, sorted(params))),
        disable_progbar=True,
    )
    mcmc.run(torch.tensor(1.0))
    samples = mcmc.get_samples()
    assert samples["a_mean"].shape == (400,)
    assert ((samples["scale"] > 0) & (samples["scale"] < 2)).all()
    mean_error(samples, sds=0.2)
    assert seen[0] == ("Warmup", 0, ["a_mean", "scale"])
    assert seen[-1][:2] == ("Sample", 399)
    assert mcmc.diagnostics()["divergences"]["chain 0"] == []
    mcmc.summary()


@pytest.mark.skipif(not hasattr(arviz, "from_pyro"), reason="ArviZ 1.x has no converter for Pyro")
@every_kernel
def test_results_go_to_arviz(kernel: type) -> None:
    mcmc = VectorizedMCMC(kernel(gaussian), 20, 10, num_chains=2, disable_progbar=True)
    with untrusted():
        mcmc.run(torch.tensor(1.0))
    data = arviz.from_pyro(mcmc)
    assert data.posterior["a_mean"].shape == (2, 20)
    assert data.sample_stats["diverging"].shape == (2, 20)


@every_kernel
def test_chains_can_run_one_after_another(kernel: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.multiprocessing.cpu_count", lambda: 2)
    initial = {"a_mean": torch.tensor([-3.0, 3.0]), "scale": torch.tensor([0.0, 1.0])}
    with pytest.warns(UserWarning, match="num_chains=2 is more than available_cpu=1"):
        mcmc = MCMC(
            kernel(gaussian, step_size=1e-8),
            num_samples=3,
            warmup_steps=0,
            num_chains=2,
            initial_params=initial,
            disable_progbar=True,
        )
    mcmc.run(torch.tensor(1.0))
    draws = mcmc.get_samples(group_by_chain=True)["a_mean"]
    if kernel is not AutoMALA:
        torch.testing.assert_close(
            draws, torch.tensor([[-3.0], [3.0]]).expand(2, 3), atol=1e-2, rtol=0
        )
    assert draws.shape == (2, 3)


@pytest.fixture(scope="module")
def _server() -> None:
    """Processes of the context "forkserver" start with what it has imported once."""
    multiprocessing.set_forkserver_preload([__name__])


@pytest.mark.slow
@pytest.mark.usefixtures("_server")
@pytest.mark.parametrize(
    ("kernel", "context"),
    [
        *((kernel, "fork") for kernel in KERNELS),
        *((kernel, "forkserver") for kernel in KERNELS),
        (EnsembleHMC, "spawn"),
    ],
)
def test_chains_can_run_in_processes(
    kernel: type, context: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A process of "forkserver" gets its kernel by pickle, as one of "spawn" does, which imports all
    anew.
    """
    monkeypatch.setattr("torch.multiprocessing.cpu_count", lambda: 8)
    mcmc = MCMC(
        kernel(gaussian, step_size=0.1),
        num_samples=20,
        warmup_steps=10,
        num_chains=2,
        mp_context=context,
        disable_progbar=True,
    )
    mcmc.run(torch.tensor(1.0))
    draws = mcmc.get_samples(group_by_chain=True)["a_mean"]
    assert draws.shape == (2, 20)
    assert not torch.equal(draws[0], draws[1])
    assert set(mcmc.diagnostics()["divergences"]) == {"chain 0", "chain 1"}


@every_kernel
def test_kernels_run_in_streaming_mcmc(kernel: type) -> None:
    mcmc = StreamingMCMC(
        kernel(gaussian, step_size=0.1),
        num_samples=50,
        warmup_steps=50,
        num_chains=2,
        disable_progbar=True,
    )
    mcmc.run(torch.tensor(1.0))
    assert set(mcmc.get_statistics()) == {(0, "a_mean"), (0, "scale"), (1, "a_mean"), (1, "scale")}
    assert "r_hat" in mcmc.diagnostics()["a_mean"]


@every_kernel
def test_potentials_are_sampled(kernel: type) -> None:
    def potential(params: dict[str, Tensor]) -> Tensor:
        return 0.5 * ((params["z"] - 3) / 2).square().sum()

    start = {"z": torch.zeros(64, 2)}
    mcmc = VectorizedMCMC(
        kernel(potential_fn=potential, step_size=1.0),
        num_samples=100,
        warmup_steps=100,
        num_chains=64,
        initial_params=start,
        disable_progbar=True,
    )
    mcmc.run()
    assert mcmc.get_samples()["z"].mean().item() == pytest.approx(3, abs=0.2)
    single = MCMC(
        kernel(potential_fn=potential),
        5,
        5,
        initial_params={"z": torch.zeros(2)},
        disable_progbar=True,
    )
    single.run()
    assert single.get_samples()["z"].shape == (5, 2)
    for run in (MCMC, VectorizedMCMC):
        with pytest.raises(ValueError, match=r"initial_params must be given .*, got None"):
            run(kernel(potential_fn=potential), 5, disable_progbar=True).run()


@every_kernel
def test_kernels_pickle_before_and_after_a_run(kernel: type) -> None:
    made = kernel(gaussian)
    for _ in range(2):
        copy = pickle.loads(pickle.dumps(made))
        copy.setup(0, torch.tensor(1.0))
        assert set(copy.sample(copy.initial_params)) == {"a_mean", "scale"}
        made.setup(0, torch.tensor(1.0))


def test_a_kernel_takes_parameters_it_did_not_return() -> None:
    kernel = MALA(gaussian, step_size=1e-9)
    kernel.setup(0, torch.tensor(1.0))
    moved = kernel.sample({"a_mean": torch.tensor(7.0), "scale": torch.tensor(0.0)})
    assert moved["a_mean"].item() == pytest.approx(7.0, abs=1e-2)
    kernel.cleanup()
    kernel.cleanup()
    with pytest.raises(RuntimeError, match="setup"):
        kernel.sample(moved)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: MALA(), "exactly one of model and potential_fn must be given, got "),
        (
            lambda: ULA(gaussian, lambda params: params["z"]),
            "exactly one of model and potential_fn must be given, got ",
        ),
        (lambda: ULA(gaussian, step_size=0.0), "step_size"),
        (lambda: MALA(gaussian, step_size=float("nan")), "step_size"),
        (lambda: MALA(gaussian, target_accept_prob=1.0), "target_accept_prob"),
        (lambda: AutoMALA(gaussian, step_size=1.0, max_step_size=0.5), "max_step_size"),
        (lambda: VectorizedMCMC(MALA(gaussian), 0), "num_samples"),
        (lambda: VectorizedMCMC(MALA(gaussian), 5, warmup_steps=-1), "warmup_steps"),
        (lambda: VectorizedMCMC(MALA(gaussian), 5, num_chains=0), "num_chains"),
    ],
)
def test_bad_options_are_named(make, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize(
    ("initial", "words"),
    [
        ({"a_mean": torch.zeros(4)}, "must hold the sites"),
        ({"a_mean": torch.zeros(3), "scale": torch.zeros(4)}, "shape"),
        (
            {"a_mean": torch.full((4,), torch.nan), "scale": torch.zeros(4)},
            "'a_mean' is not finite",
        ),
    ],
)
def test_bad_starts_are_named(initial: dict[str, Tensor], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        VectorizedMCMC(
            MALA(gaussian), 5, num_chains=4, initial_params=initial, disable_progbar=True
        ).run(torch.tensor(1.0))


def test_warmup_schedules() -> None:
    assert doubling_rounds(0) == []
    assert doubling_rounds(7) == [3, 7]
    assert stan_windows(10) == []
    assert stan_windows(100) == [15, 90]


def test_adaptation_changes_automala_only_between_rounds() -> None:
    steps: list[float] = []
    kernel = AutoMALA(gaussian, step_size=5.0)
    mcmc = VectorizedMCMC(
        kernel,
        20,
        64,
        num_chains=8,
        disable_progbar=True,
        hook_fn=lambda *_: steps.append(mcmc._chains.tuning.step_size.item()),
    )
    with untrusted():
        mcmc.run(torch.tensor(1.0))
    changes = [i + 1 for i in range(1, len(steps)) if steps[i] != steps[i - 1]]
    assert set(changes) <= set(doubling_rounds(64))
    assert len(changes) > 3


def test_mala_reaches_its_acceptance_rate() -> None:
    mcmc = VectorizedMCMC(
        MALA(eight_schools_noncentered), 200, 400, num_chains=32, disable_progbar=True
    )
    with untrusted("divergences"):
        mcmc.run()
    assert mcmc.sample_stats["acceptance_rate"].mean().item() == pytest.approx(0.574, abs=0.06)


@every_kernel
def test_vectorized_chains_sample_the_posterior(kernel: type) -> None:
    mcmc = VectorizedMCMC(
        kernel(gaussian, step_size=0.05), 200, 200, num_chains=64, disable_progbar=True
    )
    found = {ULA: "too few draws", MALA: "divergences"}.get(kernel)
    with untrusted(found) if found else nullcontext():
        mcmc.run(torch.tensor(1.0))
    mean_error(mcmc.get_samples(), sds=0.04)
    assert mcmc.get_samples()["a_mean"].std().item() == pytest.approx(0.2**0.5, rel=0.1)
    for name in ("lp", "acceptance_rate", "step_size", "diverging", "energy", "reversible"):
        assert mcmc.sample_stats[name].shape == (64, 200)
    mcmc.summary()
    assert set(mcmc.diagnostics()) == {"a_mean", "scale", "divergences", "acceptance rate"}


@every_kernel
def test_local_data_have_their_own_chains(kernel: type) -> None:
    mcmc = VectorizedMCMC(
        kernel(local_latents, step_size=0.05), 30, 30, num_chains=4, disable_progbar=True
    )
    with untrusted():
        mcmc.run(ROWS)
    assert mcmc.sample_stats["acceptance_rate"].shape == (4, 30, len(ROWS))
    assert mcmc.get_samples(group_by_chain=True)["z"].shape == (4, 30, len(ROWS), 2)


@every_kernel
def test_enumerated_models_are_sampled(kernel: type) -> None:
    for chains in (1, 3):
        mcmc = VectorizedMCMC(
            kernel(mixture, step_size=0.05), 10, 10, num_chains=chains, disable_progbar=True
        )
        with untrusted():
            mcmc.run(ROWS)
        assert mcmc.get_samples()["weights"].shape == (10 * chains, 2)
    single = MCMC(kernel(mixture, step_size=0.05), 10, 10, disable_progbar=True)
    single.run(ROWS)
    assert single.get_samples()["weights"].shape == (10, 2)


@every_kernel
def test_a_resumed_run_is_the_same_to_the_bit(kernel: type, tmp_path) -> None:
    """It is stopped twice in its warm-up, twice at its draws, and each time another one goes on."""

    def make() -> VectorizedMCMC:
        return VectorizedMCMC(kernel(eight_schools), 20, 22, num_chains=5, disable_progbar=True)

    pyro.set_rng_seed(5)
    whole = make()
    with untrusted():
        whole.run()
    pyro.set_rng_seed(5)
    part = make()
    for stop in (3, 12, 25, 39):
        part.hook_fn = lambda kernel, params, stage, i, stop=stop: interrupt(
            i + (stage == "Sample") * 22 + 1 == stop
        )
        with pytest.raises(KeyboardInterrupt):
            part.run()
        drawn = max(0, stop - 22)
        if drawn:
            torch.testing.assert_close(
                part.get_samples(group_by_chain=True)["mu"],
                whole.get_samples(group_by_chain=True)["mu"][:, :drawn],
                rtol=0,
                atol=0,
            )
        torch.save(part.state, tmp_path / "state.pt")
        pyro.set_rng_seed(99)
        part = make()
        part.resume(torch.load(tmp_path / "state.pt", weights_only=True))
    with untrusted():
        part.run()
    for name, value in whole.get_samples().items():
        assert torch.equal(value, part.get_samples()[name])
    for name, value in whole.sample_stats.items():
        assert torch.equal(value, part.sample_stats[name])


@pytest.mark.parametrize("stop", [3, 15])
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_run_whose_hook_raised_can_be_resumed(stop: int, error: type[BaseException]) -> None:
    def make() -> VectorizedMCMC:
        return VectorizedMCMC(MALA(gaussian), 20, 10, num_chains=3, disable_progbar=True)

    def fail(kernel, params, stage, i) -> None:
        if i + (stage == "Sample") * 10 == stop:
            raise error

    pyro.set_rng_seed(5)
    whole = make()
    with untrusted():
        whole.run(torch.tensor(1.0))
    pyro.set_rng_seed(5)
    first, second = make(), make()
    first.hook_fn = fail
    with pytest.raises(error):
        first.run(torch.tensor(1.0))
    assert first.state["steps"] == stop + 1
    second.resume(first.state)
    with untrusted():
        second.run(torch.tensor(1.0))
    assert torch.equal(second.get_samples()["a_mean"], whole.get_samples()["a_mean"])


def test_a_run_that_fails_leaves_no_draws_of_the_one_before() -> None:
    mcmc = VectorizedMCMC(MALA(gaussian), 5, 5, num_chains=2, disable_progbar=True)
    with untrusted():
        mcmc.run(torch.tensor(1.0))
    mcmc.hook_fn = lambda *_: interrupt(True)
    with pytest.raises(KeyboardInterrupt):
        mcmc.run(torch.tensor(5.0))
    assert mcmc.sample_stats == {}
    for results in (mcmc.get_samples, mcmc.diagnostics):
        with pytest.raises(
            RuntimeError, match=r"run\(\) must be called first: there are no draws yet"
        ):
            results()


def interrupt(now: bool) -> None:
    """Press Ctrl-C."""
    if now:
        os.kill(os.getpid(), signal.SIGINT)


def test_more_draws_can_be_added() -> None:
    pyro.set_rng_seed(6)
    whole = VectorizedMCMC(MALA(gaussian), 30, 10, num_chains=3, disable_progbar=True)
    with untrusted():
        whole.run(torch.tensor(1.0))
    pyro.set_rng_seed(6)
    short = VectorizedMCMC(MALA(gaussian), 12, 10, num_chains=3, disable_progbar=True)
    with untrusted():
        short.run(torch.tensor(1.0))
    longer = VectorizedMCMC(MALA(gaussian), 30, 10, num_chains=3, disable_progbar=True)
    longer.resume(short.state)
    with untrusted():
        longer.run(torch.tensor(1.0))
    assert torch.equal(longer.get_samples()["a_mean"], whole.get_samples()["a_mean"])
    with pytest.raises(ValueError, match="num_chains"):
        VectorizedMCMC(MALA(gaussian), 30, 10, num_chains=4).resume(short.state)


def test_only_wanted_sites_are_kept() -> None:
    mcmc = VectorizedMCMC(MALA(gaussian), 5, 5, save_params=["scale"], disable_progbar=True)
    with untrusted():
        mcmc.run(torch.tensor(1.0))
    assert set(mcmc.get_samples()) == {"scale"}
