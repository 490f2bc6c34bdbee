"""Networks that become smaller, wider, deeper or formulas: what must stay the same stays."""

from __future__ import annotations

import io

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroSample

from pyro_tkam.nn import KAN, KANLayer

DOUBLE = torch.double


@pytest.fixture(autouse=True)
def _seed():
    pyro.set_rng_seed(0)


def network(widths=(3, 4, 2), **options) -> tuple[KAN, torch.Tensor]:
    """Return a network that is far from linear, and inputs."""
    net = KAN(list(widths), grid_size=5, **options).double()
    for layer in net.layers:
        torch.nn.init.normal_(layer.coefficients)
    x = torch.randn(200, 3, dtype=DOUBLE)
    net.update_grid(x)
    return net, x


def move_constants(net: KAN) -> None:
    """Move constants between the edges of each sum; splines sum to one inside of their grid."""
    with torch.no_grad():
        for layer in net.layers:
            constants = torch.randn(layer.batch_shape, dtype=DOUBLE)
            layer.bias -= constants.sum(1)
            bank = layer._in_bank_order(layer.coefficients)
            bank += (constants / layer.scale).unsqueeze(-1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constants_that_move_between_edges_change_nothing(dtype):
    """
    Outputs, penalty, sizes and pruning stay; wrong version: mean absolute values, which move.
    """
    net, x = network()
    moved = KAN.from_state_dict(net.state_dict())
    move_constants(moved)
    mean_sizes = [
        each.layers[0].bound()(x.unsqueeze(1)).abs().mean(0).detach() for each in (net, moved)
    ]
    assert (mean_sizes[0] - mean_sizes[1]).abs().max() > 0.5  # they do move
    net, moved, x = net.to(dtype), moved.to(dtype), x.to(dtype)
    close = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(moved(x), net(x), **close)
    torch.testing.assert_close(moved.regularization(x), net.regularization(x), **close)
    for kind in ("spread", "attribution"):
        for one, other in zip(moved.sizes(x, kind), net.sizes(x, kind), strict=True):
            torch.testing.assert_close(one, other, **close)
    torch.testing.assert_close(moved.input_scores(x), net.input_scores(x), **close)
    pruned = [each.prune(x, edges=0.3, nodes=0.3) for each in (net, moved)]
    assert pruned[0].widths == pruned[1].widths
    torch.testing.assert_close(pruned[1](x), pruned[0](x), **close)


def test_the_penalty_by_hand():
    """Spreads and entropies from the edges' values, one by one."""
    net, x = network()
    expected = torch.zeros((), dtype=DOUBLE)
    for layer, s in net.layer_inputs(x):
        sizes = layer.edges(s).std(0, correction=0).T
        joint = sizes / sizes.sum()
        rows = sum(
            joint[o].sum() * torch.distributions.Categorical(joint[o]).entropy()
            for o in range(layer.out_features)
        )
        columns = sum(
            joint[:, i].sum() * torch.distributions.Categorical(joint[:, i]).entropy()
            for i in range(layer.in_features)
        )
        expected = expected + 2.0 * sizes.sum() + 3.0 * (rows + columns)
    outputs, penalty = net.penalized(x, l1=2.0, entropy=3.0)
    torch.testing.assert_close(penalty, expected)
    torch.testing.assert_close(outputs, net(x))
    parameters = list(net.parameters())
    for one, other in zip(
        torch.autograd.grad(penalty, parameters, materialize_grads=True),
        torch.autograd.grad(expected, parameters, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_edges_that_are_constant_go_without_a_trace():
    """The bias takes their values over; a node that only they enter goes with them."""
    net, x = network((3, 4, 2))
    with torch.no_grad():
        bank = net.layers[0]._in_bank_order(net.layers[0].coefficients)
        bank[1] = 7.0  # node 1 is a constant
        net.layers[0].base_weight[1] = 0.0
        bank[2, 0] = -3.0
        net.layers[0].base_weight[2, 0] = 0.0
    pruned = net.prune(x, nodes=1e-6, edges=1e-6)
    assert pruned.widths == [3, 3, 2]
    assert pruned.layers[0].mask.tolist() == [[True] * 3, [False, True, True], [True] * 3]
    torch.testing.assert_close(pruned(x), net(x))


def test_masked_edges_stay_away():
    """Wrong version: without masks they come back at the first step."""
    net, x = network((3, 1))
    pruned = net.prune(x, edges=float(net.sizes(x, "attribution")[0].median()) + 1e-6)
    assert pruned.layers[0].mask.sum() == 1
    for optimizer in (
        torch.optim.Adam(pruned.parameters(), 0.1),
        torch.optim.SGD(pruned.parameters(), 0.1, weight_decay=0.1),
    ):
        optimizer.zero_grad()
        (pruned(x) - x.sum(-1, keepdim=True)).square().mean().backward()
        optimizer.step()
        assert (pruned.sizes(x)[0] > 0).sum() == 1
        assert (pruned.layers[0].edges(x).abs().amax(0) > 0).sum() == 1


def test_inputs_that_are_not_read_may_go():
    net, x = network()
    net.layers[0].mask[:, 1] = False
    assert net.input_scores(x)[1] == 0
    pruned = net.prune(x, nodes=0.0, edges=0.0, inputs=True)
    assert (pruned.widths[0], pruned.inputs) == (2, [0, 2])
    torch.testing.assert_close(pruned(x[:, pruned.inputs]), net(x))
    assert KAN.from_state_dict(pruned.state_dict()).inputs == [0, 2]


def test_products():
    net, x = network((3, (2, 1), 2))
    terms = net.layers[0](x)
    hidden = torch.cat((terms[:, :2], terms[:, 2:3] * terms[:, 3:4]), -1)
    torch.testing.assert_close(net(x), net.layers[1](hidden))
    assert net.widths == [3, (2, 1), 2]
    net.layers[1].mask[:, 1] = False
    pruned = net.prune(x, nodes=0.0, edges=0.0)
    assert pruned.widths == [3, (1, 1), 2]
    torch.testing.assert_close(pruned(x), net(x))
    net.layers[1].mask[:, 2] = False
    assert net.prune(x, nodes=0.0, edges=0.0).widths == [3, 1, 2]


@pytest.mark.parametrize("basis", ["bspline", "rbf", "chebyshev"])
def test_a_state_dict_rebuilds_any_network(basis):
    net = KAN([3, (4, 1), 2], basis, degree=4, output="sigmoid", hidden_range="sigmoid").double()
    x = torch.randn(200, 3, dtype=DOUBLE)
    net.update_grid(x, grid_size=7)
    net = net.fix({(0, 1, 2): ("sin", (1, 0.5, 2, 0)), (1, 0, 1): ("x*exp(-x)", (1, 0, 2, 0))})
    net = net.prune(x, nodes=0.2, edges=0.2)
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    rng = torch.get_rng_state()
    again = KAN.from_state_dict(state)
    assert torch.equal(torch.get_rng_state(), rng)
    assert torch.equal(again(x), net(x))
    assert (again.widths, again.fixed) == (net.widths, net.fixed)
    with pytest.raises(ValueError, match="state must be the state dict of a KAN with its entry"):
        KAN.from_state_dict(net.layers[0].state_dict())


def test_states_without_masks_load():
    """States that were saved before there were masks."""
    net, x = network(bias=False)
    state = {
        name: value
        for name, value in net.state_dict().items()
        if not name.endswith(("mask", "configuration"))
    }
    other = KAN([3, 4, 2], grid_size=5, bias=False).double()
    other.load_state_dict(state)
    assert torch.equal(other(x), net(x))


def test_a_wider_network_computes_the_same_and_learns_more():
    net, x = network((3, (2, 1), 2))
    net = net.fix({(0, 3, 2): ("sin", (1.0, 0.5, 2.0, 0.1)), (1, 0, 2): ("square", (1, 0, 2, 0))})
    wider = net.expand([3, (4, 2), 2])
    assert torch.equal(wider(x), net(x))
    assert set(wider.fixed) == {(0, 5, 2), (1, 0, 4)}
    wider(x).square().sum().backward()
    gradient = wider.layers[1]._in_bank_order(wider.layers[1].coefficients.grad)
    assert (gradient.abs().sum(-1) > 0)[:, [2, 3, 5]].all()
    with pytest.raises(ValueError, match=r"widths must be at least \[3, \(2, 1\), 2\] with"):
        net.expand([3, 2, 2])


def test_a_deeper_network_computes_the_same():
    net, x = network((3, 4, 2))
    for deeper in (net.deepen(), net.deepen(x)):
        assert deeper.widths == [3, 4, 2, 2]
        torch.testing.assert_close(deeper(x), net(x), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(KAN.from_state_dict(deeper.state_dict())(x), deeper(x))
    assert net.deepen(x).outside(x)[-1] == 0
    with pytest.raises(ValueError, match="basis must be B-splines that continue as lines"):
        KAN([3, 4, 2], "rbf").deepen()
    with pytest.raises(ValueError, match="layer_norm, hidden_range must be off"):
        KAN([3, 4, 2], layer_norm=True).deepen()


def test_closed_forms_train_beside_splines():
    net, x = network()
    start = net.layers[0].edges(x)[:, 1, 2]
    fixed = net.fix({(0, 2, 1): ("sin", (2.0, 0.1, 0.5, 1.0))})
    edge = fixed.layers[0].edges(x)[:, 1, 2]
    torch.testing.assert_close(edge, 0.5 * torch.sin(2 * x[:, 1] + 0.1) + 1)
    outputs, _ = fixed.penalized(x)
    torch.testing.assert_close(outputs, fixed(x))
    torch.testing.assert_close(
        fixed.sizes(x)[0][2, 1], edge.std(correction=0).detach(), rtol=1e-6, atol=0
    )
    outputs.square().sum().backward()
    assert (fixed.layers[0].fixed.affine.grad != 0).all()
    again = fixed.fix({(0, 2, 1): None})
    torch.testing.assert_close(again.layers[0].edges(x)[:, 1, 2], start)
    fixed.layers[0].mask[2, 1] = False
    assert (fixed.layers[0].edges(x)[:, 1, 2] == 0).all()
    for wrong in ((2, 0, 0), (0, 9, 0), (0, 0)):
        with pytest.raises(ValueError, match="edges must be"):
            net.fix({wrong: "sin"})


def test_a_form_is_fitted_to_the_edge():
    net, x = network((3, 1))
    with torch.no_grad():  # a square inside of the grid, to rounding
        functions = net.layers[0].basis.bound()
        points = torch.linspace(-2, 2, 100, dtype=DOUBLE)[:, None].expand(-1, 3)
        values = functions(points)[:, 1]
        target = (points[:, :1] - 0.3) ** 2
        solution = torch.linalg.lstsq(values, target).solution
        net.layers[0].coefficients[1] = solution / net.layers[0].scale[0, 0]
        net.layers[0].base_weight[0, 1] = 0.0
    inside = x[(x.abs() < 2).all(1)]
    fixed = net.fix({(0, 0, 1): "x^2"}, inside)
    torch.testing.assert_close(fixed(inside), net(inside), atol=1e-6, rtol=0)


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.LBFGS])
@pytest.mark.parametrize(("is_told", "keeps_loss"), [(True, False), (True, True), (False, True)])
def test_an_optimizer_goes_on_after_a_refinement(make, is_told, keeps_loss):
    """
    Wrong versions: moments of the old shape; a loss that is still held keeps autograd at it.
    """
    net, x = KAN([2, 3, 1], grid_size=5), torch.rand(100, 2)
    optimizer = make(net.parameters(), lr=0.1)
    held = []

    def closure():
        optimizer.zero_grad()
        loss = (net(x) - x[:, :1]).square().mean()
        loss.backward()
        held.append(loss if keeps_loss else float(loss.detach()))
        return loss

    optimizer.step(closure)
    net.update_grid(x, grid_size=10, optimizer=optimizer if is_told else None)
    for _ in range(20):
        optimizer.step(closure)
    assert held[-1] < 0.5 * held[0]
    with pytest.raises(TypeError, match=r"optimizer must be one of torch.optim or pyro.optim, got"):
        net.update_grid(x, optimizer=3)


def test_only_moments_of_another_shape_are_forgotten():
    """Wrong versions: all moments, those of another network, those that a later step brings."""
    nets = [KAN([2, 3, 1], grid_size=5) for _ in range(2)]
    optimizers = [torch.optim.Adam(net.parameters(), lr=1e-3) for net in nets]

    def step(net, optimizer):
        net(torch.rand(50, 2)).square().mean().backward()
        optimizer.step()
        return {name: int(optimizer.state[each]["step"]) for name, each in net.named_parameters()}

    for net, optimizer in zip(nets, optimizers, strict=True):
        step(net, optimizer)
    nets[0].update_grid(torch.rand(100, 2), grid_size=10)
    for number in (1, 2):
        assert set(step(nets[1], optimizers[1]).values()) == {number + 1}
        for name, steps in step(nets[0], optimizers[0]).items():
            assert steps == number + (not name.endswith("coefficients")), name


def test_a_refined_function_may_get_a_prior_before_the_next_step():
    """Wrong version: the step of any optimizer fails, as the parameter is gone."""
    net, other = KAN([1, 1]), torch.nn.Linear(1, 1)
    net.update_grid(torch.rand(100, 1), grid_size=10)
    layer = net.layers[0]
    layer.coefficients = PyroSample(dist.Normal(torch.zeros(layer.coefficients.shape), 1.0))
    optimizer = torch.optim.Adam(other.parameters())
    other(torch.ones(1)).sum().backward()
    before = other.bias.item()
    optimizer.step()
    assert other.bias.item() != before


@pytest.mark.parametrize("grid_size", [1, 2])
def test_the_smallest_grids(grid_size):
    net, x = KAN([2, 3, 1], grid_size=grid_size).double(), torch.rand(100, 2, dtype=DOUBLE)
    before = net(x)
    net.update_grid(x, grid_size=1)
    assert net.layers[0].basis.num_functions == 4
    assert (net(x) - before).abs().max() < 1.0
    with pytest.raises(ValueError, match="grid_size must be at least 1, got 0"):
        net.update_grid(x, grid_size=0)


@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("moves", [False, True])
def test_splines_go_on_as_lines(degree, moves):
    """Continuous with their slope at the ends, straight further out, in both ways to evaluate."""
    layer = KANLayer(1, 1, degree=degree, low=-1.0, high=1.0, grid_size=4).double()
    torch.nn.init.normal_(layer.coefficients)
    layer.base_weight.data.zero_()
    if moves:
        layer.update_grid(torch.randn(50, 1, dtype=DOUBLE).clamp(-1, 1))
    for end, sign in ((-1.0, -1.0), (1.0, 1.0)):
        s = (end + sign * torch.tensor([-1e-6, 0.0, 1e-6, 1.0, 50.0], dtype=DOUBLE))[:, None]
        s.requires_grad_()
        values = layer(s)
        (slopes,) = torch.autograd.grad(values.sum(), s, create_graph=True)
        torch.testing.assert_close(slopes, slopes[:1].expand_as(slopes), rtol=1e-4, atol=1e-4)
        line = values[1] + (s - s[1]) * slopes[1]
        torch.testing.assert_close(values, line, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(layer.edges(s)[..., 0], values)
        torch.testing.assert_close(layer.statistics(s).sums, values)
        assert torch.autograd.gradcheck(layer, (s[3:],))
    zero = KANLayer(1, 1, degree=degree, extrapolation="zero", base_mean=0.0, base_spread=0.0)
    assert (zero(torch.tensor([[50.0]])) == 0).all()


def test_grids_reach_far_data_and_say_what_was_outside():
    x = torch.tensor([0.0, 100.0]) + torch.tensor([6.0, 100.0]) * torch.rand(500, 2)
    net = KAN([2, 5, 1])
    first, second = net.update_grid(x)
    assert first.outside > 0.6
    grid = net.layers[0].basis.grid
    torch.testing.assert_close(grid[:, 0], x.amin(0))
    torch.testing.assert_close(grid[:, -1], x.amax(0))
    assert net.outside(x) == (0.0, 0.0)
    assert net.layers[0].edges(x).std(0).min() > 0
    net.update_grid(x / 10, shrink=False, widen=True)
    torch.testing.assert_close(net.layers[0].basis.grid[:, -1], x.amax(0))
    assert second.outside <= 1


def test_a_deeper_network_keeps_its_activation_in_its_state():
    x = torch.randn(50, 2)
    deeper = KAN([2, 3, 1], activation="tanh").deepen(x)
    with torch.no_grad():  # as training would
        deeper.layers[-1].base_weight.fill_(1.0)
    assert torch.equal(KAN.from_state_dict(deeper.state_dict())(x), deeper(x))


def test_a_masked_edge_becomes_a_closed_form():
    net = KAN([2, 1])
    net.layers[0].mask[0, 0] = False
    fixed = net.fix({(0, 0, 0): ("x^2", (1.0, 0.0, 1.0, 0.0))})
    change = fixed(torch.tensor([[3.0, 0.5]])) - fixed(torch.tensor([[0.0, 0.5]]))
    torch.testing.assert_close(change, torch.tensor([[9.0]]))
    assert not net.layers[0].mask[0, 0]  # the original's


def test_a_sparse_start_uses_the_edges_and_inputs_that_there_are():
    torch.manual_seed(1)
    x = torch.randn(50, 3)
    constant = torch.cat([x[:, :2], torch.full((50, 1), 2.0)], 1)
    for shape in ([3, 1], [3, 3, 1]):
        started = KAN(shape).sparse_start(constant)
        assert ((started.sizes(constant)[0] > 1e-3).any(0) == torch.tensor([1, 1, 0])).all()
        assert bool(started(constant).isfinite().all())
    net = KAN([3, 3, 1]).fix({(0, 2, 0): ("sin", (1.0, 0.0, 1.0, 0.0))})
    net.layers[0].mask = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 0, 1]], dtype=torch.bool)
    started = net.sparse_start(x)
    assert torch.equal(started.sizes(x)[0] > 1e-3, net.layers[0].mask)
    assert set(started.fixed) == {(0, 2, 0)}
    with pytest.raises(ValueError, match="samples must differ in some column, got equal rows"):
        KAN([3, 1]).sparse_start(torch.ones(50, 3))
