"""Encoders of guides for data other than a single array of numbers."""

from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from pyro_tkam.models import AmortizedGuide
from pyro_tkam.train.config import ModelConfig

HIDDEN = 256


def make_guide(config: ModelConfig, model: nn.Module) -> AmortizedGuide:
    """
    Make the guide of a model, with an encoder that reads its data.

    :param config: the model's configuration.
    :param model: the model.
    """
    outputs = 2 * config.latent_dim
    if config.preset == "text":
        assert config.alphabet is not None  # recorded
        return AmortizedGuide(
            model, encoder=text_encoder(len(config.alphabet), config.length, outputs)
        )
    if config.preset == "multimodal":
        assert config.modalities is not None  # recorded
        return AmortizedGuide(model, encoder=ModalityEncoder(config.modalities, outputs))
    return AmortizedGuide(model)


def text_encoder(num_classes: int, length: int, outputs: int, features: int = 16) -> nn.Module:
    """Make a network from symbols, ``(batch, length)``, to ``(batch, outputs)``."""
    return nn.Sequential(
        nn.Embedding(num_classes, features), nn.Flatten(), *_hidden(features * length, outputs)
    )


class ModalityEncoder(nn.Module):
    """
    A network from named arrays, some of which may be missing, to ``(batch, outputs)``.

    Classes are encoded as one-hot vectors. Missing arrays are encoded as zeros, with an indicator.

    :param modalities: shape and number of classes of each, as a configuration records them.
    :param outputs: number of outputs.
    """

    def __init__(self, modalities: Mapping[str, Mapping[str, Any]], outputs: int) -> None:
        super().__init__()
        self.modalities = modalities
        sizes = [prod(each["shape"]) * (each["classes"] or 1) for each in modalities.values()]
        self.layers = nn.Sequential(*_hidden(sum(sizes) + len(sizes), outputs))

    def forward(
        self, x: Mapping[str, Tensor], observed: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """
        Encode data.

        :param x: arrays by name.
        :param observed: which rows have them, by name; names that are left out are present in all
            rows.
        """
        rows = len(next(iter(x.values())))
        parts = []
        for name, each in self.modalities.items():
            size = prod(each["shape"]) * (each["classes"] or 1)
            values = torch.zeros(rows, size)
            there = torch.zeros(rows, 1)
            if name in x:
                there = (observed or {}).get(name, torch.ones(rows, dtype=torch.bool))[:, None]
                values = x[name]
                if each["classes"]:
                    values = torch.where(there, values.reshape(rows, -1), 0)
                    values = nn.functional.one_hot(values, each["classes"])
                values = torch.where(there, values.reshape(rows, size), 0.0)
            parts += [values, there]
        return self.layers(torch.cat([part.to(torch.get_default_dtype()) for part in parts], -1))


def _hidden(inputs: int, outputs: int) -> list[nn.Module]:
    """Make layers whose output is near 0, so that training starts from a broad posterior."""
    last = nn.Linear(HIDDEN, outputs)
    with torch.no_grad():
        last.weight.mul_(0.1)
    return [nn.Linear(inputs, HIDDEN), nn.SiLU(), last]
