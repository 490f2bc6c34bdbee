"""The objectives by name: what a run maximises, and the guide that it needs, if any."""

from collections.abc import Callable
from functools import partial
from typing import Any

from pyro.infer import ELBO
from torch import nn

from pyro_tkam.infer import ULA, AutoMALA, ImportanceMLE, LangevinMLE, SteppingstoneMLE
from pyro_tkam.ops.schedules import cyclic_exponent
from pyro_tkam.train.config import TrainConfig

Objective = Callable[[TrainConfig, nn.Module], tuple[ELBO, nn.Module | None]]
"""From a configuration and its model to an objective and a guide, or None."""


def _importance(config: TrainConfig, model: nn.Module) -> tuple[ELBO, nn.Module | None]:
    return ImportanceMLE(config.num_particles), None


def _langevin(config: TrainConfig, model: nn.Module) -> tuple[ELBO, nn.Module | None]:
    return LangevinMLE(ULA, **_lengths(config), step_size=config.chains.step_size), None


def _automala(config: TrainConfig, model: nn.Module) -> tuple[ELBO, nn.Module | None]:
    names = ("step_size", "min_step_size", "max_step_size", "num_unadjusted")
    return LangevinMLE(AutoMALA, **_lengths(config), **{name: getattr(config.chains, name) for name in names}), None


def _tempered(estimator: str, config: TrainConfig, model: nn.Module) -> tuple[ELBO, nn.Module | None]:
    chains = config.chains
    exponent = partial(
        cyclic_exponent,
        total=config.updates,
        start=chains.first_exponent,
        end=chains.last_exponent,
        cycles=chains.cycles,
    )
    elbo = SteppingstoneMLE(
        ULA,
        estimator=estimator,
        num_temperatures=chains.num_temperatures,
        exponent=exponent,
        **_lengths(config),
        step_size=chains.step_size,
    )
    return elbo, None


def _lengths(config: TrainConfig) -> dict[str, Any]:
    return {"num_steps": config.chains.num_steps, "num_chains": config.chains.num_chains}


OBJECTIVES: dict[str, Objective] = {
    "importance": _importance,
    "langevin": _langevin,
    "automala": _automala,
    "steppingstone": partial(_tempered, "steppingstone"),
    "thermodynamic": partial(_tempered, "thermodynamic"),
}


def make_objective(config: TrainConfig, model: nn.Module) -> tuple[ELBO, nn.Module | None]:
    """
    Make the objective of a run.

    :param config: names it and holds its options.
    :param model: the model, for which a guide may be made.
    :return: the objective and its guide, or None where it needs none.
    :raises ValueError: for an unknown name and options that it refuses.
    """
    if config.objective not in OBJECTIVES:
        raise ValueError(f"objective: got {config.objective!r}, takes one of {sorted(OBJECTIVES)}")
    return OBJECTIVES[config.objective](config, model)
