"""What a run measures on its held-out data."""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from pyro_tkam.models import LabeledTKAM, MultimodalTKAM
from pyro_tkam.models.tkam import takes_integers
from pyro_tkam.train.held_out import HeldOutEvidence, held_out_evidence

WINDOWS = 100
"""Number of held-out windows of a text that are measured; the first ones."""
CLASSIFIED = 1000
"""Number of held-out rows that are classified; the first ones."""


def measured(model: nn.Module, held_out: Any) -> dict[str, Any]:
    """
    Measure held-out data with draws from the prior: the evidence, and further numbers for some
    kinds of models.

    :param model: the trained model.
    :param held_out: the data, in the form of :class:`~pyro_tkam.train.data.RunData`.
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
    """
    Add bits per symbol. Each draw runs the decoder over each window, so there are few of both.
    """
    evidence = held_out_evidence(model, windows[:WINDOWS], num_draws=10)
    bits = -evidence.per_dimension / math.log(2)
    return {**_described(evidence), "bits_a_symbol": bits}


def _labeled(model: LabeledTKAM, held_out: tuple[Tensor, Tensor]) -> dict[str, Any]:
    """Add the classification accuracy; the evidence scores the rows without labels."""
    x, label = held_out
    known = (label >= 0).nonzero().squeeze(-1)[:CLASSIFIED]
    found = _described(held_out_evidence(model, x))
    if len(known):
        guesses = model.classify(x[known], num_particles=2000).argmax(-1)
        found["label_accuracy"] = float((guesses == label[known]).double().mean())
    return found


def _modalities(model: MultimodalTKAM, held_out: Any) -> dict[str, Any]:
    """Return the evidence of all observed modalities together."""
    data, observed = held_out
    return _described(held_out_evidence(model, data, observed))


_MEASURES: dict[type[nn.Module], Callable[[Any, Any], dict[str, Any]]] = {
    LabeledTKAM: _labeled,
    MultimodalTKAM: _modalities,
}
