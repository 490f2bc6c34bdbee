"""
Private names of torch and Pyro that the package uses where there are no public ones: all of them
are listed here, and tried, so that a version without them is told by this test.
"""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pyro
import pytest
import torch
from pyro import poutine
from pyro.poutine.runtime import _PYRO_STACK
from torch import Tensor
from torch._C import _functorch
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch._guards import TracingContext, tracing
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import _get_current_dispatch_mode

import pyro_tkam


def batched(x: Tensor) -> Tensor:
    """Under ``vmap`` a tensor is wrapped, and out of its stack it can be unwrapped."""
    assert _functorch.is_batchedtensor(x)
    assert _functorch.is_functorch_wrapped_tensor(x)
    assert _functorch.get_unwrapped(x).shape == (4, 2)
    with temporarily_clear_interpreter_stack():
        assert not _functorch.is_functorch_wrapped_tensor(torch.rand(2))
    return x


def functorch() -> None:
    torch.func.vmap(batched)(torch.zeros(4, 2))
    assert not _functorch.is_batchedtensor(torch.zeros(2))


def dispatch_mode() -> None:
    seen = []

    def function(x: Tensor) -> Tensor:
        seen.append(_get_current_dispatch_mode())
        return x + 1

    torch.fx.experimental.proxy_tensor.make_fx(function)(torch.zeros(2))
    assert seen[0] is not None
    assert _get_current_dispatch_mode() is None


def pyro_stack() -> None:
    with poutine.trace() as tracer:
        assert tracer in _PYRO_STACK


def schemas() -> None:
    """What a recorded graph reads of operations: types of arguments, and what is written to."""
    view = torch.ops.aten.expand.default._schema
    assert [str(each.type) for each in view.arguments][1] == "List[int]"
    assert view.returns[0].alias_info is not None
    assert torch.ops.aten.add_.Tensor._schema.is_mutable
    assert not torch.ops.aten.add.Tensor._schema.is_mutable


def recording() -> None:
    """One fake mode, which a recording finds, notes the shapes of all its results."""
    mode = FakeTensorMode()
    with tracing(TracingContext(mode)):
        graph = torch.fx.experimental.proxy_tensor.make_fx(torch.sin)(torch.zeros(2))
    noted = [node.meta["val"] for node in graph.graph.nodes if "val" in node.meta]
    assert noted
    assert all(each.fake_mode is mode for each in noted)


ALLOWED: dict[str, Callable[[], None]] = {
    "torch._C._functorch": functorch,
    "torch._guards.TracingContext": recording,
    "torch._guards.tracing": recording,
    "torch._subclasses.FakeTensorMode": recording,
    "torch._functorch.pyfunctorch.temporarily_clear_interpreter_stack": functorch,
    "torch.utils._python_dispatch._get_current_dispatch_mode": dispatch_mode,
    "pyro.poutine.runtime._PYRO_STACK": pyro_stack,
    "._schema": schemas,
}


def private_names() -> Iterator[str]:
    """Yield what the package imports of private modules and names, and ``_schema``."""
    for path in Path(pyro_tkam.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                for each in node.names:
                    name = f"{node.module}.{each.name}"
                    parts = name.split(".")
                    if parts[0] in ("torch", "pyro") and any(part[0] == "_" for part in parts):
                        yield name
            elif isinstance(node, ast.Attribute) and node.attr == "_schema":
                yield "._schema"
            elif (
                isinstance(node, ast.Attribute)
                and node.attr.startswith("_")
                and node.attr[:2] != "__"
            ):
                root = ast.unparse(node.value)
                if root.split(".")[0] in ("torch", "pyro"):
                    yield f"{root}.{node.attr}"


def test_the_list_is_complete() -> None:
    assert set(private_names()) == set(ALLOWED)


@pytest.mark.parametrize("name", ALLOWED)
def test_private_names_do_what_they_are_used_for(name: str) -> None:
    try:
        ALLOWED[name]()
    except (AssertionError, AttributeError) as error:
        raise AssertionError(
            f"{name} must work as the package uses it, got torch {torch.__version__} and Pyro "
            f"{pyro.__version__}, where it does not"
        ) from error
