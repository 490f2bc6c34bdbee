"""Grid updates, refinement, regularization and pruning of banks and networks."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroSample

from pyro_tkam.nn import KAN, KANLayer, UnivariateFunctions, grids, regularizers
from pyro_tkam.nn.regularizers import entropy_of
from pyro_tkam.ops.bases import BASES
from pyro_tkam.ops.bases.regrid import Refit, quantile_knots
from tests.laws import grid as laws

NAMES = list(BASES)


@pytest.fixture(autouse=True)
def _seed():
    pyro.set_rng_seed(0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "law",
    [
        laws.states_what_changed,
        laws.fits_best,
        laws.keeps_low_and_high,
        laws.refines,
        laws.refuses_too_large_a_change,
        laws.comes_back_from_a_checkpoint,
        laws.updates_a_layer,
        laws.penalties_bear_zeros,
        laws.prunes_what_is_zero,
    ],
    ids=lambda law: law.__name__,
)
def test_law(name, law):
    law(name)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name == "morlet" else []) for name in NAMES],
)
def test_smoothness(name):
    laws.smoothness_is_the_integral(name)


def test_knots_are_a_blend_of_uniform_and_quantiles():
    samples = torch.rand(100_001, dtype=torch.double) ** 2
    low, high = torch.zeros((), dtype=torch.double), torch.ones((), dtype=torch.double)
    levels = torch.linspace(0, 1, 6, dtype=torch.double)
    for share in (0.0, 0.05, 1.0):
        knots = quantile_knots(samples, low, high, 6, share)
        expected = share * levels + (1 - share) * levels.square()
        # a quantile of 1e5 uniforms has a standard deviation below .0016, squared .0032 at most:
        # five of them
        torch.testing.assert_close(knots, expected, atol=0.016 if share < 1 else 1e-12, rtol=0)


@pytest.mark.parametrize("share", [0.05, 1.0])
def test_refined_splines_on_any_knots_are_kept(share):
    bank = laws.random_bank("bspline")
    bank.update_grid(laws.skewed(100, 2, 3), uniform_share=share)
    before = bank(laws.inside(2))
    for size in (12, 36):
        assert bank.update_grid(grid_size=size).change < 1e-6
        torch.testing.assert_close(bank(laws.inside(2)), before, atol=1e-9, rtol=0)


def test_new_widths_are_used():
    """Wrong version: the coefficients of a fit at the old width miss the functions by far."""
    bank = laws.random_bank("rbf", grid_size=8)
    before = bank(laws.inside(2))
    bank.update_grid(grid_size=24)
    step = (bank(laws.inside(2)) - before).square().mean().sqrt()
    assert step < 0.1 * before.square().mean().sqrt()
    bank.basis.width *= 3  # what the coefficients would mean at the old step
    assert (bank(laws.inside(2)) - before).square().mean().sqrt() > 5 * step


def test_knots_follow_the_samples_to_a_better_fit():
    """
    A narrow feature where the arguments are is fitted better after an update, from the same number
    of functions.
    """
    torch.manual_seed(0)
    z = 0.1 + 0.02 * torch.randn(400, 1, dtype=torch.double)
    target = torch.sin(100 * z)
    errors = []
    for update in (False, True):
        bank = UnivariateFunctions(1, "bspline", grid_size=8).double()
        if update:
            bank.update_grid(z)
        solution = torch.linalg.lstsq(
            bank.basis.bound()(z).squeeze(1), target, driver="gelsd"
        ).solution
        errors.append(float((bank.basis.bound()(z).squeeze(1) @ solution - target).square().mean()))
    assert errors[1] < 0.1 * errors[0]


def test_a_network_keeps_what_it_computes_nearly():
    net = KAN([3, 8, 2], grid_size=10, layer_norm=True)
    for layer in net.layers:
        torch.nn.init.normal_(layer.coefficients, std=0.3)
    s = torch.randn(200, 3)
    before = net(s)
    first, second = net.update_grid(s, uniform_share=0.5, widen=[False, True], shrink=False)
    assert first.accepted
    assert second.accepted
    assert (net(s) - before).square().mean().sqrt() < 0.2 * before.std()
    assert torch.equal(net.layers[0].basis.grid[:, 0], torch.full((3,), -2.0))
    hidden = dict(enumerate(net.layer_inputs(s)))[1][1]
    assert (net.layers[1].basis.grid[:, -1] >= torch.tensor(2.0)).all()
    assert net.layers[1].basis.grid.max() == pytest.approx(float(hidden.detach().max()), rel=0.2)
    assert [update.accepted for update in net.update_grid(s, max_change=1e-12)] == [False, False]


def test_a_network_is_refined():
    """
    On uniform knots that contain the old ones every layer keeps its functions, with more of them to
    learn.
    """
    net = KAN([3, 8, 2], grid_size=5, hidden_range="sigmoid")
    for layer in net.layers:
        torch.nn.init.normal_(layer.coefficients, std=0.3)
    s = 4 * torch.rand(200, 3) - 2
    before = net(s).detach()
    net(s).sum().backward()  # gradients of the old shape are dropped
    updates = net.update_grid(s, grid_size=10, uniform_share=1.0, widen=False, shrink=False)
    assert [update.accepted for update in updates] == [True, True]
    assert [layer.coefficients.shape for layer in net.layers] == [(3, 13, 8), (8, 13, 2)]
    torch.testing.assert_close(net(s), before, atol=1e-4, rtol=0)
    net(s).sum().backward()
    assert all(layer.coefficients.grad.shape == layer.coefficients.shape for layer in net.layers)


def test_a_bounded_hidden_range_is_not_widened():
    net = KAN([3, 8, 2], hidden_range="sigmoid")
    net.update_grid(torch.randn(50, 3))
    assert torch.equal(net.layers[1].basis.grid[:, 0], torch.full((8,), -2.0))


def test_functions_that_share_samples_share_a_grid():
    bank = UnivariateFunctions((4, 3))
    for shape, grid in [
        ((50,), (20,)),
        ((50, 3), (3, 20)),
        ((50, 4, 1), (4, 1, 20)),
        ((50,), (20,)),
    ]:
        bank.update_grid(torch.rand(shape))
        assert bank.basis.grid.shape == grid
    z = torch.rand(7, 1, 1)
    assert bank(z).shape == (7, 4, 3)


@pytest.mark.parametrize("basis", ["fourier", "chebyshev", "gegenbauer"])
def test_an_update_that_moves_nothing_keeps_a_shared_grid(basis):
    """
    Wrong version: each row gets a copy of the same ends, and the basis is then evaluated for every
    row.
    """
    bank = UnivariateFunctions((4, 3), basis, 0.0, 1.0, grid_size=6)
    before = {name: value.clone() for name, value in bank.state_dict().items()}
    update = bank.update_grid(torch.rand(50, 4, 1))
    assert update.accepted
    assert not update.moved
    assert update.change == 0
    assert torch.equal(update.error, torch.zeros(4, 3))
    assert all(torch.equal(value, before[name]) for name, value in bank.state_dict().items())
    assert bank.update_grid(3 * torch.rand(50, 4, 1), widen=True).moved
    assert bank.basis.grid.shape[:2] == (4, 1)


def test_constant_inputs():
    layer = KANLayer(3, 2, "rbf", grid_size=6)
    s = torch.rand(20, 3)
    s[:, 1] = 0.7
    layer.update_grid(s)
    assert torch.allclose(layer.basis.grid[1], torch.linspace(-2, 2, 6))  # nothing is known of it
    assert layer(s).isfinite().all()
    state = {name: value.clone() for name, value in layer.state_dict().items()}
    with pytest.raises(
        ValueError, match="samples must differ to place a grid, got 20 equal values"
    ):
        layer.update_grid(torch.full((20, 3), 0.7))
    assert all(torch.equal(value, state[name]) for name, value in layer.state_dict().items())


def collapse(layer):
    """Make a layer put out zeros."""
    with torch.no_grad():
        layer.coefficients.zero_()
        layer.base_weight.zero_()


def test_a_network_with_a_collapsed_layer_stays_as_it_was():
    """Wrong version: the layers before it had changed already."""
    net = KAN([3, 4, 4, 2], grid_size=6)
    net.update_grid(torch.randn(20, 3))
    collapse(net.layers[1])
    state, parameters = (
        {name: value.clone() for name, value in net.state_dict().items()},
        list(net.parameters()),
    )
    s = torch.randn(20, 3)
    output = net(s)
    with pytest.raises(
        ValueError, match="samples must differ to place a grid, got 20 equal values"
    ):
        net.update_grid(2 * s)
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert all(a is b for a, b in zip(net.parameters(), parameters, strict=True))
    assert torch.equal(net(s), output)


@pytest.mark.parametrize(
    ("samples", "options", "error", "message"),
    [
        (
            torch.rand(5, 4),
            {},
            ValueError,
            r"samples\[0\] must broadcast against batch_shape \(2, 3\), got shape",
        ),
        (
            torch.rand(5, 1, 2, 3),
            {},
            ValueError,
            r"samples must have shape \(N, \*grid_batch\), got \(5, 1, 2, 3\)",
        ),
        (
            torch.rand(0, 3),
            {},
            ValueError,
            r"samples must have shape \(N, \*grid_batch\), got \(0, 3\)",
        ),
        (
            torch.rand(5, 3).double(),
            {},
            TypeError,
            "samples must have the dtype of the coefficients",
        ),
        (torch.full((5, 3), math.nan), {}, ValueError, "samples must be finite"),
        (
            torch.rand(5, 3),
            {"uniform_share": 1.5},
            ValueError,
            "uniform_share must be a number from 0 to 1, got 1.5",
        ),
        (
            torch.eye(50, 3),
            {"uniform_share": 0.0},
            ValueError,
            "uniform_share must be large enough",
        ),
        (
            torch.rand(5, 3),
            {"max_change": 0.0},
            ValueError,
            "max_change must be a finite number greater than 0, got 0.0",
        ),
        (torch.rand(5, 3), {"grid_size": 1}, ValueError, "grid_size must be at least 2, got 1"),
    ],
)
def test_bad_updates(samples, options, error, message):
    bank = UnivariateFunctions((2, 3))
    state = {name: value.clone() for name, value in bank.state_dict().items()}
    with pytest.raises(error, match=message):
        bank.update_grid(samples, **options)
    assert all(torch.equal(value, state[name]) for name, value in bank.state_dict().items())


def test_random_coefficients_cannot_be_updated():
    bank = UnivariateFunctions(3, grid_size=4)
    bank.coefficients = PyroSample(dist.Normal(0.0, 1.0).expand([3, 4]).to_event(2))
    with pytest.raises(
        TypeError, match="coefficients must be a parameter for a grid update, got random values"
    ):
        bank.update_grid(torch.rand(20))


@pytest.mark.parametrize("name", ["coefficients", "scale", "base_weight"])
@pytest.mark.parametrize(
    "make", [lambda: UnivariateFunctions(3, grid_size=4), lambda: KAN([3, 4, 2], grid_size=4)]
)
def test_what_is_random_cannot_be_pruned(make, name):
    """Wrong version: the copy's other parameters are pruned, and what is random stays."""
    module = make()
    bank = module.layers[1] if isinstance(module, KAN) else module
    shape = getattr(bank, name).shape
    setattr(bank, name, PyroSample(dist.Normal(0.0, 1.0).expand(shape).to_event(len(shape))))
    with pytest.raises(
        TypeError, match=f"{name} must be a parameter for pruning, got random values"
    ):
        module.prune(torch.rand(5, 3) if isinstance(module, KAN) else 0.0)


def test_sparsity_by_hand():
    bank = UnivariateFunctions(2, "rbf", activation="identity", noise_scale=0.0)
    with torch.no_grad():
        bank.base_weight.copy_(torch.tensor([3.0, -1.0]))
    samples = torch.tensor([0.0, 0.5, 1.0])  # mean sizes 1.5 and .5
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert float(bank.regularization(samples).detach()) == pytest.approx(2 + entropy)
    assert float(bank.regularization(samples, l1=0.0, entropy=2.0).detach()) == pytest.approx(
        2 * entropy
    )
    assert float(entropy_of(torch.zeros(3))) == 0


@pytest.mark.parametrize("make", [lambda: UnivariateFunctions(3), lambda: KANLayer(3, 4)])
@pytest.mark.parametrize(
    ("samples", "options", "message"),
    [
        (torch.rand(0, 3), {}, r"samples must be finite and not empty, got shape \(0, 3\)"),
        (torch.full((5, 3), math.nan), {}, "samples must be finite and not empty"),
        (torch.tensor(1.0), {}, r"samples must .*, got shape \(\)"),
        (None, {"l1": math.nan}, "l1 must be a finite number, got nan"),
        (None, {"entropy": math.inf}, "entropy must be a finite number, got inf"),
        (None, {"smoothness": math.nan}, "smoothness must be a finite number, got nan"),
    ],
)
def test_penalties_refuse_what_would_make_them_nan(make, samples, options, message):
    with pytest.raises(ValueError, match=message):
        make().regularization(samples, **options)


def test_fourier_smoothness_closed_form():
    bank = UnivariateFunctions(1, "fourier", grid_size=3).double()
    with torch.no_grad():
        bank.base_weight.zero_()
        bank.coefficients.zero_()
        # cos(4πs): the integral of (16π² cos)² is half of its maximum
        bank.coefficients[0, 3] = 1.0
    penalty = bank.regularization(l1=0.0, entropy=0.0, smoothness=1.0)
    assert float(penalty.detach()) == pytest.approx((4 * math.pi) ** 4 / 2, rel=1e-12)
    with pytest.raises(
        ValueError, match="basis must be splines of degree at least 2 for smoothness, got degree 1"
    ):
        UnivariateFunctions(1, "bspline", degree=1).regularization(smoothness=1.0)


def test_a_network_without_useless_nodes_is_smaller_and_equal():
    net = KAN([3, 10, 6, 2], grid_size=5)
    with torch.no_grad():
        for layer, node in ((net.layers[1], 2), (net.layers[1], 5), (net.layers[2], 4)):
            layer.coefficients[node] = 0.0
            layer.base_weight[:, node] = 0.0
    s = torch.randn(50, 3)
    net.update_grid(s)
    pruned = net.prune(s, nodes=1e-7, edges=1e-7)
    assert pruned.widths == [3, 8, 5, 2]
    assert sum(p.numel() for p in pruned.parameters()) < sum(p.numel() for p in net.parameters())
    torch.testing.assert_close(pruned(s), net(s), atol=1e-6, rtol=1e-6)
    assert net.widths == [3, 10, 6, 2]
    pruned(s).sum().backward()
    normed = KAN([3, 10, 2], layer_norm=True)
    assert normed.prune(s, edges=0.9).widths == [3, 10, 2]  # a node acts on others through the norm


def test_pruning_keeps_a_users_module_between_layers():
    net = KAN([3, 10, 2], grid_size=5)
    net.norms[0] = torch.nn.Softplus()
    s = torch.randn(50, 3)
    torch.testing.assert_close(net.prune(s, nodes=0.0, edges=0.0)(s), net(s))


def test_thresholds_that_empty_a_layer():
    net, s = KAN([3, 4, 2]), torch.randn(50, 3)
    with pytest.raises(ValueError, match="nodes, edges must leave an edge in layer 1, whose"):
        net.prune(s, nodes=100.0)
    for name in ("nodes", "edges"):
        with pytest.raises(ValueError, match=f"{name} must be at least 0, got -1"):
            net.prune(s, **{name: -1.0})
    with pytest.raises(ValueError, match="the largest size of a function in bank, got 100"):
        UnivariateFunctions(3).prune(100.0)
    with pytest.raises(ValueError, match="the largest spread of an edge, got 100"):
        KANLayer(3, 2).prune(100.0)
    collapse(net.layers[1])
    with pytest.raises(ValueError, match="must leave an edge in layer 1, whose largest"):
        net.prune(s)


def no_new_coefficients(fit, old):
    """Functions of the new grid with the old coefficients."""
    return torch.nn.functional.pad(old, (0, fit.transform.shape[-2] - old.shape[-1]))


def a_hundredth_too_large(fit, old):
    return 1.01 * torch.einsum("...nf,...f->...n", fit.transform, old)


def knots_of_samples_alone(samples, low, high, *rest):
    return quantile_knots(samples, samples.amin(0), samples.amax(0), *rest)


def no_change(fit, old):
    return torch.zeros_like(old[..., 0])


@pytest.mark.parametrize(
    ("law", "part", "name", "wrong"),
    [
        (laws.states_what_changed, Refit, "coefficients", no_new_coefficients),
        (laws.states_what_changed, Refit, "mean_square", no_change),
        (laws.fits_best, Refit, "coefficients", no_new_coefficients),
        (laws.fits_best, Refit, "coefficients", a_hundredth_too_large),
        (laws.refines, Refit, "coefficients", no_new_coefficients),
        (laws.refines, Refit, "coefficients", a_hundredth_too_large),
        (laws.refuses_too_large_a_change, Refit, "mean_square", no_change),
        (laws.keeps_low_and_high, grids, "quantile_knots", knots_of_samples_alone),
        (laws.prunes_what_is_zero, regularizers, "mean_sizes", lambda *functions: torch.ones(())),
    ],
)
def test_laws_refuse_what_breaks_them(law, part, name, wrong, monkeypatch):
    monkeypatch.setattr(part, name, wrong)
    with pytest.raises(AssertionError):
        law("bspline")
