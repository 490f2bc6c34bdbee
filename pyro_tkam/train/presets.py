"""The models that a configuration can select, by name."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from inspect import signature
from typing import Any

from pyro_tkam.models import TKAM, NetworkOptions, Seq2SeqTKAM
from pyro_tkam.train.config import ModelConfig


def _seq2seq(
    sequences: Sequence[int], latent_dim: int, blocks: int | None, width: int
) -> Seq2SeqTKAM:
    """Make a model of two sequences from the sizes that a run records."""
    num_source, max_source, num_target, max_target = sequences
    return TKAM.seq2seq(
        num_source,
        num_target,
        max_source=max_source,
        max_target=max_target,
        latent_dim=latent_dim,
        blocks=blocks,
        width=width,
    )


PRESETS: dict[str, Callable[..., TKAM | Seq2SeqTKAM]] = {
    "kart": TKAM.kart,
    "mixture": TKAM.mixture,
    "deep": TKAM.deep,
    "autoregressive": TKAM.autoregressive,
    "seq2seq": _seq2seq,
}


def make_model(config: ModelConfig) -> Any:
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
    own = set(signature(make).parameters)
    if "options" in own:  # of networks
        own |= {entry.name for entry in fields(NetworkOptions)}
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
