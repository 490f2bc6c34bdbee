"""The data of a run: training and held-out rows, and what the model has to know of them."""

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from pyro_tkam.datasets import Pairs, load_rows, split
from pyro_tkam.train.config import ModelConfig, TrainConfig
from pyro_tkam.train.pairs import load_pair_split, sizes


@dataclass(frozen=True)
class RunData:
    """
    The data of a run.

    :param rows: training rows, or sources and targets.
    :param held_out: held-out rows, or pairs.
    :param model: the model's configuration, which records the sizes of the data.
    """

    rows: Any
    held_out: Tensor | Pairs
    model: ModelConfig


def load_data(config: TrainConfig) -> RunData:
    """
    Load the data of a run and record their sizes in the model's configuration.

    :param config: the run's configuration.
    :raises ValueError: for data whose shape differs from the configuration, or which the model
        cannot generate.
    """
    if config.model.preset == "seq2seq":
        pairs, apart = load_pair_split(config)
        model = replace(config.model, sequences=sizes(pairs))
        return RunData((pairs.source, pairs.target), apart, model)
    rows, held_out = load_split(config)
    return RunData(rows, held_out, replace(config.model, data_shape=list(rows.shape[1:])))


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
