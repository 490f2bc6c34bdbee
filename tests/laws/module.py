"""Laws of a module that owns parameters: what it computes survives every way of copying it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pyro
import torch
from torch import Tensor, nn

Make = Callable[[], nn.Module]
Use = Callable[[nn.Module], Tensor]


def made(make: Make, seed: int) -> nn.Module:
    """A module whose parameters have moved since it was made."""
    pyro.set_rng_seed(seed)
    module = make()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module


def output(module: nn.Module, use: Use) -> Tensor:
    """
    What a module computes from a seed and its own parameters, whatever Pyro's store holds by their
    names.
    """
    pyro.clear_param_store()
    pyro.set_rng_seed(7)
    return use(module).detach()


def state_dict_restores_it(make: Make, use: Use) -> None:
    source, fresh = made(make, 0), made(make, 1)
    expected = output(source, use)
    assert not torch.equal(output(fresh, use), expected)
    fresh.load_state_dict(copy.deepcopy(source.state_dict()))
    assert torch.equal(output(fresh, use), expected)


def pickling_keeps_it(make: Make, use: Use) -> None:
    source = made(make, 0)
    assert torch.equal(output(pickle.loads(pickle.dumps(source)), use), output(source, use))


def copies_are_equal_and_independent(make: Make, use: Use) -> None:
    source = made(make, 0)
    other, expected = copy.deepcopy(source), output(source, use)
    assert torch.equal(output(other, use), expected)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1)
    assert torch.equal(output(source, use), expected)
    assert not torch.equal(output(other, use), expected)


ALL = [state_dict_restores_it, pickling_keeps_it, copies_are_equal_and_independent]
