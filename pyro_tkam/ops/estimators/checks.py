"""The check that every estimator makes of an argument first."""

from typing import Any

from torch import Tensor

__all__ = ["check_tensor"]


def check_tensor(name: str, value: Any) -> None:
    """Refuse a list of chains, which may differ in length.

    :param name: of the argument.
    :param value: what was given.
    :raises TypeError: if it is not a tensor.
    """
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{name} must be one tensor, of chains that are equally long, got "
            f"{type(value).__name__}"
        )
