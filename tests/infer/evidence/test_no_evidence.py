"""Models that have no evidence, or whose data say nothing, and those that only look like it.

Estimates are asked to be within 4.5 standard errors plus a margin, so a test of one estimate fails
falsely with probability below 1e-5; seeds are fixed all the same.
"""

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from pyro_tkam.infer import (
    ULA,
    AutoMALA,
    ImportanceMLE,
    ImportanceSampling,
    LangevinMLE,
    ParallelTempering,
    SteppingstoneMLE,
    VectorizedMCMC,
    log_evidence,
)
from pyro_tkam.models import TKAM
from tests.infer.evidence_problems import TEMPERED, assert_close


def improper():
    z = pyro.sample("z", dist.ImproperUniform(dist.constraints.real, (), ()))
    pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(0.0))


def with_prior(prior, site_mask=True):
    def model():
        with poutine.mask(mask=site_mask):
            z = pyro.sample("z", prior)
        pyro.sample("x", dist.Normal(z.sum(), 1.0), obs=torch.tensor(0.0))

    return model


PAIR = dist.Normal(torch.zeros(2), 1.0)
SOME = torch.tensor([True, False])
IMPROPER = {
    "improper": improper,
    "improper pair": with_prior(dist.ImproperUniform(dist.constraints.real, (2,), ()).to_event(1)),
    "mask": with_prior(dist.Normal(0.0, 1.0).mask(False)),
    "tensor mask": with_prior(dist.Normal(0.0, 1.0).mask(torch.tensor(False))),
    "mask inside an event": with_prior(PAIR.mask(False).to_event(1)),
    "mask of some inside an event": with_prior(PAIR.mask(SOME).to_event(1)),
    "site mask": with_prior(dist.Normal(0.0, 1.0), False),
    "tensor site mask": with_prior(dist.Normal(0.0, 1.0), torch.tensor(False)),
    "site mask of some": with_prior(PAIR, SOME),
}


@pytest.mark.parametrize("model", IMPROPER.values(), ids=IMPROPER.keys())
def test_improper_priors_leave_the_evidence_undefined(model):
    def guide():
        pyro.sample("z", PAIR.to_event(1))

    runs = [
        partial(log_evidence, model, method=method)
        for method in ("auto", "importance", "ais", "bar")
    ]
    tempering = ParallelTempering(AutoMALA(model), num_samples=5, disable_progbar=True)
    weighing = ImportanceSampling(model), ImportanceSampling(model, guide)
    for run in (*runs, *(each.run for each in (*weighing, tempering))):
        with pytest.raises(
            ValueError,
            match=r"model must have proper priors, got improper ones at \['z'\], so its",
        ):
            run()


def test_a_flat_prior_can_be_sampled_without_tempering():
    pyro.set_rng_seed(0)
    mcmc = VectorizedMCMC(
        AutoMALA(IMPROPER["tensor mask"]), num_samples=200, num_chains=16, disable_progbar=True
    )
    mcmc.run()
    # of N(0, 1), by 500 effective draws: 6 standard errors
    assert abs(mcmc.get_samples()["z"].std() - 1) < 0.2


def test_masks_that_hide_nothing_are_proper():
    pyro.set_rng_seed(0)
    model = with_prior(dist.Normal(0.0, 1.0).mask(torch.tensor(True)), torch.tensor(True))
    assert_close(log_evidence(model), -0.5 * math.log(4 * math.pi))


def unobserved():
    pyro.sample("z", dist.Normal(0.0, 1.0))


def observing(value, mask=True):
    def model():
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(value)):
            pyro.sample("x", dist.Normal(z, 1.0).mask(torch.as_tensor(mask)), obs=value)

    return model


def impossible():
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.factor("likelihood", z * 0 - math.inf)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (unobserved, "model must have an observed site, got none"),
        (
            observing(torch.tensor([0.0, math.nan])),
            "model must have finite data, got a NaN or an infinity at the",
        ),
        (observing(torch.zeros(0)), "empty or all masked"),
        (observing(torch.zeros(3), mask=[False] * 3), "empty or all masked"),
    ],
)
@pytest.mark.parametrize("method", ["auto", "importance", "ais", "bar"])
def test_models_without_an_evidence(model, message, method):
    with pytest.raises(ValueError, match=message):
        log_evidence(model, method=method)


@pytest.mark.parametrize("method", ["auto", "importance"])
def test_an_impossible_likelihood_of_draws(method):
    with pytest.raises(
        ValueError, match="model must have a likelihood above zero, got zero at every draw"
    ):
        log_evidence(impossible, method=method)


@pytest.mark.parametrize("method", ["ais", *TEMPERED])
def test_an_impossible_likelihood_of_chains(method):
    zero = (
        r"model must have a finite density at some start, got none in 100 tries: the likelihood is "
        r"zero: the log density of site 'likelihood' is -inf in chain 0"
    )
    with pytest.raises(ValueError, match=zero):
        log_evidence(impossible, method=method)


def in_plate(num, **options):
    def model():
        with pyro.plate("data", num, **options) as rows:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor([1.5, 2.5, 3.5])[rows])

    return model


def in_scale():
    with poutine.scale(scale=torch.tensor([1.0, 2.0])):
        z = pyro.sample("z", PAIR)
    pyro.sample("x", dist.Normal(z.sum(), 1.0), obs=torch.tensor(0.0))


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (
            in_plate(3, subsample_size=2),
            NotImplementedError,
            "model must have plates that take all data, got 'data'",
        ),
        (
            in_plate(30, subsample=torch.arange(3)),
            ValueError,
            r"model must have priors without.*, got sites \['z'\] scaled by a",
        ),
        (in_scale, ValueError, r"model must have priors without.*, got sites \['z'\] scaled by a"),
    ],
)
def test_mini_batches_have_no_evidence(model, error, message):
    runs = [
        partial(log_evidence, model, method=method)
        for method in ("auto", "importance", "ais", "bar")
    ]
    for run in (*runs, ImportanceSampling(model).run):
        with pytest.raises(error, match=message):
            run()


def test_a_model_called_with_the_size_of_all_data_has_no_evidence():
    model = TKAM.mixture(4, latent_dim=2, num_components=2)
    for method in ("importance", "bar"):
        with pytest.raises(
            ValueError, match=r"model must have priors without.*, got sites \['z'\] scaled by a"
        ):
            log_evidence(model, torch.rand(3, 4), method=method, model_kwargs={"size": 30})
    assert ImportanceSampling(model).run(torch.rand(3, 4), size=3).evidence.per_datum.shape == (3,)


@pytest.mark.parametrize(
    "objective", [ImportanceMLE(10), LangevinMLE(ULA, step_size=0.1), SteppingstoneMLE(ULA)]
)
def test_mini_batches_can_be_trained_on(objective):
    pyro.set_rng_seed(0)
    model = in_plate(30, subsample=torch.arange(3))
    assert math.isfinite(objective.loss(model, None))


def test_missing_data_may_be_masked():
    data, mask = torch.tensor([0.3, math.nan]), torch.tensor([True, False])
    pyro.set_rng_seed(0)
    evidence = log_evidence(observing(data, mask), method="importance", num_particles=20_000)
    assert_close(evidence, dist.Normal(0.0, math.sqrt(2)).log_prob(data[0]).item())
