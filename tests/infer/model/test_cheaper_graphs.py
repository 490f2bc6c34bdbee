"""Passes over recorded graphs: the same values from cheaper operations, or the graph as it was."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from pyro_tkam.infer.model.compiled import TracedFunction
from pyro_tkam.infer.model.few_terms import add_few_logs
from pyro_tkam.infer.model.inner_loops import lengthen_inner_loops
from pyro_tkam.infer.model.one_pass import join_products, slice_instead_of_padding
from pyro_tkam.infer.model.parts import add_product_to_part, add_to_part, work_on_parts
from pyro_tkam.infer.model.sums import sum_first

Pass = Callable[[fx.Graph], None]
DATA = torch.linspace(-2, 2, 50, dtype=torch.float64)[:, None]
SPECIAL = torch.tensor([-torch.inf, -2.0, 0.0, 3.0, torch.inf, torch.nan], dtype=torch.float64)


def after(change: Pass, function: Callable[..., Tensor], *inputs: Tensor) -> fx.GraphModule:
    """Return the changed recording of a function, which gives its values."""
    module = make_fx(function)(*inputs)
    change(module.graph)
    module.graph.eliminate_dead_code()
    module.graph.lint()
    module.recompile()
    torch.testing.assert_close(
        module(*inputs), function(*inputs), rtol=1e-12, atol=0, equal_nan=True
    )
    for node in module.graph.nodes:
        if node.op == "call_function":
            assert isinstance(node.meta["val"], Tensor)
    return module


def called(module: fx.GraphModule) -> list[str]:
    targets = (node.target for node in module.graph.nodes if node.op == "call_function")
    return [str(target).split(".")[1] for target in targets]


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("dim", [1, -1])
@pytest.mark.parametrize("keepdim", [True, False])
def test_few_logarithms_are_added_two_at_a_time(size: int, dim: int, keepdim: bool) -> None:
    """Also where terms are infinite or NaN, in every combination."""
    x = torch.cartesian_prod(*[SPECIAL] * size)
    made = after(add_few_logs, lambda x: x.logsumexp(dim, keepdim), x)
    assert called(made).count("logaddexp") == size - 1
    assert "logsumexp" not in called(made)
    made = after(add_few_logs, lambda x: x.logsumexp(0, keepdim), x.mT.contiguous())
    assert called(made).count("logaddexp") == size - 1


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.logsumexp(0),
        lambda x: x.logsumexp((0, 1)),
        lambda x: x[:, :1].logsumexp(1),
        lambda x: (10 * x).int().logsumexp(1),
        lambda x: x.logsumexp(1).as_strided((2,), (1,)),
    ],
)
def test_other_sums_of_exponentials_stay(function: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(5, 2)
    assert "logsumexp" in called(after(add_few_logs, function, x))


def test_many_short_rows_lie_along_the_long_dimension() -> None:
    def function(x: Tensor) -> Tensor:
        errors = (DATA - x[:, :1]) / x[:, 1:].exp()
        return (errors - errors.logsumexp(2, True)).exp().sum(1)

    x = torch.randn(3, 2, 2, dtype=torch.float64)
    made = after(lengthen_inner_loops, function, x)
    assert called(made).count("transpose") == 3  # of the data, of the means, and back
    strides = []

    class Watched(fx.Interpreter):
        def run_node(self, node: fx.Node) -> object:
            result = super().run_node(node)
            if isinstance(result, Tensor) and result.shape == (3, 50, 2):
                strides.append(result.stride()[1])
            return result

    Watched(made).run(x)
    assert len(strides) == 4
    assert set(strides) == {1}


@pytest.mark.parametrize(
    "make",
    [
        lambda rows: DATA[:, 0] - rows[:1, :2, :1],  # long rows
        lambda rows: DATA[:6] - rows[:, :1, :2],  # not many
        lambda rows: DATA - rows[:, :1],  # not short
        lambda rows: DATA.expand(50, 2).contiguous() - rows[:, :1, :2],  # as the data lie
        lambda rows: (DATA - rows[:, :1, :2]).reshape(3, 100),
        lambda rows: DATA - rows[:, :1, :2],  # a result, which others may read
        lambda rows: (DATA - rows[:, :1, :2]).as_strided((3, 50), (100, 2)),
        lambda rows: (DATA - rows[:, :1, :2]).exp().log_softmax(-1),
        lambda rows: DATA - rows[0, :1, :2],  # a matrix, of rows perhaps
    ],
)
def test_other_arrays_stay_as_they_lie(make: Callable[[Tensor], Tensor]) -> None:
    """What reads memory, or wants it in order, finds it so."""
    rows = torch.randn(3, 2, 20, dtype=torch.float64)
    assert "transpose" not in called(after(lengthen_inner_loops, make, rows))


@pytest.mark.parametrize("inputs", ["vector", "scalar"])
def test_inputs_of_fewer_dimensions_are_turned(inputs: str) -> None:
    def function(x: Tensor) -> Tensor:
        other = x[0, 0] if inputs == "vector" else x[0, 0, 0]
        return torch.where(DATA[None] > x[:, :1], other, 2.0).sum((1, 2))

    x = torch.randn(3, 1, 2, dtype=torch.float64)
    made = after(lengthen_inner_loops, function, x)
    shapes = [tuple(node.meta["val"].shape) for node in made.graph.nodes if "gt" in node.name]
    assert shapes == [(3, 2, 50)]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + x[:1] * x.exp(),
        lambda x: x[:1] * x.exp() + x,
        lambda x: x - x[:1] * x.exp(),
        lambda x: x[0] + x[:1] * x.exp(),
        lambda x: x * x.exp() + x * x.sin(),
    ],
)
def test_products_are_added_in_one_pass(function: Callable[[Tensor], Tensor]) -> None:
    x = torch.cat([torch.randn(3, 6, dtype=torch.float64), SPECIAL[None]])
    made = after(join_products, function, x)
    before = make_fx(function)(x)
    assert called(made).count("addcmul") == 1
    assert called(made).count("mul") == called(before).count("mul") - 1
    assert not {"add", "sub"} & set(called(made))


def shared(x: Tensor) -> Tensor:
    product = x * x.exp()
    return x + product + product.sin()


@pytest.mark.parametrize(
    "function",
    [
        shared,
        lambda x: x * x.exp() - x,
        lambda x: torch.add(x, x * x.exp(), alpha=2),
        lambda x: x + x[:1] * x[0],  # smaller than the sum
        lambda x: x + x * 2,
        lambda x: x * x.exp() + 2,
        lambda x: (10 * x).int() + (10 * x).int() * x.int(),
        lambda x: x + x.float() * x.float(),
        lambda x: x + x * x.float(),
        lambda x: (lambda product: product + product)(x * x.exp()),
    ],
)
def test_other_products_stay(function: Callable[[Tensor], Tensor]) -> None:
    """Those used twice, of other types, other shapes or numbers."""
    x = torch.randn(4, 3, dtype=torch.float64)
    assert "addcmul" not in called(after(join_products, function, x))


@pytest.mark.parametrize("pads", [[-2, 0], [0, -1], [-1, -2], [0, 0, -1, -3], [-1, 0, 0, -2]])
def test_padding_that_cuts_is_slicing(pads: list[int]) -> None:
    x = torch.randn(6, 5, dtype=torch.float64)
    made = after(slice_instead_of_padding, lambda x: torch.constant_pad_nd(x, pads).exp(), x)
    assert set(called(made)) == {"slice", "exp"}


@pytest.mark.parametrize("pads", [[1, 0], [-1, 1], [-1, 0, 2, 0]])
def test_padding_that_pads_stays(pads: list[int]) -> None:
    x = torch.randn(6, 5, dtype=torch.float64)
    made = after(slice_instead_of_padding, lambda x: torch.constant_pad_nd(x, pads, 3.0).exp(), x)
    assert called(made) == ["constant_pad_nd", "exp"]


def of_mixture(x: Tensor) -> Tensor:
    errors = (DATA - x[:, None, :2]) / x[:, None, 2:4].exp()
    terms = x[:, None, 4:].log_softmax(-1) - x[:, None, 2:4] - 0.5 * errors.square()
    return terms.logsumexp(-1).sum(-1)


def of_series(x: Tensor) -> Tensor:
    """A recursion by doubling; 37 is a number of rows that is recorded, too."""
    series = DATA[:, 0] - x[:, :1]
    for lag in (1, 2, 4, 37):
        series = series + x[:, 1:2] * torch.nn.functional.pad(series[:, :-lag], (lag, 0))
    return -0.5 * (series / x[:, 2:3].exp()).square().sum(-1)


@pytest.mark.parametrize("function", [of_mixture, of_series])
def test_recordings_keep_values_and_gradients(function: Callable[[Tensor], Tensor]) -> None:
    def with_gradient(x: Tensor) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            z = x.detach().requires_grad_()
            value = function(z)
            return value.detach(), torch.autograd.grad(value.sum(), z)[0]

    traced = TracedFunction(with_gradient)
    for rows in (1, 3, 64):
        x = 0.3 * torch.randn(rows, 6, dtype=torch.float64)
        x[rows // 2, 2] = torch.inf if rows == 64 else 0.0
        for got, expected in zip(traced(x), with_gradient(x), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12, equal_nan=True)
    assert traced.failure is None


def test_order_of_differences_stays() -> None:
    """In single precision ``y - (mu + delta)`` would be 0 or 8 where ``(y - mu) - delta`` is -1."""
    y = torch.full((50, 1), 1e8)

    def function(x: Tensor) -> tuple[Tensor, ...]:
        return (((y - x[:, None, :2]) - x[:, None, 2:]).sum(1),)

    traced = TracedFunction(function)
    x = torch.tensor([[1e8, 1e8, 1.0, 2.0]]).expand(3, 4)
    assert torch.equal(traced(x)[0], torch.tensor([[-50.0, -100.0]]).expand(3, 2))
    assert traced.failure is None


A = torch.linspace(0.5, 1.5, 3, dtype=torch.float64)[:, None]
X = torch.linspace(-1, 2, 21, dtype=torch.float64).reshape(3, 7)


def pad(x: Tensor, pads: list[int]) -> Tensor:
    return torch.constant_pad_nd(x, pads)


def back(x: Tensor, cut: Tensor, dim: int, start: int, end: int) -> Tensor:
    """Return the gradient of a slice, as autograd computes it."""
    return torch.ops.aten.slice_backward(cut, list(x.shape), dim, start, end, 1)


@pytest.mark.parametrize(
    ("function", "target"),
    [
        (lambda x, a: torch.addcmul(x, a, pad(x[:, :-2], [2, 0])), add_product_to_part),
        (lambda x, a: torch.addcmul(x, pad(x[:, 3:], [0, 3]), a, value=-1), add_product_to_part),
        (lambda x, a: torch.addcmul(x, x, pad(x[:, 1:-1], [1, 1])), add_product_to_part),
        (lambda x, a: torch.addcmul(x, a, pad(x[1:], [0, 0, 1, 0])), add_product_to_part),
        (lambda x, a: x + back(x, (x * a)[:, 2:], 1, 0, -2), add_product_to_part),
        (lambda x, a: back(x, (a * x)[:, 1:], 1, 0, -1) + x, add_product_to_part),
        (lambda x, a: x + back(x, x[:, 2:].exp(), 1, 0, 5), add_to_part),
        (lambda x, a: (x * pad(x[:, :-2], [2, 0])).sum(1, True), torch.ops.aten.mul.Tensor),
        (lambda x, a: (pad(x[:, 3:], [0, 3]) * x).sum((0, 1)), torch.ops.aten.mul.Tensor),
    ],
)
def test_parts_are_added_and_summed_without_padding(
    function: Callable[[Tensor, Tensor], Tensor], target: Callable[..., Tensor]
) -> None:
    module = make_fx(function)(X, A)
    work_on_parts(module.graph)
    module.graph.lint()
    module.recompile()
    torch.testing.assert_close(module(X, A), function(X, A), rtol=1e-14, atol=1e-14)
    names = [str(node.target) for node in module.graph.nodes]
    assert not any("pad" in name or "slice_backward" in name for name in names)
    assert target in [node.target for node in module.graph.nodes]


@pytest.mark.parametrize(
    "function",
    [
        lambda x, a: torch.addcmul(x, a, torch.constant_pad_nd(x[:, :-2], [2, 0], 1.0)),
        lambda x, a: torch.addcmul(x[:1], a, pad(x[:, :-2], [2, 0])),
        lambda x, a: torch.addcmul(x, a, pad(x[1:, :-2], [2, 0, 1, 0])),
        lambda x, a: (x * pad(x[:, :-2], [2, 0])).sum(0),
        lambda x, a: (a * pad(x[:, :-2], [2, 0])).sum(1),
        lambda x, a: x[:1] + back(x, x[:, 2:], 1, 0, -2),
        lambda x, a: x + torch.ops.aten.slice_backward(x[:, ::2], [3, 7], 1, 0, 7, 2),
    ],
)
def test_other_padding_stays(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    module = make_fx(function)(X, A)
    before = [node.target for node in module.graph.nodes]
    work_on_parts(module.graph)
    assert [node.target for node in module.graph.nodes] == before


@pytest.mark.parametrize(
    "function",
    [
        lambda x, a: (x.square() - a.log()).sum(1),
        lambda x, a: (x.square() - 0.9189).sum(1, True),
        lambda x, a: (x.square() + a.log().neg() + 2).sum(1),
        lambda x, a: (a * x.exp()).sum(1),
        lambda x, a: (a.expand(3, 7) * x.exp()).sum(1, True),
    ],
)
def test_what_is_the_same_for_all_data_is_added_and_multiplied_after_the_sum(
    function: Callable[[Tensor, Tensor], Tensor],
) -> None:
    module = make_fx(function)(X, A)
    sum_first(module.graph)
    module.graph.eliminate_dead_code()
    module.recompile()
    torch.testing.assert_close(module(X, A), function(X, A), rtol=1e-14, atol=1e-14)
    large = [node for node in module.graph.nodes if node.op == "call_function"]
    assert [node.meta["val"].shape for node in large].count(X.shape) == 1


@pytest.mark.parametrize(
    "function",
    [
        lambda x, a: (x - a).sum(1),
        lambda x, a: (x - 1e6).sum(1),
        lambda x, a: (x.exp() - a[0].log()).sum(0),
        lambda x, a: (x.exp() - x.log()).sum(1),
    ],
)
def test_differences_that_may_cancel_are_taken_before_the_sum(
    function: Callable[[Tensor, Tensor], Tensor],
) -> None:
    """So are those summed over rows, of which another batch has others."""
    module = make_fx(function)(X, A)
    before = [node.target for node in module.graph.nodes]
    sum_first(module.graph)
    assert [node.target for node in module.graph.nodes] == before
