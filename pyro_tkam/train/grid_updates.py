"""Grid updates on a schedule."""

import math
from typing import Any

import lightning.pytorch as lightning
import pyro
from lightning.pytorch.callbacks import Callback

from pyro_tkam._checks import number, share, whole_number
from pyro_tkam.nn import UnivariateFunctions
from pyro_tkam.nn.basis import Basis
from pyro_tkam.nn.constraints import refuse_constrained
from pyro_tkam.nn.grids import EqualSamplesError, GridUpdate


class GridUpdates(Callback):
    """
    Move the grids of a model to its latents, at growing intervals.

    It calls ``update_grid`` of the trained module's model after ``every`` updates and then after
    intervals that grow by the factor ``2 - decay``. Refitted coefficients lose their state in the
    optimizer, because its moments refer to the old coordinates: Adam starts fresh for them. The
    schedule is part of the checkpoint.

    :param every: number of updates before the first grid update.
    :param decay: each interval is ``2 - decay`` times the previous one; 1 keeps it constant.
    :param num_samples: prior draws that determine the knots.
    :param uniform_share: see :meth:`pyro_tkam.nn.UnivariateFunctions.update_grid`.
    :param max_change: see that method. A refused update is skipped. So is an update for which all
        inputs of a layer are equal, for example because a hidden layer has collapsed. ``math.inf``
        refuses no update.
    :param grid_size: size of the grids from the first update on, see :class:`~pyro_tkam.nn.Basis`;
        a larger size refines them. None keeps the size.
    :raises ValueError: for ``every``, ``num_samples`` or ``grid_size`` below one, and ``decay``
        outside (0, 1]. At the start of a run, also for a ``grid_size`` that is too small for a
        basis of the model, and for any ``grid_size`` with several processes, because they exchange
        gradients of fixed shape.
    :raises TypeError: at the start of a run, for a model without ``update_grid``.

    >>> GridUpdates(every=100, decay=0.5).due(100)
    True
    """

    def __init__(
        self,
        every: int = 100,
        decay: float = 0.999,
        num_samples: int = 100,
        uniform_share: float = 0.05,
        max_change: float = 0.1,
        grid_size: int | None = None,
    ) -> None:
        for name, value in (("every", every), ("num_samples", num_samples)):
            whole_number(name, value, 1)
        number("decay", decay, 0.0, at_most=1.0)
        share("uniform_share", uniform_share)
        if not (isinstance(max_change, float) and max_change == math.inf):
            number("max_change", max_change, at_least=0.0)
        self.decay = decay
        self.num_samples = num_samples
        if grid_size is not None:
            whole_number("grid_size", grid_size, 1)
        self.grid_size = grid_size
        self.options = {
            "uniform_share": uniform_share,
            "max_change": max_change,
            "grid_size": grid_size,
        }
        self._interval = float(every)
        self._next = float(every)

    def due(self, update: int) -> bool:
        """
        Tell whether the grids are updated after this update of the parameters.

        :param update: number of the update, from 1.
        """
        return update >= round(self._next)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """
        Refuse models without grid updates or with constraints, and refinement with several
        processes.
        """
        model = pl_module.objective.model
        if not hasattr(model, "update_grid"):
            raise TypeError(f"model must have update_grid, as TKAM has, got {type(model).__name__}")
        for each in model.modules():
            if isinstance(each, UnivariateFunctions):
                refuse_constrained(each, "grid updates")
        if self.grid_size is None:
            return
        if trainer.world_size > 1:
            raise ValueError(
                f"grid_size must be None in {trainer.world_size} processes, got {self.grid_size}"
            )
        bases = [each.placed for each in model.modules() if isinstance(each, Basis)]
        least = max((each.smallest_grid_size for each in bases), default=1)
        whole_number("grid_size", self.grid_size, least)

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: Any, *_: Any) -> None:
        """Update the grids if it is time."""
        if not self.due(trainer.global_step):
            return
        for update in self._updates(pl_module.objective.model):
            for optimizer in trainer.optimizers:
                if update.moved:
                    optimizer.state.pop(update.parameter, None)
        self._interval *= 2 - self.decay
        self._next += self._interval

    def _updates(self, model: Any) -> tuple[GridUpdate, ...]:
        with pyro.get_param_store().scope():
            try:
                updates: tuple[GridUpdate, ...] = model.update_grid(
                    self.num_samples, **self.options
                )
            except EqualSamplesError:
                return ()
        return updates

    def state_dict(self) -> dict[str, float]:
        """Return the state of the schedule."""
        return {"interval": self._interval, "next": self._next}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Resume from a saved state."""
        self._interval = state_dict["interval"]
        self._next = state_dict["next"]
