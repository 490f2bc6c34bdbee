"""Evidences are the same to the bit, whatever runs them."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.util import get_rng_state

from pyro_tkam.infer import SMC, log_evidences, map_seeded

DATA = torch.tensor([0.0, 0.5, -1.0, 2.0])
EXACT = dist.Normal(0.0, 2**0.5).log_prob(DATA)


def model(x):
    scale = pyro.param("scale", torch.tensor(3.0))
    z = pyro.sample("z", dist.Normal(0.0, scale))
    pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def evidences(executor=None):
    pyro.set_rng_seed(3)
    pyro.get_param_store().clear()
    pyro.param("scale", torch.tensor(1.0))  # not the one that workers would start with
    options = {"method": "importance", "num_particles": 2000}
    return log_evidences(model, DATA, executor=executor, **options)


@pytest.fixture(scope="module")
def processes():
    """A worker, which takes seconds to start; each test has parameters of its own."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as executor:
        yield executor


@pytest.fixture(scope="module")
def serial():
    return [each.value for each in evidences()]


def test_each_datum_has_its_evidence(serial):
    torch.testing.assert_close(torch.tensor(serial), EXACT, atol=0.2, rtol=0)
    pyro.set_rng_seed(3)
    options = {"method": "importance", "num_particles": 100}
    repeated = log_evidences(model, [(DATA[0],)] * 2, **options)
    assert repeated[0].value != repeated[1].value


def test_threads_take_turns(serial):
    with ThreadPoolExecutor(2) as executor:
        assert [each.value for each in evidences(executor)] == serial


@pytest.mark.slow
def test_processes(serial, processes):
    assert [each.value for each in evidences(processes)] == serial


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Dask's own
def test_dask(serial):
    from distributed import Client, LocalCluster

    cluster = LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None)
    with cluster, Client(cluster) as client, client.get_executor() as executor:
        assert [each.value for each in evidences(executor)] == serial


def sequential(executor=None, checkpoint=None):
    """Draws and evidence of runs whose parameter no worker knows but from its caller."""
    pyro.set_rng_seed(3)
    pyro.get_param_store().clear()
    pyro.param("scale", torch.tensor(2.0))
    smc = SMC(model, 64, executor=executor, disable_progbar=True, checkpoint=checkpoint)
    smc.run(DATA[1])
    after = torch.rand(())
    value = torch.tensor(smc.log_evidence.value)
    return [*smc.get_samples(group_by_chain=True).values(), value, after]


def test_sequential_monte_carlo_in_threads(tmp_path):
    with ThreadPoolExecutor(2) as executor:
        check_sequential(executor, tmp_path)


@pytest.mark.slow
def test_sequential_monte_carlo_in_processes(tmp_path, processes):
    check_sequential(processes, tmp_path)


def check_sequential(executor, path):
    here, there = sequential(), sequential(executor, path / "state.pt")
    assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))


def test_an_executor_must_be_one():
    with pytest.raises(TypeError, match=r"executor must be a concurrent.futures.Executor, got int"):
        SMC(model, 64, executor=3)


def test_the_caller_is_left_as_it_was():
    pyro.set_rng_seed(0)
    torch.randint(2**31, ())
    before = get_rng_state()
    threads = torch.get_num_threads()
    pyro.get_param_store().clear()
    pyro.set_rng_seed(0)
    map_seeded(lambda item: pyro.param("new", torch.randn(item)), [1, 2])
    assert torch.equal(get_rng_state()["torch"], before["torch"])
    assert torch.get_num_threads() == threads
    assert len(pyro.get_param_store()) == 0


def test_errors_come_back():
    with pytest.raises(ValueError, match="observed site"):
        log_evidences(lambda: pyro.sample("z", dist.Normal(0.0, 1.0)), [()])
    with ThreadPoolExecutor(1) as executor, pytest.raises(ZeroDivisionError):
        map_seeded(lambda item: 1 / item, [1, 0, 2], executor=executor)
    with pytest.raises(TypeError, match=r"executor must be a concurrent.futures.Executor, got int"):
        map_seeded(torch.randn, [1], executor=3)
