"""The models that a configuration can select, by name."""

from collections.abc import Callable
from dataclasses import fields
from inspect import signature

from pyro_tkam.models import TKAM
from pyro_tkam.train.config import ModelConfig

PRESETS: dict[str, Callable[..., TKAM]] = {
    "kart": TKAM.kart,
    "mixture": TKAM.mixture,
    "deep": TKAM.deep,
    "autoregressive": TKAM.autoregressive,
}


def make_model(config: ModelConfig) -> TKAM:
    """
    Make the model of a configuration.

    :param config: names the preset and holds its options; options of other presets keep their
        defaults.
    :raises ValueError: for an unknown preset, an option that the preset does not have, and options
        that it refuses.

    >>> make_model(ModelConfig(preset="mixture", data_shape=[6], latent_dim=4,
    ...     num_components=3)).generate(2).shape
    torch.Size([2, 6])
    """
    if config.preset not in PRESETS:
        raise ValueError(f"model.preset must be one of {sorted(PRESETS)}, got {config.preset!r}")
    make = PRESETS[config.preset]
    own = signature(make).parameters
    options = {
        entry.name: getattr(config, entry.name)
        for entry in fields(config)
        if entry.name != "preset"
    }
    defaults = {entry.name: entry.default for entry in fields(config)}
    foreign = [
        name for name, value in options.items() if name not in own and value != defaults[name]
    ]
    if foreign:
        raise ValueError(
            f"model.{foreign[0]} must be left out for preset {config.preset!r}, which has none, "
            f"got {options[foreign[0]]!r}"
        )
    return make(**{name: value for name, value in options.items() if name in own})
