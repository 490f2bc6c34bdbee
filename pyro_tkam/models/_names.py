"""Parameters of one name: Pyro's store holds those of one module, which SVI trains for all."""

import warnings
from collections.abc import Iterator

import pyro
from pyro.nn import PyroModule
from pyro.params.param_store import param_with_module_name
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.trace_messenger import TraceMessenger
from torch import Tensor


def tell_of_other_parameters(module: PyroModule) -> None:
    """
    Warn if ``SVI`` is about to train parameters that Pyro's store holds under the names of a
    module's own, as those of a module of the same kind that was called before.

    Other training is not affected, as it takes the module's own parameters.

    :param module: a model or a guide that is being run.
    """
    if not any(isinstance(each, TraceMessenger) and each.param_only for each in _PYRO_STACK):
        return
    name, own = next(_named(module), ("", None))
    store = pyro.get_param_store()
    if own is not None and name in store and store[name].unconstrained() is not own:
        warnings.warn(
            f"Pyro's parameter store holds another module's {name!r}, which SVI trains in place "
            f"of this {type(module).__name__}'s: call pyro.clear_param_store() before training, "
            "or train each module inside pyro.get_param_store().scope()",
            stacklevel=2,
        )


def _named(module: PyroModule) -> Iterator[tuple[str, Tensor]]:
    """Yield parameters without constraints and the names that Pyro gives them."""
    for part in module.modules():
        if not isinstance(part, PyroModule):
            continue
        for name, own in part.named_parameters(recurse=False):
            if not name.endswith("_unconstrained"):
                yield part._pyro_get_fullname(name), own
        for name, child in part.named_children():
            if not isinstance(child, PyroModule):
                full = part._pyro_get_fullname(name)
                for inner, own in child.named_parameters():
                    yield param_with_module_name(full, inner), own
