"""The data of a run: training and held-out rows, and what the model needs to know about them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from pyro_tkam.datasets import DATASETS, RowsOf, load_arrays, load_rows, split, text
from pyro_tkam.train.config import ModelConfig, TrainConfig
from pyro_tkam.train.pairs import load_pair_split, sizes


@dataclass(frozen=True)
class RunData:
    """
    The data of a run.

    :param rows: training rows; sources and targets; rows and labels; or arrays by name and which
        rows have them.
    :param held_out: the held-out rows, in the same form; ``Pairs`` for sources and targets.
    :param model: the model's configuration, which records the sizes of the data.
    """

    rows: Any
    held_out: Any
    model: ModelConfig


def load_data(config: TrainConfig) -> RunData:
    """
    Load the data of a run and record their sizes in the model's configuration.

    :param config: the run's configuration.
    :raises ValueError: for data whose shape differs from the configuration, or which the model
        cannot generate.
    """
    return _LOADERS.get(config.model.preset, _load_rows)(config)


def _load_rows(config: TrainConfig) -> RunData:
    rows, held_out = load_split(config)
    return RunData(rows, held_out, replace(config.model, data_shape=list(rows.shape[1:])))


def _load_pairs(config: TrainConfig) -> RunData:
    pairs, apart = load_pair_split(config)
    model = replace(config.model, sequences=sizes(pairs))
    return RunData((pairs.source, pairs.target), apart, model)


def _load_text(config: TrainConfig) -> RunData:
    if not config.data.endswith(".txt"):
        raise ValueError(f"data must be a .txt file for the preset 'text', got {config.data!r}")
    content = text(config.data, alphabet=config.model.alphabet)
    windows = content.windows(config.model.length)
    train, apart = split(len(windows), config.held_out, seed=config.seed)
    model = replace(config.model, alphabet=content.alphabet)
    return RunData(windows[train], windows[apart], model)


def _load_labeled(config: TrainConfig) -> RunData:
    if config.data in DATASETS:
        x, label = DATASETS[config.data]()
    else:
        arrays = load_arrays(config.data)
        if set(arrays) != {"x", "label"}:
            raise ValueError(f"data must hold 'x' and 'label', got {sorted(arrays)}")
        x = arrays["x"]
        label = arrays["label"]
    if label.dim() != 1 or label.dtype != torch.int64 or not x.is_floating_point() or x.dim() < 2:
        raise ValueError(
            "data must be numbers x of shape (num, ...) and integers label of shape (num,), got "
            f"{x.dtype} of shape {tuple(x.shape)} and {label.dtype} of shape {tuple(label.shape)}"
        )
    check_output(x, config.model)
    model = _recorded(config, data_shape=list(x.shape[1:]), num_labels=int(label.max()) + 1)
    train, apart = split(len(x), config.held_out, seed=config.seed)
    return RunData((x[train], label[train]), (x[apart], label[apart]), model)


def _load_modalities(config: TrainConfig) -> RunData:
    arrays = load_arrays(config.data)
    masks = {name: value for name, value in arrays.items() if value.dtype == torch.bool}
    data = {name: value for name, value in arrays.items() if name not in masks}
    for name, mask in masks.items():
        if name.removesuffix(OBSERVED) not in data or mask.dim() != 1:
            raise ValueError(
                f"data must have Booleans only as masks of shape (num,) named NAME{OBSERVED}, "
                f"got {name!r} of shape {tuple(mask.shape)}"
            )
    for name, value in data.items():
        if not name.isidentifier() or name in _RESERVED:
            raise ValueError(
                f"data must have arrays whose names are valid site names, got {name!r}"
            )
        if value.dtype == torch.int64 and int(value.min()) < 0:
            raise ValueError(
                f"data must have classes from 0, and Booleans {name}{OBSERVED} where they are "
                f"missing, got {int(value.min())} in {name!r}"
            )
    observed = {name.removesuffix(OBSERVED): mask for name, mask in masks.items()}
    for value in data.values():
        if value.is_floating_point():
            check_output(value, config.model)
    modalities = {
        name: {
            "shape": list(value.shape[1:]),
            "classes": 0 if value.is_floating_point() else int(value.max()) + 1,
        }
        for name, value in data.items()
    }
    rows = RowsOf((data, observed))
    train, apart = split(len(rows), config.held_out, seed=config.seed)
    return RunData(rows[train], rows[apart], _recorded(config, modalities=modalities))


_RESERVED = {"z", "u", "data", *dir(nn.ModuleDict)}
"""Names that sites, plates and modules of a multimodal model already use."""
OBSERVED = "_observed"
"""Suffix of the names of Boolean arrays that say which rows have a modality."""


def _recorded(config: TrainConfig, **sizes: Any) -> ModelConfig:
    """Return the model's configuration with the sizes of the data; refuse one with other sizes."""
    for name, value in sizes.items():
        own = getattr(config.model, name)
        if own not in (None, value):
            raise ValueError(f"model.{name} must be that of the data, {value}, got {own}")
    return replace(config.model, **sizes)


_LOADERS: dict[str, Callable[[TrainConfig], RunData]] = {
    "seq2seq": _load_pairs,
    "text": _load_text,
    "labeled": _load_labeled,
    "multimodal": _load_modalities,
}


RECORDED = {
    "seq2seq": "sequences",
    "text": "alphabet",
    "labeled": "num_labels",
    "multimodal": "modalities",
}
"""The option in which training records the size of the data, if it is not ``data_shape``."""


def load_split(config: TrainConfig) -> tuple[Tensor, Tensor]:
    """
    Load the rows of a run.

    :param config: the run's configuration.
    :return: training rows and held-out rows.
    :raises ValueError: for data whose shape differs from the configuration, and data outside
        [0, 1] for a generator that ends in a sigmoid.
    """
    rows = load_rows(config.data)
    if config.model.data_shape not in (None, list(rows.shape[1:])):
        raise ValueError(
            f"model.data_shape must be that of the data, {list(rows.shape[1:])}, got "
            f"{config.model.data_shape}"
        )
    check_output(rows, config.model)
    train_rows, held_out = split(len(rows), config.held_out, seed=config.seed)
    return rows[train_rows], rows[held_out]


def check_output(rows: Tensor, model: ModelConfig) -> None:
    """
    Refuse data that a generator ending in a sigmoid cannot reach.

    :param rows: all data.
    :param model: the model's configuration.
    """
    low = float(rows.min())
    high = float(rows.max())
    if model.output == "sigmoid" and (low < 0 or high > 1):
        raise ValueError(
            f"model.output must be 'none' for data outside [0, 1], got 'sigmoid' for data from "
            f"{low:.4g} to {high:.4g}; with model.standardized the generator works in "
            "standardized units of the data"
        )
