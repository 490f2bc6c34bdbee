"""The models that a configuration can select, by name."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from inspect import signature
from typing import Any

from pyro.nn import PyroModule
from torch import nn

from pyro_tkam.models import (
    TKAM,
    CategoricalLikelihood,
    GaussianLikelihood,
    Heads,
    LabeledPrior,
    LabeledTKAM,
    LatentGenerator,
    Likelihood,
    MixturePrior,
    MultimodalTKAM,
    NetworkOptions,
    Seq2SeqTKAM,
    SequenceLikelihood,
    TiltedPrior,
)
from pyro_tkam.models.network import reference_moments
from pyro_tkam.nn import KAN, SequenceGenerator
from pyro_tkam.train.config import ModelConfig


def _seq2seq(
    sequences: Sequence[int], latent_dim: int, blocks: int | None, width: int
) -> Seq2SeqTKAM:
    """Make a model of two sequences with the sizes that a run records."""
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


def _labeled(
    data_shape: Sequence[int],
    num_labels: int,
    latent_dim: int,
    reference: str,
    basis: str,
    grid_size: int,
    widths: Sequence[int] | None,
    noise_scale: float,
    output: str,
    **options: Any,
) -> LabeledTKAM:
    """Make a model of data with class labels: tilted densities for each class, and a generator."""
    more = NetworkOptions(**options)
    functions: dict[str, Any] = {"basis": basis, "grid_size": grid_size}
    prior = LabeledPrior(num_labels, latent_dim, reference, **functions, **more.energies())
    network = more.network(
        latent_dim, data_shape, widths=widths, output=output, layer_norm=True, **functions
    )
    generator = _standardizing(network, tuple(data_shape), reference)
    return LabeledTKAM(prior, generator, more.likelihood(noise_scale, data_shape))


def _multimodal(
    modalities: Mapping[str, Mapping[str, Any]],
    latent_dim: int,
    num_components: int,
    reference: str,
    basis: str,
    grid_size: int,
    degree: int,
    trainable_width: bool,
    widths: Sequence[int] | None,
    noise_scale: float,
    learned_noise: bool,
    output: str,
) -> MultimodalTKAM:
    """
    Make a model of several arrays: a mixture prior, shared features, and a layer for each array.
    """
    functions: dict[str, Any] = {
        "basis": basis,
        "grid_size": grid_size,
        "degree": degree,
        "trainable_width": trainable_width,
    }
    prior = MixturePrior(TiltedPrior((latent_dim, num_components), reference, **functions))
    shared = [latent_dim, *([2 * latent_dim] if widths is None else widths)]
    features = shared[-1]
    edges = {"bias": False, "extrapolation": "zero", **functions}
    trunk = _standardizing(KAN(shared, layer_norm=True, **edges), (features,), reference)
    heads: dict[str, nn.Module] = {}
    likelihoods: dict[str, Likelihood] = {}
    for name, each in modalities.items():
        shape = tuple(each["shape"])
        classes = each["classes"]
        outputs = (*shape, classes) if classes else shape
        network = KAN([features, math.prod(outputs)], output="none" if classes else output, **edges)
        heads[name] = LatentGenerator(network, outputs, mean=0.0, spread=1.0)
        likelihoods[name] = (
            CategoricalLikelihood(len(shape))
            if classes
            else GaussianLikelihood(noise_scale, len(shape), learned=learned_noise)
        )
    normalized = PyroModule[nn.Sequential](trunk, PyroModule[nn.LayerNorm](features))
    return MultimodalTKAM(prior, Heads(heads, normalized), likelihoods)


def _text(
    alphabet: str,
    length: int,
    latent_dim: int,
    num_components: int,
    reference: str,
    basis: str,
    grid_size: int,
    degree: int,
    trainable_width: bool,
    width: int,
) -> TKAM:
    """Make a model of windows of a text: a mixture prior, and a decoder that attends to latents."""
    prior = MixturePrior(
        TiltedPrior(
            (latent_dim, num_components),
            reference,
            basis=basis,
            grid_size=grid_size,
            degree=degree,
            trainable_width=trainable_width,
        )
    )
    decoder = SequenceGenerator(latent_dim, len(alphabet), length, width=width)
    return TKAM(prior, nn.Identity(), SequenceLikelihood(decoder))


def _standardizing(network: nn.Module, shape: tuple[int, ...], reference: str) -> LatentGenerator:
    """
    Let a network read latents that are standardized to mean 0 and variance 1 under the reference.
    """
    mean, variance = reference_moments(reference)
    return LatentGenerator(network, shape, mean=mean, spread=math.sqrt(variance))


PRESETS: dict[str, Callable[..., TKAM | Seq2SeqTKAM | LabeledTKAM | MultimodalTKAM]] = {
    "kart": TKAM.kart,
    "mixture": TKAM.mixture,
    "deep": TKAM.deep,
    "autoregressive": TKAM.autoregressive,
    "seq2seq": _seq2seq,
    "labeled": _labeled,
    "multimodal": _multimodal,
    "text": _text,
}


def options_of(make: Callable[..., Any]) -> set[str]:
    """
    Return the names of the options that a preset takes.

    :param make: the function that makes the model; its ``options`` are the network options.
    """
    names = set(signature(make).parameters)
    if "options" in names:
        names = names - {"options"} | {entry.name for entry in fields(NetworkOptions)}
    return names


def make_model(config: ModelConfig) -> Any:
    """
    Make the model of a configuration.

    :param config: the preset's name and options; options of other presets must keep their defaults.
    :raises ValueError: for an unknown preset, an option that the preset does not have, and options
        that it refuses.

    >>> make_model(ModelConfig(preset="mixture", data_shape=[6], latent_dim=4,
    ...     num_components=3)).generate(2).shape
    torch.Size([2, 6])
    """
    if config.preset not in PRESETS:
        raise ValueError(f"model.preset must be one of {sorted(PRESETS)}, got {config.preset!r}")
    make = PRESETS[config.preset]
    own = options_of(make)
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
