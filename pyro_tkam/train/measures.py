"""What a run measures of its held-out data."""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from pyro_tkam.models import LabeledTKAM, MultimodalTKAM
from pyro_tkam.models.tkam import takes_integers
from pyro_tkam.train.held_out import HeldOutEvidence, held_out_evidence

WINDOWS = 100
"""Held-out windows of a text, the first ones, that are measured."""
CLASSIFIED = 1000
"""Held-out rows, the first ones, that are classified."""


def measured(model: nn.Module, held_out: Any) -> dict[str, Any]:
    """
    Measure held-out data by draws from the prior: the evidence, and what else its kind has.

    :param model: the trained model.
    :param held_out: the data, as :class:`~pyro_tkam.train.data.RunData` has them.
    :return: numbers by name.
    """
    for kind, measure in _MEASURES.items():
        if isinstance(model, kind):
            return measure(model, held_out)
    if takes_integers(getattr(model, "likelihood", None)):
        return _text(model, held_out)
    return _described(held_out_evidence(model, held_out))


def _described(evidence: HeldOutEvidence) -> dict[str, Any]:
    return {"held_out": {**vars(evidence), "verdict": evidence.verdict}}


def _text(model: nn.Module, windows: Tensor) -> dict[str, Any]:
    """Add bits a symbol: every draw runs the decoder over every window, so both are few."""
    evidence = held_out_evidence(model, windows[:WINDOWS], num_draws=10)
    bits = -evidence.per_dimension / math.log(2)
    return {**_described(evidence), "bits_a_symbol": bits}


def _labeled(model: LabeledTKAM, held_out: tuple[Tensor, Tensor]) -> dict[str, Any]:
    """Add the share of right classes, which are not part of the evidence of rows."""
    x, label = held_out
    known = (label >= 0).nonzero().squeeze(-1)[:CLASSIFIED]
    found = _described(held_out_evidence(model, x))
    if len(known):
        guesses = model.classify(x[known], num_particles=2000).argmax(-1)
        found["label_accuracy"] = float((guesses == label[known]).double().mean())
    return found


def _modalities(model: MultimodalTKAM, held_out: Any) -> dict[str, Any]:
    """Score all that is observed together."""
    data, observed = held_out
    return _described(held_out_evidence(model, data, observed))


_MEASURES: dict[type[nn.Module], Callable[[Any, Any], dict[str, Any]]] = {
    LabeledTKAM: _labeled,
    MultimodalTKAM: _modalities,
}
