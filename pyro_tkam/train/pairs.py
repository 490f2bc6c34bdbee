"""Runs on pairs of sequences: their measurements and the texts that they generate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_tkam._files import write_text
from pyro_tkam.datasets import Pairs, load_pairs
from pyro_tkam.models import PairELBO, PairGuide, Seq2SeqTKAM
from pyro_tkam.nn import ended_log_prob
from pyro_tkam.train.config import TrainConfig
from pyro_tkam.train.held_out import HeldOutEvidence, held_out_evidence

SHOWN = 12
"""Number of sources whose targets a run folder shows."""
MEASURED = 1000
"""Number of held-out pairs that are measured; the first ones."""


def load_pair_split(config: TrainConfig) -> tuple[Pairs, Pairs]:
    """
    Load the pairs of a run, split by source.

    :param config: the run's configuration.
    :return: training pairs and held-out pairs.
    :raises ValueError: for data whose sizes differ from the configuration.
    """
    pairs = load_pairs(config.data)
    if config.model.sequences not in (None, sizes(pairs)):
        raise ValueError(
            f"model.sequences must be the sizes of the data, {sizes(pairs)}, got "
            f"{config.model.sequences}"
        )
    return pairs.split(config.held_out, seed=config.seed)


def sizes(pairs: Pairs) -> list[int]:
    """
    Return the sizes of the alphabets and the largest lengths, in the form of a model's
    configuration.

    :param pairs: pairs of sequences.
    """
    return [
        len(pairs.source_alphabet),
        pairs.source.shape[1],
        len(pairs.target_alphabet),
        pairs.target.shape[1],
    ]


@torch.no_grad()
def pair_summary(model: Seq2SeqTKAM, guide: PairGuide, pairs: Pairs) -> dict[str, Any]:
    """
    Measure held-out pairs: their evidence with the guide's draws, and the information in the
    latent, in nats.

    ``latent_says`` is the divergence of the posterior from the prior, and
    ``latent_says_beyond_source`` its divergence from ``q(z | source)``. ``loss_with_others_latent``
    is how much the log probability of targets falls with the latents of other pairs; it is near 0
    if the latent is not used.

    :param model: the model.
    :param guide: the model's guide.
    :param pairs: held-out pairs; the first ones are used.
    """
    pairs = pairs.rows(torch.arange(min(MEASURED, len(pairs))))
    data = (pairs.source, pairs.target)
    with pyro.get_param_store().scope():
        evidence: HeldOutEvidence = held_out_evidence(
            model, *data, guide=guide, num_draws=10, num_blocks=10
        )
    terms = PairELBO().terms(model, guide, *data)
    encoded = model.encoder(pairs.source)
    z = guide.posterior(encoded, pairs.target).sample()
    own, other = (
        ended_log_prob(model.target_decoder, latent, pairs.target, encoded)
        for latent in (z, z.roll(1, 0))
    )
    return {
        "held_out": {**vars(evidence), "verdict": evidence.verdict},
        "latent_says": float(terms.information.mean()),
        "latent_says_beyond_source": float(terms.beyond.mean()),
        "loss_with_others_latent": float((own - other).mean()),
    }


def responses(
    model: Seq2SeqTKAM, guide: PairGuide, pairs: Pairs, source: Tensor, num: int
) -> list[str]:
    """
    Return one line for each source: the source, its most probable target, and drawn targets.

    :param model: the model.
    :param guide: the model's guide.
    :param pairs: the pairs that define the alphabets.
    :param source: integers, shape ``(batch, length)``.
    :param num: number of draws.
    """
    with pyro.get_param_store().scope():
        best = model.search(source, guide).tokens[:, 0]
        drawn = model.respond(source, guide, num=num)
    target = pairs.target_alphabet
    between = _between(pairs)

    def read(tokens: Tensor) -> str:
        return between.join(target.decode(tokens))

    return [
        f"{''.join(pairs.source_alphabet.decode(row))}\t{read(best[i])}\t"
        + "; ".join(read(each) for each in drawn[:, i])
        for i, row in enumerate(source)
    ]


def _between(pairs: Pairs) -> str:
    """Return the separator between symbols: empty if each symbol is one character."""
    return " " if any(len(symbol) > 1 for symbol in pairs.target_alphabet.symbols) else ""


def write_responses(path: Path, lines: list[str]) -> None:
    """
    Write the result of :func:`responses`, under a line that names the columns.

    :param path: the file to replace.
    :param lines: the lines.
    """
    write_text(path, "\n".join(["source\tmost probable target\tdrawn targets", *lines]) + "\n")
