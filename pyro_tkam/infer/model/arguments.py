"""The arguments of a model: conversion of arrays to tensors, and errors that name the arguments."""

from __future__ import annotations

import inspect
import re
import traceback
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from pyro_tkam._checks import words
from pyro_tkam.infer.model.attempt import RAISED_BY_CODE, is_out_of_memory

T = TypeVar("T")

_MOST_DESCRIBED = 6
"""Arguments that an error describes."""


def with_tensors(arguments: Any) -> Any:
    """
    Replace NumPy arrays of numbers with tensors of the same dtype, also in tuples, lists and
    dictionaries.

    :param arguments: the arguments of a model.
    """
    if isinstance(arguments, np.ndarray) and arguments.dtype.kind in "biuf":
        return torch.as_tensor(arguments)
    if isinstance(arguments, dict):
        return {key: with_tensors(value) for key, value in arguments.items()}
    if type(arguments) in (tuple, list):
        return type(arguments)(with_tensors(value) for value in arguments)
    return arguments


def check_callable(model: Any) -> None:
    """Raise a TypeError for anything but a callable model."""
    if not callable(model):
        raise TypeError(f"model must be callable, got {type(model).__name__}")


def keywords(model_kwargs: Any) -> dict[str, Any]:
    """
    Return a model's keyword arguments, none if they are None.

    :raises TypeError: for anything but a mapping from names.
    """
    if model_kwargs is None:
        return {}
    if not isinstance(model_kwargs, Mapping):
        raise TypeError(f"model_kwargs must be a mapping, got {type(model_kwargs).__name__}")
    words("model_kwargs", list(model_kwargs), "names of arguments")
    return dict(model_kwargs)


def hold_arrays(arguments: Any) -> bool:
    """Tell whether any argument contains a NumPy array."""
    if isinstance(arguments, dict):
        return any(map(hold_arrays, arguments.values()))
    if type(arguments) in (tuple, list):
        return any(map(hold_arrays, arguments))
    return isinstance(arguments, np.ndarray)


OUR_PRIORS = r"(?:Tilted|Mixture|Joint|Labeled|Autoregressive|LabeledAutoregressive)Prior"
"""Modules that return a distribution when they are called."""
DOUBLES = (torch.float64, np.dtype("float64"))


def told_of(
    run: Callable[[], T], name: str, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> T:
    """
    Run a model or a guide; if it can't take its arguments, raise an error that names both.

    :param run: the function that runs it.
    :param name: ``"model"`` or ``"guide"``.
    :param function: the model or guide itself.
    :param args: its arguments.
    :param kwargs: its keyword arguments.
    :raises ValueError: for errors from its own code, torch or Pyro; errors of this package pass
        unchanged.
    """
    try:
        return run()
    except ZeroDivisionError as error:  # Pyro's, for a plate of size zero
        if "size cannot be zero" not in str(error):
            raise
        raise ValueError(
            f"{name} must have data, got a plate of size zero: the data are empty or all masked"
        ) from error
    except RAISED_BY_CODE as error:
        if is_out_of_memory(error) or _is_told(error):
            raise
        cause = f"{type(error).__name__}: {error}".splitlines()[0]
        given = described(function, args, kwargs)
        hint = _remedy(str(error), _named(function, args, kwargs))
        raise ValueError(f"{name} must run on its arguments, {given}, got {cause}{hint}") from error


def described(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Describe the arguments of a call by name: dtype and shape of tensors, types of others."""
    parts = [f"{name} {_kind(value)}" for name, value in _named(function, args, kwargs).items()]
    more = ["…"] if len(parts) > _MOST_DESCRIBED else []
    return f"({', '.join(parts[:_MOST_DESCRIBED] + more)})"


def _remedy(error: str, named: dict[str, Any]) -> str:
    """
    Return what may help where a model cannot take doubles beside singles, or tables, or takes a
    module for the distribution that it returns.
    """
    if module := re.search(rf"'({OUR_PRIORS})' object has no attr", error):
        return f"; call the {module[1]} for its distribution, as in prior()"
    doubles = [name for name, each in named.items() if getattr(each, "dtype", None) in DOUBLES]
    tables = [
        name for name, each in named.items() if type(each).__module__.partition(".")[0] == "pandas"
    ]
    if tables:
        return f"; pass torch.tensor({tables[0]}.to_numpy(), dtype=torch.float32)"
    if doubles and ("dtype" in error or "Double" in error):
        return f"; {doubles[0]} is float64: if the model computes in float32, convert it first"
    return ""


def _named(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    call = function.forward if isinstance(function, torch.nn.Module) else function
    try:
        return dict(inspect.signature(call).bind(*args, **kwargs).arguments)
    except (TypeError, ValueError):  # no signature, or another number of arguments
        return {f"args[{i}]": value for i, value in enumerate(args)} | kwargs


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"of NumPy's {value.dtype} {value.shape}"
    if not isinstance(value, Tensor):
        return f"of type {type(value).__name__}"
    finite = value.isfinite().all() if value.is_floating_point() else True
    dtype = str(value.dtype).removeprefix("torch.")
    return f"{dtype} {tuple(value.shape)}{'' if finite else ' that are not all finite'}"


def _is_told(error: Exception) -> bool:
    """
    Tell whether this package raised an error itself, so that the message already names the cause.
    """
    if not isinstance(error, ValueError | TypeError | NotImplementedError):
        return False
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__", "")).startswith("pyro_tkam.")
