"""Prior knowledge at the start of a run: from samples, a density, a formula or another run."""

import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributions import Distribution

from pyro_tkam.datasets import load_array
from pyro_tkam.nn import AutoregressivePrior
from pyro_tkam.train.config import ModelConfig, StartConfig, TrainConfig

_CALL = re.compile(r"(\w+)\(([^()]*)\)")


def parse_density(text: str) -> Distribution:
    """
    Return a torch distribution from its name and numbers; no other code is run.

    :param text: text such as ``"Normal(0.5, 0.2)"``.
    :raises ValueError: for any other text, and for numbers that the distribution refuses.

    >>> parse_density("Normal(0.5, 0.2)")
    Normal(loc: 0.5, scale: 0.20000000298023224)
    """
    call = _CALL.fullmatch(text.strip())
    kind: Any = getattr(torch.distributions, call[1], None) if call else None
    is_kind = isinstance(kind, type) and issubclass(kind, Distribution)
    if call is None or not is_kind or kind is Distribution:
        raise ValueError(
            "start.density must be a torch distribution with numeric arguments, such as "
            f"'Normal(0.5, 0.2)', got {text!r}"
        )
    try:
        numbers = [float(number) for number in call[2].split(",") if number.strip()]
        made: Distribution = kind(*numbers)
        made.log_prob(made.sample())
    except (ValueError, TypeError, AttributeError, NotImplementedError) as error:
        raise ValueError(f"start.density must be valid, got {text!r}: {error}") from error
    if made.batch_shape + made.event_shape:
        raise ValueError(f"start.density must be univariate, got {text!r}")
    return kind(*numbers, validate_args=False)  # its density is also evaluated outside its support


def start_prior(config: TrainConfig, model: nn.Module) -> None:
    """
    Initialize a new model's prior with prior knowledge.

    :param config: the run's configuration.
    :param model: the new model, changed in place.
    :raises ValueError: for a source that the prior cannot take, and whatever its ``fit`` raises.
    """
    for name, value in config.start.given.items():
        _STARTS[name](model.prior, value, config)


def _of_samples(prior: Any, path: str, config: TrainConfig) -> None:
    samples = load_array(path, "start.samples")
    if isinstance(prior, AutoregressivePrior):
        prior.fit(samples)
    else:
        _fit(prior, "samples", samples, config.start)


def _of_density(prior: Any, text: str, config: TrainConfig) -> None:
    _fit(prior, "density", parse_density(text), config.start)


def _of_formula(prior: Any, text: str, config: TrainConfig) -> None:
    _fit(prior, "formula", text, config.start)


def _fit(prior: Any, name: str, target: Any, start: StartConfig) -> None:
    if not hasattr(prior, "fit") or isinstance(prior, AutoregressivePrior):
        raise ValueError(
            f"start.{name} must be left out for the prior {type(prior).__name__}, which cannot "
            f"be fitted to it, got {getattr(start, name)!r}"
        )
    prior.fit(**{name: target}, ridge=start.ridge)


#: options of a model that do not affect its prior
_OTHERS = {
    "preset",
    "data_shape",
    "coupling",
    "grid_size",  # refined grids are copied, too
    "hidden_range",
    "edge_constraint",
    "edge_periods",
    "generator",
    "widths",
    "sequences",
    "modalities",
    "length",
    "alphabet",
    "width",
    "noise_scale",
    "learned_noise",
    "output",
    "standardized",
}


def _of_run(prior: nn.Module, folder: str, config: TrainConfig) -> None:
    """Copy the learned prior of another run with the same prior options."""
    from pyro_tkam.train.folder import RunFolder
    from pyro_tkam.train.run import load_model

    learned = load_model(folder).prior
    other = TrainConfig.load(RunFolder(Path(folder)).config).model
    for entry in fields(ModelConfig):
        own, theirs = (getattr(each, entry.name) for each in (config.model, other))
        if entry.name not in _OTHERS and own != theirs:
            raise ValueError(
                f"model.{entry.name} must be that of the prior in {folder}, {theirs!r}, got {own!r}"
            )
    if type(learned) is not type(prior):
        raise ValueError(
            f"start.run must be a run with a {type(prior).__name__}, got one with a "
            f"{type(learned).__name__} in {folder}"
        )
    prior.load_state_dict(learned.state_dict())


_STARTS: dict[str, Callable[[Any, str, TrainConfig], None]] = {
    "samples": _of_samples,
    "density": _of_density,
    "formula": _of_formula,
    "run": _of_run,
}
