"""Recorded graphs, and where they are not to be trusted."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._ops import OpOverload

from pyro_tkam.infer.model.compiled import TracedFunction
from pyro_tkam.infer.model.direct_calls import FUNCTIONS
from pyro_tkam.nn import KAN

aten = torch.ops.aten


def branching(x: Tensor) -> tuple[Tensor, ...]:
    return (x.sum(-1) if x.mean() > 0.02 else -x.sum(-1),)


def by_numpy(x: Tensor) -> tuple[Tensor, ...]:
    table = np.array([0.0, 2.0], dtype="float32")
    return (x.sum(-1) + torch.as_tensor(table[(x[:, 0].detach().numpy() > 0.5).astype(int)]),)


def by_array(x: Tensor) -> tuple[Tensor, ...]:
    return (x.sum(-1) + torch.as_tensor(np.asarray(x[:, 0] > 0.5).astype("float32")),)


def by_list(x: Tensor) -> tuple[Tensor, ...]:
    return (x.sum(-1) + torch.tensor([float(row[0] > 0.5) for row in x.tolist()]),)


def by_size(x: Tensor) -> tuple[Tensor, ...]:
    return (x.sum(-1) + len((x > 0.5).nonzero()),)


def by_mask(x: Tensor) -> tuple[Tensor, ...]:
    return (x.sum(-1) + len(x[x > 0.5]),)


def by_comparison(x: Tensor) -> tuple[Tensor, ...]:
    return (x.sum(-1) + torch.equal(x > 0.5, torch.zeros_like(x) > 1),)


@pytest.mark.parametrize(
    "function", [branching, by_numpy, by_array, by_list, by_size, by_mask, by_comparison]
)
def test_values_that_leave_torch_are_not_frozen(function: Callable) -> None:
    """At the first batch, and at the one by which a trace is checked, no value is above 0.5."""
    traced = TracedFunction(function)
    first = torch.full((8, 2), 0.01)
    torch.testing.assert_close(traced(first), function(first))
    torch.testing.assert_close(traced(first + 5), function(first + 5))
    assert traced.failure is not None


@pytest.mark.parametrize("rows", [1, 7, 8, 13, 100])
def test_graph_equals_the_function_at_every_size(rows: int) -> None:
    traced = TracedFunction(lambda x: (x.square().sum(-1), x.sin()))
    x = torch.randn(rows, 3)
    torch.testing.assert_close(traced(x)[0], x.square().sum(-1))
    torch.testing.assert_close(traced(x)[1], x.sin())
    assert traced.failure is None


def test_any_strides_and_offsets_are_taken() -> None:
    def function(x: Tensor) -> tuple[Tensor, ...]:
        return (x.reshape(len(x), -1).square().sum(-1), x.as_strided((len(x), 2), (6, 1)).sum(-1))

    traced, x = TracedFunction(function), torch.randn(9, 3, 2)
    traced(x[:8])
    assert traced.failure is None
    for batch in (x[:8], x[1:], x[:8].mT.contiguous().mT, x[:1].expand(8, 3, 2)):
        torch.testing.assert_close(
            traced(batch), function(batch.clone(memory_format=torch.contiguous_format))
        )


def test_graph_keeps_what_operations_in_place_mean() -> None:
    def writing(x: Tensor) -> tuple[Tensor, ...]:
        y = x * 2
        early, view = y + 1, y[:, :1]
        y.add_(3)
        z = x + 1
        z.masked_fill_(x > 0, -5.0)
        return early.sum(-1), y.sum(-1), view.sum(-1), z.sum(-1)

    traced, x = TracedFunction(writing), torch.randn(8, 3)
    for got, expected in zip(traced(x), writing(x), strict=True):
        torch.testing.assert_close(got, expected)
    assert traced.failure is None


def in_a_plate(x: Tensor) -> tuple[Tensor, ...]:
    """A mixture of two normals at 50 data, as a plate repeats its parameters."""
    data = torch.linspace(-1, 1, 50)[:, None]
    location, log_scale, logits = (
        x[:, None, 2 * i : 2 * i + 2].expand(len(x), 50, 2) for i in range(3)
    )
    errors = (data - location) / log_scale.exp()
    terms = logits.log_softmax(-1) - log_scale - 0.5 * errors.square()
    along_repeated = log_scale.log_softmax(1).exp().sum((1, 2))
    return terms.logsumexp(-1).sum(-1), along_repeated, log_scale.exp().reshape(len(x), -1)


def with_gradient(x: Tensor) -> tuple[Tensor, ...]:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        outputs = in_a_plate(x)
        (gradient,) = torch.autograd.grad(outputs[0].sum() + outputs[2].sum(), x)
    return (*(each.detach() for each in outputs), gradient)


def test_what_a_plate_repeats_is_computed_once() -> None:
    traced, x = TracedFunction(with_gradient), torch.randn(8, 6, dtype=torch.float64)
    torch.testing.assert_close(traced(x), with_gradient(x))
    assert traced.failure is None
    sizes = [
        node.meta["val"][0].numel()
        for node in traced.operations
        if node.name.startswith("_log_softmax")
    ]
    # That along what the plate does not repeat, that along what it repeats, and the derivative of
    # the first, which is summed over the plate before.
    assert sizes == [2, 100, 2]


def test_graphs_that_read_memory_keep_their_layout() -> None:
    def function(x: Tensor) -> tuple[Tensor, ...]:
        turned = torch.arange(6.0).reshape(3, 2).mT
        both = x[:, :1, None].expand(len(x), 2, 3).exp() * turned
        return (both.as_strided((len(x), 6), (6, 1)),)

    traced, x = TracedFunction(function), torch.randn(8, 2)
    torch.testing.assert_close(traced(x)[0], function(x)[0])
    assert traced.failure is None


DATA = {size: torch.randn(size) for size in (3, 37, 53, 74)}


@pytest.mark.parametrize("size", [3, 37, 74])
def test_sizes_of_data_are_no_numbers_of_rows(size: int) -> None:
    """One recording is of 37 rows: data of that size, and a constant of it, stay what they are."""
    data = DATA[size]

    def function(x: Tensor) -> tuple[Tensor, ...]:
        spread = (x[:, :1] - data).square().sum(-1) + torch.ones(size).sum()
        pairs = torch.cat([x.sum(-1), torch.arange(len(x)) * 0.0 + size]).reshape(2, -1)
        return spread, pairs.sum(0), torch.zeros(len(x), 2) + x[:, :2]

    traced = TracedFunction(function)
    for rows in (1, 2, 5, 37, 74, 100):
        x = torch.randn(rows, 3)
        for got, expected in zip(traced(x), function(x), strict=True):
            torch.testing.assert_close(got, expected)
    assert traced.failure is None


def test_where_every_recording_meets_its_size_the_function_is_run() -> None:
    def function(x: Tensor) -> tuple[Tensor, ...]:
        spread = (x[:, :1].expand(len(x), size).cumsum(-1) for size in (37, 53))
        return tuple((each - DATA[each.shape[-1]]).sum(-1) for each in spread)

    traced, x = TracedFunction(function), torch.randn(6, 2)
    torch.testing.assert_close(traced(x), function(x))
    assert traced.failure is not None


def test_an_expansion_is_dropped_where_the_operation_repeats_by_itself() -> None:
    """Also that of a constant to the number of rows, but none that decides on a result's shape."""

    def function(x: Tensor) -> tuple[Tensor, ...]:
        spread = x[:, :1].expand(len(x), 6)
        decides = (x[:, :1].exp().expand(len(x), 6) * 2.0).sum(-1)
        return (spread * torch.arange(6.0)).sum(-1), decides, torch.ones(len(x)) * 3 + x[:, 1]

    traced = TracedFunction(function)
    for rows in (8, 1, 3):
        x = torch.randn(rows, 2)
        for got, expected in zip(traced(x), function(x), strict=True):
            torch.testing.assert_close(got, expected)
    kept = [node for node in traced.operations if node.target is torch.ops.aten.expand.default]
    assert traced.failure is None
    assert len(kept) == 1  # before the sum of six equal columns


def of_mixture(x: Tensor) -> Tensor:
    logits = x[:, None, :2].expand(len(x), 50, 2)
    errors = torch.linspace(-2, 2, 50)[:, None] - x[:, None, 2:4]
    terms = logits.log_softmax(-1) - x[:, None, 4:] - (errors / x[:, None, 4:].exp()).square()
    return terms.logsumexp(-1).sum(-1)


def of_squares(x: Tensor) -> Tensor:
    residual = x[:, :1] - torch.linspace(-1, 1, 50)
    return (residual * residual / x[:, 1:2].exp()).sum(1) + (-residual * x[:, 2:3]).sum([1])


@pytest.mark.parametrize("function", [of_mixture, of_squares])
def test_what_is_the_same_along_a_sum_is_computed_after_it(
    function: Callable[[Tensor], Tensor],
) -> None:
    """Values and gradients stay; a square, which is no linear operation, is summed as it is."""

    def with_gradient(x: Tensor) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            z = x.detach().requires_grad_()
            value = function(z)
            return value.detach(), torch.autograd.grad(value.sum(), z)[0]

    traced = TracedFunction(with_gradient)
    x = 0.5 * torch.randn(9, 6, dtype=torch.float64)
    for got, expected in zip(traced(x), with_gradient(x), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    assert traced.failure is None
    backward = [each for each in traced.operations if "log_softmax_backward" in each.name]
    assert all(each.meta["val"].numel() == 37 * 2 for each in backward)  # not for each of 50 data
    assert bool(backward) == (function is of_mixture)


def test_one_recording_serves_all_sizes() -> None:
    calls = []

    def function(x: Tensor) -> tuple[Tensor, ...]:
        calls.append(len(x))
        return (x.square().sum(-1),)

    traced = TracedFunction(function)
    for rows in (4, 9, 200):
        traced(torch.randn(rows, 2))
    assert len(calls) == 2


def test_known_values_check_a_recording() -> None:
    def function(x: Tensor) -> tuple[Tensor, ...]:
        return (x.square().sum(-1),)

    at, x = torch.randn(2, 3), torch.randn(4, 3)
    right = TracedFunction(function, known=lambda: (at, function(at)))
    wrong = TracedFunction(function, known=lambda: (at, (torch.zeros(2),)))
    for traced in (right, wrong):
        torch.testing.assert_close(traced(x), function(x))
    assert right.failure is None
    assert wrong.failure is not None


def test_large_batches_are_cut_to_most_rows() -> None:
    seen = []

    def function(x: Tensor) -> tuple[Tensor, ...]:
        seen.append(len(x))
        return x.square().sum(-1), x.sin()

    cut, x = TracedFunction(function, enabled=False, most_rows=3), torch.randn(10, 2)
    torch.testing.assert_close(cut(x), (x.square().sum(-1), x.sin()))
    assert max(seen) == 3
    assert sum(seen) == 10
    recorded = TracedFunction(function, most_rows=3)
    torch.testing.assert_close(recorded(x), (x.square().sum(-1), x.sin()))
    assert recorded.failure is None


def arguments_of(target: OpOverload) -> tuple[object, ...]:
    """Return what an operation of matrices may be called with."""
    square, other, flags = torch.rand(3, 3), torch.rand(3, 3), torch.rand(3, 3) > 0.5
    special = {
        aten.addcmul.default: (square, other, other),
        aten.addmm.default: (square[0], square, other),
        aten.amax.default: (square, [1], True),
        aten.bitwise_and.Tensor: (flags, flags.mT),
        aten.bitwise_not.default: (flags,),
        aten.bmm.default: (square[None], other[None]),
        aten.cat.default: ([square, other], 1),
        aten.clamp.default: (square, None, 0.8),
        aten.cumprod.default: (square, 1),
        aten.cumsum.default: (square, 1),
        aten.expand.default: (square[:, None], [3, 2, 3]),
        aten.flip.default: (square, [1]),
        aten.gather.default: (square, 1, flags.long()),
        aten.logsumexp.default: (square, [1], True),
        aten.masked_fill.Scalar: (square, flags, -torch.inf),
        aten.mm.default: (square, other),
        aten.permute.default: (square, [1, 0]),
        aten.pow.Tensor_Scalar: (square, 3),
        aten.reshape.default: (square, [9, 1]),
        aten.select.int: (square, 1, -1),
        aten.squeeze.dims: (square[None], [0]),
        aten.sum.dim_IntList: (square, [1], True),
        aten.transpose.int: (square, 0, 1),
        aten.unsqueeze.default: (square, 1),
        aten.where.self: (flags, square, other),
    }
    if target in special:
        return special[target]
    takes = [str(each.type) for each in target._schema.arguments if not each.kwarg_only]
    return tuple(other if kind == "Tensor" else 2 for kind in takes[:2])


@pytest.mark.parametrize("target", FUNCTIONS, ids=str)
def test_functions_of_torch_do_what_operations_do(target: OpOverload) -> None:
    function, most = FUNCTIONS[target]
    arguments = arguments_of(target)
    assert len(arguments) <= most
    got, wanted = function(*arguments), target(*arguments)
    assert torch.equal(got, wanted)
    assert got.stride() == wanted.stride()
    assert got.dtype == wanted.dtype


def test_neutral_numbers_are_dropped_and_others_are_not() -> None:
    def function(x: Tensor) -> tuple[Tensor, ...]:
        return (((x + 0.0) * 1 / 1.0 - 0).exp().sum(-1), (x + 1).sum(-1), (x * 0).sum(-1))

    traced, x = TracedFunction(function), torch.randn(8, 3)
    torch.testing.assert_close(traced(x), function(x))
    called = [str(node.target) for node in traced.operations if node.op == "call_function"]
    # Sums are taken first, so that two of them are of the same.
    assert sorted(called) == ["aten.add.Tensor", "aten.exp.default", "aten.mul.Tensor"] + (
        ["aten.sum.dim_IntList"] * 2
    )


def in_pieces(x: Tensor) -> tuple[Tensor, ...]:
    values = x.reshape(-1, 2)
    return (torch.cat([part.exp().sum(-1) for part in values.split(300)]).reshape(len(x), -1),)


def in_slices(x: Tensor) -> tuple[Tensor, ...]:
    values = x.reshape(-1, 2)
    starts = range(0, len(values), 300)
    parts = [values[start : start + 300].exp().sum(-1) for start in starts]
    return (torch.cat(parts).reshape(len(x), -1),)


def first_rows(x: Tensor) -> tuple[Tensor, ...]:
    """Not each row by itself: a recording must not make it so in silence."""
    values = x.reshape(-1, 2)[:300]
    return (x.sum((-2, -1)) + 0 * values.sum(),)


@pytest.mark.parametrize("function", [in_pieces, in_slices, first_rows])
def test_batches_of_more_rows_than_a_recorded_piece_are_cut(function):
    """Networks evaluate many rows piece by piece; 37 recorded rows of 5 were a single piece."""
    traced = TracedFunction(function)
    for rows in (3, 50, 61, 200, 1):
        batch = torch.randn(rows, 5, 2)
        assert torch.allclose(traced(batch)[0], function(batch)[0])
    assert traced.failure is None
    assert traced.most_rows == 60


def test_a_network_of_pieces_is_recorded():
    """A wide layer takes 809 rows at a time; 16 data and 79 rows are more."""
    network = KAN([8, 162, 3], basis="rbf", grid_size=8)
    traced = TracedFunction(lambda x: (network(x).sum(-1),))
    with torch.no_grad():
        for rows in (2, 79, 300):
            batch = torch.randn(rows, 16, 8)
            torch.testing.assert_close(traced(batch)[0], network(batch).sum(-1))
    assert traced.failure is None
