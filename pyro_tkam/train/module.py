"""A Pyro objective as a Lightning module."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import lightning.pytorch as lightning
import pyro
import torch
from pyro.infer import ELBO
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pyro_tkam._checks import function, whole_number
from pyro_tkam._threads import in_turn
from pyro_tkam.distributions import PersistentULA
from pyro_tkam.infer import ImportanceMLE
from pyro_tkam.infer.objectives.base import MaximumLikelihood
from pyro_tkam.infer.objectives.chains import ChainMLE
from pyro_tkam.nn import Basis, UnivariateFunctions
from pyro_tkam.train.batches import tensors
from pyro_tkam.train.callbacks import RandomState
from pyro_tkam.train.checkpoints import check_stamp, stamp

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
SchedulerFactory = Callable[[Optimizer], LRScheduler]

#: alternatives to those objectives of Pyro that return no differentiable loss
_INSTEAD = {
    "RenyiELBO": "pyro_tkam.infer.ImportanceWeightedELBO (its alpha=0, datum by datum)",
    "ReweightedWakeSleep": "pyro_tkam.infer.ImportanceMLE with a guide (wake) or WakeSleepMLE "
    "(wake and sleep)",
}


class ELBOTraining(lightning.LightningModule):
    """
    Gradient steps on a Pyro objective, divided by the number of data.

    It works in any ``lightning.Trainer``. It logs ``loss`` (nats per datum) and the ``statistics``
    of the objective, such as ``ess`` (mean effective sample size over the batch).

    :param model: a Pyro model, ``model(batch)``, that is an ``nn.Module``, so that it owns its
        parameters. A batch is a tensor or a dictionary of tensors; if it is a tuple,
        ``model(*batch)`` is called.
    :param elbo: a Pyro objective with a ``differentiable_loss``, such as
        :class:`~pyro_tkam.infer.ImportanceMLE` or ``pyro.infer.Trace_ELBO``. Pyro's ``RenyiELBO``,
        ``ReweightedWakeSleep`` and ``TraceGraph_ELBO`` have none; use
        :class:`~pyro_tkam.infer.ImportanceWeightedELBO` and :class:`~pyro_tkam.infer.WakeSleepMLE`
        instead.
    :param guide: a guide that is an ``nn.Module``, or None if the objective needs none.
    :param size: number of data, with which a model scales a mini-batch; passed as ``model(batch,
        size=size)``. None calls ``model(batch)``.
    :param optimizer: function from parameters to a torch optimizer; the default is Adam with step
        size 1e-3.
    :param scheduler: function from the optimizer to a schedule of its step size, which advances
        after every update; None keeps the step size constant.
    :param penalty: function from the model to a scalar that is added to the loss, in nats per
        datum. It can use the model's functions, as in ``lambda model: 1e-3 *
        model.prior.energies.regularization(smoothness=1.0)``, or its outputs from
        ``model.generate(8, differentiable=True)``; other draws have no gradient.
    :raises TypeError: for a model or guide that is not an ``nn.Module``, and for an objective that
        is not an ``ELBO`` or has no ``differentiable_loss``.
    """

    def __init__(
        self,
        model: nn.Module,
        elbo: ELBO,
        guide: nn.Module | None = None,
        *,
        size: int | None = None,
        optimizer: OptimizerFactory | None = None,
        scheduler: SchedulerFactory | None = None,
        penalty: Callable[[nn.Module], Tensor] | None = None,
    ) -> None:
        super().__init__()
        for name, part in (("model", model), *((("guide", guide),) if guide is not None else ())):
            if not isinstance(part, nn.Module):
                raise TypeError(
                    f"{name} must be an nn.Module such as a PyroModule, got {type(part).__name__}"
                )
        if not isinstance(elbo, ELBO):
            raise TypeError(f"elbo must be a pyro.infer.ELBO, got {type(elbo).__name__}")
        if not hasattr(elbo, "differentiable_loss"):
            raise TypeError(
                f"elbo must have a differentiable_loss, got {type(elbo).__name__}; use "
                f"{_INSTEAD.get(type(elbo).__name__, 'pyro.infer.Trace_ELBO')}"
            )
        if size is not None:
            whole_number("size", size, 1)
        for name, made in (
            ("optimizer", optimizer),
            ("scheduler", scheduler),
            ("penalty", penalty),
        ):
            if made is not None:
                function(name, made, "parameters, an optimizer or a model")
        self.elbo = elbo
        self.size = size
        self.penalty = penalty
        #: whether the data of a batch share their draws: then processes that share a batch draw
        #: alike
        self.shares_draws = guide is None and isinstance(elbo, ImportanceMLE)
        self.objective = elbo(model, guide)
        self.make_optimizer = optimizer or partial(torch.optim.Adam, lr=1e-3)
        self.make_scheduler = scheduler

    def initialize(self, batch: Any) -> None:
        """
        Evaluate the objective once. Pyro requires this before an optimizer is made, because guides
        create their parameters at the first evaluation.

        :param batch: data, shape ``(batch, *event)``, or tuples and dictionaries of such.
        :raises TypeError: for floating-point data whose dtype differs from the parameters'.
        :raises ValueError: for a model without parameters, with parameters that no module owns, and
            for data that don't fit the model.
        """
        own = next(
            (parameter.dtype for parameter in self.parameters() if parameter.is_floating_point()),
            None,
        )
        for each in tensors(batch):
            if own is not None and each.is_floating_point() and each.dtype != own:
                raise TypeError(
                    f"data must have the dtype of the model's parameters, {own}, got {each.dtype}"
                )
        with torch.no_grad():
            self._loss(batch)
        if not any(parameter.requires_grad for parameter in self.parameters()):
            raise ValueError("model must have a parameter that requires a gradient, got none")

    def configure_optimizers(self) -> Any:
        """
        Return the optimizer of all parameters of model and guide, and its schedule if there is one.
        """
        optimizer = self.make_optimizer(self.parameters())
        if self.make_scheduler is None:
            return optimizer
        schedule = {"scheduler": self.make_scheduler(optimizer), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """
        Save the state that the objective and persistent chains carry from one update to the next,
        and the stamp of the writer.

        :param checkpoint: the checkpoint that Lightning will write.
        """
        checkpoint.update(stamp(_name(self.elbo)), carried=self._carried())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """
        Refuse a checkpoint of another version, objective or model; otherwise restore what it
        carries.

        :param checkpoint: the checkpoint that Lightning read.
        :raises ValueError: before anything is loaded; names what differs, or the first parameter
            that differs.
        """
        check_stamp(checkpoint, _name(self.elbo))
        self._check_carried(checkpoint)
        own, saved = (
            self._fixed_shapes(state) for state in (self.state_dict(), checkpoint["state_dict"])
        )
        if differing := [
            name for name in sorted({*own, *saved}) if own.get(name) != saved.get(name)
        ]:
            name = differing[0]
            raise ValueError(
                f"checkpoint must have the shapes of this model, {own.get(name)} for {name}, got "
                f"{saved.get(name)}"
            )
        self._carry_on(checkpoint["carried"])

    def _samplers(self) -> dict[str, PersistentULA]:
        """Return the samplers with persistent chains, by the name of the prior's module."""
        found = {name: getattr(part, "sampler", None) for name, part in self.named_modules()}
        return {
            name: sampler for name, sampler in found.items() if isinstance(sampler, PersistentULA)
        }

    def _carried(self) -> dict[str, Any]:
        """
        Return the state that is carried from one update to the next in addition to parameters.
        """
        objective = self.elbo.state_dict() if isinstance(self.elbo, MaximumLikelihood) else {}
        return {
            "objective": objective,
            **{name: each.state_dict() for name, each in self._samplers().items()},
        }

    def _carry_on(self, carried: dict[str, Any]) -> None:
        if isinstance(self.elbo, MaximumLikelihood):
            self.elbo.load_state_dict(carried["objective"])
        for name, sampler in self._samplers().items():
            sampler.load_state_dict(carried[name])

    def _check_carried(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint that lacks state from which to continue."""
        own = self._carried()
        saved = checkpoint.get("carried") or {}
        for name, state in own.items():
            if name not in saved or saved[name].keys() != state.keys():
                got = sorted(saved[name]) if name in saved else "none"
                raise ValueError(
                    f"checkpoint must have the state {sorted(state)} of {name}, got {got}"
                )
        callbacks = self.trainer.callbacks if self._trainer is not None else []
        for key in [each.state_key for each in callbacks if isinstance(each, RandomState)]:
            if key not in checkpoint["callbacks"]:
                raise ValueError(
                    f"checkpoint must have the state of {key}, without which random numbers would "
                    f"not continue, got those of {sorted(checkpoint['callbacks'])}; "
                    "pyro_tkam.train.fit writes it"
                )

    def _fixed_shapes(self, state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
        """
        Return the shapes that grid updates never change, which excludes grids and their numbers of
        basis functions.
        """
        shapes = {name: tuple(value.shape) for name, value in state.items()}
        for name, part in self.named_modules():
            shapes.pop(f"{name}.configuration", None)  # encoded text with grid sizes
            if isinstance(part, Basis):
                shapes.pop(f"{name}.grid", None)
            coefficients = state.get(f"{name}.coefficients")
            if (
                isinstance(part, UnivariateFunctions)
                and coefficients is not None
                and f"{name}.basis.grid" in state
            ):
                shapes[f"{name}.coefficients"] = part.functions_shape(coefficients)
        return shapes

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """
        Return the loss of a mini-batch, in nats per datum.

        :param batch: data, shape ``(batch, *event)``, or tuples and dictionaries of such.
        :param batch_idx: unused; Lightning passes it.
        """
        loss = self._loss(batch)
        self.log_dict({"loss": loss.detach(), **self._statistics()}, prog_bar=True, sync_dist=True)
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        """Give all processes the state of the first one, as a checkpoint would."""
        if self.trainer.world_size > 1:
            self._carry_on(self.trainer.strategy.broadcast(self._carried()))

    @in_turn
    def _loss(self, batch: Any) -> Tensor:
        options = {} if self.size is None else {"size": self.size}
        arguments = batch if isinstance(batch, list | tuple) else (batch,)
        rows = len(next(tensors(batch)))
        store = pyro.get_param_store()
        # Two models of one class share names in Pyro's global store, which would overwrite one by
        # the other.
        with store.scope():
            loss = self.objective(*arguments, **options) / (self.size or rows)
            if self.penalty is not None:
                loss = loss + self.penalty(self.objective.model)
            self._check_owned(store.named_parameters())
        return loss

    def _check_owned(self, used: Iterable[tuple[str, Tensor]]) -> None:
        """Refuse parameters that are not in the optimizer."""
        own = {id(parameter) for parameter in self.parameters()}
        if lost := [name for name, parameter in used if id(parameter) not in own]:
            raise ValueError(
                f"model must have its parameters in a module, as PyroParams, got {lost} from "
                "pyro.param, which would not be trained"
            )

    def _statistics(self) -> dict[str, Tensor]:
        statistics = self.elbo.statistics if isinstance(self.elbo, MaximumLikelihood) else None
        return {} if statistics is None else statistics.metrics


def _name(elbo: ELBO) -> str:
    """Return the name of an objective's class, with the kernel's name if it runs chains."""
    kernel = f" with {type(elbo.kernel).__name__}" if isinstance(elbo, ChainMLE) else ""
    return type(elbo).__name__ + kernel
