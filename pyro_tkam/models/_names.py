"""Parameters of one name: Pyro's store holds one tensor for each, which SVI trains for all."""

import warnings
from collections.abc import Iterator

import pyro
import torch
from pyro.nn import PyroModule
from pyro.params.param_store import param_with_module_name
from pyro.poutine.block_messenger import BlockMessenger
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.trace_messenger import TraceMessenger
from torch import Tensor


def tell_of_other_parameters(module: PyroModule) -> None:
    """
    Warn if ``SVI`` is about to train what Pyro's store holds under the names of a module's
    parameters in place of these, as after a module of the same kind was called.

    Training with an optimizer of torch takes the module's own parameters and is not affected.

    :param module: a model or a guide that is being run.
    """
    if not torch.is_grad_enabled() or not any(map(_captures, _PYRO_STACK)):
        return
    stored = dict(pyro.get_param_store().named_parameters())
    for name, own in _named(module):
        if stored.get(name, own) is not own and _is_to_train(name, own):
            warnings.warn(
                f"Pyro's parameter store holds another tensor as {name!r}, which SVI trains in "
                f"place of this {type(module).__name__}'s: call pyro.clear_param_store() before "
                "training, or train each module inside pyro.get_param_store().scope()",
                stacklevel=2,
            )
            return


def _captures(handler: object) -> bool:
    """Tell whether a handler collects the parameters to train, as ``SVI`` does."""
    return isinstance(handler, TraceMessenger) and bool(handler.param_only)


def _is_to_train(name: str, own: Tensor) -> bool:
    """Tell whether ``SVI`` sees parameters of a name, and has not seen a module's own."""
    site = {"type": "param", "name": name, "is_observed": False, "infer": {}}
    for handler in reversed(_PYRO_STACK):
        if isinstance(handler, BlockMessenger) and handler.hide_fn(site):
            return False
        if _captures(handler):
            nodes = handler.trace.nodes.values()
            seen = (node["value"].unconstrained() for node in nodes if node["type"] == "param")
            return not any(each is own for each in seen)
    return False


def _named(module: PyroModule) -> Iterator[tuple[str, Tensor]]:
    """Yield parameters without constraints and the names that Pyro gives them."""
    for part in module.modules():
        if not isinstance(part, PyroModule) or not part._pyro_context.used:
            continue  # a part of another module, too, has no name before its first call
        for name, own in part.named_parameters(recurse=False):
            if not name.endswith("_unconstrained"):
                yield part._pyro_get_fullname(name), own
        for name, child in part.named_children():
            if not isinstance(child, PyroModule):
                full = part._pyro_get_fullname(name)
                for inner, own in child.named_parameters():
                    yield param_with_module_name(full, inner), own
