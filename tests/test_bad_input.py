"""
Whatever is wrong is refused by name, before anything changes: every public function and class is
called with right arguments but one, which is of the usual wrong kinds.
"""

from __future__ import annotations

import random
import re
import warnings
from importlib import import_module

import pytest
import torch

from tests.valid_calls.call import Call
from tests.wrong_values import wrong_values

MODULES = ("distributions",)
KINDS_OF_EXPENSIVE = 8


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
            try:
                result = call.function(**{**call.arguments, argument: wrong})
            except (TypeError, ValueError, FloatingPointError) as error:
                if not is_clear(error, call):
                    found.append(f"{where}: {type(error).__name__}: {error}")
                if not torch.equal(torch.get_rng_state(), before):
                    found.append(f"{where}: drew before it raised {error}")
            except (ArithmeticError, AttributeError, LookupError, RuntimeError) as error:
                found.append(f"{where}: {type(error).__name__}: {error}")
            else:
                if is_nan(result) and not is_extreme(wrong):
                    found.append(f"{where}: returned NaN")
    return found


def is_nan(result: object) -> bool:
    """Tell whether a result has a NaN."""
    return isinstance(result, torch.Tensor) and bool(result.isnan().any())


def is_extreme(wrong: object) -> bool:
    """Tell whether a NaN is what follows: from NaN, infinities and what overflows."""
    return isinstance(wrong, torch.Tensor) and not bool((wrong.detach().abs() < 1e30).all())


def named_calls() -> list[object]:
    return [
        pytest.param(call, id=f"{module}.{name}")
        for module in MODULES
        for name, call in import_module(f"tests.valid_calls.{module}").calls().items()
    ]


@pytest.mark.parametrize("call", named_calls())
def test_wrong_arguments_are_refused_by_name(call):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        call.function(**call.arguments)
        found = offenses(call)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_called(module):
    """Apart from records, which hold what they are given."""
    calls = import_module(f"tests.valid_calls.{module}")
    called = {name.split(".")[0] for name in calls.calls()}
    public = set(import_module(f"pyro_tkam.{module}").__all__)
    assert public - called == set(calls.RECORDS)
