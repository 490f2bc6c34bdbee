"""Fits: exact functions, batches that add up, grids that reach the data, and errors."""

from __future__ import annotations

import numpy
import pyro
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from pyro_tkam.nn import KAN, fit


@pytest.fixture(autouse=True)
def _seed():
    pyro.set_rng_seed(0)


def wave(rows: int = 200):
    x = 2 * torch.rand(rows, 2) - 1
    return x, torch.sin(3 * x[:, 0]) + x[:, 1] ** 2


@pytest.mark.parametrize("seed", range(5))
def test_a_fit_reaches_far_inputs(seed):
    """
    Grids follow the data; wrong versions: a grid that stays at [-2, 2] leaves an error of .3, and
    base functions of 150 beside splines of 1, or a line search in float32, up to .04.
    """
    torch.manual_seed(seed)
    x = torch.stack((6 * torch.rand(500) - 3, 100 + 100 * torch.rand(500)), -1)
    y = torch.sin(x[:, 0]) + (x[:, 1] / 50 - 3) ** 2
    result = fit(KAN([2, 1], grid_size=8), x, y, steps=10)
    assert result.rmse < 2e-3
    assert result.outside == (0.0,)
    assert result.grid_updates[0] == 0
    assert result.losses.shape == (11,)
    assert result.loss == pytest.approx(result.rmse**2)


def test_data_of_any_kind_fit_alike():
    x, y = wave()
    losses = []
    for inputs, targets in (
        (x, y),
        (x.numpy(), y.numpy()[:, None]),
        (x.double(), y.double()),
        (DataLoader(TensorDataset(x, y), batch_size=50), None),
    ):
        torch.manual_seed(1)
        losses.append(fit(KAN([2, 1], grid_size=5), inputs, targets, steps=3).losses)
    for other in losses[1:]:
        torch.testing.assert_close(other, losses[0], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("penalty", [0.0, 0.1])
def test_gradients_of_batches_add_up(penalty):
    """Ten rows at a time give the objective and the first step of all rows at once."""
    x, y = wave(100)
    x = torch.cat((x[:10],) * 10)  # equal batches have equal penalties
    y = torch.cat((y[:10],) * 10)
    found = []
    for batch_size in (None, 10):
        torch.manual_seed(1)
        net = KAN([2, 3, 1], grid_size=5).double()
        found.append(
            fit(net, x, y, steps=1, penalty=penalty, batch_size=batch_size, grid_updates=0)
        )
    torch.testing.assert_close(found[1].losses, found[0].losses, rtol=1e-6, atol=0)
    torch.testing.assert_close(found[1].penalties, found[0].penalties, rtol=1e-6, atol=0)
    assert (found[0].penalties.sum() > 0) == (penalty > 0)


def test_epochs_are_whole_and_the_callback_ends_a_fit():
    x, y = wave(100)
    seen = []
    result = fit(
        KAN([2, 1]), x, y, optimizer="adam", steps=5, batch_size=30, validation=(x[:9], y[:9])
    )
    assert len(result.losses) == len(result.validation_losses) == 8 + 1  # two epochs of four
    result = fit(KAN([2, 1]), x, y, callback=lambda step, loss: seen.append(loss) or step == 2)
    assert len(seen) == 3
    assert len(result.losses) == 4


def test_a_penalty_leaves_fewer_edges():
    x = 2 * torch.rand(300, 3) - 1
    y = torch.sin(3 * x[:, 0])
    plain, sparse = KAN([3, 2, 1], grid_size=5), KAN([3, 2, 1], grid_size=5)
    fit(plain, x, y, steps=5)
    fit(sparse, x, y, steps=5, penalty=1e-2)
    assert sparse.input_scores(x)[0] > 0.999
    assert sparse.regularization(x) < 0.7 * plain.regularization(x)


def test_other_losses():
    x, y = wave(100)
    labels = (y > 0.5).long()
    net = KAN([2, 2], grid_size=5)
    result = fit(net, x, labels, steps=5, loss=torch.nn.functional.cross_entropy)
    assert result.loss < 0.2
    assert ((net(x).argmax(-1) == labels).double().mean()) > 0.9


def test_a_loss_that_is_not_finite_names_the_step():
    x, y = wave(50)
    net = KAN([2, 1])
    optimizer = torch.optim.SGD(net.parameters(), lr=1e30)
    with pytest.raises(FloatingPointError, match=r"loss must stay finite, got .* at step"):
        fit(net, x, y, optimizer=optimizer, grid_updates=0)


@pytest.mark.parametrize(
    ("x", "y", "options", "error", "message"),
    [
        (torch.rand(5, 3), torch.rand(5), {}, ValueError, r"x must have shape \(N, 2\) .*\(5, 3\)"),
        (torch.rand(0, 2), torch.rand(0), {}, ValueError, r"x must have shape .*\(0, 2\)"),
        (torch.rand(5, 2), torch.rand(4), {}, ValueError, r"y must have shape \(5, 1\), got \(4"),
        (torch.rand(5, 2), torch.rand(5, 2), {}, ValueError, r"y must have shape \(5, 1\), got"),
        (torch.rand(5, 2), None, {}, TypeError, "y must be an array of real numbers, got None"),
        (
            torch.rand(5, 2) * 1j,
            torch.rand(5),
            {},
            TypeError,
            "x must be real numbers, got",
        ),
        (numpy.array([["a", "b"]]), [0.0], {}, TypeError, "x must be an array of real numbers"),
        (
            torch.full((5, 2), 1e300, dtype=torch.double),
            torch.rand(5),
            {},
            ValueError,
            "x must be finite in",
        ),
        (torch.rand(5, 2), torch.rand(5), {"steps": 0}, ValueError, "steps must be at least 1"),
        (
            torch.rand(5, 2),
            torch.rand(5),
            {"optimizer": "sgd"},
            ValueError,
            "optimizer must be",
        ),
        (
            torch.rand(5, 2),
            torch.rand(5),
            {"penalty": -1.0},
            ValueError,
            "penalty must be at",
        ),
    ],
)
def test_bad_data(x, y, options, error, message):
    net = KAN([2, 1])
    state = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(error, match=message):
        fit(net, x, y, **options)
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


def test_a_bar_can_be_shown_and_hidden(capsys):
    x = torch.linspace(-1.0, 1.0, 20).unsqueeze(-1)
    fit(KAN([1, 1]), x, x, steps=2, disable_progbar=True)
    assert not capsys.readouterr().err
    fit(KAN([1, 1]), x, x, steps=2, disable_progbar=False)
    assert "loss" in capsys.readouterr().err
    with pytest.raises(TypeError, match="disable_progbar must be"):
        fit(KAN([1, 1]), x, x, disable_progbar="yes")
