"""What an objective knows of the model that it trains."""

from __future__ import annotations

from typing import Any

import torch

from pyro_tkam.infer.model.alone import SingleRuns, refuse_mixed_draws
from pyro_tkam.infer.model.draws import PlateStructure
from pyro_tkam.infer.model.requirements import check_batch
from pyro_tkam.infer.model.structure import plate_structure, with_guide
from pyro_tkam.infer.model.trials import AGAIN


def checked_structure(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> PlateStructure:
    """
    Return the structure of a model whose batch is checked first, by the same run of the model.

    Torch's generator moves as that run moves it.
    """
    checked = check_batch(model, args, kwargs)
    torch.set_rng_state(checked.drawn)
    return plate_structure(model, args, kwargs, trace=checked.first.plain)


class KnownStructure:
    """
    The structure of the model and guide seen last, found when they are new and again, by fewer
    trials, after 4, 16, 64, ... calls, as a coupling may show only at other parameters or data.
    """

    def __init__(self) -> None:
        self._seen: tuple[Any, Any] | None = None
        self._calls = 0

    def of(
        self, model: Any, guide: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> PlateStructure:
        """Return the structure of a model with a guide."""
        new = self._seen != (model, guide)  # bound methods are equal, not the same
        if new:
            found = with_guide(checked_structure(model, args, kwargs), guide, *args, **kwargs)
            refuse_mixed_draws(SingleRuns(model, guide, found, args, kwargs))
            self.last = found
            self._seen = (model, guide)
            self._calls = 0
        self._calls += 1
        if not new and _is_power_of_four(self._calls):
            with torch.random.fork_rng(devices=[]):
                found = plate_structure(model, args, kwargs, effort=AGAIN)
                self.last = with_guide(found, guide, *args, **kwargs)
        return self.last


def _is_power_of_four(number: int) -> bool:
    return number & (number - 1) == 0 and number.bit_length() % 2 == 1
