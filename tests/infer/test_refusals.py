"""What one public function refuses of a model, its data and its options, all refuse alike."""

import math
import re
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import MCMC
from torch import Tensor
from torch.distributions.transforms import ExpTransform

from pyro_tkam.infer import (
    MALA,
    SMC,
    AutoMALA,
    ImportanceMLE,
    ImportanceSampling,
    ImportanceWeightedELBO,
    LangevinMLE,
    ParallelTempering,
    SteppingstoneMLE,
    VectorizedMCMC,
    WakeSleepMLE,
    bridge_evidence,
    log_evidence,
)
from pyro_tkam.infer.model.requirements import check_data, check_guide, check_model
from pyro_tkam.models import TiltedPrior
from tests.untrusted import untrusted

X = torch.linspace(-1.0, 1.0, 6)
Y = X + 0.1


def line(x, y):
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(slope * x, 1.0), obs=y)


def guide(x, y):
    pyro.sample("slope", dist.Normal(0.0, 1.0))


def shares(x, y):
    """Data between 0 and 1."""
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Beta((slope * x).exp(), 1.0), obs=y)


def binary(x, y):
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Bernoulli(logits=slope * x), obs=y)


def fixed(x, y):
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    shift = pyro.sample("shift", dist.Delta(torch.tensor(1.0)))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(slope * x + shift, 1.0), obs=y)


def clusters(x, y):
    """A discrete value of each datum."""
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Bernoulli(0.5))
        pyro.sample("y", dist.Normal(slope * x + k, 1.0), obs=y)


def mcmc(kernel=MALA, model=line, **options):
    options = {"num_samples": 4, "warmup_steps": 4, "num_chains": 2} | options
    return VectorizedMCMC(kernel(model), disable_progbar=True, **options)


def tempering(model):
    run = ParallelTempering(
        AutoMALA(model), num_samples=4, num_temperatures=3, disable_progbar=True
    )
    return run.run


def objective(made, guide=None):
    return lambda model: partial(made.loss, model, guide)


#: An option that must be a number or a name, as ``call(value)``.
VALUES = {
    "num_particles": lambda value: log_evidence(
        line, X, Y, method="importance", num_particles=value
    ),
    "num_samples": lambda value: mcmc(num_samples=value),
    "num_chains": lambda value: mcmc(num_chains=value),
    "warmup_steps": lambda value: mcmc(warmup_steps=value),
    "step_size": lambda value: MALA(line, step_size=value),
    "swap_every": lambda value: ParallelTempering(MALA(line), num_samples=4, swap_every=value),
    "num_temperatures": lambda value: ParallelTempering(
        MALA(line), num_samples=4, num_temperatures=value
    ),
    "schedule": lambda value: ParallelTempering(MALA(line), num_samples=4, schedule=value),
    "max_evaluations": lambda value: log_evidence(line, X, Y, max_evaluations=value),
    "target_se": lambda value: log_evidence(line, X, Y, target_se=value),
    "steps_between": lambda value: log_evidence(line, X, Y, method="ais", steps_between=value),
    "method": lambda value: log_evidence(line, X, Y, method=value),
    "resampler": lambda value: ImportanceSampling(line, resampler=value),
    "ess_threshold": lambda value: ImportanceMLE(ess_threshold=value),
    "log_prior_gradient": lambda value: LangevinMLE(log_prior_gradient=value),
    "guide_objective": lambda value: LangevinMLE(guide_objective=value),
    "num_steps": lambda value: SteppingstoneMLE(num_steps=value),
}


#: From a model to what runs it on its arguments: of each kind one, and all methods of evidences.
RUNS: dict[str, Callable[[Any], Callable[..., Any]]] = {
    **{
        f"log_evidence {method}": lambda model, method=method: partial(
            log_evidence, model, method=method
        )
        for method in ("auto", "importance", "ais", "steppingstone", "bar", "bridge")
    },
    "bridge_evidence": lambda model: partial(
        bridge_evidence, model, draws={"slope": torch.zeros(2, 100)}
    ),
    "ImportanceSampling": lambda model: ImportanceSampling(model).run,
    "VectorizedMCMC": lambda model: mcmc(model=model).run,
    "SMC": lambda model: SMC(model, 64, disable_progbar=True).run,
    "MCMC": lambda model: MCMC(MALA(model), 4, warmup_steps=4, disable_progbar=True).run,
    "ParallelTempering": tempering,
    "ImportanceMLE": objective(ImportanceMLE(30)),
    "ImportanceWeightedELBO": objective(ImportanceWeightedELBO(5), guide),
    "WakeSleepMLE": objective(WakeSleepMLE(5), guide),
    "LangevinMLE": objective(LangevinMLE(num_steps=2)),
    "SteppingstoneMLE": objective(SteppingstoneMLE(num_steps=2)),
}
NAN = torch.where(torch.arange(6) == 2, torch.nan, Y)

#: A model, its arguments, and what is said of them.
DATA = {
    "a column for a row": (line, (X, Y[:, None]), r"have .*\(6,\), got \(6, 1\) at site 'y'"),
    "fewer data": (line, (X, Y[:3]), r"have data with .*\(6,\), got \(3,\) at site 'y'"),
    "no data": (line, (X[:0], Y[:0]), "have data, got a plate of size zero"),
    "a NaN": (line, (X, NAN), "have finite data, got a NaN .*'y'"),
    "an infinity": (line, (X, NAN.nan_to_num(math.inf)), "have finite data, got .*'y'"),
    "a NaN in a covariate": (
        line,
        (NAN, Y),
        r"run on its arguments, \(x float32 \(6,\) that are not all finite, y float32 \(6,\)",
    ),
    "data outside the support": (
        shares,
        (X, Y),
        r"have data in the support .*upper_bound=1.*, got .*'y'",
    ),
    "half precision": (
        line,
        (X.half(), Y.half()),
        "have data in single or double precision, got float16",
    ),
    "whole numbers for a Bernoulli": (
        binary,
        (X, (Y > 0).long()),
        r"have floating-point data for a Bernoulli .*, got torch.int64 at site 'y'; .*\.float\(\)",
    ),
    "truth values for a Bernoulli": (
        binary,
        (X, Y > 0),
        "have floating-point data for a Bernoulli .*, got torch.bool at site 'y'",
    ),
    "an unobserved Delta": (fixed, (X, Y), "have Delta sites that are observed, got 'shift'"),
    "an argument too few": (line, (X,), r"run on its arguments, .*got TypeError: .*'y'"),
}


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("run", RUNS)
def test_data_are_refused_before_anything_is_drawn(run, data):
    model, args, message = DATA[data]
    pyro.clear_param_store()
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match=f"^model must {message}"):
        RUNS[run](model)(*args)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("value", ["many", -1.5, (3,)], ids=str)
@pytest.mark.parametrize("name", VALUES)
def test_values_of_options_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=rf"^{name} must .*, got {re.escape(repr(value))}"):
        VALUES[name](value)


@pytest.mark.parametrize("run", RUNS)
def test_what_is_no_model_is_refused(run):
    with pytest.raises(TypeError, match="model must be callable, got int"):
        RUNS[run](3)(X, Y)


@pytest.mark.parametrize("run", ["log_evidence importance", "VectorizedMCMC", "ParallelTempering"])
@pytest.mark.filterwarnings("error")  # none of NumPy's either
def test_numpy_data_are_taken_as_tensors(run):
    with nullcontext() if run == "log_evidence importance" else untrusted():
        RUNS[run](line)(X.numpy(), Y.numpy())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("run", ["ImportanceMLE", "LangevinMLE"])
def test_numpy_data_are_refused_in_training_where_the_model_cannot_take_them(run):
    message = r"must be given tensors .*got \(x of NumPy's float32 \(6,\), y of NumPy's"
    with pytest.raises(TypeError, match=message):
        RUNS[run](line)(X.numpy(), Y.numpy())


def test_a_model_that_makes_tensors_of_arrays_is_given_arrays():
    """Wrong version: every array is replaced, and ``torch.from_numpy`` fails."""

    def own(x, y):
        line(torch.from_numpy(x), torch.from_numpy(y))

    given = check_data(own, (X.numpy(), Y.numpy()), {})
    assert isinstance(given.args[0], np.ndarray)
    assert not given.converted


# What must not be refused.


def test_what_a_mask_hides_may_be_anything():
    def masked(x, y):
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)), poutine.mask(mask=y.isfinite() & (y > 0)):
            pyro.sample("y", dist.LogNormal(slope * x, 1.0), obs=y)

    check_model(masked, (X, NAN), {})


def test_whole_numbers_that_a_mask_turns_to_floats_are_taken():
    """Wrong version: all whole numbers are refused for a Bernoulli."""

    def labeled(x, y):
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            labels = dist.Bernoulli(logits=slope * x)
            pyro.sample("y", labels.mask(y >= 0), obs=y)  # -1: no label

    y = torch.tensor([1, 0, -1, 1, 1, 0])
    evidence = log_evidence(labeled, X, y, method="importance", num_particles=1000)
    assert abs(evidence.value - 5 * math.log(0.5)) < 1


def test_a_support_that_moves_with_a_latent_refuses_no_datum():
    def uniform(x, y):
        top = pyro.sample("top", dist.LogNormal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Uniform(0.0, top), obs=y)

    check_model(uniform, (X, torch.full((6,), 100.0)), {})
    with pytest.raises(ValueError, match=r"in the support of their .*, got a datum outside .*'y'"):
        check_model(
            lambda x, y: pyro.sample("y", dist.Uniform(0.0, 1.0), obs=y), (X, torch.tensor(2.0)), {}
        )


def test_a_number_is_a_datum():
    def model():
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(mean, 1.0), obs=0.5)

    check_model(model, (), {})


def test_data_that_a_model_allows_are_not_refused():
    """Shares of gray as the data of a Bernoulli, as autoencoders have them."""

    def gray(y):
        logit = pyro.sample("logit", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Bernoulli(logits=logit, validate_args=False), obs=y)

    check_model(gray, (torch.rand(4),), {})


def test_errors_of_this_package_are_told_as_they_are():
    def nested(x, y):
        check_model(3, (), {})

    with pytest.raises(TypeError, match=r"^model must be callable, got int$"):
        check_data(nested, (X, Y), {})


# Guides.


def without(x, y):
    """Draws nothing."""


def further(x, y):
    guide(x, y)
    pyro.sample("other", dist.Normal(0.0, 1.0))


def narrow(x, y):
    pyro.sample("slope", dist.Uniform(0.0, 0.1))


GUIDES = {
    "lacks a site": (without, r"guide must draw every latent site, got no draw .*\['slope'\]"),
    "draws another": (further, r"guide must draw only the latent sites .*, got \['other'\] too"),
    "is too narrow": (
        narrow,
        r"guide must be able to draw every value of .slope. .*, got Interval",
    ),
    "needs others": (lambda x: None, r"guide must run on its arguments, .*, got TypeError"),
}


@pytest.mark.parametrize("name", GUIDES)
def test_guides_are_refused(name):
    pyro.set_rng_seed(0)
    wrong, message = GUIDES[name]
    for run in (
        ImportanceSampling(line, wrong).run,
        partial(log_evidence, line, guide=wrong),
        partial(log_evidence, line, guide=wrong, method="importance"),
    ):
        with pytest.raises(ValueError, match=message):
            run(X, Y)


def test_a_guide_may_leave_out_what_has_no_density():
    """The likelihood is zero outside of the guide's support."""

    def model(x, y):
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        pyro.factor("inside", torch.where((slope > 0) & (slope < 0.1), 0.0, -math.inf))

    check_guide(narrow, model, check_model(model, (X, Y), {}))


# Options, states and results.


def another(x, y):
    """Of the same sites as the line, but steeper."""
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(2 * slope * x, 1.0), obs=y)


def vector(x, y):
    slope = pyro.sample("slope", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(slope.sum() * x, 1.0), obs=y)


def short_run():
    run = mcmc()
    with untrusted():
        run.run(X, Y)
    return run


def saved():
    return short_run().state


def resumed(*args, **options):
    run = mcmc(**options)
    run.resume(saved())
    run.run(*(args or (X, Y)))


def too_many_draws():
    with pytest.warns(UserWarning, match=r"the draws will take 1\d{7}\.0 GB of memory"):
        mcmc(num_samples=10**15, warmup_steps=0).run(X, Y)


def started(method, **options):
    getattr(short_run(), method)(**options)


OPTIONS = {
    "an unknown kernel": (
        lambda: log_evidence(line, X, Y, kernel="nuts"),
        TypeError,
        "kernel must be an EnsembleHMC, ULA, MALA or AutoMALA, got 'nuts'",
    ),
    "the kernel of another model": (
        lambda: log_evidence(line, X, Y, kernel=MALA(another)),
        ValueError,
        "kernel must be made from the model .*line.*, got one made from .*another",
    ),
    "a guide that is none": (
        lambda: log_evidence(line, X, Y, guide="g"),
        TypeError,
        "guide must be callable or None, got str",
    ),
    "keyword arguments that are none": (
        lambda: log_evidence(line, X, Y, model_kwargs=[1]),
        TypeError,
        "model_kwargs must be a mapping, got list",
    ),
    "a target that is none": (
        lambda: log_evidence(line, X, Y, target_se="a"),
        ValueError,
        "target_se must be a positive number or None, got 'a'",
    ),
    "more draws than memory": (
        lambda: log_evidence(line, X, Y, method="importance", num_particles=10**12),
        ValueError,
        r"num_particles must be at most \d+ for this machine's memory, got 1000000000000",
    ),
    "more steps than memory": (
        too_many_draws,
        MemoryError,
        "num_samples must be small enough to fit in memory, got 1000000000000000",
    ),
    "draws to keep of another site": (
        lambda: mcmc(save_params=["zz"]).run(X, Y),
        ValueError,
        r"save_params must be among the sites \['slope'\], got \['zz'\]",
    ),
    "a transform of another site": (
        lambda: mcmc(transforms={"zz": ExpTransform()}).run(X, Y),
        ValueError,
        r"transforms must be among the sites \['slope'\], got \['zz'\]",
    ),
    "initial lists": (
        lambda: mcmc(initial_params={"slope": [0.0, 0.0]}),
        TypeError,
        r"initial_params\['slope'\] must be a floating-point tensor, got list",
    ),
    "initial integers": (
        lambda: mcmc(initial_params={"slope": torch.zeros(2, dtype=torch.long)}),
        TypeError,
        r"initial_params\['slope'\] must be a floating-point tensor, got torch\.int64",
    ),
    "initial parameters for no chain": (
        lambda: mcmc(initial_params={"slope": torch.tensor(0.0)}, num_chains=3),
        ValueError,
        r"initial_params\['slope'\] must have a first dimension of 3, .*, got shape \(\)",
    ),
    "initial parameters that are none": (
        lambda: mcmc(initial_params=[0.0, 0.0]),
        TypeError,
        "initial_params must be a mapping, got list",
    ),
    "a mass above 1": (
        lambda: started("summary", prob=2.0),
        ValueError,
        r"prob must be a number between 0 and 1, got 2\.0",
    ),
    "samples before a run": (
        lambda: mcmc().get_samples(),
        RuntimeError,
        r"run\(\) must be called first: there are no draws yet",
    ),
    "an evidence before a run": (
        lambda: SMC(line, 64).log_evidence,
        RuntimeError,
        r"run\(\) must be called first: there are no results yet",
    ),
    "a summary before a run": (
        lambda: mcmc().summary(),
        RuntimeError,
        r"run\(\) must be called first: there are no draws yet",
    ),
    "diagnostics before a run": (
        lambda: mcmc().diagnostics(),
        RuntimeError,
        r"run\(\) must be called first: there are no draws yet",
    ),
    "an empty state": (
        lambda: mcmc().resume({}),
        ValueError,
        r"state must have the entries \['chains', .*, got \[\]",
    ),
    "the state of another kernel": (
        lambda: resumed(kernel=AutoMALA),
        ValueError,
        "state must come from the kernel AutoMALA, got one from MALA",
    ),
    "the state of a model with other sites": (
        lambda: resumed(model=vector),
        ValueError,
        r"state must come from a model with the sites .*\[3\].*, got .*\[\]",
    ),
    "the state of another model": (
        lambda: resumed(model=another),
        ValueError,
        "state must come from the same model and data, got a log density of",
    ),
    "the state of other data": (
        lambda: resumed(X, Y + 1),
        ValueError,
        "state must come from the same model and data, got a log density of",
    ),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_states_and_results_are_refused(name, capsys):
    call, error, message = OPTIONS[name]
    with pytest.raises(error, match=message):
        call()
    assert not capsys.readouterr().out  # no half of a summary


def by_matmul(x: Tensor, y: Tensor) -> None:
    b = pyro.sample("b", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(x.matmul(b), 1.0), obs=y)


def by_index(x: Tensor, y: Tensor) -> None:
    with pyro.plate("groups", 3):
        b = pyro.sample("b", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(b[x.argmax(-1)], 1.0), obs=y)


@pytest.mark.parametrize("model", [by_matmul, by_index])
def test_objectives_say_how_to_write_a_model_for_many_draws(
    model: Callable[[Tensor, Tensor], None],
) -> None:
    data = torch.randn(20, 3), torch.randn(20)
    for objective in (ImportanceMLE(num_particles=8), LangevinMLE(MALA(model), num_steps=2)):
        with pytest.raises(ValueError, match=r"X \* b\).sum\(-1\) for X.matmul.*b\[..., index\]"):
            objective.loss(model, None, *data)


def test_values_that_a_distribution_refuses_are_no_matter_of_shapes() -> None:
    def model(x: Tensor, y: Tensor) -> None:
        b = pyro.sample("b", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(0.0, b), obs=y)

    pyro.set_rng_seed(0)
    with pytest.raises(ValueError, match="to satisfy the constraint"):
        ImportanceMLE(num_particles=8).loss(model, None, torch.randn(20, 3), torch.randn(20))


def logistic(x, y):
    weights = pyro.sample("weights", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Bernoulli(logits=x @ weights), obs=y)


def test_doubles_beside_singles_and_tables_are_told_with_a_remedy():
    x, y = torch.randn(5, 2), torch.ones(5)
    for doubles in (x.double(), x.double().numpy()):
        with pytest.raises(ValueError, match=r"; x is float64: if the model computes in float32"):
            log_evidence(logistic, doubles, y)
    pandas = pytest.importorskip("pandas")
    with pytest.raises(ValueError, match=r"; pass torch.tensor\(x.to_numpy\(\), dtype=torch.fl"):
        log_evidence(logistic, pandas.DataFrame(x.numpy()), y)


def test_a_prior_that_is_not_called_is_told_with_a_remedy():
    prior = TiltedPrior(2)
    with pytest.raises(ValueError, match=r"; call the TiltedPrior for its distribution, as in pr"):
        log_evidence(lambda x: pyro.sample("z", prior), torch.zeros(2))


def test_draws_under_a_scaled_prior_have_no_evidence():
    def scaled():
        with poutine.scale(scale=5.0):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(0.5))

    smc = SMC(scaled, 64, disable_progbar=True)
    pyro.set_rng_seed(0)
    smc.run()
    # the prior to the fifth power has variance 1/5
    assert abs(smc.get_samples()["z"].var() - 1 / 6) < 0.06
    for evidence in (lambda: smc.log_evidence, lambda: log_evidence(scaled)):
        with pytest.raises(ValueError, match=r"model must have priors without scale, got .*'z'"):
            evidence()


def test_smc_takes_arrays_as_others_do():
    smc = SMC(line, 64, disable_progbar=True)
    pyro.set_rng_seed(0)
    smc.run(X.numpy(), Y.numpy())
    covariance = torch.eye(6) + torch.outer(X, X)
    exact = dist.MultivariateNormal(torch.zeros(6), covariance).log_prob(Y)
    assert abs(smc.log_evidence.value - exact) < 5 * smc.log_evidence.standard_error


def walk(y):
    steps = pyro.sample("steps", dist.Normal(torch.zeros(4), 1.0).to_event(1))
    pyro.sample("y", dist.Normal(steps.cumsum(0), 1.0).to_event(1), obs=y)


def column(y):
    """A column of one, which a dimension of draws turns into a table, at weights near zero."""
    weight = pyro.sample("weight", dist.Normal(torch.zeros(1), 1e-3).to_event(1))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(torch.ones(len(y), 1) @ weight, 1.0), obs=y)


def below(y):
    """Its prior mixes up draws, its likelihood does not."""
    steps = pyro.sample("steps", dist.Normal(torch.zeros(4), 1.0).to_event(1))
    path = pyro.sample("path", dist.Normal(steps.cumsum(0), 1.0).to_event(1))
    pyro.sample("y", dist.Normal(path, 1.0).to_event(1), obs=y)


def guide_of(model):
    sizes = {walk: {"steps": 4}, below: {"steps": 4, "path": 4}, column: {"weight": 1}}

    def guide(y):
        for name, size in sizes[model].items():
            pyro.sample(name, dist.Normal(torch.zeros(size), 0.1).to_event(1))

    return guide


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (walk, r"several draws, .* alone, got .* nats; write \(X \* b"),
        (below, r"several draws, .* alone, got .* nats; write \(X \* b"),
        (column, r"density of shape \(.*\), which has more dimensions; write \(X \* b"),
    ],
    ids=["likelihood", "prior", "shape"],
)
@pytest.mark.parametrize(
    ("made", "takes_guide"),
    [
        (ImportanceMLE(30), False),
        (ImportanceWeightedELBO(), True),
        (WakeSleepMLE(5), True),
        (LangevinMLE(num_steps=2), False),
        (SteppingstoneMLE(num_steps=2), False),
    ],
    ids=lambda each: type(each).__name__,
)
def test_objectives_refuse_a_model_that_mixes_up_draws(model, told, made, takes_guide):
    """Its density is right with one draw, and another one with several: no error shows it."""
    y = torch.arange(4.0)
    guide = guide_of(model) if takes_guide else None
    for _ in range(2):  # the second call knows the model
        with pytest.raises(ValueError, match=told):
            made.loss(model, guide, y)


def test_evidence_of_a_model_that_mixes_up_draws_is_right():
    """Draws are made one by one, or under vmap; five standard errors."""
    y = torch.arange(4.0)
    exact = dist.MultivariateNormal(torch.zeros(4), torch.eye(4) + 1e-6).log_prob(y)
    pyro.set_rng_seed(0)
    found = log_evidence(column, y, method="importance", num_particles=2000)
    assert abs(found.value - exact) < 0.01
    tril = torch.ones(4, 4).tril()
    exact = dist.MultivariateNormal(torch.zeros(4), tril @ tril.T + torch.eye(4)).log_prob(y)
    found = log_evidence(walk, y, method="importance", num_particles=20_000)
    assert abs(found.value - exact) < 5 * found.standard_error


def two(x):
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    b = pyro.sample("b", dist.Normal(0.0, 1e-3))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(a + b, 1.0), obs=x)


def first(x):
    pyro.sample("a", dist.Normal(0.0, 1.0))


def three(x):
    for name in ("a", "b", "c"):
        pyro.sample(name, dist.Normal(0.0, 1.0))


@pytest.mark.parametrize(
    "made",
    [ImportanceMLE(30), ImportanceWeightedELBO(5), WakeSleepMLE(5), LangevinMLE(num_steps=2)],
    ids=lambda each: type(each).__name__,
)
def test_objectives_refuse_guides_that_draw_other_sites(made):
    with pytest.raises(ValueError, match=r"guide must draw every latent site, .*\['b'\]"):
        made.loss(two, first, X)
    with pytest.raises(ValueError, match=r"guide must draw only the latent .* got \['c'\] too"):
        made.loss(two, three, X)


def test_a_bound_method_is_one_model():
    class Holder:
        def model(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    holder = Holder()
    made = LangevinMLE(MALA, step_size=0.1, num_steps=2, persistent=True)
    for _ in range(3):
        made.loss_and_grads(holder.model, None, X)
    assert made.step == 3


def test_samplers_say_that_inference_mode_is_on():
    with (
        torch.inference_mode(),
        pytest.raises(RuntimeError, match=r"inference mode must be off, .*no_grad"),
    ):
        mcmc().run(X, Y)


def test_evidence_names_obs_mask():
    def missing(x, known):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x, obs_mask=known)

    with pytest.raises(
        ValueError, match=r"improper ones at \['x_unobserved'\].*; obs_mask= leaves"
    ):
        log_evidence(missing, X, X > 0)


def test_data_are_compared_with_their_distribution_beside_summed_out_values():
    check_data(clusters, (X, Y), {})
    with pytest.raises(ValueError, match=r"have .*\(6,\), got \(6, 1\) at site 'y': they would"):
        check_data(clusters, (X, Y[:, None]), {})
