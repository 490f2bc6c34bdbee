"""Networks: the matrix product against single edges, ranges, and bad input."""

from __future__ import annotations

import copy

import numpy
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroSample
from torch import nn
from torch.func import functional_call, grad, vmap

from pyro_tkam.nn import KAN, KANEdges, KANLayer
from pyro_tkam.nn.kan import HIDDEN_RANGES
from pyro_tkam.ops.bases import BASES

NAMES = list(BASES)


@pytest.fixture(autouse=True)
def _seed():
    pyro.clear_param_store()
    pyro.set_rng_seed(0)


@pytest.mark.parametrize("name", NAMES)
def test_layer_is_the_sum_of_its_edges(name):
    layer = KANLayer(5, 4, name, -1.0, 1.0, grid_size=6).double()
    for shape in [(5,), (7, 5), (2, 7, 5), (0, 5)]:
        s = 1.5 * torch.randn(shape, dtype=torch.double)
        edges = layer.edges(s)
        assert edges.shape == (*shape, 4)
        assert torch.allclose(layer(s), edges.sum(-2))


def test_edges_are_the_functions_of_the_bank():
    layer = KANEdges(3, 2, grid_size=5)
    s = torch.randn(7, 3)
    values = layer.bound()(s.unsqueeze(-2))  # (7, out, in)
    for i in range(3):
        for o in range(2):
            assert torch.allclose(layer(s)[:, i, o], values[:, o, i])


def test_parameters_are_contiguous_or_pyro_would_train_copies():
    layer = KANLayer(5, 4, "rbf")
    layer.load_state_dict(copy.deepcopy(layer.state_dict()))
    assert layer.coefficients.shape == (5, 20, 4)
    assert all(parameter.is_contiguous() for parameter in layer.parameters())


def test_starts_scale_with_inputs():
    layer = KANLayer(64, 9, "rbf")
    assert torch.allclose(layer.scale, torch.full((9, 1), 1 / 8))
    assert layer.base_weight.abs().max() <= 1 / 8
    assert layer.base_weight.abs().max() > 0.9 / 8


@pytest.mark.parametrize("name", ["rbf", "bspline", "chebyshev"])
def test_network_composes_layers(name):
    net = KAN(
        [3, 6, 2],
        name,
        -1.0,
        1.0,
        output="sigmoid",
        hidden_range="sigmoid",
        hidden_low=0.0,
        hidden_high=2.0,
        layer_norm=True,
    )
    s = torch.randn(7, 3)
    hidden = 2 * torch.sigmoid(nn.functional.layer_norm(net.layers[0](s), (6,)))
    assert torch.allclose(net(s), torch.sigmoid(net.layers[1](hidden)))
    assert net(s).shape == (7, 2)
    assert (net.layers[1].basis.low, net.layers[1].basis.high) == (0.0, 2.0)
    assert sum(p.numel() for p in KAN([3, 2], name).norms.parameters()) == 0


@pytest.mark.parametrize("name", ["sigmoid", "affine"])
def test_hidden_range_reaches_the_next_interval_and_does_not_leave_it(name):
    s = 3 * torch.randn(1000, 8)
    mapped = HIDDEN_RANGES[name](s, -1.0, 4.0)
    assert mapped.min() >= -1
    assert mapped.max() <= 4
    assert mapped.min() < -0.9
    assert mapped.max() > 3.9
    assert (mapped.argsort(-1) == s.argsort(-1)).all()
    if name == "affine":  # each datum by its own features only
        assert torch.allclose(mapped.amin(-1), torch.tensor(-1.0))
        assert torch.allclose(mapped.amax(-1), torch.tensor(4.0))


def test_affine_range_of_equal_features_is_the_middle():
    s = torch.full((2, 5), 3.0, requires_grad=True)
    mapped = HIDDEN_RANGES["affine"](s, -1.0, 4.0)
    assert torch.allclose(mapped, torch.tensor(1.5))
    (gradient,) = torch.autograd.grad(mapped.sum(), s)
    assert torch.isfinite(gradient).all()


def test_none_leaves_hidden_features():
    s = torch.randn(3, 4)
    assert HIDDEN_RANGES["none"](s, 0.0, 1.0) is s


@pytest.mark.parametrize("name", ["rbf", "bspline"])
def test_per_datum_gradients(name):
    net = KAN([3, 5, 2], name).double()
    s = torch.randn(4, 3, dtype=torch.double, requires_grad=True)
    (together,) = torch.autograd.grad(net(s).sin().sum(), s)
    assert torch.allclose(vmap(grad(lambda x: net(x).sin().sum()))(s.detach()), together)
    assert torch.autograd.gradgradcheck(net, (s,))


def test_ensembles_by_functional_call():
    nets = [KANLayer(3, 2, "bspline") for _ in range(3)]
    stacked = {
        name: torch.stack([dict(net.named_parameters())[name] for net in nets])
        for name in dict(nets[0].named_parameters())
    }
    s = torch.randn(4, 3)
    together = vmap(lambda parameters: functional_call(nets[0], parameters, (s,)))(stacked)
    assert torch.allclose(together, torch.stack([net(s) for net in nets]), atol=1e-6)


def test_bayesian_layer():
    net = KAN([3, 4, 2], grid_size=5)
    for layer in net.layers:
        layer.coefficients = PyroSample(
            dist.Normal(0.0, 1.0).expand(layer.coefficients.shape).to_event(3)
        )
    trace = pyro.poutine.trace(net).get_trace(torch.randn(6, 3))
    sites = [name for name, site in trace.nodes.items() if site["type"] == "sample"]
    assert sites == ["layers.0.coefficients", "layers.1.coefficients"]
    assert trace.nodes["_RETURN"]["value"].shape == (6, 2)


def test_fits_a_function():
    net = KAN([2, 5, 1], "bspline", -1.0, 1.0, grid_size=8)
    s = 2 * torch.rand(500, 2) - 1
    target = torch.sin(3 * s[:, :1]) * s[:, 1:] ** 2
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        loss = (net(s) - target).square().mean()
        loss.backward()
        optimizer.step()
    assert loss < 0.02 * target.var()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: KAN([3]), "widths must have at least two numbers, input and output, got \\[3\\]"),
        (lambda: KAN([3, 0, 2]), "widths must be at least 1, got 0"),
        (
            lambda: KAN([3, (0, 0), 2]),
            r"widths must have at least one node in each layer, got \(0, 0\)",
        ),
        (lambda: KAN([3, (1, 2, 3), 2]), "widths must be ints or pairs of sums and products"),
        (lambda: KAN([(3, 1), 2]), "widths must begin with a number of inputs"),
        (
            lambda: KAN([2, 1, 1], layer_norm=True),
            r"widths must be at least 2 in hidden layers for layer_norm=True, got \[2, 1, 1\]",
        ),
        (
            lambda: KAN([2, 1], extrapolation="cubic"),
            "extrapolation must be one of 'zero', 'linear', got 'cubic'",
        ),
        (
            lambda: KAN([3, 4, 2], hidden_range="tanh"),
            "hidden_range must be one of 'none', .*got 'tanh'",
        ),
        (
            lambda: KAN([3, 1, 2], hidden_range="affine"),
            r"widths must be at least 2 in.*, got \[3, 1, 2\]",
        ),
        (
            lambda: KAN([3, 4, 2], output="relu"),
            "output must be one of 'none', 'sigmoid', got 'relu'",
        ),
        (lambda: KAN([3, 4, 2], hidden_low=2.0), "low must be below high, got low=2, high=2"),
        (lambda: KANLayer(0, 3), "in_features must be at least 1, got 0"),
        (lambda: KANEdges(3, 0), "out_features must be at least 1, got 0"),
        (lambda: KANLayer(3, 2)(torch.rand(5, 4)), r"s must have shape \(\*, 3\), got \(5, 4\)"),
        (lambda: KANEdges(3, 2)(torch.rand(5, 4)), r"s must have shape \(\*, 3\), got \(5, 4\)"),
        (lambda: KAN([3, 2])(torch.tensor(1.0)), r"s must have shape \(\*, 3\), got \(\)"),
    ],
)
def test_bad_values(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "call",
    [
        lambda net, x: net(x),
        lambda net, x: net.layers[0](x),
        lambda net, x: net.layers[0].edges(x),
        lambda net, x: net.update_grid(x),
        lambda net, x: net.prune(x),
        lambda net, x: net.sizes(x),
        lambda net, x: net.regularization(x),
        lambda net, x: net.outside(x),
    ],
)
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (numpy.zeros((9, 3)), "must be a tensor, got ndarray"),
        (torch.rand(9, 3).double(), "must have the dtype of the coefficients, torch.float32, got"),
        (torch.ones(9, 3, dtype=torch.long), "must have the dtype of the coefficients"),
    ],
)
def test_inputs_of_another_kind_are_refused_alike(call, x, message):
    with pytest.raises(TypeError, match=message):
        call(KAN([3, 4, 2], grid_size=1), x)


def test_bad_dtype():
    for module in (KANLayer(3, 2), KANEdges(3, 2), KAN([3, 2])):
        with pytest.raises(
            TypeError, match=r"the dtype of the coefficients, torch.float32, got torch.float64"
        ):
            module(torch.rand(5, 3, dtype=torch.double))
