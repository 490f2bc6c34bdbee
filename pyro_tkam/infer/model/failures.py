"""If a density fails at some rows of a batch, it is NaN there and is computed at the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

ROW_ERRORS = (ValueError, torch.linalg.LinAlgError)  # type: ignore[attr-defined]
"""What a model raises at values that are no valid parameters."""


class ChangingShapeError(ValueError):
    """A site's shape depends on values: an error of the model, and not of single rows."""


Function = Callable[[Tensor], tuple[Any, ...]]


class ForRows(TorchFunctionMode):
    """Replaces operations that would fail for a whole batch because of one row, or under ``vmap``.

    A Cholesky factor or an inverse that does not exist becomes NaN; other rows keep theirs, also in
    a recorded graph. (LAPACK leaves finite garbage in a failed factor.) ``.data``, of which Pyro's
    enumeration takes the shape, is the detached tensor.

    >>> with ForRows():
    ...     torch.linalg.cholesky(torch.tensor([[[4.0]], [[-1.0]]])).flatten()
    tensor([2., nan])
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return _REPLACED.get(func, func)(*args, **(kwargs or {}))


def _with_info(factorize: Callable[..., Any]) -> Callable[..., Any]:
    """Make a factorization return NaN for the matrices that it reports as failed."""

    def tolerant(*args: Any, **kwargs: Any) -> Tensor:
        result, info = factorize(*args, **kwargs)
        return torch.where((info != 0)[..., None, None], torch.nan, result)

    return tolerant


_REPLACED: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.linalg.cholesky: _with_info(torch.linalg.cholesky_ex),
    torch.linalg.inv: _with_info(torch.linalg.inv_ex),
    Tensor.data.__get__: Tensor.detach,  # type: ignore[attr-defined]
}


def by_rows(function: Function, batch: Tensor) -> tuple[Any, ...]:
    """Evaluate a batch; if it raises, evaluate its halves, down to the rows that raise, which
    become NaN.

    :param function: from ``(rows, ...)`` to a tuple of ``(rows, ...)``, each row by itself.
    :param batch: ``(rows, ...)``.
    :raises ValueError, LinAlgError: what the function raised, if it did so at every row.
    :raises ChangingShapeError: if it did so at any.

    >>> def root(x):
    ...     if (x < 0).any():
    ...         raise ValueError("negative")
    ...     return (x.sqrt(),)
    >>> by_rows(root, torch.tensor([4.0, -1.0, 9.0]))
    (tensor([2., nan, 3.]),)
    """
    try:
        return function(batch)
    except ChangingShapeError:
        raise
    except ROW_ERRORS:
        parts = _halves(function, batch)
        known = next((part for part in parts if part is not None), None)
        if known is None:
            raise
        missing = tuple(value.new_full((1, *value.shape[1:]), torch.nan) for value in known)
        rows = [missing if part is None else part for part in parts]
        return tuple(torch.cat(column) for column in zip(*rows, strict=True))


def _halves(function: Function, batch: Tensor) -> list[tuple[Any, ...] | None]:
    """Return the results of parts of a batch in order, None for each row that raised."""
    if len(batch) == 1:
        return [None]
    middle = len(batch) // 2
    return [*_part(function, batch[:middle]), *_part(function, batch[middle:])]


def _part(function: Function, batch: Tensor) -> list[tuple[Any, ...] | None]:
    try:
        return [function(batch)]
    except ChangingShapeError:
        raise
    except ROW_ERRORS:
        return _halves(function, batch)
