"""
Whatever is wrong is refused by name, before anything changes: every public function and class is
called with right arguments but one, which is of the usual wrong kinds.
"""

from __future__ import annotations

import random
import re
import warnings
from collections.abc import Collection
from functools import cache
from importlib import import_module
from types import ModuleType

import pyro
import pytest
import torch

from tests.valid_calls.call import Call
from tests.wrong_values import wrong_values

MODULES = (
    "datasets",
    "diagnostics",
    "distributions",
    "infer",
    "metrics",
    "models",
    "nn",
    "ops.bases",
    "ops.estimators",
    "ops.quadrature",
    "ops.resampling",
    "ops.schedules",
    "paper.convolutional",
    "paper.experiments",
    "paper.findings",
    "paper.reproduce",
    "plots",
    "sklearn",
    "symbolic",
    "train",
    "train.evidence",
)
KINDS_OF_EXPENSIVE = 8
RAW = (ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, RuntimeError)


def is_clear(error: Exception, call: Call) -> bool:
    """Tell whether an error is ``NAME must WHAT, got VALUE`` of an argument of the call."""
    first = str(error).split("\n")[0]
    named = any(re.search(rf"\b{name}\b", first) for name in (*call.arguments, *call.also))
    return named and " must " in first and " got " in str(error)


def offenses(call: Call) -> list[str]:
    """Return what a call with one wrong argument does that it must not do."""
    pick = random.Random(0)
    found = []
    for argument, right in call.arguments.items():
        kinds = list(wrong_values(right))
        for kind, wrong in pick.sample(kinds, KINDS_OF_EXPENSIVE) if call.expensive else kinds:
            where = f"{argument}: {kind}"
            before = torch.get_rng_state()
            stored = parameters_of_store()
            held = versions_of_modules(call)
            try:
                result = call.function(**{**call.arguments, argument: wrong})
            except (TypeError, ValueError, FloatingPointError, OSError) as error:
                if not is_clear(error, call):
                    found.append(f"{where}: {type(error).__name__}: {error}")
                if argument not in call.late and not torch.equal(torch.get_rng_state(), before):
                    found.append(f"{where}: drew before it raised {error}")
                if parameters_of_store() != stored:
                    found.append(f"{where}: changed the parameter store before it raised {error}")
                if versions_of_modules(call) != held:
                    found.append(f"{where}: changed a module before it raised {error}")
            except RAW as error:
                found.append(f"{where}: {type(error).__name__}: {error}")
            else:
                if is_nan(result) and not is_extreme(wrong):
                    found.append(f"{where}: returned NaN")
                if is_of_another_type(right, wrong):
                    found.append(f"{where}: was taken for {right!r}")
    return found


def parameters_of_store() -> dict[str, int]:
    """Return which tensors Pyro's parameter store holds."""
    return {name: id(value) for name, value in pyro.get_param_store().named_parameters()}


def versions_of_modules(call: Call) -> list[tuple[int, int]]:
    """Return which tensors the modules of a call hold, and how often each was changed."""
    given = (getattr(call.function, "__self__", None), *call.arguments.values())
    modules = [each for each in given if isinstance(each, torch.nn.Module)]
    return [
        (id(tensor), tensor._version)
        for module in modules
        for tensor in (*module.parameters(), *module.buffers())
    ]


def is_of_another_type(right: object, wrong: object) -> bool:
    """Tell whether a value can't be what is asked for: no truth value, number or name."""
    if isinstance(right, bool):
        return not isinstance(wrong, bool | None)
    if isinstance(right, int | float):
        return isinstance(wrong, str | bytes | complex | Collection | type)
    if isinstance(right, str):
        return isinstance(wrong, bytes | int | float | complex | dict | set | type)
    return False


def is_nan(result: object) -> bool:
    """Tell whether a result has a NaN."""
    is_tensor = isinstance(result, torch.Tensor) and not result.is_meta
    return is_tensor and bool(result.isnan().any())


def is_extreme(wrong: object) -> bool:
    """Tell whether a NaN is what follows: from NaN, infinities and what overflows."""
    return isinstance(wrong, torch.Tensor) and not bool((wrong.detach().abs() < 1e30).all())


@cache
def calls_of(module: str) -> dict[str, Call]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of runs that are short on purpose
        calls: dict[str, Call] = valid_calls(module).calls()
    return calls


def valid_calls(module: str) -> ModuleType:
    return import_module(f"tests.valid_calls.{module.replace('.', '_')}")


def named_calls() -> list[object]:
    return [
        pytest.param(call, id=f"{module}.{name}")
        for module in MODULES
        for name, call in calls_of(module).items()
    ]


@pytest.mark.parametrize("call", named_calls())
def test_wrong_arguments_are_refused_by_name(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some wrong values are names of files
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        call.function(**call.arguments)
        found = offenses(call)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_called(module):
    """Apart from records, which hold what they are given."""
    called = {name.split(".")[0] for name in calls_of(module)}
    public = set(import_module(f"pyro_tkam.{module}").__all__)
    assert public - called == set(valid_calls(module).RECORDS)
