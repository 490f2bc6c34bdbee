"""Gradient-based fits of a network to data, with grids that follow the data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from pyro_tkam._threads import in_turn
from pyro_tkam.nn import _checks
from pyro_tkam.nn._unseen import unseen, unseen_copy
from pyro_tkam.nn.grids import EqualSamplesError, check_learned
from pyro_tkam.nn.kan import KAN
from pyro_tkam.nn.lbfgs import UnitLBFGS
from pyro_tkam.nn.marquardt import Marquardt
from pyro_tkam.ops._arguments import dense

#: rows of data that determine grids; more would not improve them
_MOST_ROWS = 2000
_ADAM_RATE = 0.01

Loss = Callable[[Tensor, Tensor], Tensor]
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False, repr=False)
class FitResult:
    """
    The result of :func:`fit`.

    :param losses: loss without the penalty, before each step and at the end (there over all data);
        shape ``(steps + 1,)``.
    :param penalties: the unweighted penalty at the same points; zeros if there is none.
    :param validation_losses: the loss of the validation data at the same points; None without such
        data.
    :param grid_updates: the steps, counted from 0, before which the grids moved.
    :param outside: share of each layer's inputs outside its grid at the end.
    """

    losses: Tensor
    penalties: Tensor
    validation_losses: Tensor | None
    grid_updates: tuple[int, ...]
    outside: tuple[float, ...]

    @property
    def loss(self) -> float:
        """The loss over all data at the end."""
        return float(self.losses[-1])

    @property
    def rmse(self) -> float:
        """
        The square root of :attr:`loss`: the root mean squared error if it is the mean squared
        error.
        """
        return math.sqrt(self.loss)

    def __repr__(self) -> str:
        return f"FitResult(steps={len(self.losses) - 1}, loss={self.loss:.4g})"


@in_turn
def fit(
    net: KAN,
    x: Any,
    y: Any = None,
    *,
    optimizer: str | torch.optim.Optimizer = "lbfgs",
    steps: int = 100,
    batch_size: int | None = None,
    penalty: float = 0.0,
    grid_updates: int = 10,
    validation: tuple[Any, Any] | None = None,
    callback: Callable[[int, float], object] | None = None,
    loss: Loss | None = None,
    disable_progbar: bool | None = None,
) -> FitResult:
    """
    Fit a network to data, in place.

    Grids are moved to the data before the first step and then at regular intervals during the first
    half of the steps. A progress bar shows the loss.

    :param net: the network.
    :param x: inputs, a tensor or an array of shape ``(N, widths[0])``; or a ``DataLoader`` of pairs
        of inputs and targets.
    :param y: targets, shape ``(N, widths[-1])``, or ``(N,)`` for one output; None with a
        ``DataLoader``.
    :param optimizer: ``"lbfgs"`` with a strong Wolfe line search, in float64 except on MPS, where
        one step makes up to 20 iterations over all data; ``"lm"``, the Levenberg-Marquardt method
        in float64 for the mean squared error without a penalty, which reaches small errors of small
        networks sooner but stays in a poor optimum more often, see :meth:`KAN.sparse_start`;
        ``"adam"`` with learning rate 0.01, where one step uses one batch; or an
        optimizer of the network's parameters.
    :param steps: number of steps; with batches, rounded up to whole epochs.
    :param batch_size: rows per batch; None takes all. L-BFGS and Levenberg-Marquardt sum over the
        batches.
    :param penalty: weight of :meth:`KAN.regularization`.
    :param grid_updates: number of grid updates.
    :param validation: inputs and targets on which the loss is also reported.
    :param callback: called with the number of each step and its loss; the fit stops if it returns
        True.
    :param loss: function from outputs and targets to the mean loss over a batch; None takes the
        mean squared error.
    :param disable_progbar: show no progress; if None, only on a terminal.
    :raises ValueError: for data that are empty, not finite or of shapes that don't match, and for
        ``"lm"`` with a penalty or another loss, or functions with a constraint.
    :raises TypeError: for data that are not real numbers, and random weights.
    :raises FloatingPointError: if the loss becomes infinite or NaN; names the step.

    >>> x = 2 * torch.rand(200, 1) - 1
    >>> fit(KAN([1, 1], grid_size=10), x, torch.sin(3 * x), steps=5).rmse < 1e-2
    True
    """
    steps = _checks.integer("steps", steps, 1)
    grid_updates = _checks.integer("grid_updates", grid_updates, 0)
    penalty = _checks.number("penalty", penalty, at_least=0)
    if disable_progbar is not None:
        _checks.flag("disable_progbar", disable_progbar)
    if not isinstance(net, torch.nn.Module) or not hasattr(net, "layers"):
        raise TypeError(f"net must be a KAN, got {type(net).__name__}")
    for name, called in (("callback", callback), ("loss", loss)):
        if called is not None and not callable(called):
            raise TypeError(f"{name} must be a function or None, got {called!r}")
    if validation is not None and not (
        isinstance(validation, tuple | list) and len(validation) == 2
    ):
        raise TypeError(f"validation must be a pair of inputs and targets, got {validation!r}")
    if optimizer == "lm" and (penalty or loss is not None):
        raise ValueError("penalty, loss must be 0 and None with optimizer='lm', got others")
    for layer in net.layers:
        check_learned(layer, layer.weight_names, "a fit")
    data = _Data.of(net, x, y, batch_size, loss)
    others = None if validation is None else _Data.of(net, *validation, batch_size, loss)
    with unseen(net):
        working = _working(net) if optimizer in ("lbfgs", "lm") else net
        with unseen(working):
            rows = data.rows()
            chosen = _make(optimizer, working, rows)
            run = _Run(net, working, data, others, chosen, penalty, loss or _mean_squared_error)
            return run.go(steps, grid_updates, callback, rows, disable_progbar)


def _working(net: KAN) -> KAN:
    """
    Return the network that L-BFGS or Levenberg-Marquardt optimizes, in float64 where possible: they
    compare losses that differ only in late digits.
    """
    like = net.layers[0].coefficients
    single = like.dtype != torch.float64 and like.device.type != "mps"  # which has no float64
    return unseen_copy(net).double() if single else net


def _mean_squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().mean()


def _make(optimizer: str | torch.optim.Optimizer, net: KAN, rows: Tensor) -> torch.optim.Optimizer:
    if isinstance(optimizer, torch.optim.Optimizer):
        return optimizer
    makers: dict[str, Callable[[], torch.optim.Optimizer]] = {
        "lbfgs": lambda: UnitLBFGS(net, rows.to(net.layers[0].coefficients)),
        "lm": lambda: Marquardt(net),
        "adam": lambda: torch.optim.Adam(net.parameters(), _ADAM_RATE),
    }
    return _checks.known("optimizer", optimizer, makers)()


@dataclass(frozen=True)
class _Data:
    """Batches of inputs and targets, in the network's dtype and on its device."""

    source: DataLoader[Any] | Batch
    batch_size: int | None
    as_batch: Callable[[Any, Any], Batch]

    @classmethod
    def of(cls, net: KAN, x: Any, y: Any, batch_size: int | None, loss: Loss | None) -> _Data:
        """Check data and convert them."""

        def as_batch(x: Any, y: Any) -> Batch:
            return checked_batch(net, x, y, loss is None)

        if isinstance(x, DataLoader):
            if y is not None or batch_size is not None:
                raise ValueError("y, batch_size must be None with a DataLoader, got other values")
            return cls(x, None, as_batch)
        if batch_size is not None:
            batch_size = _checks.integer("batch_size", batch_size, 1)
        return cls(as_batch(x, y), batch_size, as_batch)

    def __len__(self) -> int:
        """The number of batches of one epoch."""
        if isinstance(self.source, DataLoader):
            return len(self.source)
        rows = len(self.source[0])
        return math.ceil(rows / (self.batch_size or rows))

    def epoch(self, shuffled: bool) -> Iterator[Batch]:
        """Yield every batch once."""
        if isinstance(self.source, DataLoader):
            yield from (self.as_batch(*pair) for pair in self.source)
            return
        x, y = self.source
        if self.batch_size is None:
            yield x, y
            return
        order = torch.randperm(len(x), device=x.device) if shuffled else torch.arange(len(x))
        for rows in order.split(self.batch_size):
            yield x[rows], y[rows]

    def rows(self) -> Tensor:
        """Return the inputs that determine the grids; from tensors, take evenly spaced rows."""
        if isinstance(self.source, DataLoader):
            parts: list[Tensor] = []
            for batch, _ in self.epoch(False):
                parts.append(batch)
                if sum(map(len, parts)) >= _MOST_ROWS:
                    break
            return torch.cat(parts)
        x = self.source[0]
        return x[:: math.ceil(len(x) / _MOST_ROWS)]


def checked_batch(net: KAN, x: Any, y: Any, is_regression: bool = True) -> Batch:
    """
    Convert inputs and targets to a network's dtype.

    :param is_regression: whether targets have the shape of the outputs.
    :raises ValueError: for data that are empty, not finite or of shapes that don't match.
    :raises TypeError: for data that are not real numbers.
    """
    like = net.layers[0].coefficients
    x = as_real("x", x, like)
    if x.dim() != 2 or len(x) == 0 or x.shape[1] != net.nodes[0].count:
        raise ValueError(
            f"x must have shape (N, {net.nodes[0].count}) with N >= 1, got {tuple(x.shape)}"
        )
    y = as_real("y", y, like) if is_regression else _as_targets(y, like)
    outputs = net.nodes[-1].count
    if is_regression and y.dim() == 1 and outputs == 1:
        y = y.unsqueeze(-1)
    fits = y.numel() and y.shape[:1] == x.shape[:1]
    if not fits or (is_regression and y.shape != (len(x), outputs)):
        raise ValueError(f"y must have shape ({len(x)}, {outputs}), got {tuple(y.shape)}")
    return x, y


def as_real(name: str, values: Any, like: Tensor) -> Tensor:
    """
    Convert real numbers to a tensor.

    :param name: the name of the argument.
    :param values: a tensor, or anything that NumPy converts to an array.
    :param like: a tensor with the dtype and device of the result.
    :raises TypeError: for anything but real numbers.
    :raises ValueError: for values that are not finite.
    """
    tensor = _as_tensor(name, values)
    if tensor.is_complex():
        raise TypeError(f"{name} must be real numbers, got {tensor.dtype}")
    tensor = tensor.detach().to(like)
    if not bool(tensor.isfinite().all()):
        bad = int((~tensor.isfinite()).sum())
        raise ValueError(
            f"{name} must be finite in {like.dtype}, got {bad} values that are NaN or infinite"
        )
    return tensor


def _as_tensor(name: str, values: Any) -> Tensor:
    try:
        tensor = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        kind = type(values).__name__
        raise TypeError(f"{name} must be an array of real numbers, got {kind}: {error}") from None
    dense(name, tensor)
    return tensor


def _as_targets(y: Any, like: Tensor) -> Tensor:
    targets = _as_tensor("y", y)
    if targets.dim() == 0:
        raise ValueError("y must have a row for each row of x, got a number")
    return as_real("y", targets, like) if targets.is_floating_point() else targets.to(like.device)


class _Run:
    """One fit: the network, its working copy if there is one, the data and the optimizer."""

    def __init__(
        self,
        original: KAN,
        net: KAN,
        data: _Data,
        validation: _Data | None,
        optimizer: torch.optim.Optimizer,
        penalty: float,
        loss: Loss,
    ) -> None:
        self.original = original
        self.net = net
        self.data = data
        self.validation = validation
        self.optimizer = optimizer
        self.penalty = penalty
        self.loss = loss
        self.takes_all = isinstance(optimizer, torch.optim.LBFGS | Marquardt)

    def go(
        self,
        steps: int,
        grid_updates: int,
        callback: Callable[[int, float], object] | None,
        rows: Tensor,
        disable_progbar: bool | None,
    ) -> FitResult:
        if not self.takes_all:
            steps = math.ceil(steps / len(self.data)) * len(self.data)
        due = {round(i * steps / 2 / max(grid_updates, 1)) for i in range(grid_updates)}
        batches = self._batches()
        moved: list[int] = []
        found: list[tuple[float, float]] = []
        validated: list[float] = []
        with tqdm(total=steps, disable=disable_progbar, leave=False) as bar:
            for step in range(steps):
                if step in due and self._move_grids(rows):
                    moved.append(step)
                if self.validation is not None:
                    validated.append(self._evaluate(self.validation)[0])
                found.append(self._step(next(batches), step))
                self._hand_over()
                bar.set_postfix_str(f"loss {found[-1][0]:.3g}")
                bar.update()
                if callback is not None and callback(step, found[-1][0]) is True:
                    break
        self.net = self.original
        found.append(self._evaluate(self.data))
        self._check(found[-1], len(found) - 1)
        losses, penalties = torch.tensor(found, dtype=torch.double).unbind(-1)
        if self.validation is not None:
            validated.append(self._evaluate(self.validation)[0])
        return FitResult(
            losses,
            penalties,
            torch.tensor(validated, dtype=torch.double) if self.validation is not None else None,
            tuple(moved),
            self.net.outside(rows),
        )

    def _batches(self) -> Iterator[Callable[[], Iterable[Batch]]]:
        """Yield the batches of each step: all that the optimizer takes, or one at a time."""
        while True:
            if self.takes_all:
                yield lambda: self.data.epoch(shuffled=False)
            else:
                yield from ((lambda batch=batch: [batch]) for batch in self.data.epoch(True))

    def _move_grids(self, rows: Tensor) -> bool:
        try:
            self.net.update_grid(self._cast(rows), optimizer=self.optimizer)
        except EqualSamplesError:  # a layer has collapsed, and the next step may mend it
            return False
        if isinstance(self.optimizer, UnitLBFGS):
            self.optimizer.measure(self.net, self._cast(rows))
        return True

    def _cast(self, values: Tensor) -> Tensor:
        """Convert floating-point numbers to the dtype of the working network."""
        return values.to(self.net.layers[0].coefficients) if values.is_floating_point() else values

    @torch.no_grad()
    def _hand_over(self) -> None:
        """Copy grids and parameters from the working copy to the original network."""
        if self.net is self.original:
            return
        for layer, other in zip(self.original.layers, self.net.layers, strict=True):
            layer.basis.place(other.basis.placed)
        for own, found in zip(self.original.parameters(), self.net.parameters(), strict=True):
            own.copy_(found)

    def _step(self, batches: Callable[[], Iterable[Batch]], step: int) -> tuple[float, float]:
        """Make one step; return the loss and the penalty before it."""
        if isinstance(self.optimizer, Marquardt):
            pairs = [(self._cast(x), self._cast(y)) for x, y in batches()]
            found = self.optimizer.step(pairs), 0.0
            self._check(found, step)
            return found
        first: list[tuple[float, float]] = []

        def closure() -> Tensor:
            self.optimizer.zero_grad()
            total, found = self._backward(batches())
            first.append(found)
            return total

        self.optimizer.step(closure)  # type: ignore[arg-type]
        self._check(first[0], step)
        return first[0]

    def _backward(self, batches: Iterable[Batch]) -> tuple[Tensor, tuple[float, float]]:
        """Accumulate gradients; return the objective, and its loss and penalty separately."""
        parts = []
        rows = 0
        for x, y in batches:
            loss, penalty = self._parts(x, y)
            ((loss + self.penalty * penalty) * len(x)).backward()
            parts.append(torch.stack((loss, penalty)).detach() * len(x))
            rows += len(x)
        for parameter in self.net.parameters():
            if parameter.grad is not None:
                parameter.grad /= rows
        loss, penalty = torch.stack(parts).sum(0) / rows
        return loss + self.penalty * penalty, (float(loss), float(penalty))

    def _parts(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        x = self._cast(x)
        y = self._cast(y)
        if self.penalty:
            outputs, penalty = self.net.penalized(x)
            return _scalar(self.loss(outputs, y)), penalty
        loss = _scalar(self.loss(self.net(x), y))
        return loss, torch.zeros_like(loss)

    @torch.no_grad()
    def _evaluate(self, data: _Data) -> tuple[float, float]:
        """Return loss and penalty over all data."""
        parts = [(*self._parts(x, y), len(x)) for x, y in data.epoch(False)]
        rows = sum(count for *_, count in parts)
        loss, penalty = (
            float(sum(float(part[i]) * part[-1] for part in parts)) / rows for i in (0, 1)
        )
        return loss, penalty

    @staticmethod
    def _check(found: tuple[float, float], step: int) -> None:
        if not all(map(math.isfinite, found)):
            raise FloatingPointError(
                f"loss must stay finite, got {found[0]} with penalty {found[1]} at step "
                f"{step}; use a smaller learning rate or a float64 network"
            )


def _scalar(loss: Any) -> Tensor:
    """Check that a user's loss returned a single number."""
    if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.is_floating_point():
        raise TypeError(f"loss must return a tensor with one element, got {loss!r}")
    return loss
