"""Replaces a function of one tensor by the list of tensor operations that it ran."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode

from pyro_tkam.infer.model.attempt import RAISED_BY_CODE, is_out_of_memory
from pyro_tkam.infer.model.expansion import hoist_expansions

Function = Callable[[Tensor], tuple[Any, ...]]
aten = torch.ops.aten
_ONLY_SHAPE_MATTERS = (
    aten.ones_like.default,
    aten.zeros_like.default,
    aten.full_like.default,
    aten.new_zeros.default,
)
_SMALLEST = 8
"""The smallest batch that is traced unless another is expected."""
_LONG = 2000
"""
Operations from which on a trace takes as long as some hundred calls save: seconds for each size.
"""
_LEAVES_TORCH = {
    Tensor.numpy: "numpy()",
    Tensor.tolist: "tolist()",
    Tensor.__array__: "numpy()",
    Tensor.data_ptr: "data_ptr()",
    Tensor.__dlpack__: "__dlpack__()",
}
"""Ways of values out of torch, beside ``item()``, which tracing itself refuses."""
_CLOSE: dict[str, Any] = {"rtol": 1e-3, "atol": 1e-3, "equal_nan": True}


class TracedFunction:
    """
    A function of a batch, traced once for each batch size, so that handlers and autograd cost
    nothing afterwards.

    Sizes other than those expected (:meth:`expect`) are padded to a power of two; they are not
    traced where a trace is so long that it would not pay. The first trace is checked at another
    input. If tracing or the check fails, or values or sizes that depend on
    values leave torch, where a trace would keep what it saw once, the function itself is called
    from then on, and ``failure`` says why.

    :param function: from ``(rows, ...)`` to a tuple of ``(rows, ...)``; each row by itself.
    :param enabled: False calls the function itself.

    >>> traced = TracedFunction(lambda x: (x.square().sum(-1),))
    >>> traced(torch.ones(3, 2))
    (tensor([2., 2., 2.]),)
    """

    def __init__(self, function: Function, enabled: bool = True) -> None:
        self.function = function
        self.failure = None if enabled else "not wanted"
        self._exact: set[int] = set()
        self._operations = 0
        self._graphs: dict[int, Function] = {}

    def expect(self, rows: int) -> None:
        """Trace batches of this size as they are, from now on."""
        self._exact.add(rows)

    def __call__(self, batch: Tensor) -> tuple[Any, ...]:
        """Evaluate a batch."""
        rows = len(batch)
        size = self._size(rows)
        if size not in self._graphs and self.failure is None and self._pays(size):
            self._trace(_pad(batch, size))
        if size not in self._graphs or self.failure is not None:
            return self.function(batch)
        with torch.no_grad():
            if size == rows:
                return tuple(self._graphs[size](_dense(batch)))
            return tuple(value[:rows] for value in self._graphs[size](_pad(batch, size)))

    def _size(self, rows: int) -> int:
        # It depends on the sizes expected, not on those seen, so that a resumed run rounds as the
        # first one did.
        power = max(_SMALLEST, 1 << (rows - 1).bit_length())
        return min([size for size in self._exact if size >= rows] + [power])

    def _pays(self, size: int) -> bool:
        """Tell whether batches of this size will be many enough to trace them."""
        return self._operations < _LONG or size in self._exact

    def _trace(self, batch: Tensor) -> None:
        # Tracing runs a user's code in an unusual mode; where that raises, the plain function still
        # works. Out of memory it would be too.
        try:
            with _Reads() as reads:
                traced = make_fx(lambda tensor: self.function(tensor))(_dense(batch.detach()))
            if read := reads.seen | _read_by_operations(traced):
                self.failure = f"values are read by {sorted(read)}"
                return
            graph = _simplified(traced)
            self._operations = len(traced.graph.nodes)
            if self._graphs or self._is_right(graph, batch.detach()):
                self._graphs[len(batch)] = graph
            else:
                self.failure = "the traced operations give other values than the function"
        except RAISED_BY_CODE as error:
            if is_out_of_memory(error):
                raise
            self.failure = f"{type(error).__name__}: {error}"

    def _is_right(self, graph: Function, batch: Tensor) -> bool:
        """Tell whether a trace gives the function's values at another batch."""
        shift = torch.linspace(-0.1, 0.1, batch.numel()).to(batch).reshape(batch.shape)
        with torch.no_grad():
            pairs = zip(graph(batch + shift), self.function(batch + shift), strict=True)
            return all(torch.allclose(*pair, **_CLOSE) for pair in pairs)


class _Reads(TorchFunctionMode):
    """Notes by what values leave torch."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in _LEAVES_TORCH:
            self.seen.add(_LEAVES_TORCH[func])
        return func(*args, **(kwargs or {}))


def _read_by_operations(module: fx.GraphModule) -> set[str]:
    """
    Return the operations whose result has a size, or is a Python value, that depends on the batch.
    """
    varying: set[fx.Node] = set()
    found = set()
    for node in module.graph.nodes:
        if node.op == "placeholder" or not varying.isdisjoint(node.all_input_nodes):
            varying.add(node)
            if not varying.isdisjoint(_deciding(node)):
                found.add(str(node.target))
    return found


def _deciding(node: fx.Node) -> list[fx.Node]:
    """Return the arguments of a node whose values decide on a size or a Python value."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return []
    if node.target is aten.index.Tensor:
        indices: Any = node.args[1]
        given = [each for each in indices if isinstance(each, fx.Node)]
        return [each for each in given if each.meta["val"].dtype in (torch.bool, torch.uint8)]
    dynamic = {torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output}
    return [] if dynamic.isdisjoint(node.target.tags) else node.all_input_nodes


def _dense(batch: Tensor) -> Tensor:
    """Copy a batch into memory of its own, as a trace keeps the strides that it saw."""
    return batch.clone(memory_format=torch.contiguous_format)


def _pad(batch: Tensor, size: int) -> Tensor:
    missing = size - len(batch)
    return torch.cat([batch, batch[-1:].expand(missing, *batch.shape[1:])]) if missing else batch


def _simplified(module: fx.GraphModule) -> Function:
    """Drop what can be computed once: constants, copies, dead and repeated operations."""
    graph = module.graph
    graph.eliminate_dead_code(lambda node: node.is_impure() or not _is_pure(node))
    if not all(_is_pure(node) or _made_pure(node) for node in graph.nodes):
        return module.forward
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        if _does_nothing(module, node):
            node.replace_all_uses_with(cast(fx.Node, node.args[0]))
        elif (
            all(each.op == "get_attr" for each in node.all_input_nodes)
            or node.target in _ONLY_SHAPE_MATTERS
        ):
            _fold(module, node)
    graph.eliminate_dead_code()
    hoist_expansions(graph)
    graph.eliminate_dead_code()
    _share(graph)
    module.recompile()
    return module.forward


def _share(graph: fx.Graph) -> None:
    """Compute once what is computed several times; all operations are pure."""
    first: dict[Any, fx.Node] = {}
    for node in list(graph.nodes):
        if node.op in ("call_function", "get_attr"):
            # Names of nodes are unique, so that equal text means equal arguments.
            same = first.setdefault((node.target, repr(node.args), repr(node.kwargs)), node)
            if same is not node:
                node.replace_all_uses_with(same)
                graph.erase_node(node)


def _is_pure(node: fx.Node) -> bool:
    return not (isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable)


def _made_pure(node: fx.Node) -> bool:
    """
    Let a node return a new tensor instead of writing to its input, if nothing else sees that input.
    """
    name, overload = str(node.target).split(".")[1:]
    pure = getattr(getattr(aten, name.rstrip("_"), None), overload, None)
    source: Any = node.args[0]
    if pure is None or not isinstance(source, fx.Node):
        return False
    if _is_view(source) or any(
        user is not node and user < node and _is_view(user) for user in source.users
    ):
        return False
    source.replace_all_uses_with(node, lambda user: node < user)
    node.target = pure
    return True


def _is_view(node: fx.Node) -> bool:
    return (
        not isinstance(node.target, torch._ops.OpOverload)
        or node.target._schema.returns[0].alias_info is not None
    )


def _does_nothing(module: fx.GraphModule, node: fx.Node) -> bool:
    """Tell whether a node returns its first argument."""
    if node.target in (aten.detach.default, aten.alias.default):
        return True
    if node.target is aten.pow.Tensor_Scalar:
        return bool(node.args[1] == 1)
    source: Any = node.args[0] if node.args else None
    result = node.meta.get("val")
    before = source.meta.get("val") if isinstance(source, fx.Node) else None
    if not isinstance(before, Tensor) or not isinstance(result, Tensor):
        return False
    same = before.shape == result.shape and before.dtype == result.dtype
    other: Any = node.args[1] if len(node.args) > 1 else None
    if node.target is aten.add.Tensor and isinstance(other, fx.Node) and other.op == "get_attr":
        return same and not node.kwargs and not getattr(module, str(other.target)).any()
    return same and node.target in (aten.view.default, aten.expand.default)


def _fold(module: fx.GraphModule, node: fx.Node) -> None:
    """Replace a node by the constant it computes."""

    def constant(argument: fx.Node) -> Any:
        if argument.op == "get_attr":
            return getattr(module, str(argument.target))
        example = argument.meta["val"]
        return torch.empty(example.shape, dtype=example.dtype, device=example.device)

    with torch.no_grad():
        args, kwargs = fx.map_arg((node.args, node.kwargs), constant)
        value = cast(Callable[..., Any], node.target)(*args, **kwargs)
    if not isinstance(value, Tensor):
        return
    name = f"_folded_{node.name}"
    module.register_buffer(name, value, persistent=False)
    with module.graph.inserting_before(node):
        node.replace_all_uses_with(module.graph.get_attr(name))
