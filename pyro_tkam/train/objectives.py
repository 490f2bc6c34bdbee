"""The objectives by name: what a run maximizes, and a guide for objectives that need one."""

from collections.abc import Callable
from functools import partial
from typing import Any

from pyro.infer import ELBO
from torch import nn

from pyro_tkam.infer import (
    MALA,
    ULA,
    AutoMALA,
    ImportanceMLE,
    ImportanceWeightedELBO,
    LangevinMLE,
    SteppingstoneMLE,
    WakeSleepMLE,
)
from pyro_tkam.infer.mcmc.kernels import LangevinKernel
from pyro_tkam.models import PairELBO, PairGuide, Seq2SeqTKAM
from pyro_tkam.ops.schedules import cyclic_exponent
from pyro_tkam.train.config import TrainConfig
from pyro_tkam.train.encoders import make_guide

Objective = Callable[[TrainConfig, nn.Module], tuple[ELBO, nn.Module | None]]
"""Function from a configuration and its model to an objective and a guide or None."""


def _importance(config: TrainConfig, model: nn.Module) -> tuple[ELBO, nn.Module | None]:
    return ImportanceMLE(config.num_particles), None


def _amortized(
    make: Callable[[int], ELBO], config: TrainConfig, model: nn.Module
) -> tuple[ELBO, nn.Module | None]:
    return make(config.num_particles), make_guide(config.model, model)


def _langevin(
    kernel: str | None, config: TrainConfig, model: nn.Module
) -> tuple[ELBO, nn.Module | None]:
    return LangevinMLE(**_chains(kernel or config.chains.kernel, config)), None


def _refined(config: TrainConfig, model: nn.Module) -> tuple[ELBO, nn.Module | None]:
    options = _chains(config.chains.kernel, config) | {
        "guide_objective": config.chains.guide_objective
    }
    return LangevinMLE(**options), make_guide(config.model, model)


def _tempered(
    estimator: str, config: TrainConfig, model: nn.Module
) -> tuple[ELBO, nn.Module | None]:
    chains = config.chains
    exponent = partial(
        cyclic_exponent,
        total=config.updates,
        start=chains.first_exponent,
        end=chains.last_exponent,
        cycles=chains.cycles,
    )
    options: dict[str, Any] = {
        "estimator": estimator,
        "num_temperatures": chains.num_temperatures,
        "exponent": exponent,
    }
    return SteppingstoneMLE(**_chains(chains.kernel, config), **options), None


def _pair(config: TrainConfig, model: nn.Module) -> tuple[ELBO, nn.Module | None]:
    assert isinstance(model, Seq2SeqTKAM)  # checked by the configuration
    return PairELBO(config.pair.free_nats, config.pair.unknown_share), PairGuide(model)


def _chains(kernel: str, config: TrainConfig) -> dict[str, Any]:
    """
    Return the named kernel with its options, and the numbers of steps and chains.
    """
    if kernel not in KERNELS:
        raise ValueError(f"chains.kernel must be one of {sorted(KERNELS)}, got {kernel!r}")
    made, own = KERNELS[kernel]
    names = ("num_steps", "num_chains", "step_size", *own)
    return {"kernel": made} | {name: getattr(config.chains, name) for name in names}


KERNELS: dict[str, tuple[type[LangevinKernel], tuple[str, ...]]] = {
    "ula": (ULA, ()),
    "mala": (MALA, ()),
    "automala": (AutoMALA, ("min_step_size", "max_step_size", "num_unadjusted")),
}
"""Kernels of the chains, and their options in addition to the step size."""

OBJECTIVES: dict[str, Objective] = {
    "importance": _importance,
    "amortized": partial(_amortized, lambda _: ImportanceWeightedELBO(1)),
    "iwae": partial(_amortized, ImportanceWeightedELBO),
    "wake": partial(_amortized, ImportanceMLE),
    "wake-sleep": partial(_amortized, WakeSleepMLE),
    "refined": _refined,
    "pair": _pair,
    "langevin": partial(_langevin, None),
    "automala": partial(_langevin, "automala"),
    "steppingstone": partial(_tempered, "steppingstone"),
    "thermodynamic": partial(_tempered, "thermodynamic"),
}


def make_objective(config: TrainConfig, model: nn.Module) -> tuple[ELBO, nn.Module | None]:
    """
    Make the objective of a run.

    :param config: the run's configuration, with the objective's name and options.
    :param model: the model, for which a guide is made if the objective needs one.
    :return: the objective and its guide, or None if it needs no guide.
    :raises ValueError: for an unknown name and options that the objective refuses.
    """
    if config.objective not in OBJECTIVES:
        raise ValueError(f"objective must be one of {sorted(OBJECTIVES)}, got {config.objective!r}")
    return OBJECTIVES[config.objective](config, model)
