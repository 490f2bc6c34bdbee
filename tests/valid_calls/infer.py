"""One small valid call of everything public in infer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide.initialization import init_to_median
from torch.distributions.transforms import identity_transform

from pyro_tkam.infer import (
    MALA,
    SMC,
    ULA,
    AutoMALA,
    EnsembleHMC,
    Evidence,
    ImportanceMLE,
    ImportanceSampling,
    ImportanceWeightedELBO,
    LangevinMLE,
    ModelDensity,
    ParallelTempering,
    RandomWalk,
    SteppingstoneMLE,
    VectorizedMCMC,
    Verdict,
    WakeSleepMLE,
    bridge_evidence,
    compare,
    fitted_guide,
    log_evidence,
    log_evidences,
    map_seeded,
)
from tests.valid_calls.call import Call, calls_of

#: Made by the package, and what has no arguments.
RECORDS = (
    "DataSeen",
    "Evidence",
    "Finding",
    "ImportanceStatistics",
    "InverseTransformReparam",
    "LangevinKernel",
    "LogBayesFactor",
    "Verdict",
    "WeightedDraws",
)
X = torch.linspace(-1.0, 1.0, 4)


def noisy(x):
    """Every datum with a latent of its own."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def shifted(x):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def guide(x):
    pyro.sample("z", dist.Normal(0.0, 1.0))


START = {"z": torch.tensor(0.0)}
STARTS = {"z": torch.zeros(2)}


def moved(kernel: type) -> Callable[..., Any]:
    """Return what makes a kernel and two of its steps."""

    def run(**options: Any) -> None:
        chains = VectorizedMCMC(kernel(**options), 1, 1, num_chains=2, disable_progbar=True)
        chains.run(X)

    return run


def of_kernel(kernel: type, *, expensive: bool = False, **options: Any) -> Call:
    shared = {
        "model": noisy,
        "potential_fn": None,
        "step_size": 0.1,
        "transforms": {"z": identity_transform},
        "max_plate_nesting": 1,
        "init_strategy": init_to_median,
        "batch_plates": ("data",),
        "num_unadjusted": 1,
        "trace_graph": False,
    }
    late = ("max_plate_nesting", "batch_plates")
    return Call(moved(kernel), shared | options, late=late, expensive=expensive)


def scored(objective: type, guide: Any, **options: Any) -> Call:
    """Return a call that makes an objective and its loss."""
    return Call(lambda **given: objective(**given).loss(shifted, guide, X), options)


def run_of(sampler: type, *args: Any) -> Callable[..., Any]:
    """Return what makes a sampler and runs it."""
    return lambda **options: sampler(**options).run(*args)


def kernels() -> dict[str, Call]:
    return {
        "ULA": of_kernel(ULA),
        "MALA": of_kernel(
            MALA, target_accept_prob=0.6, adapt_step_size=True, adapt_mass_matrix=True
        ),
        "AutoMALA": of_kernel(
            AutoMALA, expensive=True, min_step_size=1e-8, max_step_size=1e8, standardize=True
        ),
        "EnsembleHMC": of_kernel(
            EnsembleHMC,
            expensive=True,
            trajectory_length=1.5,
            max_steps=8,
            target_accept_prob=0.8,
        ),
    }


def samplers() -> dict[str, Call]:
    common = {"disable_progbar": True, "checkpoint": None, "checkpoint_every": 1}
    chains = VectorizedMCMC(MALA(shifted), 4, 4, STARTS, 2, disable_progbar=True)
    chains.run(X)
    tempering = ParallelTempering(
        MALA(shifted), num_temperatures=2, num_samples=16, warmup_steps=4, disable_progbar=True
    )
    ladder = tempering.run(X)
    drawn = {"num_samples": 3, "group_by_chain": False}
    return {
        "VectorizedMCMC": Call(
            run_of(VectorizedMCMC, X),
            {
                "kernel": MALA(shifted),
                "num_samples": 2,
                "warmup_steps": 2,
                "initial_params": STARTS,
                "num_chains": 2,
                "hook_fn": lambda *_: None,
                "transforms": {"z": identity_transform},
                "save_params": ["z"],
                "thin": 1,
                **common,
            },
            expensive=True,
        ),
        **calls_of(
            chains, get_samples=drawn, summary={"prob": 0.9}, resume={"state": chains.state}
        ),
        "ParallelTempering": Call(
            run_of(ParallelTempering, X),
            {
                "kernel": MALA(shifted),
                "num_temperatures": 2,
                "schedule": torch.tensor([0.0, 1.0]),
                "num_samples": 2,
                "warmup_steps": 2,
                "num_chains": 2,
                "swap_every": 1,
                "standard_normal": True,
                "keep_all": False,
                "max_evaluations": 1000,
                **common,
            },
            also=("state",),
            expensive=True,
        ),
        **calls_of(
            tempering, get_samples=drawn, summary={"prob": 0.9}, log_evidence={"method": "bar"}
        ),
        "PowerPosteriors.log_evidence": Call(ladder.log_evidence, {"method": "bar"}),
        "SMC": Call(
            run_of(SMC, X),
            {
                "model": shifted,
                "num_particles": 64,
                "ess_threshold": 0.5,
                "kernel": RandomWalk(1),
                "num_runs": 4,
                "executor": None,
                **common,
            },
            expensive=True,
        ),
        "RandomWalk": Call(
            RandomWalk, {"num_steps": 1, "step_size": 2.0, "target_accept_prob": 0.25}
        ),
        "ModelDensity": Call(
            ModelDensity,
            {
                "model": noisy,
                "args": (X,),
                "kwargs": {},
                "transforms": {"z": identity_transform},
                "init_strategy": init_to_median,
                "max_plate_nesting": 1,
                "batch_plates": ("data",),
                "standard_normal": False,
                "vectorization": "plate",
                "trace_graph": False,
            },
            also=("model",),
            late=("max_plate_nesting", "batch_plates"),
        ),
    }


def evidences() -> dict[str, Call]:
    def of(method: str, **options: Any) -> Call:
        shared = {"model": shifted, "model_kwargs": {}, "kernel": None, "method": method}
        return Call(
            lambda **given: log_evidence(given.pop("model"), X, **given),
            shared | options,
            expensive=method != "importance",
        )

    draws = {"z": torch.randn(2, 50)}
    mover = MALA(shifted)
    return {
        "VectorizedMCMC.run": Call(
            lambda x: VectorizedMCMC(mover, 1, 1, START, disable_progbar=True).run(x),
            {"x": X},
            also=("model", "initial_params"),
            expensive=True,
        ),
        "log_evidence.data": Call(
            lambda x: log_evidence(shifted, x, method="importance", num_particles=30),
            {"x": X},
            also=("model",),
            late=("x",),
        ),
        "ImportanceMLE.loss": Call(
            lambda x: ImportanceMLE(3).loss(shifted, guide, x),
            {"x": X},
            also=("model",),
            late=("x",),
        ),
        "log_evidence": of("importance", num_particles=30, guide=guide, resampler="residual"),
        "log_evidence.ais": of("ais", num_particles=25, steps_between=1, warmup_steps=1),
        "log_evidence.bar": of(
            "bar", num_temperatures=2, num_samples=8, num_chains=2, warmup_steps=2
        ),
        "log_evidences": Call(
            log_evidences,
            {
                "model": lambda x: shifted(x[None]),
                "many": X[:2],
                "executor": None,
                "method": "importance",
                "num_particles": 30,
            },
            also=("model",),
            late=("model", "many", "num_particles"),
        ),
        "bridge_evidence": Call(
            lambda **given: bridge_evidence(given.pop("model"), X, **given),
            {"model": shifted, "draws": draws, "model_kwargs": {}, "num_proposals": 100},
            expensive=True,
        ),
        "bridge_evidence.draws": Call(
            lambda z: bridge_evidence(shifted, X, draws={"z": z}),
            draws,
            also=("draws",),
            late=("z",),
        ),
        "fitted_guide": Call(
            lambda **given: fitted_guide(given.pop("model"), X, **given),
            {"model": shifted, "draws": draws, "model_kwargs": {}},
        ),
        "ImportanceSampling": Call(
            run_of(ImportanceSampling, X),
            {
                "model": shifted,
                "guide": guide,
                "num_particles": 30,
                "resampler": "residual",
                "ess_threshold": 0.5,
                "target_se": 1.0,
                "max_particles": 100,
                "joint": False,
            },
        ),
        "compare": Call(
            compare,
            {
                "evidences": {
                    name: Evidence(value, 0.1, "bridge", Verdict())
                    for name, value in (("a", -1.0), ("b", -2.0))
                },
                "prior_probabilities": {"a": 0.5, "b": 0.5},
            },
        ),
        "map_seeded": Call(map_seeded, {"function": str, "items": [1, 2], "executor": None}),
    }


def objectives() -> dict[str, Call]:
    weights = {
        "num_particles": 3,
        "resampler": "residual",
        "ess_threshold": 0.5,
        "log_prior_gradient": "quadrature",
    }
    chains = {
        "kernel": ULA,
        "num_steps": 2,
        "num_chains": 2,
        "log_prior_gradient": "contrastive",
        "persistent": False,
        "step_size": 0.1,
    }
    return {
        "ImportanceMLE": scored(ImportanceMLE, guide, **weights),
        "WakeSleepMLE": scored(WakeSleepMLE, guide, **weights),
        "ImportanceWeightedELBO": scored(ImportanceWeightedELBO, guide, num_particles=3),
        "LangevinMLE": scored(LangevinMLE, None, guide_objective="elbo", **chains),
        "SteppingstoneMLE": scored(
            SteppingstoneMLE,
            None,
            estimator="steppingstone",
            num_temperatures=2,
            exponent=2.0,
            swap_every=1,
            gradient="last",
            **chains,
        ),
    }


def calls() -> dict[str, Call]:
    torch.manual_seed(0)
    return kernels() | samplers() | evidences() | objectives()
