"""Networks become as simple as their data allow, and products of many inputs are found."""

from __future__ import annotations

import pytest
import torch

from pyro_tkam.nn import KAN, fit, simplify


def inputs(columns, rows=400):
    return 2 * torch.rand(rows, columns, dtype=torch.double) - 1


def missed(net, x, y):
    return float((net(x) - y).detach().square().mean() / y.var())


def test_edges_that_others_replace_are_removed_and_lines_are_lines():
    """Pruning by size would keep them: two edges of an input share what one can do."""
    torch.manual_seed(0)
    x = inputs(2, 300)
    y = torch.sin(3 * x[:, :1]) + x[:, 1:]
    net = KAN([2, 2, 1], grid_size=5).double()
    fit(net, x, y, optimizer="lm", steps=15)
    assert net.prune(x).widths == [2, 2, 1]
    simple = simplify(net, x, y, tolerance=1e-5)
    assert simple.widths == [2, 1, 1]
    assert sorted(simple.fixed) == [(0, 0, 1), (1, 0, 0)]
    assert missed(simple, x, y) < missed(net, x, y) + 1e-5
    assert net.widths == [2, 2, 1]
    assert not net.fixed


def test_what_the_data_need_stays():
    """Noise allows no more than the tolerance: the small sine of an input is kept, and curved."""
    torch.manual_seed(0)
    x = inputs(2)
    y = x[:, :1] ** 2 + 0.05 * torch.sin(3 * x[:, 1:]) + 0.01 * torch.randn(len(x), 1)
    net = KAN([2, 1], grid_size=5).double()
    fit(net, x, y, optimizer="lm", steps=5)
    simple = simplify(net, x, y.squeeze(-1))
    assert bool(simple.layers[0].mask.all())
    assert not simple.fixed
    # A large tolerance removes it.
    assert simplify(net, x, y, tolerance=0.1).layers[0].mask.tolist() == [[True, False]]


@pytest.mark.parametrize("seed", range(3))
def test_a_product_of_many_inputs_is_found_from_a_sparse_start(seed):
    """It is uncorrelated with any of them; a start at small sums of all leaves most of it."""
    torch.manual_seed(seed)
    x = inputs(4)
    y = x.prod(-1, keepdim=True)
    dense = KAN([4, (0, 2), (0, 1), 1], grid_size=3).double()
    sparse = dense.sparse_start(x)
    errors = [
        fit(net, x, y, optimizer="lm", steps=12, grid_updates=4).rmse / float(y.std())
        for net in (dense, sparse)
    ]
    assert errors[0] > 0.1
    assert errors[1] < 0.02


@pytest.mark.parametrize("basis", ["bspline", "rbf", "chebyshev"])
def test_a_sparse_start_reads_all_inputs_in_all_sums(basis):
    x = inputs(3)
    net = KAN([3, (1, 1), 5, 1], basis=basis).double()
    started = net.sparse_start(x)
    sizes = started.sizes(x)
    for size in sizes:
        edges = size > 1e-3
        assert int(edges.sum()) == max(size.shape)
        assert bool(edges.any(0).all())
        assert bool(edges.any(1).all())
        torch.testing.assert_close(
            size[edges], torch.ones(max(size.shape)).double(), rtol=0.1, atol=0
        )
    assert all(bool(layer.mask.all()) for layer in started.layers)


def test_bad_arguments():
    x = inputs(2)
    with pytest.raises(TypeError, match="net must be a KAN"):
        simplify(torch.nn.Linear(2, 1), x, x)
    with pytest.raises(ValueError, match="tolerance must be"):
        simplify(KAN([2, 1]), x, x[:, 0], tolerance=-1.0)
    with pytest.raises(ValueError, match=r"y must have shape"):
        simplify(KAN([2, 1]), x, x)
    with pytest.raises(ValueError, match="constraint must be 'none' for a start"):
        KAN([2, 1], constraint="increasing").sparse_start(x.float())
