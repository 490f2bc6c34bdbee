"""Replaces a function of one tensor by the list of tensor operations that it ran."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, fx
from torch._guards import TracingContext, tracing
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode

from pyro_tkam.infer.model.attempt import RAISED_BY_CODE, is_out_of_memory
from pyro_tkam.infer.model.cost import Cost, cost_of
from pyro_tkam.infer.model.direct_calls import direct
from pyro_tkam.infer.model.expansion import drop_expansions, hoist_expansions
from pyro_tkam.infer.model.few_terms import add_few_logs
from pyro_tkam.infer.model.inner_loops import lengthen_inner_loops
from pyro_tkam.infer.model.one_pass import join_products, slice_instead_of_padding
from pyro_tkam.infer.model.parts import work_on_parts
from pyro_tkam.infer.model.sums import sum_first

Function = Callable[[Tensor], tuple[Any, ...]]
Known = Callable[[], tuple[Tensor, tuple[Any, ...]]]
Wrap = Callable[[Callable[..., tuple[Any, ...]]], Function]
aten = torch.ops.aten
_OpOverload = type(aten.add.Tensor)
_ONLY_SHAPE_MATTERS = (
    aten.ones_like.default,
    aten.zeros_like.default,
    aten.full_like.default,
    aten.new_zeros.default,
)
_NEUTRAL: dict[Any, int] = {
    **dict.fromkeys((aten.add.Tensor, aten.add.Scalar, aten.sub.Tensor, aten.sub.Scalar), 0),
    **dict.fromkeys((aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar), 1),
}
"""The number that leaves the first argument as it is."""
_RECORDED_ROWS = (37, 53)
"""
Sizes of the batches that are recorded: primes, so that what is a multiple of them is rarely
anything but a number of rows. The second is tried where the first is a size of the data.
"""
_COMPARED_ROWS = 3
_FOLDED = "_folded_"
_MOST_ROWS = "most_rows"
_COST = "cost"
_NO_END = 2**62
"""Of a slice: torch writes the largest integer."""
_SIZE_TYPES = {"int", "List[int]", "Optional[int]", "Optional[List[int]]"}
"""How the schema of an operation calls arguments that may be sizes."""
_LEAVES_TORCH = {
    Tensor.numpy: "numpy()",
    Tensor.tolist: "tolist()",
    Tensor.__array__: "numpy()",
    Tensor.data_ptr: "data_ptr()",
    Tensor.__dlpack__: "__dlpack__()",
}
"""
Functions that return tensor values to Python, except ``item()``, which recording itself refuses.
"""
_CLOSE: dict[str, Any] = {"rtol": 1e-3, "atol": 1e-3, "equal_nan": True}


class TracedFunction:
    """
    A function of a batch that is recorded once, so that handlers and autograd cost nothing
    afterward.

    One recording serves all batches. Sizes that are multiples of the recorded number of rows become
    multiples of the batch's number of rows, or each row is evaluated separately. The recording is
    checked at another input with another number of rows. A recording would freeze Python values,
    and sizes, that depend on values of tensors. If there are any, or if the recording or the check
    fails, the function itself is called from then on, and ``failure`` says why.

    :param function: maps ``(rows, ...)`` to a tuple of ``(rows, ...)``, each row independently.
    :param enabled: False calls the function itself.
    :param known: returns some batch and the function's known values there, for the check; if None,
        the function is called.
    :param row_by_row: whether the function itself only loops over rows.
    :param most_rows: rows that are evaluated at once; larger batches are cut.
    :param part_of: another function whose first results are those of this one, and their number; if
        it has been recorded, its recording serves this one, too.

    >>> traced = TracedFunction(lambda x: (x.square().sum(-1),))
    >>> traced(torch.ones(3, 2))
    (tensor([2., 2., 2.]),)
    """

    def __init__(
        self,
        function: Function,
        enabled: bool = True,
        known: Known | None = None,
        *,
        row_by_row: bool = False,
        most_rows: int | None = None,
        part_of: tuple[TracedFunction, int] | None = None,
    ) -> None:
        self.function = function
        self._known = known
        self._part_of = part_of
        self.most_rows = most_rows
        self._row_by_row = row_by_row
        self.failure = None if enabled else "not wanted"
        self._module: fx.GraphModule | None = None
        self._wrap: Wrap = _any_number
        self._graph: Function | None = None

    @property
    def operations(self) -> list[fx.Node]:
        """The operations that run instead of the function, once it is recorded."""
        return [] if self._module is None else list(self._module.graph.nodes)

    @property
    def cost(self) -> Cost | None:
        """The cost of a batch, once the function is recorded."""
        return None if self._module is None else self._module.meta[_COST]

    def __call__(self, batch: Tensor) -> tuple[Any, ...]:
        """Evaluate a batch."""
        if self.most_rows is not None and len(batch) > self.most_rows:
            parts = [self(part) for part in batch.chunk(-(-len(batch) // self.most_rows))]
            return tuple(torch.cat(column) for column in zip(*parts, strict=True))
        if self._graph is None and self.failure is None:
            self._prepare(batch.detach())
            return self(batch)
        if self._graph is None:
            return self.function(batch)
        with torch.no_grad():
            return self._graph(batch)

    def _prepare(self, batch: Tensor) -> None:
        """Take a part of another function's recording, or record this function."""
        if self._part_of is not None and self._part_of[0]._module is not None:
            whole, number = self._part_of
            assert whole._module is not None
            part = _first_results(whole._module, number)
            self._keep(part, direct(part).forward, whole._wrap)
        else:
            self._record(batch)
        self._known = self._part_of = None

    def _keep(
        self, module: fx.GraphModule, forward: Callable[..., tuple[Any, ...]], wrap: Wrap
    ) -> None:
        self._module = module
        self._wrap = wrap
        self._graph = wrap(forward)
        limits = (self.most_rows, module.meta.get(_MOST_ROWS))
        self.most_rows = min((each for each in limits if each is not None), default=None)

    def _record(self, batch: Tensor) -> None:
        # Recording runs a user's code in an unusual mode; where that raises, the plain function
        # still works. Out of memory it would be too. One mode notes the shapes of all results:
        # left to itself, make_fx makes a mode for each operation, which takes half of the time.
        try:
            known = self._known() if self._known else self._compared(batch)
            for rows in (1,) if self._row_by_row else _RECORDED_ROWS:
                with _Reads() as reads, tracing(TracingContext(FakeTensorMode())):
                    traced = make_fx(lambda tensor: self.function(tensor))(_cut(batch, rows))
                if read := reads.seen | _read_by_operations(traced):
                    self.failure = f"values are read by {sorted(read)}"
                    return
                _simplify(traced, rows)
                traced.meta[_COST] = cost_of(traced.graph.nodes, rows)
                forward = direct(traced).forward
                for wrap in (_by_row,) if self._row_by_row else (_any_number, _two_or_more):
                    if _is_right(wrap(forward), *known):
                        self._keep(traced, forward, wrap)
                        return
            self.failure = "the recorded operations give different values from the function"
        except RAISED_BY_CODE as error:
            if is_out_of_memory(error):
                raise
            self.failure = f"{type(error).__name__}: {error}"

    def _compared(self, batch: Tensor) -> tuple[Tensor, tuple[Any, ...]]:
        """Return another batch, and the function's values there."""
        few = _cut(batch, _COMPARED_ROWS)
        shift = torch.linspace(-0.1, 0.1, few.numel()).to(few).reshape(few.shape)
        with torch.no_grad():
            return few + shift, self.function(few + shift)


def _any_number(graph: Callable[..., tuple[Any, ...]]) -> Function:
    """Turn a function of a dense batch and its number of rows into a function of a batch."""
    return lambda batch: tuple(graph(_dense(batch), len(batch)))


def _two_or_more(graph: Callable[..., tuple[Any, ...]]) -> Function:
    """
    Return the same for functions that drop dimensions of size one, such as sums over discrete
    sites: a single row is duplicated before it is evaluated.
    """
    several = _any_number(graph)
    return lambda batch: _first_rows(several(_cut(batch, max(2, len(batch)))), len(batch))


def _by_row(graph: Callable[..., tuple[Any, ...]]) -> Function:
    """Return a function of a batch that evaluates each row with the graph of a single row."""

    def evaluate(batch: Tensor) -> tuple[Any, ...]:
        rows = [graph(_dense(row)) for row in batch.split(1)]
        return tuple(torch.cat(column) for column in zip(*rows, strict=True))

    return evaluate


def _first_results(module: fx.GraphModule, number: int) -> fx.GraphModule:
    """Return the part of a module that computes its first results."""
    graph = fx.Graph()
    results = graph.graph_copy(module.graph, {})
    graph.output(tuple(cast(Any, results)[:number]))
    graph.eliminate_dead_code()
    part = fx.GraphModule(module, graph)
    part.meta = module.meta
    return part


def _first_rows(values: tuple[Any, ...], rows: int) -> tuple[Any, ...]:
    return tuple(value[:rows] for value in values)


def _is_right(graph: Function, batch: Tensor, expected: tuple[Any, ...]) -> bool:
    """
    Tell whether a recording gives the function's values for a batch and for one row. It does not if
    a size was mistaken for a number of rows.
    """
    with torch.no_grad():
        try:
            pairs = [
                *zip(graph(batch), expected, strict=True),
                *zip(graph(batch[:1]), _first_rows(expected, 1), strict=True),
            ]
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            return False
    return all(
        got.shape == wanted.shape and torch.allclose(got, wanted, **_CLOSE) for got, wanted in pairs
    )


class _Reads(TorchFunctionMode):
    """Records the functions that turn tensor values into Python values."""

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
    Return the operations whose result is a Python value, or has a size, that depends on the batch's
    values.
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
    """Return the arguments of a node whose values determine a size or a Python value."""
    if not isinstance(node.target, _OpOverload):
        return []
    if node.target is aten.index.Tensor:
        indices: Any = node.args[1]
        given = [each for each in indices if isinstance(each, fx.Node)]
        return [each for each in given if each.meta["val"].dtype in (torch.bool, torch.uint8)]
    dynamic = {torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output}
    return [] if dynamic.isdisjoint(node.target.tags) else node.all_input_nodes


def _dense(batch: Tensor) -> Tensor:
    """
    Make a contiguous copy of a batch, because a trace assumes the strides with which it was
    recorded.
    """
    return batch.clone(memory_format=torch.contiguous_format)


def _cut(batch: Tensor, rows: int) -> Tensor:
    """Return this many rows of a batch; if there are too few, repeat the last one."""
    few = batch[:rows]
    missing = rows - len(few)
    return _dense(torch.cat([few, few[-1:].expand(missing, *few.shape[1:])]))


def _simplify(module: fx.GraphModule, rows: int) -> None:
    """
    Fold constants, remove copies and dead or repeated operations, and make sizes depend on the
    number of rows, which becomes an input of the graph.

    :param rows: number of rows of the recorded batch; a graph of one row stays limited to one row.
    """
    graph = module.graph
    pieces = [size for node in graph.nodes if (size := _rows_in_a_piece(node, rows))]
    module.meta[_MOST_ROWS] = min(pieces, default=None)
    graph.eliminate_dead_code(lambda node: node.is_impure() or not _is_pure(node))
    pure = all(_is_pure(node) or _made_pure(node) for node in graph.nodes)
    if pure:
        for node in list(graph.nodes):
            if node.op != "call_function":
                continue
            if _does_nothing(module, node):
                node.replace_all_uses_with(cast(fx.Node, node.args[0]))
            elif (
                all(each.op == "get_attr" for each in node.all_input_nodes)
                or node.target in _ONLY_SHAPE_MATTERS
            ):
                _fold(module, node, rows)
        graph.eliminate_dead_code()
        hoist_expansions(graph)
        sum_first(graph)
        for node in graph.nodes:  # strides of operands may differ now, or in a batch
            if node.target in (aten.view.default, aten._unsafe_view.default):
                node.target = aten.reshape.default
        graph.eliminate_dead_code()
        _share(graph)
    if rows > 1:
        _generalize(module, rows)
    if pure:
        drop_expansions(graph)
        add_few_logs(graph)
        slice_instead_of_padding(graph)
        join_products(graph)
        work_on_parts(graph)
        lengthen_inner_loops(graph)


def _rows_in_a_piece(node: fx.Node, recorded: int) -> int | None:
    """
    Return the largest number of rows for an operation that cuts the rows into pieces of limited
    size. All recorded rows fit into a single piece; more rows would need more pieces, which the
    recording lacks. Return None for any other operation.
    """
    if recorded == 1 or node.target not in (aten.split.Tensor, aten.slice.Tensor):
        return None
    given = dict(zip(_names(node.target), node.args, strict=False)) | node.kwargs
    whole = cast(fx.Node, given["self"]).meta["val"].shape[cast(int, given.get("dim", 0))]
    size = given.get("split_size", given.get("end"))
    if not isinstance(size, int) or whole % recorded or not whole <= size < _NO_END:
        return None
    return size // (whole // recorded)


def _generalize(module: fx.GraphModule, recorded: int) -> None:
    """
    Replace sizes that are multiples of the recorded number of rows with multiples of the graph's
    input.
    """
    graph = module.graph
    batch = next(node for node in graph.nodes if node.op == "placeholder")
    with graph.inserting_after(batch):
        rows = graph.placeholder("rows")
    multiples = {1: rows}

    def of_rows(size: Any) -> Any:
        if isinstance(size, list | tuple):
            return type(size)(of_rows(each) for each in size)
        if not isinstance(size, int) or isinstance(size, bool) or size <= 0 or size % recorded:
            return size
        factor = size // recorded
        if factor not in multiples:
            with graph.inserting_after(rows):
                multiples[factor] = graph.call_function(operator.mul, (rows, factor))
        return multiples[factor]

    for node in list(graph.nodes):
        if isinstance(node.target, _OpOverload):
            sizes = _sizes(node.target)
            node.args = tuple(
                of_rows(each) if name in sizes else each
                for name, each in zip(_names(node.target), node.args, strict=False)
            )
            node.kwargs = {
                name: of_rows(each) if name in sizes else each for name, each in node.kwargs.items()
            }
        elif node.op == "get_attr" and str(node.target).startswith(_FOLDED):
            constant = getattr(module, str(node.target))
            if recorded in constant.shape:
                for dim in _row_dims(constant, recorded):
                    constant = constant.narrow(dim, 0, 1)
                whole = getattr(module, str(node.target))
                setattr(module, str(node.target), constant.clone())
                sizes = of_rows(list(whole.shape))
                with graph.inserting_after(node):
                    spread = graph.call_function(aten.expand.default, (node, sizes))
                node.meta["val"] = constant
                spread.meta["val"] = whole
                node.replace_all_uses_with(spread, lambda user, new=spread: user is not new)


def _names(target: Any) -> list[str]:
    return [each.name for each in target._schema.arguments]


def _sizes(target: Any) -> set[str]:
    """Return the names of an operation's arguments that may be sizes."""
    numbers = {"number"} if target.overloadpacket is aten.arange else set()
    kinds = _SIZE_TYPES | numbers
    return {each.name for each in target._schema.arguments if str(each.type) in kinds}


def _depends_on_rows(value: Tensor, rows: int) -> bool:
    """Tell whether a value differs between rows, or may."""
    several = sum(size % rows == 0 < size for size in value.shape)
    return several > len(_row_dims(value, rows))


def _row_dims(value: Tensor, rows: int) -> list[int]:
    """Return the dimensions of so many equal rows."""
    return [
        dim
        for dim, size in enumerate(value.shape)
        if size == rows and torch.equal(value, value.narrow(dim, 0, 1).expand_as(value))
    ]


def _share(graph: fx.Graph) -> None:
    """Merge operations that are computed several times; all operations are pure."""
    first: dict[Any, fx.Node] = {}
    for node in list(graph.nodes):
        if node.op in ("call_function", "get_attr"):
            # Names of nodes are unique, so equal text means equal arguments.
            same = first.setdefault((node.target, repr(node.args), repr(node.kwargs)), node)
            if same is not node:
                node.replace_all_uses_with(same)
                graph.erase_node(node)


def _is_pure(node: fx.Node) -> bool:
    return not (isinstance(node.target, _OpOverload) and node.target._schema.is_mutable)


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
        not isinstance(node.target, _OpOverload)
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
    if isinstance(other, int | float) and len(node.args) == 2 and not node.kwargs:
        return same and other == _NEUTRAL.get(node.target)
    if node.target is aten.add.Tensor and isinstance(other, fx.Node) and other.op == "get_attr":
        return same and not node.kwargs and not getattr(module, str(other.target)).any()
    return same and node.target in (aten.view.default, aten.expand.default)


def _fold(module: fx.GraphModule, node: fx.Node, rows: int) -> None:
    """Replace a node with the constant that it computes, unless its value differs between rows."""

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
    if rows > 1 and _depends_on_rows(value, rows):
        return
    name = f"{_FOLDED}{node.name}"
    module.register_buffer(name, value, persistent=False)
    with module.graph.inserting_before(node):
        constant_node = module.graph.get_attr(name)
    constant_node.meta["val"] = value
    node.replace_all_uses_with(constant_node)
